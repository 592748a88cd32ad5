"""C-STORE without detours: fragments go to disk as they come, and the answer follows at once.

pynetdicom decodes each PDU into objects, copies presentation contexts, builds a dataset and hands
all that from thread to thread by polling; that takes ten times as long as writing the instance. So
for C-STORE alone, the method that reads a PDU from the socket (`DULServiceProvider._read_pdu_data`)
is replaced on the accepted association: what belongs to a C-STORE is dealt with here, in the thread
that reads and writes the socket anyway, and everything else goes the usual way, byte for byte.

This leans on parts of pynetdicom that are not public: pynetdicom_parts.py names them in
`TO_STORE_QUICKLY`, and a version that lacks one of them is refused at the start (or
MONRO_QUICK_STORE=false).
"""

import logging
import re
import select
import socket
import ssl
import struct
from collections.abc import Sequence
from functools import lru_cache
from threading import Event
from time import monotonic
from typing import Any, Final, NamedTuple, cast

from pydicom.dataset import FileMetaDataset
from pydicom.uid import RE_VALID_UID, UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dsutils import encode_file_meta

from listener.bounds import LARGEST_PDU_BYTES, Line
from listener.errors import where
from listener.handlers import StoreStatus, answer
from listener.pace import Pace
from listener.piecewise import LONG, SHORT, Piecewise
from listener.recorder import Recorder
from listener.series import UID_LENGTH
from listener.settings import ListenerSettings
from listener.spool import Spool

log = logging.getLogger(__name__)

# PS3.8 9.3.5 and E.2
P_DATA_TF: Final = 0x04
PDU_TYPES: Final = range(0x01, 0x08)
IS_COMMAND: Final = 0b01
IS_LAST: Final = 0b10
PDU_HEADER: Final = struct.Struct(">BBL")
PDV_HEADER: Final = struct.Struct(">LBB")

# PS3.8 9.2: a state and events of the upper layer's state machine, as pynetdicom calls them.
ESTABLISHED: Final = "Sta6"
CONNECTION_CLOSED: Final = "Evt17"
INVALID_PDU: Final = "Evt19"

USUAL_PDU_BYTES: Final = 128 << 10
LARGEST_COMMAND_BYTES: Final = 64 << 10
MOST_COMMAND_FRAGMENTS: Final = 1000

# PS3.7 9.3.1 and E.1
GROUP_LENGTH: Final = 0x0000
AFFECTED_CLASS: Final = 0x0002
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
ANSWERED_ID: Final = 0x0120
DATASET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
AFFECTED_INSTANCE: Final = 0x1000
C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
NO_DATASET: Final = 0x0101

REQUIRED_OF_STORE: Final = {AFFECTED_CLASS, MESSAGE_ID, DATASET_TYPE, AFFECTED_INSTANCE}

# PS3.5 7.1
ELEMENT_HEADER: Final = struct.Struct("<HHL")
VALID_UID: Final = re.compile(RE_VALID_UID)

# How long the next PDU of a busy sender is waited for before pynetdicom's own loop has its turn.
LINGER_SECONDS: Final = 0.02
TURN_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.1


class Fragment(NamedTuple):
    """A presentation data value: part of a command or of a dataset."""

    context_id: int
    control: int
    content: memoryview

    def kept(self) -> "Fragment":
        """The same, where the next PDU does not overwrite it."""
        return Fragment(self.context_id, self.control, memoryview(bytes(self.content)))

    @property
    def is_last(self) -> bool:
        """Whether the command or dataset ends here."""
        return bool(self.control & IS_LAST)

    @property
    def is_command(self) -> bool:
        """Whether it is part of a command."""
        return bool(self.control & IS_COMMAND)


