"""Datasets that are not what their transfer syntax says, name files that nobody may write, or grow
without end once they are read.

Everything is drawn from one `random.Random`, so a seed names a run.
"""

import random
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from pydicom.uid import generate_uid

from tests.fuzz import wire
from tests.fuzz.mutate import mutated

HOSTILE_UIDS: Final = (
    "../../etc/passwd",
    "..",
    "/etc/cron.d/monro",
    "",
    "1." * 40 + "1",
    "1.2.3\n",
    "1.2.3\0.4",
    "1.2.*",
    "1.2.?",
    "\uff11.\uff12.\uff13",
    "1.2.840.10008.1.2.1 ",
    "0" * 65,
    "9" * 64,
    "." * 64,
    "1..2",
    "\\".join(["1.2.3"] * 3),
    "$(touch /tmp/owned)",
    "CON",
    "%n%s%n",
    "1" * 65534,
)
CHARSETS: Final = (
    b"ISO 2022 IR 87",
    b"ISO_IR 192\\ISO_IR 192",
    b"\\" * 1000,
    b"UTF-8",
    b"nonsense",
    b"\xff\xfe",
    b"ISO 2022 IR 149\\ISO 2022 IR 58\\",
    b"rot13",
    b"zlib_codec",
    b"idna",
)


@dataclass(frozen=True)
class Instance:
    """An instance as it is sent: what it calls itself outside of its dataset, and the dataset."""

    sop: str
    dataset: bytes
    syntax: str = wire.EXPLICIT


def new_uids(dice: random.Random) -> tuple[str, str, str]:
    """Of a study, a series and an instance."""
    seed = str(dice.getrandbits(128))
    study, series, sop = (str(generate_uid(entropy_srcs=[seed, part])) for part in "123")
    return study, series, sop


def header(
    study: str | bytes,
    series: str | bytes,
    sop: str | bytes,
    charset: bytes = b"ISO_IR 100",
    end: str = "<",
) -> list[bytes]:
    """Elements of a small image with explicit VR, up to its pixels."""
    return [
        wire.explicit(0x00080005, b"CS", wire.even(charset)[:65534], end=end),
        wire.explicit(0x00080016, b"UI", wire.even(wire.MR_IMAGE), end=end),
        wire.explicit(0x00080018, b"UI", wire.even(sop), end=end),
        wire.explicit(0x00080060, b"CS", b"MR", end=end),
        wire.explicit(0x00100010, b"PN", b"PLANTED^NAME", end=end),
        wire.explicit(0x0020000D, b"UI", wire.even(study), end=end),
        wire.explicit(0x0020000E, b"UI", wire.even(series), end=end),
        wire.explicit(0x00280010, b"US", struct.pack(f"{end}H", 4), end=end),
        wire.explicit(0x00280011, b"US", struct.pack(f"{end}H", 4), end=end),
    ]


def implicit_header(study: str, series: str, sop: str) -> list[bytes]:
    """The same with implicit VR."""
    return [
        wire.implicit(0x00080016, wire.even(wire.MR_IMAGE)),
        wire.implicit(0x00080018, wire.even(sop)),
        wire.implicit(0x0020000D, wire.even(study)),
        wire.implicit(0x0020000E, wire.even(series)),
    ]


PIXELS: Final = wire.explicit(0x7FE00010, b"OW", bytes(32))


def sound_instance(dice: random.Random) -> Instance:
    """One that must be kept."""
    study, series, sop = new_uids(dice)
    return Instance(sop, b"".join(header(study, series, sop)) + PIXELS)


def with_hostile_uids(dice: random.Random) -> Instance:
    """Names that would be paths."""
    uids: list[str] = list(new_uids(dice))
    for _ in range(dice.randrange(1, 4)):
        uids[dice.randrange(3)] = dice.choice(HOSTILE_UIDS)
    study, series, sop = uids
    dataset = b"".join(header(study[:32000], series[:32000], sop[:32000])) + PIXELS
    return Instance(sop if dice.random() < 0.7 else dice.choice(HOSTILE_UIDS), dataset)


