"""Whether a file ends where its dataset does, by the lengths that its elements tell.

Nothing is decoded and no value is read: the walk goes from one header to the next (PS3.5 7.1, 7.5),
into items of undefined length and past all others.
"""

import struct
from pathlib import Path
from typing import BinaryIO, Final

from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

ITEMS: Final = 0xFFFE
ITEM: Final = 0xE000
UNDEFINED_LENGTH: Final = 0xFFFFFFFF
LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
HEADER_BYTES: Final = 8
LONG_LENGTH_BYTES: Final = 4


def ends_within_an_element(path: Path, offset: int) -> bool:
    """Whether a file was cut off: its last element, item or sequence is not over.

    Args:
        path: of an instance.
        offset: bytes before its dataset.

    Returns:
        False where that cannot be told: where the header names no transfer syntax of DICOM's, of a
        deflated dataset, and of unknown elements of undefined length, which are encoded in a way of
        their own (PS3.5 6.2.2).

    Raises:
        OSError: the file could not be read.
    """
    syntax = UID(read_file_meta_info(path).get("TransferSyntaxUID") or "")
    if not syntax.is_transfer_syntax or syntax.is_deflated:
        return False
    size = path.stat().st_size
    order = "<" if syntax.is_little_endian else ">"
    with path.open("rb") as file:
        at, open_levels = offset, 0
        while at < size:
            file.seek(at)
            try:
                is_item, number, length, header = _header(file, order, syntax.is_implicit_VR)
            except struct.error:
                return True
            at += len(header)
            if length == UNDEFINED_LENGTH:
                if header[4:6] == b"UN":
                    return False
                open_levels += 1
            elif is_item and number != ITEM:  # a delimiter
                open_levels -= 1
            else:
                at += length
    return at > size or open_levels > 0


def _header(file: BinaryIO, order: str, implicit: bool) -> tuple[bool, int, int, bytes]:
    """Whether it is of an item or delimiter, its element number, the value's length, and itself.

    Raises:
        struct.error: the file ends within it.
    """
    header = file.read(HEADER_BYTES)
    group, number, length = struct.unpack(f"{order}HHL", header)
    is_item = group == ITEMS
    if implicit or is_item:
        return is_item, number, length, header
    if header[4:6] not in LONG_VRS:
        return is_item, number, struct.unpack(f"{order}H", header[6:])[0], header
    rest = file.read(LONG_LENGTH_BYTES)
    (length,) = struct.unpack(f"{order}L", rest)
    return is_item, number, length, header + rest
