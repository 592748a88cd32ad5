"""Series whose headers and pixels are hostile or broken, one family after the other."""

import io
import random
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

import numpy as np
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.pixels.encoders import JPEGLSLosslessEncoder, RLELosslessEncoder

from tests.fuzz import wire
from tests.fuzz.datasets import deflated
from tests.fuzz.mutate import mutated

ROWS, COLUMNS, SLICES = 48, 40, 3
HEAD: Final = (100, 120, 120)
ENHANCED: Final = "1.2.840.10008.5.1.4.1.1.4.1"
JPEG: Final = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS: Final = "1.2.840.10008.1.2.4.70"
JPEG_LS: Final = "1.2.840.10008.1.2.4.80"
JPEG_2000: Final = wire.JPEG_2000
RLE: Final = "1.2.840.10008.1.2.5"
SYNTAXES: Final = (wire.EXPLICIT, wire.DEFLATED, JPEG_2000, JPEG_LS, RLE)
"""That lose nothing, and that the head is written in."""

Elements = dict[int, tuple[bytes, bytes]]


def short(*values: int) -> bytes:
    """US or SS, little-endian."""
    return b"".join(struct.pack("<H", value & 0xFFFF) for value in values)


def sound(number: int) -> Elements:
    """An uncompressed slice that can be read."""
    elements: Elements = {
        0x00080005: (b"CS", b"ISO_IR 100"),
        0x00080008: (b"CS", b"ORIGINAL\\PRIMARY\\M"),
        0x00080016: (b"UI", wire.even(wire.MR_IMAGE)),
        0x00080018: (b"UI", wire.even(f"1.2.3.4.{number}")),
        0x00080020: (b"DA", b"20260101"),
        0x00080060: (b"CS", b"MR"),
        0x0008103E: (b"LO", b"SAG T1 MPRAGE +C"),
        0x00100010: (b"PN", b"PLANTED^NAME"),
        0x00100020: (b"LO", b"PLANTED "),
        0x00180010: (b"LO", b"GADOBUTROL"),
        0x00180020: (b"CS", b"GR"),
        0x00180023: (b"CS", b"3D"),
        0x00180050: (b"DS", b"1 "),
        0x00180080: (b"DS", b"6.5 "),
        0x00180081: (b"DS", b"2.9 "),
        0x0020000D: (b"UI", wire.even("1.2.3")),
        0x0020000E: (b"UI", wire.even("1.2.3.1")),
        0x00200011: (b"IS", b"5 "),
        0x00200013: (b"IS", f"{number:<2}".encode()),
        0x00200032: (b"DS", wire.even(f"{number}\\0\\0")),
        0x00200037: (b"DS", wire.even("0\\1\\0\\0\\0\\-1")),
        0x00200052: (b"UI", wire.even("1.2.3.9")),
        0x00280002: (b"US", short(1)),
        0x00280004: (b"CS", b"MONOCHROME2 "),
        0x00280010: (b"US", short(ROWS)),
        0x00280011: (b"US", short(COLUMNS)),
        0x00280030: (b"DS", b"1\\1 "),
        0x00280100: (b"US", short(16)),
        0x00280101: (b"US", short(12)),
        0x00280102: (b"US", short(11)),
        0x00280103: (b"US", short(0)),
        0x7FE00010: (b"OW", pixels().tobytes()),
    }
    return elements


@cache
def pixels() -> "np.ndarray":
    """Something that compresses."""
    across = np.add.outer(np.arange(ROWS), np.arange(COLUMNS))
    return (across * 20 % 4000).astype(np.uint16)


