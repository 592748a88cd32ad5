"""What makes a study unusable, each with a code and a sentence for the radiologist.

Lengths are in mm. Volumes have the axes of volume.py: Right, Anterior, Superior.

The limits are wide on purpose: they keep out what no reader would call a scan of the whole head,
not what is merely poor. Those on the outline of the head were set on real heads of two makers, on
the same heads with pieces cut off, on noise and on plain bodies (tests/worker/test_quality.py).
"""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from listener.selection import contrast_evidence
from listener.series import SeriesFacts
from listener.wording import Said, contrast_said
from worker.limits import LIMITS
from worker.preprocess import MASK_SPACING_MM, NoHead, head_mask

if TYPE_CHECKING:
    from worker.volume import Volume

# The paper reads 1 mm; at 2.5 mm the thinnest signs (sinuses, cisterns) are still two voxels wide.
THICKEST_MM: Final = 2.5
FEWEST_SLICES: Final = 40
# A missing slice doubles a gap; rounded positions move one by a hundredth.
GAP_TOLERANCE: Final = 0.1
# Slices that lean by more than 3 degrees against their normal no longer form an upright block.
LEAN_TOLERANCE: Final = 0.05
SAME_POSITION_MM: Final = 0.05  # far below any slice distance, above rounding
# The smallest field of view that takes in a whole adult head, and one with large margins: R, A, S.
FIELD_OF_VIEW_MM: Final = (120.0, 150.0, 130.0)
HEAD_LITRES: Final = (1.2, 12.0)  # a child's brain and skull; a head with neck and shoulders
FULLEST: Final = 0.9  # of the field of view; noise and close-ups fill all of it, heads a half
HEAD_HEIGHT_MM: Final = 130.0  # vertex to skull base


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
    NO_REGION = "REASON-NO-REGION"
    INTERNAL = "REASON-INTERNAL"

    @property
    def meaning(self) -> str:
        """The reason in plain English, at most 64 characters: a code meaning (PS3.5, VR LO)."""
        return MEANINGS[self]


MEANINGS: Final = {
    Reason.NO_CONTRAST: "No evidence of a contrast agent",
    Reason.TOO_FEW_SLICES: "Too few slices for a whole head",
    Reason.UNEVEN_SLICES: "Slices are not evenly spaced",
    Reason.PARTIAL_HEAD: "The head is not covered completely",
    Reason.THICK_SLICES: "Slices or pixels are too coarse",
    Reason.MIXED: "The series mixes different acquisitions",
    Reason.DUPLICATE_POSITIONS: "Several slices lie at the same position",
    Reason.UNREADABLE: "Images cannot be read",
    Reason.NOT_HEAD: "The images do not look like a head",
    Reason.TOO_LARGE: "The series is larger than can be processed",
    Reason.NO_SERIES: "No suitable series in the study",
    Reason.NO_REGION: "A region to be judged cannot be found",
    Reason.INTERNAL: "The software failed",
}

