"""What the codes of refusals mean, in words: those that workers know."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "REASON-NO-CONTRAST": "No evidence of a contrast agent",
        "REASON-TOO-FEW-SLICES": "Too few slices for a whole head",
        "REASON-UNEVEN-SLICES": "Slices are not evenly spaced",
        "REASON-PARTIAL-HEAD": "The head is not covered completely",
        "REASON-THICK-SLICES": "Slices or pixels are too coarse",
        "REASON-MIXED": "The series mixes different acquisitions",
        "REASON-DUPLICATE-POSITIONS": "Several slices lie at the same position",
        "REASON-UNREADABLE": "Images cannot be read",
        "REASON-NOT-HEAD": "The images do not look like a head",
        "REASON-TOO-LARGE": "The series is larger than can be processed",
        "REASON-NO-SERIES": "No suitable series in the study",
        "REASON-NO-REGION": "A region to be judged cannot be found",
        "REASON-BAD-DRAWING": "A segmentation by a reader cannot be used",
        "REASON-INTERNAL": "The software failed",
    }
)


def in_words(code: str) -> str:
    """A code in words; a code that is not known stays as it is.

    >>> in_words("REASON-UNREADABLE"), in_words("REASON-OF-TOMORROW")
    ('Images cannot be read', 'REASON-OF-TOMORROW')
    """
    return WORDS.get(code, code)
