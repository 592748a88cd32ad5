"""What is said to a reader whose segmentation was not used: which one, why, and the next step."""

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.valuerep import DA

from listener.errors import BadAttribute
from listener.series import Header, read_instance


@dataclass(frozen=True)
class Unused:
    """A segmentation that was sent in vain.

    Attributes:
        named: how a reader knows it, as far as its header tells.
        reason: why it was not used.
        remedy: what to do about it; empty where the reason tells.
    """

    named: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        said = f"A segmentation that was received ({self.named}) was not used: {self.reason}"
        return f"{said}; {self.remedy}." if self.remedy else f"{said}."


def unused(path: Path, reason: str, remedy: str) -> Unused:
    """Name a segmentation by its header.

    Raises:
        OSError: the file is not to be had at present.
    """
    try:
        named = _named(read_instance(path, pixels=False))
    except BadAttribute:
        named = "its header cannot be read"
    return Unused(named, reason, remedy)


def _named(dataset: Dataset) -> str:
    header = Header(dataset)
    number, description = header.whole("SeriesNumber"), header.text("SeriesDescription")
    series = "a series without number" if number is None else f"series {number}"
    parts = [series + (f' "{description}"' if description else "")]
    if day := _day(header.text("ContentDate")):
        parts.append(f"of {day}")
    return ", ".join(parts)


def _day(text: str) -> str:
    try:
        day = DA(text)
    except ValueError:
        return ""
    return "" if day is None else f"{day:%Y-%m-%d}"
