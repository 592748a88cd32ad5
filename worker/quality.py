"""What makes a study unusable, each with a code and a sentence for the radiologist.

Lengths are in mm. Volumes have the axes of volume.py: Right, Anterior, Superior.
"""

import enum


class Reason(enum.Enum):
    """Why a study was not judged; the value is the code of results.md R13 in scheme 99MONRO."""

    NO_CONTRAST = "REASON-NO-CONTRAST"
    TOO_FEW_SLICES = "REASON-TOO-FEW-SLICES"
    UNEVEN_SLICES = "REASON-UNEVEN-SLICES"
    PARTIAL_HEAD = "REASON-PARTIAL-HEAD"
    THICK_SLICES = "REASON-THICK-SLICES"
    MIXED = "REASON-MIXED"
    DUPLICATE_POSITIONS = "REASON-DUPLICATE-POSITIONS"
    UNREADABLE = "REASON-UNREADABLE"
    NOT_HEAD = "REASON-NOT-HEAD"
    TOO_LARGE = "REASON-TOO-LARGE"
    NO_SERIES = "REASON-NO-SERIES"
    INTERNAL = "REASON-INTERNAL"

    @property
    def meaning(self) -> str:
        """The reason in plain English, at most 64 characters: a code meaning (PS3.5, VR LO)."""
        return MEANINGS[self]


MEANINGS = {
    Reason.NO_CONTRAST: "No evidence of a contrast agent",
    Reason.TOO_FEW_SLICES: "Too few slices for a whole head",
    Reason.UNEVEN_SLICES: "Slices are not evenly spaced",
    Reason.PARTIAL_HEAD: "The head is not covered completely",
    Reason.THICK_SLICES: "Slices are too thick or too far apart",
    Reason.MIXED: "The series mixes different acquisitions",
    Reason.DUPLICATE_POSITIONS: "Several slices lie at the same position",
    Reason.UNREADABLE: "Images cannot be read",
    Reason.NOT_HEAD: "The images do not look like a head",
    Reason.TOO_LARGE: "The series is larger than can be processed",
    Reason.NO_SERIES: "No suitable series in the study",
    Reason.INTERNAL: "The software failed",
}


class UnusableStudy(Exception):
    """The study cannot be judged, and this is why.

    Args:
        reason: the coded reason.
        found: what was found, in plain words and without a full stop.
        needed: what is needed, likewise.
    """

    def __init__(self, reason: Reason, found: str, needed: str) -> None:
        # All arguments go to Exception, so that the refusal survives pickling between processes.
        super().__init__(reason, found, needed)
        self.reason = reason
        self.found = found
        self.needed = needed

    def __str__(self) -> str:
        return f"{self.reason.meaning}: found {self.found}; needed {self.needed}."
