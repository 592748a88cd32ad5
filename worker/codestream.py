"""What a compressed frame says of itself, before a decoder believes it.

Decoders reserve memory for the size that the codestream claims, whatever the object's header says:
a few bytes may claim 65535 x 65535 pixels, or as many components.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes


class Claim(NamedTuple):
    """The size of a frame as its codestream has it."""

    rows: int
    columns: int
    samples: int


def claim(frame: bytes, syntax: UID) -> Claim | None:
    """What a frame claims to be; None where it claims nothing that we can read.

    >>> claim(bytes.fromhex("FFD8 FFC3 000B 08 0040 0030 01 011100"), UID("1.2.840.10008.1.2.4.70"))
    Claim(rows=64, columns=48, samples=1)
    """
    read = CLAIMS.get(syntax)
    try:
        return None if read is None else read(frame)
    except struct.error:  # it ends early
        return None


def _jpeg(frame: bytes) -> Claim | None:
    """From the frame header of ITU-T T.81 B.2.2; JPEG-LS has it, too (T.87 C.2.2)."""
    at = 2
    while True:
        mark, kind, length = struct.unpack_from(">BBH", frame, at)
        if mark != 0xFF:
            return None
        if kind == 0xFF:  # fill bytes may stand before a marker
            at += 1
        elif kind in FRAME_MARKERS:
            rows, columns, samples = struct.unpack_from(">HHB", frame, at + 5)
            return Claim(rows, columns, samples)
        else:
            at += 2 + length


def _jpeg_2000(frame: bytes) -> Claim | None:
    """From the SIZ segment (ITU-T T.800 A.5.1), which comes first."""
    start = frame.find(b"\xff\x4f\xff\x51")  # behind the boxes of a JP2 file, should there be some
    if start < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">4L", frame, start + 8)
    (samples,) = struct.unpack_from(">H", frame, start + 40)
    return Claim(bottom - top, right - left, samples)


# SOF0 to SOF15 without DHT, JPG and DAC; SOF55 is that of JPEG-LS.
FRAME_MARKERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}

HTJ2K: Final = tuple(UID(f"1.2.840.10008.1.2.4.{number}") for number in (201, 202, 203))

CLAIMS: Final[dict[UID, Callable[[bytes], Claim | None]]] = {
    **dict.fromkeys((*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes), _jpeg),
    **dict.fromkeys((*JPEG2000TransferSyntaxes, *HTJ2K), _jpeg_2000),
}
