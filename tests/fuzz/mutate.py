"""Bytes changed as broken and hostile software changes them."""

import random
from collections.abc import Callable
from typing import Final

INTERESTING: Final = (
    b"\0\0",
    b"\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xff\xff\xff\x7f",
    b"\xfe\xff\0\xe0",
    b"\xfe\xff\r\xe0",
    b"\xfe\xff\xdd\xe0",
    b"\xe0\x7f\x10\0",
    b"SQ",
    b"UN",
    b"\\" * 40,
)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Some bytes with one to four changes."""
    for _ in range(dice.randrange(1, 5)):
        if not data:
            return dice.randbytes(dice.randrange(20))
        data = dice.choice(CHANGES)(data, dice)
    return data


def _flip(data: bytes, dice: random.Random) -> bytes:
    at, bit = dice.randrange(len(data)), 1 << dice.randrange(8)
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def _overwrite(data: bytes, dice: random.Random) -> bytes:
    at, new = dice.randrange(len(data)), dice.choice(INTERESTING)
    return data[:at] + new + data[at + len(new) :]


def _insert(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice((*INTERESTING, dice.randbytes(8))) + data[at:]


def _cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def _remove(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + data[at + dice.randrange(1, 9) :]


def _double(data: bytes, dice: random.Random) -> bytes:
    start, end = sorted((dice.randrange(len(data)), dice.randrange(len(data))))
    return data[:end] + data[start:end] * dice.choice((1, 1, 1, 20)) + data[end:]


CHANGES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _insert,
    _cut,
    _remove,
    _double,
)
