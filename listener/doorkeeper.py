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
from time import monotonic
from typing import Any, Final, cast
from weakref import WeakSet

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ

from listener.confirmation import LARGEST_REPORT_BYTES

log = logging.getLogger(__name__)

# Some times what we ask for, and less than would fill the memory.
LARGEST_PDU_BYTES: Final = 1 << 20
PDU_HEADER_BYTES: Final = 6

# Of one process. Who means to associate proposes within milliseconds.
MOST_SILENT: Final = 50

# Requests that wait for their answer; a sender waits for each (PS3.7 D.3.3.3: the default is 1).
MOST_UNANSWERED: Final = 100

# PS3.8 9.2, as pynetdicom calls it.
INVALID_PDU: Final = "Evt19"


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

    def begin(self) -> None:
        """A new PDU begins."""
        if self._association.requestor.primitive is not None:
            self._until = monotonic() + self._patience

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
        _read_in_bounds(connection, Line(association))
        self._take_messages_in_bounds(association)
        self._make_room(association)

    def on_closed(self, event: evt.Event) -> None:
        """Let an association end at once whose peer left before it proposed anything.

        pynetdicom would wait for the proposal as if the connection were still there.
        """
        if event.assoc.requestor.primitive is None:
            event.assoc.dul.to_user_queue.put(cast(Any, None))

    def _make_room(self, newcomer: Association) -> None:
        silent = [each for each in newcomer.ae.active_associations if is_silent(each)]
        waiting = [each for each in silent if each not in self._shown_out]
        if len(silent) >= 2 * MOST_SILENT:  # they are faster than we
            self._show_out(newcomer)
        elif len(waiting) >= MOST_SILENT:
            self._show_out(_first_of_most(waiting))

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

        cast(Any, provider).receive_primitive = receive_primitive


def is_silent(association: Association) -> bool:
    """Whether a connection has not proposed an association yet."""
    return association.requestor.primitive is None


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
        if size == PDU_HEADER_BYTES:
            line.begin()
        line.fill(connection.socket, memoryview(found))
        return found

    connection.recv = recv
