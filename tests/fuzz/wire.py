"""PDUs, DIMSE messages and datasets as bytes, by hand, so that anything in them may be wrong.

PS3.8 9.3 and annex D, PS3.7 6.3 and 9.3. A peer that only this module knows: it reads what a
listener answers, and does not mind how that ends.
"""

import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

VERIFICATION: Final = "1.2.840.10008.1.1"
COMMITMENT: Final = "1.2.840.10008.1.20.1"
MR_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
JPEG_2000: Final = "1.2.840.10008.1.2.4.90"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

# Presentation contexts that every well-formed proposal has, in this order: 1, 3, 5 and so on.
CONTEXTS: Final = (
    (VERIFICATION, (IMPLICIT,)),
    (MR_IMAGE, (EXPLICIT,)),
    (MR_IMAGE, (IMPLICIT,)),
    (MR_IMAGE, (DEFLATED,)),
    (MR_IMAGE, (BIG_ENDIAN,)),
    (MR_IMAGE, (JPEG_2000,)),
    (COMMITMENT, (IMPLICIT,)),
)
ECHO, PLAIN, IMPLICITLY, DEFLATING, BIG, ENCAPSULATED, COMMITTING = range(1, 15, 2)


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """One PDU; `length` where it lies about its own."""
    return struct.pack(">BBL", kind & 0xFF, 0, (len(body) if length is None else length)) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    """An item or sub-item of an A-ASSOCIATE PDU."""
    told = len(body) if length is None else length
    return struct.pack(">BBH", kind, 0, told & 0xFFFF) + body


def proposal(
    called: bytes = b"MONRO",
    calling: bytes = b"SENDER",
    contexts: Iterable[tuple[str, Sequence[str]]] = CONTEXTS,
    user: bytes = b"",
    application: bytes = b"1.2.840.10008.3.1.1.1",
) -> bytes:
    """An A-ASSOCIATE-RQ; `user` are further items of the user information."""
    items = [item(0x10, application)]
    for at, (abstract, transfers) in enumerate(contexts):
        subs = item(0x30, abstract.encode()) + b"".join(
            item(0x40, each.encode()) for each in transfers
        )
        items.append(item(0x20, bytes([(2 * at + 1) & 0xFF, 0, 0, 0]) + subs))
    information = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4") + user
    items.append(item(0x50, information))
    titles = called.ljust(16)[:16] + calling.ljust(16)[:16]
    return pdu(ASSOCIATE_RQ, struct.pack(">HH", 1, 0) + titles + bytes(32) + b"".join(items))


def fragment(context: int, control: int, content: bytes, length: int | None = None) -> bytes:
    """A presentation data value: control 1 for a command, 2 for the last one."""
    told = len(content) + 2 if length is None else length
    return struct.pack(">LBB", told & 0xFFFFFFFF, context & 0xFF, control) + content


def data(*fragments: bytes) -> bytes:
    """A P-DATA-TF PDU."""
    return pdu(P_DATA, b"".join(fragments))


def element(number: int, value: bytes, length: int | None = None, group: int = 0) -> bytes:
    """One element of a command set."""
    return struct.pack("<HHL", group, number, len(value) if length is None else length) + value


def even(text: str | bytes) -> bytes:
    """A UID or AE title as a value."""
    value = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return value + b"\0" * (len(value) % 2)


def command(fields: Iterable[tuple[int, bytes]]) -> bytes:
    """A command set with its group length."""
    body = b"".join(element(*each) for each in fields)
    return element(0, struct.pack("<L", len(body))) + body


def store_fields(sop_uid: str, sop_class: str = MR_IMAGE, message: int = 1) -> dict[int, bytes]:
    """Of a C-STORE-RQ (PS3.7 9.3.1.1)."""
    return {
        0x0002: even(sop_class),
        0x0100: struct.pack("<H", 0x0001),
        0x0110: struct.pack("<H", message & 0xFFFF),
        0x0700: struct.pack("<H", 0),
        0x0800: struct.pack("<H", 1),
        0x1000: even(sop_uid),
    }


def echo_fields(message: int = 1) -> dict[int, bytes]:
    """Of a C-ECHO-RQ."""
    return {
        0x0002: even(VERIFICATION),
        0x0100: struct.pack("<H", 0x0030),
        0x0110: struct.pack("<H", message & 0xFFFF),
        0x0800: struct.pack("<H", 0x0101),
    }


