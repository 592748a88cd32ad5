"""Parses datasets that others wrote, and gives up on those that would fill the memory.

A few bytes can become a lot: an empty item of a sequence takes eight bytes on the wire and more
than a thousand as an object, and deflated zeros grow a thousandfold. So what is inflated is
counted, and so is each piece that pydicom reads on the way through elements and items.
"""

import io
import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, cast

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_sequence
from pydicom.sequence import Sequence as PydicomSequence
from pydicom.tag import BaseTag
from pydicom.uid import UID

# pydicom makes objects of the names in SpecificCharacterSet while it reads; there are a dozen.
LONGEST_CHARSET_BYTES: Final = 1024
CHARSET_TAGS: Final = (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")

# What pydicom, too, counts as pixels.
PIXELS: Final = frozenset({0x7FE00010, 0x7FE00009, 0x7FE00008})

FEW_BYTES: Final = 1 << 16

PREAMBLE_BYTES: Final = 132
"""PS3.10 7.1: 128 bytes of preamble and 'DICM' stand before the file meta information."""


# What pydicom 3 raises on broken files and elements; tests read a folder of such files.
BROKEN: Final = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class TooMuch(ValueError):
    """A dataset holds more than whoever reads it is ready to keep in memory."""


class Allowance:
    """What may be read of one dataset, or of several together.

    Args:
        most_bytes: of all of them.
        most_pieces: elements and items of all of them, roughly.
        most_in_one: likewise, of one dataset; None for no limit beside the other.

    Attributes:
        most_bytes: at the beginning.
        bytes_left: of them.
        exceeded: what there was too much of; empty while there was not.
    """

    def __init__(self, most_bytes: int, most_pieces: int, most_in_one: int | None = None) -> None:
        self.most_bytes = self.bytes_left = most_bytes
        self._pieces_left = most_pieces
        self._most_in_one = self._left_in_one = most_in_one or most_pieces
        self.exceeded = ""

    def begin(self) -> None:
        """Another dataset is read."""
        self._left_in_one = self._most_in_one

    def take(self, size: int) -> None:
        """Count one piece of so many bytes.

        Raises:
            TooMuch: it was the last straw.
        """
        self.bytes_left -= size
        self._pieces_left -= 1
        self._left_in_one -= 1
        if self.bytes_left < 0:
            self.refuse("too many bytes")
        if self._pieces_left < 0 or self._left_in_one < 0:
            self.refuse("too many elements and items")

    def refuse(self, why: str) -> NoReturn:
        """Let nothing more be read.

        pydicom makes an OSError of whatever it meets in a sequence, so it is kept in mind as well.
        """
        self.exceeded = why
        raise TooMuch(why)


class Measured:
    """A file that gives out no more than is allowed."""

    def __init__(self, file: BinaryIO, allowance: Allowance) -> None:
        self._file, self._allowance = file, allowance
        self._last = b""
        self.name = getattr(file, "name", "")
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """As a file's `read`.

        Raises:
            Deflated: pydicom is about to inflate all of it.
            TooMuch: there is more than is allowed.
        """
        if size < 0:
            raise Deflated
        if self._last in CHARSET_TAGS and size > LONGEST_CHARSET_BYTES:
            self._allowance.refuse("too many character sets")
        found = self._file.read(size if size <= FEW_BYTES else self._there(size))
        self._allowance.take(len(found))
        self._last = found[:4]
        return found

    def _there(self, size: int) -> int:
        """As many of so many bytes as there may be: a made-up length shall reserve no memory."""
        here = self.tell()
        end = self.seek(0, io.SEEK_END)
        self.seek(here)
        return min(size, max(0, end - here), max(0, self._allowance.bytes_left) + 1)


class Deflated(Exception):
    """What follows is deflated: only then does pydicom read a file to its end."""


def read_file(
    path: Path, *, pixels: bool, allowance: Allowance, only: Collection[int] | None = None
) -> Dataset:
    """Read a file, and all sequences in it, as pydicom does.

    Args:
        path: of a DICOM file with preamble and file meta information.
        pixels: whether pixels are read, too.
        allowance: what is read or inflated is taken from it.
        only: elements to keep where nothing is deflated; None for all.

    Raises:
        TooMuch: there are more, or too many elements and items.
        Exception: whatever pydicom raises on broken files.
    """
    allowance.begin()
    with path.open("rb") as file, _measured(allowance):
        try:
            dataset: Dataset = pydicom.dcmread(
                cast(BinaryIO, Measured(file, allowance)),
                stop_before_pixels=not pixels,
                specific_tags=cast(Any, only and list(only)),
            )
        except Deflated:
            dataset = _inflated(file, pixels, allowance)
        _unfold(dataset, allowance)
    return dataset


def read_encoded(
    encoded: io.BytesIO,
    syntax: UID,
    *,
    most_bytes: int,
    most_pieces: int,
    stop_when: Callable[[BaseTag, str | None, int], bool] | None = None,
    only: Sequence[int] | None = None,
) -> Dataset:
    """Read an encoded dataset, and all sequences in it.

    Args:
        encoded: at least as far as it is to be read.
        syntax: that it is encoded in.
        most_bytes: that may be read, and that a deflated dataset is inflated to.
        most_pieces: elements and items, roughly.
        stop_when: as pydicom's.
        only: elements to keep; None for all.

    Raises:
        TooMuch: there are more bytes to read, or too many elements and items.
        Exception: whatever pydicom raises on broken datasets.
    """
    if syntax.is_deflated:
        encoded = io.BytesIO(_inflate(encoded.getbuffer(), most_bytes)[0])
    encoded.seek(0)
    allowance = Allowance(most_bytes, most_pieces)
    with _measured(allowance):
        dataset = read_dataset(
            cast(BinaryIO, Measured(encoded, allowance)),
            syntax.is_implicit_VR,
            syntax.is_little_endian,
            stop_when=stop_when,
            specific_tags=cast(Any, only and list(only)),
        )
        _unfold(dataset, allowance)
    return dataset


@contextmanager
def _measured(allowance: Allowance) -> Iterator[None]:
    """Tell what is too much by its name, whatever pydicom made of it."""
    try:
        yield
    except BROKEN as error:
        if allowance.exceeded and not isinstance(error, TooMuch):
            raise TooMuch(allowance.exceeded) from error
        raise


def _inflate(deflated: bytes | memoryview, most_bytes: int) -> tuple[bytes, bool]:
    """Inflate a dataset so far, and say whether that is all of it (PS3.5 A.5: no zlib header)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    found = inflater.decompress(deflated, most_bytes)
    return found, not inflater.unconsumed_tail


def _inflated(file: BinaryIO, pixels: bool, allowance: Allowance) -> Dataset:
    """The dataset of a deflated file, inflated as far as is allowed."""
    file.seek(PREAMBLE_BYTES)
    meta = FileMetaDataset(read_dataset(file, False, True, stop_when=_is_after_meta))
    inflated, is_all = _inflate(file.read(), max(1, allowance.bytes_left))
    if pixels and not is_all:
        allowance.refuse("too many bytes once inflated")
    dataset = read_dataset(
        cast(BinaryIO, Measured(io.BytesIO(inflated), allowance)),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=None if pixels else _is_after_header,
    )
    dataset.file_meta = meta
    return dataset


def _is_after_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _is_after_header(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in PIXELS


def _unfold(dataset: Dataset, allowance: Allowance) -> None:
    """Parse the sequences of known length, too, which pydicom leaves until somebody looks.

    One that is broken stays as it is: it is nobody's loss until somebody looks. Private ones, which
    nobody looks at, are left alone.
    """
    for element in list(dataset.elements()):
        if not _is_sequence(element):
            continue
        if isinstance(element, RawDataElement):
            try:
                items = _items(element, dataset.original_character_set, allowance)
            except BROKEN:
                if allowance.exceeded:
                    raise
                continue
            dataset[element.tag] = DataElement(element.tag, "SQ", items)
        for item in dataset[element.tag].value or ():
            _unfold(item, allowance)


def _items(element: RawDataElement, charset: Any, allowance: Allowance) -> PydicomSequence:
    value = element.value or b""
    return read_sequence(
        cast(BinaryIO, Measured(io.BytesIO(value), allowance)),
        element.is_implicit_VR,
        element.is_little_endian,
        len(value),
        charset,
    )


def _is_sequence(element: RawDataElement | DataElement) -> bool:
    if element.tag.is_private:
        return False
    if element.VR not in (None, "UN"):
        return element.VR == "SQ"
    try:
        return dictionary_VR(element.tag) == "SQ"
    except KeyError:  # unknown
        return False
