"""An instance that comes in pieces: written as they come, its UIDs found on the way.

So it is with the fragments of a C-STORE (quick_store.py) and with the body of a STOW-RS request
(dicomweb/store.py).
"""

import struct
from contextlib import suppress
from io import BytesIO
from typing import Final

from pydicom.uid import UID

from listener.errors import BadAttribute, SpoolFull
from listener.handlers import KEY_TAGS, LARGEST_HEADER_BYTES, read_key
from listener.series import InstanceKey
from listener.spool import Held, Incoming, Spool

# PS3.5 7.1 and PS3.6
TAG: Final = struct.Struct("<HH")
LONG: Final = struct.Struct("<L")
SHORT: Final = struct.Struct("<H")
LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
UNDEFINED_LENGTH: Final = 0xFFFFFFFF
SOP_CLASS_TAG, SOP_INSTANCE_TAG, STUDY_TAG, SERIES_TAG = KEY_TAGS
UID_TAGS: Final = frozenset(KEY_TAGS)

# Of a dataset, kept in memory in search of its UIDs.
KEPT_BYTES: Final = 1 << 20


class Piecewise:
    """An instance whose dataset is coming in: on disk as far as it came, and not acknowledged.

    Args:
        spool: that takes it.
        head: preamble and file meta information.
        syntax: that the dataset is encoded in.
        sop_class: that it was announced with.
        sop_uid: likewise.
        largest: bytes that the dataset may have.
    """

    def __init__(
        self,
        spool: Spool,
        head: bytes,
        syntax: UID,
        sop_class: str,
        sop_uid: str,
        largest: int,
    ) -> None:
        self.sop_class, self.sop_uid = sop_class, sop_uid
        self._syntax = syntax
        self._spool = spool
        self._begun = BytesIO()
        self._key: InstanceKey | None = None
        self._largest = largest
        self._refused: SpoolFull | BadAttribute | None = None
        self._incoming: Incoming | None = None
        try:
            self._incoming = spool.begin(head)
        except SpoolFull as error:  # the rest is read all the same, and then answered
            self._refused = error

    def take(self, content: memoryview) -> None:
        """Write the next piece of the dataset."""
        if self._incoming is None:
            return
        if self._incoming.size + len(content) > self._largest:
            self._refused = BadAttribute(
                f"instance {self.sop_uid} is larger than the {self._largest:,} bytes that are "
                "taken; raise MONRO_LARGEST_INSTANCE if it is wanted"
            )
            self.drop()
            return
        if self._key is None:
            self._look_for_key(content)
        try:
            self._spool.add(self._incoming, content)
        except SpoolFull as error:
            self._refused = error
            self.drop()

    @property
    def key(self) -> InstanceKey:
        """The UIDs, once all has come.

        Raises:
            BadAttribute: they are missing, malformed or contradict what was announced.
            SpoolFull: there was no room for it.
        """
        self._come()
        if self._key is None:  # unusual, or wrong: the usual way says which
            self._key = read_key(self._begun, self._syntax, self.sop_class, self.sop_uid)
        return self._key

    def keep(self) -> Held:
        """Put the instance on stable storage; raises what `key` does."""
        return self._spool.keep(self.key, self._come())

    def drop(self) -> None:
        """Leave nothing behind of what was not acknowledged; may be called again."""
        if self._incoming is not None:
            self._incoming.drop()
            self._incoming = None

    def _come(self) -> Incoming:
        if self._incoming is None:
            assert self._refused is not None
            raise self._refused
        return self._incoming

    def _look_for_key(self, content: memoryview) -> None:
        """Find the UIDs in the first piece, as is usual, or keep what they will be read from."""
        if self._begun.tell() == 0:
            with suppress(BadAttribute):
                self._key = quick_key(content, self._syntax, self.sop_class, self.sop_uid)
        kept = LARGEST_HEADER_BYTES if self._syntax.is_deflated else KEPT_BYTES
        if self._key is None and self._begun.tell() < kept:
            self._begun.write(content)


def quick_key(
    dataset: bytes | memoryview, syntax: UID, sop_class: str, sop_uid: str
) -> InstanceKey | None:
    """The UIDs of a dataset, where they are easily had and agree with the command.

    Args:
        dataset: encoded, at least as far as the UIDs.
        syntax: that it is encoded in.
        sop_class: that the command names.
        sop_uid: likewise.

    Returns:
        None for whatever is not plain: other byte orders, sequences of undefined length before the
        UIDs, absent or contradictory ones.
    """
    if not syntax.is_little_endian or syntax.is_deflated:
        return None
    try:
        found = _plain_uids(dataset, syntax.is_implicit_VR)
    except struct.error:  # the dataset ends within an element
        return None
    if (found.get(SOP_CLASS_TAG), found.get(SOP_INSTANCE_TAG)) != (sop_class, sop_uid):
        return None
    study_uid, series_uid = found.get(STUDY_TAG), found.get(SERIES_TAG)
    if study_uid is None or series_uid is None:
        return None
    return InstanceKey(study_uid, series_uid, sop_uid)


def _plain_uids(dataset: bytes | memoryview, implicit: bool) -> dict[int, str]:
    """Values of the four UIDs by tag, as far as elements of known length go."""
    found: dict[int, str] = {}
    at = 0
    while True:
        group, element = TAG.unpack_from(dataset, at)
        tag = group << 16 | element
        if tag > SERIES_TAG:
            return found
        if implicit:
            (length,), start = LONG.unpack_from(dataset, at + 4), at + 8
        elif bytes(dataset[at + 4 : at + 6]) in LONG_VRS:
            (length,), start = LONG.unpack_from(dataset, at + 8), at + 12
        else:
            (length,), start = SHORT.unpack_from(dataset, at + 6), at + 8
        if length == UNDEFINED_LENGTH:
            return {}
        if tag in UID_TAGS:
            if not implicit and bytes(dataset[at + 4 : at + 6]) != b"UI":
                return {}
            found[tag] = bytes(dataset[start : start + length]).rstrip(b"\0 ").decode("latin-1")
        at = start + length