def action_fields() -> dict[int, bytes]:
    """Of an N-ACTION-RQ that asks for commitment (PS3.4 J.3.2)."""
    return {
        0x0003: even(COMMITMENT),
        0x0100: struct.pack("<H", 0x0130),
        0x0110: struct.pack("<H", 1),
        0x0800: struct.pack("<H", 1),
        0x1001: even("1.2.840.10008.1.20.1.1"),
        0x1008: struct.pack("<H", 1),
    }


LONG_VRS: Final = {b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OD", b"OF", b"OL", b"OV"}
UNDEFINED: Final = 0xFFFFFFFF


def explicit(tag: int, vr: bytes, value: bytes, length: int | None = None, end: str = "<") -> bytes:
    """One element of a dataset with explicit VR."""
    told = len(value) if length is None else length
    head = struct.pack(f"{end}HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in LONG_VRS:
        return head + struct.pack(f"{end}HL", 0, told & 0xFFFFFFFF) + value
    return head + struct.pack(f"{end}H", told & 0xFFFF) + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    """One element of a dataset with implicit VR."""
    told = len(value) if length is None else length
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, told & 0xFFFFFFFF) + value


ITEM: Final = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
OPEN_ITEM: Final = struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
CLOSE_ITEM: Final = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
CLOSE_SEQUENCE: Final = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


@dataclass
class Answer:
    """What became of one input.

    Attributes:
        kinds: rejected, aborted, released, `status 0x....`; with how often.
        ending: closed by the listener, or silent where it never did within the patience.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    ending: str = "closed"

    @property
    def kind(self) -> str:
        """One word for the whole: what was said last, or that nothing was."""
        said = [kind for kind in self.kinds if kind not in {"accepted", "released"}]
        return said[-1] if said else ("released" if self.kinds["released"] else self.ending)


class Peer:
    """A connection to a listener, from an address of loopback."""

    def __init__(self, port: int, patience_seconds: float, source: str = "127.0.0.1") -> None:
        self._patience = patience_seconds
        self._socket = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self.answer = Answer()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, *parts: bytes) -> bool:
        """Send as far as the listener lets us; whether it did."""
        try:
            self._socket.settimeout(self._patience)
            for part in parts:
                self._socket.sendall(part)
        except OSError:
            return False
        return True

    def hear(self, seconds: float, kinds: int = 1) -> bool:
        """Wait until so many answers came; False if it was closed or took too long."""
        until = time.monotonic() + seconds
        while kinds > 0:
            found = self._next()
            if found:
                self.answer.kinds[found] += 1
                kinds -= 1
                continue
            try:
                self._socket.settimeout(max(0.001, until - time.monotonic()))
                part = self._receive()
            except TimeoutError:
                return False
            except OSError:
                part = b""
            if not part:
                return False
            self._unread += part
        return True

    def end(self) -> Answer:
        """Say that nothing more comes, and wait until the listener closes."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        until = time.monotonic() + self._patience
        while self.hear(max(0.001, until - time.monotonic())):
            pass
        if time.monotonic() >= until:
            self.answer.ending = "silent"
        return self.answer

    def _receive(self) -> bytes:
        """What came; nothing once the listener has closed the connection."""
        return self._socket.recv(1 << 16)

    def _next(self) -> str:
        """What the next PDU of the listener says, or an empty text while it is not all here."""
        if len(self._unread) < 6:
            return ""
        kind, _, length = struct.unpack(">BBL", self._unread[:6])
        if len(self._unread) < 6 + length:
            return ""
        body, self._unread = self._unread[6 : 6 + length], self._unread[6 + length :]
        if kind == P_DATA:
            return said(body)
        return {
            ASSOCIATE_AC: "accepted",
            ASSOCIATE_RJ: "rejected",
            RELEASE_RP: "released",
            ABORT: "aborted",
        }.get(kind, f"PDU {kind}")


def said(body: bytes) -> str:
    """The status in a P-DATA-TF that holds one command, as all of a listener's do."""
    at = 6
    while at + 8 <= len(body):
        _group, number, length = struct.unpack_from("<HHL", body, at)
        if number == 0x0900:
            return f"status 0x{struct.unpack_from('<H', body, at + 8)[0]:04X}"
        at += 8 + length
    return "a message without a status"