class Message(Piecewise):
    """A C-STORE whose dataset is coming in."""

    def __init__(
        self,
        fields: dict[int, bytes],
        context_id: int,
        agreed: UID,
        syntax: UID,
        largest: int,
        spool: Spool,
    ) -> None:
        self.context_id, self.agreed = context_id, agreed
        self.message_id = fields[MESSAGE_ID]
        sop_class, sop_uid = _class_text(fields[AFFECTED_CLASS]), _text(fields[AFFECTED_INSTANCE])
        head = b"\0" * 128 + b"DICM" + _file_meta(sop_class, sop_uid, syntax)
        super().__init__(spool, head, syntax, sop_class, sop_uid, largest)

    def response(self, status: StoreStatus) -> bytes:
        """The answer as one P-DATA-TF PDU (PS3.7 9.3.1.2)."""
        body = b"".join(
            (
                _element(AFFECTED_CLASS, _padded(self.sop_class)),
                _element(COMMAND_FIELD, SHORT.pack(C_STORE_RSP)),
                _element(ANSWERED_ID, self.message_id),
                _element(DATASET_TYPE, SHORT.pack(NO_DATASET)),
                _element(STATUS, SHORT.pack(status)),
                _element(AFFECTED_INSTANCE, _padded(self.sop_uid)),
            )
        )
        command = _element(GROUP_LENGTH, LONG.pack(len(body))) + body
        return _pdu([Fragment(self.context_id, IS_COMMAND | IS_LAST, memoryview(command))])