def malformed(dice: random.Random) -> Instance:
    """Not what its transfer syntax says, or without an end."""
    study, series, sop = new_uids(dice)
    parts = header(study, series, sop)
    syntax = wire.EXPLICIT
    drawn = dice.randrange(8)
    if drawn == 0:
        syntax = dice.choice(
            (wire.IMPLICIT, wire.DEFLATED, wire.BIG_ENDIAN, wire.JPEG_2000, "1.2.3")
        )
    elif drawn == 1:
        parts = [mutated(each, dice) if dice.random() < 0.3 else each for each in parts]
    elif drawn == 2:
        parts.insert(dice.randrange(len(parts)), nested(dice, 0x00081140))
    elif drawn == 3:
        dice.shuffle(parts)
    elif drawn == 4:
        parts.insert(2, wire.explicit(0x00080017, b"UN", b"", wire.UNDEFINED))
    elif drawn == 5:
        parts = [b"".join(parts)[: dice.randrange(300)]]
    elif drawn == 6:
        # File meta information has no place in a dataset.
        hostile = wire.even(dice.choice(HOSTILE_UIDS))
        parts.insert(0, wire.explicit(0x00020010, b"UI", hostile)[:65000])
    else:
        parts = [*header(study, series, sop, end=">"), PIXELS]
        syntax = dice.choice((wire.BIG_ENDIAN, wire.EXPLICIT))
    return Instance(sop, b"".join(parts) + PIXELS, syntax)


def bomb(dice: random.Random) -> Instance:
    """Little on the wire, much in memory."""
    study, series, sop = new_uids(dice)
    plain = header(study, series, sop)
    filling = dice.choice(
        (
            lambda: wire.explicit(0x00081195, b"UT", bytes(30 << 20)),
            lambda: wire.explicit(
                0x00081140, b"SQ", wire.ITEM * (1 << 20) + wire.CLOSE_SEQUENCE, wire.UNDEFINED
            ),
            lambda: wire.explicit(0x00081195, b"UT", b"\\" * (8 << 20)),
            lambda: wire.explicit(0x00089215, b"SQ", wire.ITEM * (1 << 20)),
        )
    )()
    drawn = dice.random()
    if drawn < 0.5:
        whole = b"".join((*plain[:3], filling, *plain[3:])) + PIXELS
        return Instance(sop, deflated(whole), wire.DEFLATED)
    if drawn < 0.7:  # its UIDs are found at once; whoever reads the rest is hit
        whole = b"".join(plain) + wire.explicit(0x00400555, b"SQ", filling) + PIXELS
        return Instance(sop, deflated(whole), wire.DEFLATED)
    if drawn < 0.85:
        values = implicit_header(study, series, "\\".join([sop] * 20_000))
        return Instance(sop, b"".join(values), wire.IMPLICIT)
    items = wire.ITEM * 100_000 + wire.CLOSE_SEQUENCE
    many = wire.explicit(0x00081140, b"SQ", items, wire.UNDEFINED)
    return Instance(sop, b"".join((*plain[:3], many, *plain[3:])))


def with_odd_charset(dice: random.Random) -> Instance:
    """Texts in character sets that there are not."""
    study, series, sop = new_uids(dice)
    parts = header(study, series, sop, dice.choice(CHARSETS))
    parts.insert(5, wire.explicit(0x00100020, b"LO", dice.randbytes(64)))
    return Instance(sop, b"".join(parts) + PIXELS)


def nested(dice: random.Random, tag: int) -> bytes:
    """A sequence of many levels, or of many items."""
    if dice.random() < 0.5:
        deep = dice.choice((10, 300, 3000))
        opened = wire.explicit(tag, b"SQ", b"", wire.UNDEFINED) + wire.OPEN_ITEM
        closed = wire.CLOSE_ITEM + wire.CLOSE_SEQUENCE if dice.random() < 0.5 else b""
        return opened * deep + closed * deep
    many = wire.ITEM * dice.choice((10, 20_000))
    return wire.explicit(tag, b"SQ", many + wire.CLOSE_SEQUENCE, wire.UNDEFINED)


def deflated(data: bytes) -> bytes:
    """As in PS3.5 A.5."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()
