"""What a connection may cost us before it has said who it is, and beside what it is here for.

pynetdicom spends two threads on each connection, waits for ever for the rest of a PDU, and keeps
whatever length that PDU claims to have. Here each connection has its limits, and those that have
not proposed an association make room for others when there are many.
"""

import logging
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from time import monotonic, sleep
from typing import Any, Final, cast
from weakref import WeakSet

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ

from listener.checkpoint import guard_answers
from listener.confirmation import LARGEST_REPORT_BYTES
from listener.errors import where

log = logging.getLogger(__name__)

# Some times what we ask for, and less than would fill the memory.
LARGEST_PDU_BYTES: Final = 1 << 20
PDU_HEADER_BYTES: Final = 6

# Of one process. Who means to associate proposes within milliseconds.
MOST_SILENT: Final = 50

# For threads of connections that were closed; nothing is accepted meanwhile.
GOING_SECONDS: Final = 2.0

# How often a connection is looked at: pynetdicom's thousand times a second cost two thirds of a
# processor for MOST_SILENT of them.
LOOK_SECONDS: Final = 0.001
LOOK_AT_SILENT_SECONDS: Final = 0.01

# Requests that wait for their answer; a sender waits for each (PS3.7 D.3.3.3: the default is 1).
MOST_UNANSWERED: Final = 100

# PS3.8 9.3.8: who aborts.
SERVICE_PROVIDER: Final = 0x02

# PS3.8 9.2: states and events of the upper layer's state machine, as pynetdicom calls them.
IDLE: Final = "Sta1"
CLOSING: Final = "Sta13"
INVALID_PDU: Final = "Evt19"
ENDING: Final = frozenset({"Evt17", INVALID_PDU})


class Line:
    """The socket of an association, read with the patience that the settings have.

    Each PDU has that long, and the first one has that long since the connection was opened.
    """

    def __init__(self, association: Association) -> None:
        self._association = association
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
                left = self._until - monotonic()
                if left <= 0:
                    raise TimeoutError
                if usual is not None and left < usual:
                    connection.settimeout(left)
                got = connection.recv_into(view)
                if not got:
                    raise ConnectionResetError
                view = view[got:]
        finally:
            connection.settimeout(usual)