class QuickReader:
    """Reads the PDUs of one association in place of pynetdicom's `_read_pdu_data`.

    Attributes:
        idle: set while no instances come, and there may be something for pynetdicom to do.
    """

    def __init__(
        self,
        association: Association,
        settings: ListenerSettings,
        spool: Spool,
        recorder: Recorder,
    ) -> None:
        self._association, self._largest = association, settings.largest_instance
        self._dul: Any = association.dul
        self._line = Line(association, Pace.of_sender(settings))
        self._spool, self._recorder = spool, recorder
        self._command: list[Fragment] = []
        self._message: Message | None = None
        self._contexts: dict[int, tuple[UID, UID]] = {}
        self._buffer = bytearray(USUAL_PDU_BYTES)
        self.idle = Event()
        self.idle.set()

    def read(self) -> None:
        """Read what the peer sends, for as long as it keeps sending instances."""
        until = monotonic() + TURN_SECONDS
        self.idle.clear()
        try:
            while self._read_one() and monotonic() < until:
                if self._message is None and (
                    not self._dul.to_provider_queue.empty() or not self._awaits_more()
                ):
                    return
        except Exception as error:  # noqa: BLE001 - pynetdicom's thread would die of it in silence
            log.error("an association was given up: %s", where(error))
            self._give_up(CONNECTION_CLOSED)
        finally:
            self.idle.set()

    def _read_one(self) -> bool:
        """Read one PDU; whether all of it was ours."""
        connection = cast(socket.socket, self._dul.socket.socket)
        try:
            # The system forgets this now and then; see `_answer_at_once`.
            _answer_at_once(connection)
            if self._line.is_closing:
                self._line.drain(connection)
                return True
            self._line.begin()
            header = self._receive(connection, 0, PDU_HEADER.size)
            kind, _, length = PDU_HEADER.unpack(header)
            if kind not in PDU_TYPES or length > LARGEST_PDU_BYTES:
                return self._give_up(INVALID_PDU)
            content = self._receive(connection, PDU_HEADER.size, length)
        except OSError as error:
            if self._message is not None:
                log.warning("a connection broke within an instance: %s", type(error).__name__)
            return self._give_up(CONNECTION_CLOSED)
        if kind != P_DATA_TF:
            self._end()  # released or aborted
        if kind != P_DATA_TF or self._dul.state_machine.current_state != ESTABLISHED:
            return self._forward_raw(PDU_HEADER.pack(kind, 0, length) + content)
        try:
            fragments = _fragments(content)
        except (struct.error, ValueError):
            return self._forward_raw(PDU_HEADER.pack(kind, 0, length) + content)
        foreign = [each for fragment in fragments for each in self._take(fragment)]
        return not foreign or self._forward_raw(_pdu(foreign))

    def _receive(self, connection: socket.socket, start: int, length: int) -> memoryview:
        """Exactly so many bytes, in a buffer that the next PDU overwrites."""
        if len(self._buffer) < start + length:
            self._buffer = bytearray(start + length)
        view = memoryview(self._buffer)[start : start + length]
        self._line.fill(connection, view)
        return view

    def _give_up(self, event: str) -> bool:
        self._end()
        self._dul.event_queue.put(event)
        return False

    def _take(self, fragment: Fragment) -> Sequence[Fragment]:
        """Deal with one fragment; returns what is for pynetdicom."""
        if fragment.is_command:
            self._command.append(fragment.kept())
            size = sum(len(each.content) for each in self._command)
            # Empty fragments have no size, and there may be many in a PDU.
            if size > LARGEST_COMMAND_BYTES or len(self._command) > MOST_COMMAND_FRAGMENTS:
                raise ValueError(size)
            if not fragment.is_last:
                return ()
            command, self._command = self._command, []
            return () if self._opens(command) else command
        if self._message is None:
            return (fragment,)
        self._message.take(fragment.content)
        if fragment.is_last:
            message, self._message = self._message, None
            self._finish(message)
        return ()

    def _opens(self, command: Sequence[Fragment]) -> bool:
        """Whether a command opens a message of ours."""
        self._end()
        fields = _fields(b"".join(each.content for each in command))
        if _number(fields[COMMAND_FIELD]) == C_STORE_RQ:
            self._message = self._begin(command[0].context_id, fields)
        return self._message is not None

    def _begin(self, context_id: int, fields: dict[int, bytes]) -> Message | None:
        """The message of a C-STORE request; None where pynetdicom should say what is wrong."""
        if not self._contexts:  # they are negotiated once
            self._contexts = {
                cast(int, each.context_id): (
                    cast(UID, each.abstract_syntax),
                    each.transfer_syntax[0],
                )
                for each in self._association.accepted_contexts
            }
        context = self._contexts.get(context_id)
        if context is None or not fields.keys() >= REQUIRED_OF_STORE:
            return None
        if _number(fields[DATASET_TYPE]) == NO_DATASET:
            return None
        try:
            return Message(fields, context_id, *context, self._largest, self._spool)
        except ValueError:  # a UID that is none
            return None

    def _finish(self, message: Message) -> None:
        try:
            status = answer(
                message.keep, self._recorder, self._association, message.sop_class, message.agreed
            )
        except Exception as error:  # noqa: BLE001 - the peer must get an answer, and keep its copy
            log.error("an instance was not kept: %s", where(error))
            status = StoreStatus.UNFORESEEN
        finally:
            message.drop()
        self._dul.socket.send(message.response(status))

    def _end(self) -> None:
        """Nothing more comes of a message that was not finished."""
        if self._message is not None:
            self._message.drop()
            self._message = None

    def _awaits_more(self) -> bool:
        """Whether the peer sends on within a moment."""
        connection = self._dul.socket.socket
        if connection is None:
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        try:
            return bool(select.select([connection], [], [], LINGER_SECONDS)[0])
        except (OSError, ValueError):
            return False

    def _forward_raw(self, pdu: bytes) -> bool:
        """Hand a PDU to pynetdicom as its own method would."""
        try:
            decoded, event = self._dul._decode_pdu(bytearray(pdu))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no valid PDU
            log.warning("a PDU was not understood: %s", where(error))
            return self._give_up(INVALID_PDU)
        self._dul.event_queue.put(event)
        self._dul._recv_pdu.put(decoded)
        return False


