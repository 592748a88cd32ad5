"""What a courier must know of the way to a destination: C-STORE and STOW-RS look the same here."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from pydicom import Dataset, dcmread
from pynetdicom.status import code_to_category

from listener.entries import Pending, Result
from listener.errors import MonroError
from listener.series import BROKEN

PERMANENT_STATUSES: Final = (
    range(0xA900, 0xAA00),
    range(0xC000, 0xD000),
    range(0x0122, 0x0123),
)
"""PS3.4 B.2.3 and PS3.18 10.5.3: the object itself is refused, and will be refused again."""

DUPLICATE: Final = 0x0111
"""PS3.7 C.5.2: the destination has an object of this UID. Ours derive from their content."""


class NotReached(MonroError):
    """A destination does not answer, or does not let us in: what is meant for it waits."""


@dataclass(frozen=True)
class Answer:
    """What a destination made of one object."""

    state: str
    """SENT, PARKED, or PENDING to be tried again."""
    message: str
    status: int | None = None
    sent_as: str | None = None


Send = Callable[[Pending], Answer]
"""Sends one object, in the first of its encodings that the destination takes; or NotReached."""


class Carrier(Protocol):
    """How results get to one destination."""

    def calling(self, of_job: Sequence[Pending]) -> AbstractContextManager[Send]:
        """Call the destination to send it these.

        Raises:
            NotReached: it does not answer.
        """


def read_result(result: Result) -> Dataset | Answer:
    """Read a result; an answer where its file is not what was kept."""
    try:
        dataset = dcmread(result.path)
        if (dataset.SOPClassUID, dataset.SOPInstanceUID) != (result.sop_class, result.sop_uid):
            raise ValueError(result.path)
    except BROKEN as error:
        why = f"cannot be read ({type(error).__name__})"
        return Answer("PENDING", f"the file of the result {why}: restore {result.path}")
    return dataset


def answer_of(status: int, result: Result) -> Answer:
    """Sort a status, or the reason of a failure or warning, by what to do.

    A warning means that the object was stored, perhaps with coerced attributes (PS3.4 B.2.3).
    """
    category = code_to_category(status)
    said = f"0x{status:04X} {category}"
    if category in ("Success", "Warning") or status == DUPLICATE:
        return Answer("SENT", said, status, sent_as=result.sop_uid)
    if any(status in statuses for statuses in PERMANENT_STATUSES):
        return Answer("PARKED", f"rejected with {said}", status)
    return Answer("PENDING", f"not stored: {said}", status)


def accepts_none_of(encodings: Sequence[Result]) -> Answer:
    """The answer of a destination that takes no encoding of an object."""
    offered = ", ".join(sorted({result.sop_class for result in encodings}))
    return Answer("PARKED", f"the destination accepts no object of class {offered}")