@cache
def head() -> "np.ndarray":
    """Something that looks like a head from its side: slices x rows x columns of 2 mm."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1.2, 1.2, size) for size in HEAD), indexing="ij"))
    inside = np.square(grid).sum(0) < 1
    texture = np.random.default_rng(0).integers(0, 200, HEAD)
    return np.where(inside, 800 + texture, texture // 20).astype(np.uint16)


def _lossless(cells: "np.ndarray") -> dict[str, bytes]:
    """Pixels in each codec that gives them back."""
    rows, columns = cells.shape
    described = {
        "rows": rows, "columns": columns, "samples_per_pixel": 1, "bits_allocated": 16,
        "bits_stored": 12, "pixel_representation": 0, "number_of_frames": 1,
        "photometric_interpretation": "MONOCHROME2",
    }  # fmt: skip
    raw = cells.tobytes()
    return {
        JPEG_2000: bytes(encode_array(cells, photometric_interpretation=2)),
        JPEG_LS: JPEGLSLosslessEncoder.encode(raw, encoding_plugin="pyjpegls", **described),
        RLE: RLELosslessEncoder.encode(raw, encoding_plugin="pydicom", **described),
    }


@cache
def head_streams() -> list[dict[str, bytes]]:
    """Each slice of the head in each codec."""
    return [_lossless(each) for each in head()]


@cache
def streams() -> dict[str, bytes]:
    """The small slice in each codec."""
    file = io.BytesIO()
    Image.fromarray((pixels() >> 4).astype(np.uint8)).save(file, "JPEG")
    return {
        **_lossless(pixels()),
        JPEG: file.getvalue(),
        # What GDCM decodes, with its frame's size where that of JPEG-LS stands.
        JPEG_LOSSLESS: file.getvalue().replace(b"\xff\xc0", b"\xff\xc3"),
    }


def file(elements: Elements, syntax: str = wire.EXPLICIT, tail: bytes = b"") -> bytes:
    """A DICOM file; `tail` stands behind its last element."""
    body = b"".join(wire.explicit(tag, *elements[tag]) for tag in sorted(elements)) + tail
    if syntax == wire.DEFLATED:
        body = deflated(body)
    meta = wire.explicit(0x00020002, b"UI", wire.even(wire.MR_IMAGE)) + wire.explicit(
        0x00020010, b"UI", wire.even(syntax)
    )
    group = wire.explicit(0x00020000, b"UL", struct.pack("<L", len(meta)))
    return bytes(128) + b"DICM" + group + meta + body


def encapsulated(*fragments: bytes, end: bytes = wire.CLOSE_SEQUENCE) -> bytes:
    """Pixel data in fragments, with an empty offset table."""
    items = b"".join(
        struct.pack("<HHL", 0xFFFE, 0xE000, len(each)) + each for each in (b"", *fragments)
    )
    return wire.explicit(0x7FE00010, b"OB", items + end, wire.UNDEFINED)


def compressed(elements: Elements, syntax: str, stream: bytes) -> bytes:
    """A file whose pixels are one codestream."""
    kept = {tag: value for tag, value in elements.items() if tag != 0x7FE00010}
    if syntax in (JPEG, JPEG_LOSSLESS):
        kept |= {tag: (b"US", short(value)) for tag, value in (
            (0x00280100, 8), (0x00280101, 8), (0x00280102, 7))}  # fmt: skip
    return file(kept, syntax, encapsulated(stream + b"\0" * (len(stream) % 2)))


def head_in(syntax: str) -> list[bytes]:
    """The files of the head in one of `SYNTAXES`."""
    found = []
    for number, cells in enumerate(head(), 1):
        elements = sound(number) | {
            0x00180050: (b"DS", b"2 "),
            0x00200032: (b"DS", wire.even(f"{2 * number}\\0\\0")),
            0x00280010: (b"US", short(HEAD[1])),
            0x00280011: (b"US", short(HEAD[2])),
            0x00280030: (b"DS", b"2\\2 "),
            0x7FE00010: (b"OW", cells.tobytes()),
        }
        stream = head_streams()[number - 1].get(syntax)
        found.append(
            file(elements, syntax) if stream is None else compressed(elements, syntax, stream)
        )
    return found


def of_frames(frames: Sequence[bytes], syntax: str, number: bytes | None = None) -> bytes:
    """An object of so many codestreams, of which the header may say another number."""
    elements = sound(1) | {
        0x00080016: (b"UI", wire.even(ENHANCED)),
        0x00280008: (b"IS", wire.even(str(len(frames)).encode() if number is None else number)),
        0x52009230: (b"SQ", b"".join(_positioned(f"{at}\\0\\0") for at in range(len(frames)))),
    }
    del elements[0x7FE00010]
    return file(
        elements, syntax, encapsulated(*(each + b"\0" * (len(each) % 2) for each in frames))
    )


# --- families: each gives the files of one series ---

NUMBERS: Final = (0, 1, 2, 3, 7, 8, 64, 255, 1000, 32767, 32768, 65535)
TEXTS: Final = (
    b"", b"0 ", b"-1", b"NaN ", b"inf ", b"-inf", b"1e308 ", b"1e-308", b"9" * 64, b"abc ",
    b"1\\2 ", b"\\" * 50, b"0\\0\\0\\0\\0\\0 ", b"NaN\\NaN\\NaN ", b"\xff\xfe\xfd\xfc", b"1,5 ",
    b"1\\1\\1\\1\\1\\1 ", b"2147483648", b"-2147483648 ", b"4294967295", b"99999999999999999999",
    b"1e999 ", b"0x10", b"\0\0", b"1\0",
)  # fmt: skip
COUNTED: Final = (0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102,
                  0x00280103)  # fmt: skip
WRITTEN: Final = (0x00180050, 0x00180080, 0x00180081, 0x00200011, 0x00200013, 0x00200032,
                  0x00200037, 0x00280030, 0x00280008, 0x00281052, 0x00281053, 0x00180088,
                  0x00080008, 0x00080020, 0x00280004, 0x00080005)  # fmt: skip


def one(dice: random.Random) -> tuple[str, list[bytes]]:
    """Draw a series of any family."""
    families = tuple(FAMILIES)
    name = dice.choices(families, [FAMILIES[each][0] for each in families])[0]
    return name, FAMILIES[name][1](dice)


def _slices() -> list[Elements]:
    return [sound(number) for number in range(1, SLICES + 1)]


def _numbers(dice: random.Random) -> list[bytes]:
    """Rows, columns, bits and samples that cannot be, in one slice or in all."""
    changed = {dice.choice(COUNTED): short(dice.choice(NUMBERS)) for _ in range(3)}
    whom = _slices()
    for each in whom if dice.random() < 0.7 else whom[:1]:
        each.update({tag: (b"US", value) for tag, value in changed.items()})
    return [file(each) for each in whom]


def _texts(dice: random.Random) -> list[bytes]:
    """Spacings, positions, orientations, frames and slopes that are no numbers, or absurd ones."""
    changed = {dice.choice(WRITTEN): dice.choice(TEXTS) for _ in range(dice.randrange(1, 4))}
    whom = _slices()
    for each in whom if dice.random() < 0.7 else whom[:1]:
        each.update({tag: (b"DS", wire.even(value)) for tag, value in changed.items()})
    return [file(each) for each in whom]


def _lengths(dice: random.Random) -> list[bytes]:
    """Pixel data that are shorter, longer, absent, or do not end."""
    whom = _slices()
    chosen = dice.choice(whom)
    _, raw = chosen.pop(0x7FE00010)
    tail = dice.choice(
        (
            lambda: b"",
            lambda: wire.explicit(0x7FE00010, b"OW", raw[: dice.randrange(len(raw))]),
            lambda: wire.explicit(0x7FE00010, b"OW", raw * dice.choice((2, 300))),
            lambda: wire.explicit(0x7FE00010, b"OW", raw, dice.choice((0x7FFFFFFF, 0xFFFFFFFE))),
            lambda: wire.explicit(0x7FE00010, b"OW", raw, wire.UNDEFINED),
            lambda: encapsulated(raw, end=b""),
            lambda: encapsulated(*[b""] * 10_000),
            lambda: wire.explicit(0x7FE00008, b"OF", raw * 2),
            lambda: wire.explicit(0x7FE00009, b"OD", raw * 4),
        )
    )()
    return [file(each, tail=tail if each is chosen else b"") for each in whom]


def _codec(dice: random.Random) -> list[bytes]:
    """Codestreams that are spoiled, cut, another codec's, or larger than their header says."""
    syntax = dice.choice(tuple(streams()))
    stream = streams()[dice.choice(tuple(streams())) if dice.random() < 0.1 else syntax]
    drawn = dice.random()
    if drawn < 0.4:
        stream = mutated(stream, dice)
    elif drawn < 0.6:
        stream = stream[: dice.randrange(len(stream))]
    elif drawn < 0.9:
        stream = _claims_more(stream, syntax, dice)
    return [compressed(each, syntax, stream) for each in _slices()]