class Doorkeeper:
    """Watches the connections of one process.

    Args:
        largest_instance: bytes of an instance that is taken; more end the association.
    """

    def __init__(self, largest_instance: int) -> None:
        self._largest_instance = largest_instance
        self._shown_out: WeakSet[Association] = WeakSet()

    def on_opened(self, event: evt.Event) -> None:
        """Give a new connection its limits, and show another one out if there are too many."""
        association = event.assoc
        connection = cast(Any, association.dul).socket
        # Who stops in the middle of a PDU, or reads no answers, is waited for as a silent peer is.
        connection.socket.settimeout(association.network_timeout)
        guard_answers(association)
        _read_in_bounds(connection, Line(association))
        _survive_proposal(association)
        _survive(association)
        self._take_messages_in_bounds(association)
        cast(Any, association.dul)._run_loop_delay = LOOK_AT_SILENT_SECONDS
        self._make_room(association)

    def on_called(self, event: evt.Event) -> None:
        """Give a connection that we opened ourselves its limits."""
        association = event.assoc
        _read_in_bounds(cast(Any, association.dul).socket, Line(association))
        _survive(association)
        self._take_messages_in_bounds(association)

    def on_requested(self, event: evt.Event) -> None:
        """Look after who has proposed an association as pynetdicom does."""
        cast(Any, event.assoc.dul)._run_loop_delay = LOOK_SECONDS

    def on_closed(self, event: evt.Event) -> None:
        """Let an association end at once whose peer left before it proposed anything.

        pynetdicom would wait for the proposal as if the connection were still there.
        """
        if event.assoc.requestor.primitive is None:
            event.assoc.dul.to_user_queue.put(cast(Any, None))

    def _make_room(self, newcomer: Association) -> None:
        """Let the oldest silent connection go for a new one, and wait until enough have gone."""
        waiting = [each for each in _silent(newcomer) if each not in self._shown_out]
        if len(waiting) >= MOST_SILENT:
            self._show_out(_first_of_most(waiting))
        until = monotonic() + GOING_SECONDS
        while len(_silent(newcomer)) >= 2 * MOST_SILENT:
            if monotonic() > until:
                self._show_out(newcomer)
                return
            sleep(LOOK_SECONDS)

    def _show_out(self, association: Association) -> None:
        if not self._shown_out:
            log.warning(
                "more than %d connections from %s and others have not proposed an association: "
                "the oldest are closed; find out what opens them",
                MOST_SILENT,
                association.requestor.address,
            )
        self._shown_out.add(association)
        with suppress(OSError, AttributeError):  # it has just left by itself
            cast(Any, association.dul).socket.socket.shutdown(socket.SHUT_RDWR)

    def _take_messages_in_bounds(self, association: Association) -> None:
        """End an association that sends more than is kept in memory for it."""
        provider = association.dimse
        receive = provider.receive_primitive

        def receive_primitive(primitive: Any) -> None:
            receive(primitive)
            message: Any = provider.message
            stores = isinstance(message, C_STORE_RQ)
            most = self._largest_instance if stores else LARGEST_REPORT_BYTES
            held = 0 if message is None else _size(message.encoded_command_set, message.data_set)
            if held > most or provider.msg_queue.qsize() > MOST_UNANSWERED:
                log.warning(
                    "aborted an association with %s: %d bytes of a message and %d messages "
                    "without an answer were more than the %d bytes and %d messages that are kept",
                    association.requestor.ae_title,
                    held,
                    provider.msg_queue.qsize(),
                    most,
                    MOST_UNANSWERED,
                )
                provider.message = None
                association.dul.event_queue.put(INVALID_PDU)
                provider.msg_queue.put((None, None))  # who waits for an answer waits no longer

        cast(Any, provider).receive_primitive = receive_primitive


def _silent(newcomer: Association) -> list[Association]:
    """Connections of this process that have not proposed an association, oldest first."""
    running = newcomer.ae.active_associations
    return [each for each in running if each.requestor.primitive is None]


def _size(*files: BytesIO | None) -> int:
    return sum(file.tell() for file in files if file is not None)


def _first_of_most(waiting: Sequence[Association]) -> Association:
    """The oldest one from the address that most of them come from: others are not made to pay."""
    addresses = Counter(each.requestor.address for each in waiting)
    ((most, _),) = addresses.most_common(1)
    return next(each for each in waiting if each.requestor.address == most)


def _read_in_bounds(connection: Any, line: Line) -> None:
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


def _survive_proposal(association: Association) -> None:
    """Abort an association whose negotiation fails, as over a context without a transfer syntax.

    pynetdicom's thread would die of it, and leave the one that reads the connection behind.
    """
    negotiate = association.acse.negotiate_association

    def negotiate_association() -> None:
        try:
            negotiate()
        except Exception as error:  # noqa: BLE001 - whatever the peer sent ends its association only
            log.warning("aborted a proposal that was not understood: %s", where(error))
            association.acse.send_abort(SERVICE_PROVIDER)
            association.kill()

    cast(Any, association.acse).negotiate_association = negotiate_association


def _survive(association: Association) -> None:
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
            log.warning(
                "gave up an association with %s: %s", association.requestor.ae_title, where(error)
            )
            with association.dul.to_provider_queue.mutex:  # nobody waits for these answers
                association.dul.to_provider_queue.queue.clear()
            cast(Any, association.dul)._kill_thread = False
            if machine.current_state not in (IDLE, CLOSING):
                association.dul.event_queue.put(INVALID_PDU)

    machine.do_action = do_action
