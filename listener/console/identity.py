"""Whose a study is, and which examination: read from a header in the spool, kept in no table."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Final, Literal

from pydicom.datadict import tag_for_keyword

from listener.audit.patient import read_front
from listener.reading import BROKEN
from listener.series import may_pass
from listener.wording import fold

log = logging.getLogger(__name__)

State = Literal["known", "gone", "unreadable", "unread"]

KEYWORDS: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate",
    "StudyDescription",
)  # fmt: skip
"""In the order of `Identity`."""

TAGS: Final = tuple(tag for tag in map(tag_for_keyword, KEYWORDS) if tag is not None)


@dataclass(frozen=True, slots=True)
class Identity:
    """A study as a header names it; empty where the header does not. Dates are as DICOM has them.

    Attributes:
        state: known: a header was read, whatever it says; gone: no file is left in the spool;
            unreadable: there is one that cannot be read at present; unread: nobody has tried yet.
    """

    name: str = ""
    identifier: str = ""
    birth_date: str = ""
    sex: str = ""
    accession_number: str = ""
    study_date: str = ""
    description: str = ""
    state: State = field(default="known", kw_only=True)

    @property
    def searchable(self) -> str:
        """What a search looks at: name, ID and accession number, folded."""
        told = f"{self.name} {self.identifier} {self.accession_number}"
        return fold(told).replace("^", " ")


GONE: Final = Identity(state="gone")
UNREADABLE: Final = Identity(state="unreadable")
UNREAD: Final = Identity(state="unread")


def read_identity(path: Path | None) -> Identity:
    """What a file says of its study.

    Args:
        path: of an instance of it; None where none is left.
    """
    if path is None:
        return GONE
    try:
        header = read_front(path, TAGS)
        # Dates and descriptions are the same in many studies, and held once.
        told = (intern(str(header.get(keyword) or "").strip()) for keyword in KEYWORDS)
        return Identity(*told)
    except BROKEN as error:
        if may_pass(error):
            return UNREADABLE
        log.warning("%s does not tell whose it is: %s", path.name, type(error).__name__)
        return Identity()
