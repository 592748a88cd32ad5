"""What an association may cost us, whoever opened it.

pynetdicom waits for ever for the rest of a PDU, keeps whatever length that claims to have, and goes
on to keep fragments of a message that is never whole. What the other side sends may end its own
association, and nothing else.
"""

import logging
import socket
from collections import deque
from collections.abc import Callable
from io import BytesIO
from time import monotonic
from typing import Any, Final, cast

from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ

from listener.errors import where
from listener.pace import Pace

log = logging.getLogger(__name__)

# Some times what we ask for, and less than would fill the memory.
LARGEST_PDU_BYTES: Final = 1 << 20
PDU_HEADER_BYTES: Final = 6

# PS3.8 9.3.8: who aborts.
SERVICE_PROVIDER: Final = 0x02

# PS3.8 9.2: states and events of the upper layer's state machine, as pynetdicom calls them.
IDLE: Final = "Sta1"
CLOSING: Final = "Sta13"
INVALID_PDU: Final = "Evt19"
ENDING: Final = frozenset({"Evt17", INVALID_PDU})

ABOUT: Final = 0.95
"""Of a socket's own time-out: what is left of a PDU's is hardly less, and telling it takes time."""

MESSAGE_BYTES: Final = 4096
"""Of memory, that a message without any content takes."""


class Line:
    """The socket of an association, read with the patience that the settings have.

    Each PDU has that long, and the first one has that long since the connection was opened.

    Args:
        association: whose.
        pace: that all of its PDUs have to keep up together; None: whoever we called has answers to
            prepare.
    """

    def __init__(self, association: Association, pace: Pace | None = None) -> None:
        self._association, self._pace = association, pace
        self._until = monotonic() + self._patience

    @property
    def _patience(self) -> float:
        return self._association.network_timeout or float("inf")

    @property
    def is_closing(self) -> bool:
        """Whether we only wait for the peer to close the connection."""
        return bool(self._association.dul.state_machine.current_state == CLOSING)

    def begin(self) -> None:
        """A new PDU begins."""
        if self._association.requestor.primitive is not None:
            self._until = monotonic() + self._patience

    def drain(self, connection: socket.socket) -> None:
        """Pass over what still comes, so that closing does not cut off our last answer.

        Raises:
            OSError: the peer closed the connection.
        """
        if not connection.recv(LARGEST_PDU_BYTES):
            raise ConnectionResetError

    def fill(self, connection: socket.socket, view: memoryview) -> None:
        """Read until a buffer is full.

        Raises:
            OSError: the peer closed the connection, or takes too long.
        """
        usual = connection.gettimeout()
        try:
            while view:
                left = self._seconds_left()
                if left <= 0:
                    raise TimeoutError
                if usual is not None and left < ABOUT * usual:
                    connection.settimeout(left)
                got = connection.recv_into(view)
                if not got:
                    raise ConnectionResetError
                view = view[got:]
                if self._pace is not None:
                    self._pace.note(got)
        except TimeoutError:
            if self._pace is not None and self._pace.seconds_left <= 0:
                log.warning(
                    "ended an association with %s, which sent too little for the time it took; if "
                    "the line to it is that slow, lower MONRO_LEAST_RATE",
                    _other(self._association),
                )
            raise
        finally:
            if connection.gettimeout() != usual:
                connection.settimeout(usual)

    def _seconds_left(self) -> float:
        of_pdu = self._until - monotonic()
        return of_pdu if self._pace is None else min(of_pdu, self._pace.seconds_left)


def take_messages_in_bounds(
    association: Association,
    largest_instance: int,
    largest_message: int,
    most_waiting: Callable[[int, int], bool],
) -> None:
    """End an association that sends more than is kept in memory for it.

    Args:
        association: to watch.
        largest_instance: bytes of a C-STORE request.
        largest_message: bytes of any other message.
        most_waiting: whether so many messages, of so many bytes, are too many to wait for us.
    """
    provider = association.dimse
    receive = provider.receive_primitive
    waiting: deque[int] = deque()
    waiting_bytes = coming = 0

    def receive_primitive(primitive: Any) -> None:
        nonlocal waiting_bytes, coming
        if provider.message is None:
            coming = MESSAGE_BYTES
        coming += sum(len(each) for _context, each in primitive.presentation_data_value_list)
        receive(primitive)
        message: Any = provider.message
        held = 0
        if message is None:
            waiting.append(coming)
            waiting_bytes += coming
        else:
            held = _size(message.encoded_command_set, message.data_set)
        while len(waiting) > provider.msg_queue.qsize():
            waiting_bytes -= waiting.popleft()
        most = largest_instance if isinstance(message, C_STORE_RQ) else largest_message
        if held > most or most_waiting(len(waiting), waiting_bytes):
            log.warning(
                "aborted an association with %s: %d bytes of a message that is not whole, and %d "
                "messages of %d bytes without an answer, were more than is kept",
                _other(association),
                held,
                len(waiting),
                waiting_bytes,
            )
            provider.message = None
            association.dul.event_queue.put(INVALID_PDU)
            provider.msg_queue.put((None, None))  # who waits for an answer waits no longer

    cast(Any, provider).receive_primitive = receive_primitive


def _other(association: Association) -> str:
    """AE title of the other side."""
    other = association.requestor if association.is_acceptor else association.acceptor
    return str(other.ae_title)


def _size(*files: BytesIO | None) -> int:
    return sum(file.tell() for file in files if file is not None)


def read_in_bounds(connection: Any, line: Line) -> None:
    """Let pynetdicom's own reading of a PDU end, however long that claims to be."""

    def recv(size: int) -> bytearray:
        if size > LARGEST_PDU_BYTES:
            raise ConnectionAbortedError
        found = bytearray(size)
        if line.is_closing:
            line.drain(connection.socket)
            return bytearray()
        if size == PDU_HEADER_BYTES:
            line.begin()
        line.fill(connection.socket, memoryview(found))
        return found

    connection.recv = recv


def survive_proposal(association: Association) -> None:
    """Abort an association whose negotiation fails, as over a context without a transfer syntax.

    pynetdicom's thread would die of it, and leave the one that reads the connection behind.
    """
    negotiate = association.acse.negotiate_association

    def negotiate_association() -> None:
        try:
            negotiate()
        except Exception as error:  # noqa: BLE001 - whatever the peer sent ends its association only
            log.warning(
                "aborted a proposal, or the answer to one, that was not understood: %s",
                where(error),
            )
            association.acse.send_abort(SERVICE_PROVIDER)
            association.kill()

    cast(Any, association.acse).negotiate_association = negotiate_association


def survive(association: Association) -> None:
    """End an association in order when its state machine fails.

    pynetdicom decodes commands there, and what it makes of a malformed one ends its thread: without
    an answer, with the value in the log, and without a word to those who wait for the end.
    """
    machine: Any = association.dul.state_machine
    act = machine.do_action

    def do_action(event: str) -> None:
        try:
            act(event)
        except Exception as error:
            if event in ENDING:
                raise
            log.warning("gave up an association with %s: %s", _other(association), where(error))
            with association.dul.to_provider_queue.mutex:  # nobody waits for these answers
                association.dul.to_provider_queue.queue.clear()
            cast(Any, association.dul)._kill_thread = False
            if machine.current_state not in (IDLE, CLOSING):
                association.dul.event_queue.put(INVALID_PDU)

    machine.do_action = do_action
