"""A PS3.10 file as it comes in the part of a body: its head is read, its dataset is written.

The dataset is kept exactly as sent, and so is what stands before it; only where the file meta
information has no group length, or a wrong one, it is written anew: the spool leans on that.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID
from pynetdicom.dsutils import encode_file_meta

from listener.errors import BadAttribute, DoesNotMatch
from listener.piecewise import LONG, LONG_VRS, SHORT, TAG, Piecewise
from listener.series import BROKEN, require_uid
from listener.server import INDUSTRIAL_STORAGE, STORAGE_CLASSES, TRANSFER_SYNTAXES
from listener.spool import GROUP_LENGTH_BYTES, PREAMBLE_BYTES, Held, Spool

PREFIX: Final = b"DICM"
META_GROUP: Final = 0x0002
LONGEST_ELEMENT_HEADER: Final = 12
LARGEST_HEAD_BYTES: Final = 1 << 20
"""Preamble and meta information take some hundred bytes; private information may be added."""


class UnknownClass(BadAttribute):
    """An instance is of a SOP class that is not for storage."""


class UnknownSyntax(BadAttribute):
    """An instance is encoded in a way that nobody could read."""


@dataclass(frozen=True)
class Head:
    """What stands before the dataset of a file.

    Attributes:
        size: bytes of it as it came.
        written: as it is kept.
    """

    size: int
    written: bytes
    syntax: UID
    sop_class: str
    sop_uid: str


class FilePart:
    """A file that is coming in.

    Args:
        spool: that takes it.
        study_uid: of the study that it must belong to; None for any.
        largest: bytes that its dataset may have.

    Attributes:
        head: None until it is here.
    """

    def __init__(self, spool: Spool, study_uid: str | None, largest: int) -> None:
        self.head: Head | None = None
        self._spool, self._study_uid, self._largest = spool, study_uid, largest
        self._begun = bytearray()
        self._needed = PREAMBLE_BYTES + LONGEST_ELEMENT_HEADER
        self._instance: Piecewise | None = None

    def take(self, content: memoryview) -> None:
        """Take the next piece of the file.

        Raises:
            BadAttribute: it is none that we keep.
        """
        if self._instance is not None:
            self._instance.take(content)
            return
        self._begun += content
        if len(self._begun) < self._needed:
            return
        begun = bytes(self._begun)
        found = read_head(begun)
        if isinstance(found, int):
            self._needed = found
            return
        self.head, self._begun = found, bytearray()
        _require_storable(found)
        self._instance = Piecewise(
            self._spool,
            found.written,
            found.syntax,
            found.sop_class,
            found.sop_uid,
            self._largest,
        )
        self._instance.take(memoryview(begun)[found.size :])

    def keep(self) -> Held:
        """Put the file on stable storage.

        Raises:
            BadAttribute: it is none that we keep.
            SpoolFull: there was no room for it.
        """
        if self._instance is None:
            raise BadAttribute(
                f"a file ends after {len(self._begun)} bytes, before its dataset; send it again "
                "from the source"
            )
        key = self._instance.key
        if self._study_uid not in (None, key.study_uid):
            raise DoesNotMatch(
                f"instance {key.sop_uid} is of study {key.study_uid}, but was sent to "
                f"{self._study_uid}; send it to its own study, or to /studies"
            )
        return self._instance.keep()

    def drop(self) -> None:
        """Leave nothing behind of what was not acknowledged; may be called again."""
        if self._instance is not None:
            self._instance.drop()


def read_head(begun: bytes) -> Head | int:
    """Read what stands before the dataset (PS3.10 7.1).

    Args:
        begun: the file as far as it came.

    Returns:
        The head, or with how many bytes it may be tried again.

    Raises:
        BadAttribute: this is no DICOM file, or its meta information cannot be read.
    """
    if begun[PREAMBLE_BYTES - len(PREFIX) : PREAMBLE_BYTES] != PREFIX:
        raise BadAttribute("a part is no DICOM file: it has no DICM after its preamble")
    at = PREAMBLE_BYTES
    while True:
        if len(begun) < at + LONGEST_ELEMENT_HEADER:
            return at + LONGEST_ELEMENT_HEADER
        if not _is_meta(begun, at):
            return _head(begun[:at])
        if begun[at + 4 : at + 6] in LONG_VRS:
            (length,), start = LONG.unpack_from(begun, at + 8), at + 12
        else:
            (length,), start = SHORT.unpack_from(begun, at + 6), at + 8
        at = start + length
        if at > LARGEST_HEAD_BYTES:
            raise BadAttribute(
                f"the meta information of a file takes more than {LARGEST_HEAD_BYTES:,} bytes; "
                "send it again from the source"
            )


def _is_meta(begun: bytes, at: int) -> bool:
    """Whether an element of the meta information follows.

    A deflated dataset may begin with any bytes; by its value representation it is told apart.
    """
    group, _element = TAG.unpack_from(begun, at)
    representation = begun[at + 4 : at + 6]
    return group == META_GROUP and representation.isalpha() and representation.isupper()


def _is_sound(begun: bytes) -> bool:
    """Whether the group length is there and right."""
    first = begun[PREAMBLE_BYTES : PREAMBLE_BYTES + GROUP_LENGTH_BYTES]
    length = len(begun) - PREAMBLE_BYTES - GROUP_LENGTH_BYTES
    return first == b"\x02\x00\x00\x00UL\x04\x00" + LONG.pack(max(length, 0))


def _head(begun: bytes) -> Head:
    try:
        stream = BytesIO(begun[PREAMBLE_BYTES:])
        meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True)
        syntax = _uid(meta, "TransferSyntaxUID")
        sop_class = _uid(meta, "MediaStorageSOPClassUID")
        sop_uid = _uid(meta, "MediaStorageSOPInstanceUID")
        written = begun
        if not _is_sound(begun):
            written = begun[:PREAMBLE_BYTES] + encode_file_meta(FileMetaDataset(meta))
    except BROKEN as error:
        raise BadAttribute(
            f"the meta information of a file cannot be read ({type(error).__name__}); send it "
            "again from the source"
        ) from error
    return Head(len(begun), written, UID(syntax), sop_class, sop_uid)


def _uid(meta: Dataset, keyword: str) -> str:
    value = str(meta.get(keyword, ""))
    require_uid(keyword, value)
    return value


def _require_storable(head: Head) -> None:
    """Raise unless the same would be accepted in an association."""
    sop_class = UID(head.sop_class)
    if not (
        sop_class in STORAGE_CLASSES or sop_class in INDUSTRIAL_STORAGE or sop_class.is_private
    ):
        raise UnknownClass(
            f"instance {head.sop_uid}: {head.sop_class} is no SOP class of instances that belong "
            "to a study; leave it out"
        )
    if head.syntax not in TRANSFER_SYNTAXES:
        raise UnknownSyntax(
            f"instance {head.sop_uid}: transfer syntax {head.syntax} is not known; convert it to "
            "Explicit VR Little Endian"
        )
