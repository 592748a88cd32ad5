"""What makes a study unusable, each with a code and a sentence for the radiologist.

Lengths are in mm. Volumes have the axes of volume.py: Right, Anterior, Superior.

The limits are wide on purpose: they keep out what no reader would call a scan of the whole head,
not what is merely poor. Those on the outline of the head were set on real heads of two makers, on
the same heads with pieces cut off, on noise and on plain bodies (tests/worker/test_quality.py).
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
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

# A missing slice doubles a gap; rounded positions move one by a hundredth.
GAP_TOLERANCE: Final = 0.1
# Slices that lean by more than 3 degrees against their normal no longer form an upright block.
LEAN_TOLERANCE: Final = 0.05
SAME_POSITION_MM: Final = 0.05  # far below any slice distance, above rounding
HEAD_LITRES: Final = (1.2, 12.0)  # a child's brain and skull; a head with neck and shoulders
FULLEST: Final = 0.9  # of the field of view; noise and close-ups fill all of it, heads a half


@dataclass(frozen=True)
class Demands:
    """What one analysis asks of the series that it reads.

    Attributes:
        series: which one, in words.
        contrast: whether a contrast agent must have been given before it.
        thickest_mm: distance from slice to slice.
        coarsest_mm: size of a pixel.
        fewest_slices: through the whole head.
        field_mm: smallest field of view that takes in what is looked at: R, A, S.
        height_mm: from the vertex down.
    """

    series: str
    contrast: bool
    thickest_mm: float
    coarsest_mm: float
    fewest_slices: int
    field_mm: tuple[float, float, float]
    height_mm: float


DEMANDS: Final[Mapping[str, Demands]] = MappingProxyType(
    {
        # The paper reads 1 mm; at 2.5 mm the thinnest signs (sinuses, cisterns) are still two
        # voxels wide.
        "fistula": Demands(
            series="a contrast-enhanced T1 series of the whole head, best 3D or in thin sagittal "
            "slices",
            contrast=True,
            thickest_mm=2.5,
            coarsest_mm=2.5,
            fewest_slices=40,
            field_mm=(120.0, 150.0, 130.0),
            height_mm=130.0,  # vertex to skull base
        ),
        # Slices of 5 mm and gaps are usual; texture of a millimetre needs pixels not much larger.
        "infection": Demands(
            series="an axial T2-weighted series of the whole head, without fluid suppression",
            contrast=False,
            thickest_mm=7.0,
            coarsest_mm=2.0,
            fewest_slices=15,
            field_mm=(120.0, 150.0, 90.0),
            height_mm=90.0,  # vertex to suprasellar cistern
        ),
    }
)


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
    BAD_DRAWING = "REASON-BAD-DRAWING"
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
    Reason.BAD_DRAWING: "A segmentation by a reader cannot be used",
    Reason.INTERNAL: "The software failed",
}

# What is needed where no check of this module refuses, but what comes before or after the checks.
NEEDED: Final = {
    Reason.UNREADABLE: "complete MR images in grey with their position; please send the series "
    "again",
    Reason.MIXED: "one stack of parallel images of one acquisition",
    Reason.TOO_LARGE: LIMITS.needed,
    Reason.NO_REGION: DEMANDS["infection"].series,
    Reason.BAD_DRAWING: "a segmentation drawn on the slices of the series, saved anew under a new "
    "UID",
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


def check_headers(facts: SeriesFacts, analysis: str) -> None:
    """Refuse what the headers of a series show to be unusable for an analysis.

    Raises:
        UnusableStudy: with the first of `header_checks` that finds something.
    """
    _apply(header_checks(DEMANDS[analysis]), facts)


def check_volume(volume: "Volume", analysis: str) -> None:
    """Refuse a volume whose slices or pixels are no scan of a whole head, as an analysis needs it.

    Raises:
        UnusableStudy: with the first of `volume_checks` or `outline_checks` that finds something.
    """
    demands = DEMANDS[analysis]
    _apply(volume_checks(demands), volume)
    _apply(outline_checks(demands), _outline(volume))


def no_series(found: str, analysis: str) -> UnusableStudy:
    """The refusal of a study that has no series for an analysis."""
    return UnusableStudy(Reason.NO_SERIES, found, DEMANDS[analysis].series)


def checks_table(analysis: str) -> tuple[tuple[str, str, str], ...]:
    """All that makes an analysis refuse a study, as rows of text: code, meaning, what is needed.

    The checks come in their order; what refuses without them comes last.
    """
    demands = DEMANDS[analysis]
    tables = (header_checks(demands), volume_checks(demands), outline_checks(demands))
    checked = [(check.reason, check.needed) for table in tables for check in table]
    rows = (*checked, (Reason.NO_SERIES, demands.series), *NEEDED.items())
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


def _coarse(demands: Demands, step_mm: float, pixel_mm: float) -> str | None:
    if step_mm > demands.thickest_mm:
        return f"slices of {step_mm:.1f} mm"
    return f"pixels of {pixel_mm:.1f} mm" if pixel_mm > demands.coarsest_mm else None


def _few(demands: Demands, slices: int) -> str | None:
    return f"{slices} slices" if slices < demands.fewest_slices else None


def _fine(demands: Demands) -> str:
    if demands.thickest_mm == demands.coarsest_mm:
        return f"slices and pixels of at most {demands.thickest_mm:g} mm"
    return (
        f"slices of at most {demands.thickest_mm:g} mm and pixels of at most "
        f"{demands.coarsest_mm:g} mm"
    )


def _enough(demands: Demands) -> str:
    return f"at least {demands.fewest_slices} slices through the whole head"


def header_checks(demands: Demands) -> tuple[Check[SeriesFacts], ...]:
    """What headers alone can show to be wrong, in order."""

    def coarse(facts: SeriesFacts) -> str | None:
        step = max(facts.slice_step or 0.0, facts.slice_thickness or 0.0)
        return _coarse(demands, step, max(facts.pixel_spacing or (0.0,)))

    contrast = Check(
        Reason.NO_CONTRAST,
        "a T1-weighted series acquired after a contrast agent was given",
        _no_contrast,
    )
    return (
        *([contrast] if demands.contrast else []),
        Check(Reason.THICK_SLICES, _fine(demands), coarse),
        Check(Reason.TOO_FEW_SLICES, _enough(demands), lambda facts: _few(demands, facts.slices)),
    )


# --- slices ---


def _repeated(volume: "Volume") -> str | None:
    repeated = int(np.count_nonzero(volume.gaps_mm < SAME_POSITION_MM))
    if not repeated:
        return None
    return f"{repeated} of {len(volume.slices)} slices at a position that another slice has"


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


def _box(lengths_mm: Iterable[float]) -> str:
    return " x ".join(f"{length:.0f}" for length in lengths_mm)


def volume_checks(demands: Demands) -> tuple[Check["Volume"], ...]:
    """What slices can show to be wrong, in order."""

    def coarse(volume: "Volume") -> str | None:
        first = volume.slices[0]
        step = float(np.median(volume.gaps_mm)) if len(volume.slices) > 1 else 0.0
        return _coarse(demands, step, max(first.row_spacing, first.column_spacing))

    def narrow(volume: "Volume") -> str | None:
        spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
        field = np.array(volume.voxels.shape) * spacing
        if np.all(field >= demands.field_mm):
            return None
        return f"images that cover {_box(field)} mm (side to side, front to back, height)"

    return (
        Check(Reason.DUPLICATE_POSITIONS, "one slice at each position", _repeated),
        Check(Reason.THICK_SLICES, _fine(demands), coarse),
        Check(
            Reason.TOO_FEW_SLICES,
            _enough(demands),
            lambda volume: _few(demands, len(volume.slices)),
        ),
        Check(
            Reason.UNEVEN_SLICES,
            "slices at equal distances; a slice may be missing, please send the series again",
            _uneven,
        ),
        Check(Reason.UNEVEN_SLICES, "slices that lie squarely behind each other", _leaning),
        Check(
            Reason.PARTIAL_HEAD,
            f"images of the whole head, at least {_box(demands.field_mm)} mm",
            narrow,
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


def outline_checks(demands: Demands) -> tuple[Check[Outline], ...]:
    """What the outline of the head can show to be wrong, in order."""

    def low(outline: Outline) -> str | None:
        height = outline.height_mm()
        if height >= demands.height_mm:
            return None
        return f"only {height:.0f} mm below the top of the head"

    return (
        Check(Reason.NOT_HEAD, A_HEAD, _all_over),
        Check(Reason.NOT_HEAD, A_HEAD, _wrong_size),
        Check(Reason.PARTIAL_HEAD, "images of the whole head with air around it", _cut_off),
        Check(
            Reason.PARTIAL_HEAD,
            f"at least {demands.height_mm:.0f} mm, from the top of the head to the base of the "
            "skull",
            low,
        ),
    )
