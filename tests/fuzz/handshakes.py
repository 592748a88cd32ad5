"""What nobody should say to a port that TLS is spoken at: garbage, half a handshake, nothing.

Everything is drawn from one `random.Random`, but for what the TLS library draws itself: a seed
names what is done to its records, not each of their bytes.
"""

import random
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.fuzz import requests, sessions, wire
from tests.fuzz.mutate import mutated

# RFC 8446 5.1
ALERT, HANDSHAKE, DATA = 21, 22, 23
LARGEST_RECORD_BYTES: Final = 1 << 14

STRANGERS: Final = ("nobody", "stranger", "expired")
"""Whose certificate is none, of another authority, or too old."""


@dataclass(frozen=True)
class Attempt:
    """One input.

    Attributes:
        family: which kind of attempt it is.
        plain: what is sent instead of a handshake, each by itself.
        who: whose certificate is shown in a handshake; empty: there is none.
        session: what is said inside of TLS.
        spoil: what becomes of the records of that.
        source: from where.
        waits: whether the connection stays open until the listener has enough of it.
        pause_seconds: before each of `plain` but the first.
        crowd: connections at a time that do the same.
    """

    family: str
    plain: tuple[bytes, ...] = ()
    who: str = ""
    session: sessions.Session | None = None
    spoil: Callable[[bytes], bytes] | None = None
    source: str = "127.0.0.1"
    waits: bool = False
    pause_seconds: float = 0.0
    crowd: int = 1


def one(dice: random.Random) -> Attempt:
    """Draw an input of any family."""
    families = tuple(FAMILIES)
    name = dice.choices(families, [FAMILIES[each][0] for each in families])[0]
    return FAMILIES[name][1](dice, name)


def record(kind: int, content: bytes, version: int = 0x0303, length: int | None = None) -> bytes:
    """A TLS record; `length` where it lies about its own."""
    return struct.pack(">BHH", kind, version, len(content) if length is None else length) + content