def _claims_more(stream: bytes, syntax: str, dice: random.Random) -> bytes:
    """The same with an absurd size in its own header; in that of the object, too, now and then."""
    size = dice.choice((0, 1, 4096, 65535, 0x7FFFFFFF, 0xFFFFFFFF))
    if syntax == JPEG_2000:
        at = max(0, stream.find(b"\xff\x51")) + dice.choice((6, 10, 14, 18, 22, 26, 38))
        return stream[:at] + struct.pack(">L", size) + stream[at + 4 :]
    if syntax == RLE:
        segments = struct.pack("<L", dice.choice((0, 2, 15, 16, size)))
        return segments + stream[4:64] + b"\x81\0" * dice.choice((10, 100_000))
    mark = {JPEG_LS: b"\xff\xf7", JPEG_LOSSLESS: b"\xff\xc3"}.get(syntax, b"\xff\xc0")
    at = max(0, stream.find(mark)) + dice.choice((4, 5, 7, 9))
    return stream[:at] + struct.pack(">H", size & 0xFFFF) + stream[at + 2 :]


def _agreed(dice: random.Random) -> list[bytes]:
    """Header and codestream that agree on a size which nobody has the memory for."""
    rows, columns = dice.choice(((65535, 65535), (65535, 1), (20000, 20000), (2048, 2048)))
    stream = streams()[JPEG_2000]
    at = stream.index(b"\xff\x51") + 6
    stream = stream[:at] + struct.pack(">LL", columns, rows) + stream[at + 8 :]
    at += 16
    stream = stream[:at] + struct.pack(">LL", columns, rows) + stream[at + 8 :]
    whom = _slices()
    for each in whom:
        each.update({0x00280010: (b"US", short(rows)), 0x00280011: (b"US", short(columns))})
    return [compressed(each, JPEG_2000, stream) for each in whom]