# What is needed where no check of this module refuses, but what comes before or after the checks.
NEEDED: Final = {
    Reason.NO_SERIES: "a contrast-enhanced T1 series of the whole head, best 3D or in thin "
    "sagittal slices",
    Reason.UNREADABLE: "complete MR images in grey with their position; please send the series "
    "again",
    Reason.MIXED: "one stack of parallel images of one acquisition",
    Reason.TOO_LARGE: LIMITS.needed,
    Reason.NO_REGION: "an axial T2-weighted series of the whole head, without fluid suppression",
    Reason.INTERNAL: "the attention of the operator, who finds the reason with `listener show` and "
    "in the worker's log",
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


T = TypeVar("T")


@dataclass(frozen=True)
class Check(Generic[T]):
    """One row of a table: `finds` puts into words what is wrong, or returns None."""

    reason: Reason
    needed: str
    finds: Callable[[T], str | None]


@dataclass(frozen=True, eq=False)
class Outline:
    """Where the head is, on a grid of MASK_SPACING_MM; the same outline that the network sees.

    Attributes:
        mask: (X, Y, Z) bool, axes R, A, S; cavities are filled.
    """

    mask: NDArray[np.bool_]

    @property
    def litres(self) -> float:
        """Volume of the head, neck included."""
        return float(self.mask.sum()) * MASK_SPACING_MM**3 / 1e6

    def height_mm(self) -> float:
        """From the lowest to the highest point."""
        lit = np.flatnonzero(self.mask.any(axis=(0, 1)))
        return float(lit[-1] - lit[0] + 1) * MASK_SPACING_MM

    def cut(self, axis: int, end: int) -> float:
        """Area of the outermost section, as a fraction of the largest along `axis`."""
        others = tuple(other for other in range(3) if other != axis)
        areas = self.mask.sum(axis=others)
        return float(areas[end] / areas.max())


def check_headers(facts: SeriesFacts) -> None:
    """Refuse what the headers of a series show to be unusable.

    Raises:
        UnusableStudy: with the first row of HEADER_CHECKS that finds something.
    """
    _apply(HEADER_CHECKS, facts)


def check_volume(volume: "Volume") -> None:
    """Refuse a volume whose slices or pixels are no scan of a whole head.

    Raises:
        UnusableStudy: with the first row of VOLUME_CHECKS or OUTLINE_CHECKS that finds something.
    """
    _apply(VOLUME_CHECKS, volume)
    _apply(OUTLINE_CHECKS, _outline(volume))


def checks_table() -> tuple[tuple[str, str, str], ...]:
    """All that refuses a study, as rows of text: code, meaning, what is needed.

    The checks come in their order; what refuses without them comes last.
    """
    tables = (HEADER_CHECKS, VOLUME_CHECKS, OUTLINE_CHECKS)
    checked = [(check.reason, check.needed) for table in tables for check in table]
    rows = (*checked, *NEEDED.items())
    return tuple((reason.value, reason.meaning, needed) for reason, needed in rows)


def _apply(checks: tuple[Check[T], ...], subject: T) -> None:
    for check in checks:
        found = check.finds(subject)
        if found is not None:
            raise UnusableStudy(check.reason, found, check.needed)


# --- headers ---


def _no_contrast(facts: SeriesFacts) -> str | None:
    if contrast_evidence(facts) is not None:
        return None
    if contrast_said(facts.description) is Said.UNENHANCED:
        return "a series whose description says that it was acquired without contrast"
    return "no contrast agent in the header and no word of contrast in the series description"


def _coarse_header(facts: SeriesFacts) -> str | None:
    step = max(facts.slice_step or 0.0, facts.slice_thickness or 0.0)
    return _coarse(step, max(facts.pixel_spacing or (0.0,)))


def _coarse(step_mm: float, pixel_mm: float) -> str | None:
    if step_mm > THICKEST_MM:
        return f"slices of {step_mm:.1f} mm"
    return f"pixels of {pixel_mm:.1f} mm" if pixel_mm > THICKEST_MM else None


def _few(slices: int) -> str | None:
    return f"{slices} slices" if slices < FEWEST_SLICES else None


FINE: Final = f"slices and pixels of at most {THICKEST_MM} mm"
ENOUGH: Final = f"at least {FEWEST_SLICES} slices through the whole head"

HEADER_CHECKS: Final[tuple[Check[SeriesFacts], ...]] = (
    Check(
        Reason.NO_CONTRAST,
        "a T1-weighted series acquired after a contrast agent was given",
        _no_contrast,
    ),
    Check(Reason.THICK_SLICES, FINE, _coarse_header),
    Check(Reason.TOO_FEW_SLICES, ENOUGH, lambda facts: _few(facts.slices)),
)


# --- slices ---


def _repeated(volume: "Volume") -> str | None:
    repeated = int(np.count_nonzero(volume.gaps_mm < SAME_POSITION_MM))
    if not repeated:
        return None
    return f"{repeated} of {len(volume.slices)} slices at a position that another slice has"


def _coarse_volume(volume: "Volume") -> str | None:
    first = volume.slices[0]
    step = float(np.median(volume.gaps_mm)) if len(volume.slices) > 1 else 0.0
    return _coarse(step, max(first.row_spacing, first.column_spacing))


def _uneven(volume: "Volume") -> str | None:
    usual = float(np.median(volume.gaps_mm))
    worst = int(np.argmax(np.abs(volume.gaps_mm - usual)))
    gap = float(volume.gaps_mm[worst])
    if abs(gap - usual) <= GAP_TOLERANCE * usual:
        return None
    return (
        f"slices {worst + 1} and {worst + 2} at a distance of {gap:.2f} mm where the rest are "
        f"{usual:.2f} mm apart"
    )


def _leaning(volume: "Volume") -> str | None:
    sideways = float(np.max(volume.shifts_mm))
    if sideways <= LEAN_TOLERANCE * float(np.median(volume.gaps_mm)):
        return None
    return f"slices shifted sideways by {sideways:.2f} mm against their neighbours"


def _narrow(volume: "Volume") -> str | None:
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    field = np.array(volume.voxels.shape) * spacing
    if np.all(field >= FIELD_OF_VIEW_MM):
        return None
    return f"images that cover {_box(field)} mm (side to side, front to back, height)"


def _box(lengths_mm: Iterable[float]) -> str:
    return " x ".join(f"{length:.0f}" for length in lengths_mm)


VOLUME_CHECKS: Final[tuple[Check["Volume"], ...]] = (
    Check(Reason.DUPLICATE_POSITIONS, "one slice at each position", _repeated),
    Check(Reason.THICK_SLICES, FINE, _coarse_volume),
    Check(Reason.TOO_FEW_SLICES, ENOUGH, lambda volume: _few(len(volume.slices))),
    Check(
        Reason.UNEVEN_SLICES,
        "slices at equal distances; a slice may be missing, please send the series again",
        _uneven,
    ),
    Check(Reason.UNEVEN_SLICES, "slices that lie squarely behind each other", _leaning),
    Check(
        Reason.PARTIAL_HEAD,
        f"images of the whole head, at least {_box(FIELD_OF_VIEW_MM)} mm",
        _narrow,
    ),
)


# --- outline of the head ---


def _outline(volume: "Volume") -> Outline:
    try:
        return Outline(head_mask(volume.voxels, volume.affine)[0])
    except NoHead as error:
        raise UnusableStudy(
            Reason.NOT_HEAD, "nothing that stands out from its background", A_HEAD
        ) from error


def _all_over(outline: Outline) -> str | None:
    full = float(outline.mask.mean()) > FULLEST
    return "brightness all over the images, as in noise or a close view" if full else None


def _wrong_size(outline: Outline) -> str | None:
    least, most = HEAD_LITRES
    if least <= outline.litres <= most:
        return None
    return f"an object of {outline.litres:.1f} litres"


def _cut_off(outline: Outline) -> str | None:
    return next((words for words, axis, end, most in CUTS if outline.cut(axis, end) > most), None)


def _low(outline: Outline) -> str | None:
    height = outline.height_mm()
    return f"only {height:.0f} mm below the top of the head" if height < HEAD_HEIGHT_MM else None


A_HEAD: Final = "MR images of the head, {:g} to {:g} litres in size".format(*HEAD_LITRES)

# How large the outermost section may be, as a fraction of the largest: skin and ears may be cut,
# brain not; the nose may be cut, the forehead not. The neck is always cut.
CUTS: Final = (
    ("a head that is cut off at its left side", 0, 0, 0.4),
    ("a head that is cut off at its right side", 0, -1, 0.4),
    ("a head that is cut off at the back", 1, 0, 0.3),
    ("a head that is cut off at the front", 1, -1, 0.6),
    ("a head that is cut off at the top", 2, -1, 0.35),
)
OUTLINE_CHECKS: Final[tuple[Check[Outline], ...]] = (
    Check(Reason.NOT_HEAD, A_HEAD, _all_over),
    Check(Reason.NOT_HEAD, A_HEAD, _wrong_size),
    Check(Reason.PARTIAL_HEAD, "images of the whole head with air around it", _cut_off),
    Check(
        Reason.PARTIAL_HEAD,
        f"at least {HEAD_HEIGHT_MM:.0f} mm, from the top of the head to the base of the skull",
        _low,
    ),
)