def read_quickly(
    event: evt.Event, settings: ListenerSettings, spool: Spool, recorder: Recorder
) -> None:
    """Let an association be read by a `QuickReader` from now on."""
    association = event.assoc
    connection = cast(Any, association.dul).socket.socket
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = QuickReader(association, settings, spool, recorder)
    cast(Any, association.dul)._read_pdu_data = reader.read
    _look_less_often(association.dimse, reader.idle)


def _answer_at_once(connection: socket.socket) -> None:
    """Acknowledge what comes without delay: a sender with Nagle's algorithm waits for it.

    Most senders leave that on and write a PDU in two pieces, which costs 40 ms for each instance.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _look_less_often(provider: DIMSEServiceProvider, idle: Event) -> None:
    """Let pynetdicom look for messages a few times a second, not a thousand, while we read."""
    look = provider.get_msg

    def get_msg(block: bool = False) -> tuple[int, Any] | tuple[None, None]:
        if not block:
            idle.wait(LOOK_SECONDS)
        return look(block)

    cast(Any, provider).get_msg = get_msg


def _fragments(content: memoryview) -> list[Fragment]:
    """The presentation data values of a P-DATA-TF PDU."""
    found, at = [], 0
    while at < len(content):
        length, context_id, control = PDV_HEADER.unpack_from(content, at)
        if length < 2 or at + 4 + length > len(content):
            raise ValueError(length)
        found.append(Fragment(context_id, control, content[at + 6 : at + 4 + length]))
        at += 4 + length
    return found


def _pdu(fragments: Sequence[Fragment]) -> bytes:
    """A P-DATA-TF PDU of fragments."""
    items = [
        PDV_HEADER.pack(len(each.content) + 2, each.context_id, each.control) + each.content
        for each in fragments
    ]
    body = b"".join(items)
    return PDU_HEADER.pack(P_DATA_TF, 0, len(body)) + body


def _fields(command: bytes) -> dict[int, bytes]:
    """Values of a command set by element number (PS3.7 6.3: group 0000, Implicit VR LE)."""
    fields, at = {}, 0
    while at < len(command):
        group, element, length = ELEMENT_HEADER.unpack_from(command, at)
        if group != 0:
            raise KeyError(group)
        fields[element] = command[at + 8 : at + 8 + length]
        at += 8 + length
    return fields


def _element(number: int, value: bytes) -> bytes:
    return ELEMENT_HEADER.pack(0, number, len(value)) + value


def _number(value: bytes) -> int:
    return int(SHORT.unpack(value)[0])


def _text(value: bytes) -> str:
    text = value.rstrip(b"\0 ").decode("ascii")
    if len(text) > UID_LENGTH or not VALID_UID.fullmatch(text):
        raise ValueError(text)
    return text


_class_text = lru_cache(maxsize=64)(_text)


def _padded(text: str) -> bytes:
    return text.encode("ascii") + b"\0" * (len(text) % 2)


@lru_cache(maxsize=64)
def _meta_around(sop_class: str, syntax: UID) -> tuple[bytes, bytes]:
    """File meta information before and after the instance UID's element."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID("1.2")
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = PYNETDICOM_IMPLEMENTATION_UID
    meta.ImplementationVersionName = PYNETDICOM_IMPLEMENTATION_VERSION
    encoded = encode_file_meta(meta)
    instance = b"\x02\x00\x03\x00UI\x04\x00" + b"1.2\0"
    before, after = encoded.split(instance)
    return before[12:], after  # without the group length, which is the first element


def _file_meta(sop_class: str, sop_uid: str, syntax: UID) -> bytes:
    """File meta information as pynetdicom would write it."""
    before, after = _meta_around(sop_class, syntax)
    value = _padded(sop_uid)
    instance = b"\x02\x00\x03\x00UI" + SHORT.pack(len(value)) + value
    length = len(before) + len(instance) + len(after)
    return b"\x02\x00\x00\x00UL\x04\x00" + LONG.pack(length) + before + instance + after