def hello() -> bytes:
    """The ClientHello of a sound client, as a record."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    sent = ssl.MemoryBIO()
    speaker = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="monro.example")
    with suppress(ssl.SSLWantReadError):
        speaker.do_handshake()
    return sent.read()


# --- families ---


def _elsewhere(dice: random.Random) -> str:
    """An address that no sound peer comes from."""
    return f"127.0.{dice.randrange(1, 250)}.{dice.randrange(1, 250)}"


def _noise(dice: random.Random, name: str) -> Attempt:
    sent = dice.choice(
        (
            lambda: dice.randbytes(dice.choice((1, 5, 6, 80, 3000, 70_000))),
            wire.proposal,
            lambda: requests.sound(dice).parts[0],
            lambda: b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + dice.randbytes(37),  # SSL 2
            lambda: bytes(100),
        )
    )()
    return Attempt(name, (sent,), source=_elsewhere(dice))


def _mutated_hello(dice: random.Random, name: str) -> Attempt:
    return Attempt(name, (mutated(hello(), dice),), source=_elsewhere(dice))


def _hello(dice: random.Random, name: str) -> Attempt:
    """A ClientHello that is cut, doubled, in crumbs, of an old version, or claims to be endless."""
    whole = hello()
    content = whole[5:]
    drawn = dice.randrange(8)
    if drawn == 0:
        sent = (whole[: dice.randrange(len(whole))],)
    elif drawn == 1:
        sent = (whole * dice.choice((2, 50)),)
    elif drawn == 2:
        sent = (b"".join(record(HANDSHAKE, bytes([each]), 0x0301) for each in content),)
    elif drawn == 3:
        version = dice.choice((0x0000, 0x0200, 0x0300, 0x0301, 0x0305, 0x7F00, 0xFFFF))
        sent = (record(HANDSHAKE, content, version),)
    elif drawn == 4:
        length = struct.pack(">L", dice.choice((0, 1 << 14, 1 << 17, 0xFFFFFF)))[1:]
        sent = (record(HANDSHAKE, content[:1] + length + content[4:]) * dice.choice((1, 30)),)
    elif drawn == 5:
        sent = (record(HANDSHAKE, content, length=dice.choice((0, 1, 16385, 65535))),)
    elif drawn == 6:
        sent = (record(HANDSHAKE, b"") * 5000 + whole,)
    else:
        # PS3.15 B.12 refuses what is older than TLS 1.2.
        old = struct.pack(">H", dice.choice((0x0300, 0x0301, 0x0302))) + dice.randbytes(32)
        plain = old + b"\0" + b"\x00\x04\x00\x2f\x00\x35" + b"\x01\x00"
        sent = (record(HANDSHAKE, b"\x01" + struct.pack(">L", len(plain))[1:] + plain, 0x0301),)
    return Attempt(name, sent, source=_elsewhere(dice))


def _after_hello(dice: random.Random, name: str) -> Attempt:
    """A ClientHello, and then what does not follow from it."""
    then = dice.choice(
        (
            record(dice.choice((ALERT, HANDSHAKE, DATA, 20, 24, 255)), dice.randbytes(50)),
            record(ALERT, b"\x01\x00") * 100,
            record(ALERT, b"\x02\x28"),
            record(20, b"\x01") * 2000,
            record(DATA, dice.randbytes(LARGEST_RECORD_BYTES)),
            record(HANDSHAKE, b"\x0b\xff\xff\xff" + bytes(LARGEST_RECORD_BYTES - 4)) * 200,
            dice.randbytes(500),
        )
    )
    return Attempt(name, (hello(), then), source=_elsewhere(dice))


def _stranger(dice: random.Random, name: str) -> Attempt:
    """A certificate that opens nothing here, or none."""
    return Attempt(name, who=dice.choice(STRANGERS), session=sessions.sound(dice))


def _session(dice: random.Random, name: str) -> Attempt:
    """What the port without TLS is attacked with, inside of TLS."""
    return Attempt(name, who="ours", session=sessions.one(dice))


def _records(dice: random.Random, name: str) -> Attempt:
    """Records after a sound handshake: changed, forged, doubled, out of order, cut."""
    drawn = dice.randrange(7)
    lie = dice.choice((0, 1, 16640, 16641, 65535))
    noise = dice.randbytes(200)
    spoil: Callable[[bytes], bytes] = {
        0: lambda sealed: mutated(sealed, dice),
        1: lambda sealed: sealed + sealed,
        2: lambda sealed: record(DATA, noise) + sealed,
        3: lambda sealed: record(DATA, noise, length=lie) + sealed,
        4: lambda sealed: record(DATA, b"") * 5000 + sealed,
        5: lambda sealed: sealed[: dice.randrange(len(sealed))],
        6: lambda sealed: record(dice.choice((ALERT, HANDSHAKE, 20)), noise[:2]) + sealed,
    }[drawn]
    return Attempt(name, who="ours", session=sessions.sound(dice), spoil=spoil)


def _stall(dice: random.Random, name: str) -> Attempt:
    """A handshake, or what should follow it, that never comes to its end."""
    whole = hello()
    drawn = dice.randrange(5)
    source = _elsewhere(dice)
    if drawn == 0:
        return Attempt(name, (b"",), source=source, waits=True)
    if drawn == 1:
        return Attempt(name, (whole[: dice.randrange(1, len(whole))],), source=source, waits=True)
    if drawn == 2:
        return Attempt(name, (whole,), source=source, waits=True)
    if drawn == 3:
        drops = tuple(whole[each : each + 1] for each in range(30))
        return Attempt(name, drops, source=source, waits=True, pause_seconds=0.4)
    return Attempt(name, who="ours", waits=True)


def _crowd(dice: random.Random, name: str) -> Attempt:
    """Many from one address that say nothing, or stop, at a time."""
    whole = hello()
    sent = dice.choice((b"", whole[:50], whole))
    return Attempt(name, (sent,), source=_elsewhere(dice), waits=True, crowd=40)


def _kept(dice: random.Random, name: str) -> Attempt:
    return Attempt(name, who="ours", session=sessions.sound(dice))


# Family: how often among all, and how one is made.
FAMILIES: Final[dict[str, tuple[float, Callable[[random.Random, str], Attempt]]]] = {
    "noise": (3, _noise),
    "mutated hello": (5, _mutated_hello),
    "hello": (4, _hello),
    "after hello": (3, _after_hello),
    "stranger": (2, _stranger),
    "session": (3, _session),
    "records": (4, _records),
    "stall": (0.4, _stall),
    "crowd": (0.1, _crowd),
    "sound": (2, _kept),
}