def _sequences(dice: random.Random) -> list[bytes]:
    """Headers that nest, repeat or swell."""
    whom = _slices()
    open_item = wire.explicit(0x00081140, b"SQ", b"", wire.UNDEFINED) + wire.OPEN_ITEM
    added = dice.choice(
        (
            lambda: (b"SQ", wire.ITEM * dice.choice((10, 10_000, 500_000))),
            lambda: (b"SQ", open_item * dice.choice((20, 2000))),
            lambda: (b"UT", b"\\" * dice.choice((1000, 5 << 20))),
            lambda: (b"UN", dice.randbytes(5000)),
        )
    )()
    whom[0][dice.choice((0x00081111, 0x00200062, 0x00400555, 0x52009229, 0x52009230))] = added
    syntax = wire.DEFLATED if dice.random() < 0.3 else wire.EXPLICIT
    return [file(each, syntax) for each in whom]


def _deflated(dice: random.Random) -> list[bytes]:
    """Files that are small until they are inflated."""
    whom = _slices()
    whom[0][dice.choice((0x00400555, 0x7FE00010))] = (b"OW", bytes(dice.choice((1, 300)) << 20))
    return [file(each, wire.DEFLATED) for each in whom]


def _enhanced(dice: random.Random) -> list[bytes]:
    """Multi-frame objects whose numbers of frames contradict each other."""
    groups = b"".join(_frame(number, dice) for number in range(dice.choice((0, 1, 3, 2000))))
    elements = sound(1) | {
        0x00080016: (b"UI", wire.even(ENHANCED)),
        0x00280008: (b"IS", wire.even(dice.choice((b"3", b"2147483648", b"-1", b"0", b"65535")))),
        0x52009230: (b"SQ", groups),
    }
    elements[0x7FE00010] = (b"OW", pixels().tobytes() * dice.choice((1, 3)))
    return [file(elements)]


def _frame(number: int, dice: random.Random) -> bytes:
    if dice.random() < 0.02:
        return _positioned(dice.choice(TEXTS))
    return _positioned(f"{number}\\0\\0")


def _positioned(position: str | bytes) -> bytes:
    """Of one frame, where it lies."""
    position = wire.explicit(0x00200032, b"DS", wire.even(position))
    entry = struct.pack("<HHL", 0xFFFE, 0xE000, len(position)) + position
    group = wire.explicit(0x00209113, b"SQ", entry)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(group)) + group


def _frames(dice: random.Random) -> list[bytes]:
    """Multi-frame objects of many codestreams, some of which are spoiled."""
    syntax = dice.choice((JPEG_2000, JPEG_LS, RLE))
    frames = [streams()[syntax]] * dice.choice((1, 3, 60, 2000))
    for _ in range(dice.choice((0, 1, 1, 5))):
        at = dice.randrange(len(frames))
        frames[at] = dice.choice((mutated(frames[at], dice), frames[at][: dice.randrange(40)]))
    number = dice.choice((None, None, None, b"3", b"2001", b"65535"))
    return [of_frames(frames, syntax, number)]


def _sound(dice: random.Random) -> list[bytes]:
    """Nothing hostile: a series that is to be read."""
    return head_in(dice.choice(SYNTAXES))


def _mutated(dice: random.Random) -> list[bytes]:
    """Sound files, changed anywhere."""
    whole = [file(each, dice.choice((wire.EXPLICIT, wire.EXPLICIT, wire.DEFLATED)))
             for each in _slices()]  # fmt: skip
    return [mutated(each, dice) if dice.random() < 0.6 else each for each in whole]


def _header_mutated(dice: random.Random) -> list[bytes]:
    """The same, where the header is."""
    whole = [file(each) for each in _slices()]
    return [mutated(each[132:1200], dice).join((each[:132], each[1200:])) for each in whole]


def _mixed(dice: random.Random) -> list[bytes]:
    """Slices that are sound and do not belong together."""
    whom = _slices() * dice.choice((1, 1, 30))
    whom[0] |= {0x00280010: (b"US", short(ROWS * 2)), 0x0020000E: (b"UI", b"9.9 ")}
    dice.shuffle(whom)
    return [file(each) for each in whom]


# Family: how often among all, and how one is made.
FAMILIES: Final[dict[str, tuple[float, Callable[[random.Random], list[bytes]]]]] = {
    "numbers": (3, _numbers),
    "texts": (4, _texts),
    "lengths": (2, _lengths),
    "codec": (5, _codec),
    "agreed": (0.2, _agreed),
    "sequences": (0.5, _sequences),
    "deflated": (0.1, _deflated),
    "enhanced": (0.5, _enhanced),
    "frames": (0.5, _frames),
    "mutated": (3, _mutated),
    "header mutated": (3, _header_mutated),
    "mixed": (0.5, _mixed),
    "sound": (0.5, _sound),
}
