"""Synthetic head MRI with known signs of intracranial hypotension: demo, tests, benchmarks.

A cartoon, for testing software and the sanity of learning only, never for claims. A head is a pile
of shapes given by signed distances in mm, painted one over another with partial volume, in the
look of a fat-suppressed contrast-enhanced T1. How often signs occur follows Kang et al., AJNR 2025
(normals), Dobrocky et al., JAMA Neurol 2019 and D'Antona et al., JAMA Neurol 2021 (19 % of patients
with a normal MRI).

Axes: x to the patient's Right, y to Anterior, z to Superior, in mm, as everywhere in monro. The
origin is near the middle of the head.

Three random streams per seed, signs, anatomy and noise, never touch: two cases of one seed that
differ in one sign are the same head, voxel for voxel, but for that sign. Two scanners see the same
head too, each in its own way.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trainer.acquisition import GREY_VALUES, acquire, draw_coil
from trainer.head import FIELD_OF_VIEW_MM, Head, Signs, draw_person, tissue_means
from trainer.scanner import PHANTOM_SCANNER, Scanner
from trainer.shapes import Field, Grid, Point

# Streams of randomness per seed.
SIGN_STREAM, ANATOMY_STREAM, NOISE_STREAM = range(3)

NORMAL_MRI: Final = 0.19  # share of patients without any sign (D'Antona 2021)
KEPT_SIGN: Final = 0.4  # probability that a patient with few signs has a given one
SPACING_MM: Final = 2.0
# A voxel shows a sign when it changes by more than this share of white matter.
VISIBLE_CHANGE: Final = 0.1

# Mean signal of each tissue; white matter is 100.
MEANS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "air": 3,
        "scalp": 62,
        "bone": 24,
        "dura": 95,
        "subdural": 48,
        "csf": 22,
        "grey matter": 78,
        "white matter": 100,
        "ventricle": 20,
        "lentiform nucleus": 92,
        "brainstem": 96,
        "cerebellum": 82,
        "pituitary": 150,
        "chiasm": 95,
        "mamillary body": 92,
        "sinus": 165,
    }
)


# The sizes that make up each sign.
SIGNS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "dura": ("dura_mm", "dura_gain"),
        "sinus": ("sinus_mm", "sinus_round"),
        "subdural": ("subdural_mm",),
        "cisterns": ("prepontine_mm", "mamillopontine_mm", "suprasellar_mm"),
        "pituitary": ("pituitary_mm",),
    }
)

# What anatomy leaves room for, mm.
LIMITS_MM: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "sinus_mm": (2.5, 8.0),
        "prepontine_mm": (1.2, 9.0),
        "mamillopontine_mm": (2.0, 11.0),
        "suprasellar_mm": (1.0, 10.0),
        "pituitary_mm": (3.0, 12.0),
    }
)


@dataclass(frozen=True)
class Spectrum:
    """How the disease shows in those who have it.

    Attributes:
        normal_mri: share of patients whose MRI shows nothing of it.
        few_signs: share of the others whose MRI shows only some of the signs. A network that
            always meets them together learns the most glaring one and is blind to the others.
        severity: factor on the size of all signs but their brightness.
    """

    normal_mri: float = NORMAL_MRI
    few_signs: float = 0.0
    severity: float = 1.0


USUAL: Final = Spectrum()
OVERT: Final = Spectrum(normal_mri=0.0)


@dataclass(frozen=True)
class Case:
    """One synthetic patient.

    Attributes:
        seed: of head, scanner and signs.
        positive: has a fistula, whether the MRI shows it or not.
        usual: how this head would look in health.
        shown: how it does look.
    """

    seed: int
    positive: bool
    usual: Signs
    shown: Signs

    @property
    def overt(self) -> bool:
        """Whether the MRI shows any sign."""
        return self.usual != self.shown

    def without(self, *signs: str) -> "Case":
        """The same head with these signs turned back to normal."""
        sizes = {size: getattr(self.usual, size) for sign in signs for size in SIGNS[sign]}
        return dataclasses.replace(self, shown=dataclasses.replace(self.shown, **sizes))

    def only(self, *signs: str) -> "Case":
        """The same head with all other signs turned back to normal."""
        return self.without(*(sign for sign in SIGNS if sign not in signs))


@dataclass(frozen=True, eq=False)
class Phantom:
    """A rendered case.

    Attributes:
        case: what was rendered.
        voxels: float32 (X, Y, Z), grey values, whole multiples of the scanner's slope.
        affine: 4 x 4, voxel -> RAS mm.
        clean: float32 (X, Y, Z), the same without noise.
        scanner: what it was made with.
    """

    case: Case
    voxels: Field
    affine: NDArray[np.float64]
    clean: Field
    scanner: Scanner = PHANTOM_SCANNER


def draw_case(seed: int, positive: bool, spectrum: Spectrum = USUAL) -> Case:
    """Draw a patient.

    Args:
        seed: decides everything that is random about the case.
        positive: whether the patient has a fistula.
        spectrum: how the disease shows.
    """
    rng = np.random.default_rng([seed, SIGN_STREAM])
    usual = _draw_usual(rng)
    hidden = rng.random() < spectrum.normal_mri
    case = Case(seed, positive, usual, _draw_signs(usual, rng, spectrum.severity))
    if not positive or hidden:
        return case.only()
    return case.only(*_draw_few(rng)) if rng.random() < spectrum.few_signs else case


def render(
    case: Case, spacing_mm: float = SPACING_MM, scanner: Scanner = PHANTOM_SCANNER
) -> Phantom:
    """Paint a case; about a second at 2 mm.

    Args:
        case: who.
        spacing_mm: of the pixels of its sagittal slices; slices lie slice_ratio times as far apart.
        scanner: how it is seen.
    """
    box = _Box(spacing_mm, scanner)
    rng = np.random.default_rng([case.seed, ANATOMY_STREAM])
    person = draw_person(rng)
    (signal,) = Head(box, person, case.shown).paint(tissue_means(MEANS, person, scanner))
    clean = signal * draw_coil(rng, scanner).over(box) * np.float32(GREY_VALUES)
    clean *= np.float32(scanner.gain)
    noise = np.random.default_rng([case.seed, NOISE_STREAM])
    return Phantom(case, acquire(clean, noise, scanner), box.affine, clean, scanner)


def visible_signs(shown: Phantom, usual: Phantom) -> NDArray[np.bool_]:
    """Where two renderings of one head differ so much that one could see it, (X, Y, Z)."""
    limit = VISIBLE_CHANGE * MEANS["white matter"] * GREY_VALUES * shown.scanner.gain
    visible: NDArray[np.bool_] = np.abs(shown.clean - usual.clean) > limit
    return visible


def _draw_usual(rng: np.random.Generator) -> Signs:
    # Means and deviations such that 53 % have prepontine <= 5 mm, 40 % mamillopontine <= 6.5 mm
    # and 28 % suprasellar <= 4 mm, as the 90 normals of Kang 2025.
    return _limited(
        Signs(
            dura_mm=rng.uniform(0.6, 1.0),
            dura_gain=rng.normal(1.0, 0.08),
            sinus_mm=rng.normal(4.0, 0.5),
            sinus_round=False,
            subdural_mm=0.0,
            prepontine_mm=rng.normal(4.9, 1.3),
            mamillopontine_mm=rng.normal(6.9, 1.5),
            suprasellar_mm=rng.normal(5.1, 1.9),
            pituitary_mm=rng.normal(6.1, 1.0),
        )
    )


def _draw_signs(usual: Signs, rng: np.random.Generator, factor: float) -> Signs:
    severity = factor * rng.beta(2, 1.6)
    dura, sinus, subdural = rng.random(3) < (0.83, 0.90, 0.50)
    thicker_mm, gain, wider, fluid_mm = rng.uniform((0.6, 1.35, 0.15, 1), (1.6, 1.9, 0.55, 6))
    lower = 1.6 * severity * rng.normal((1.4, 1.8, 1.25), (0.8, 0.9, 0.6))
    return _limited(
        Signs(
            dura_mm=usual.dura_mm + dura * thicker_mm * severity,
            dura_gain=gain if dura else usual.dura_gain,
            sinus_mm=usual.sinus_mm * (1 + sinus * wider * severity),
            sinus_round=bool(sinus),
            subdural_mm=subdural * fluid_mm * severity,
            prepontine_mm=usual.prepontine_mm - lower[0],
            mamillopontine_mm=usual.mamillopontine_mm - lower[1],
            suprasellar_mm=usual.suprasellar_mm - lower[2],
            pituitary_mm=usual.pituitary_mm + severity * rng.normal(2.2, 0.8),
        )
    )


def _draw_few(rng: np.random.Generator) -> list[str]:
    """Some of the signs, one at least."""
    names = list(SIGNS)
    certain = rng.choice(names)
    return [name for name in names if name == certain or rng.random() < KEPT_SIGN]


def _limited(signs: Signs) -> Signs:
    """Plain floats within what anatomy leaves room for."""
    sizes = {key: float(value) for key, value in dataclasses.asdict(signs).items()}
    for key, (low, high) in LIMITS_MM.items():
        sizes[key] = min(max(sizes[key], low), high)
    return Signs(**{**sizes, "sinus_round": signs.sinus_round})  # type: ignore[arg-type]


class _Box:
    """Voxels that fill the field of view, along its axes."""

    def __init__(self, spacing_mm: float, scanner: Scanner) -> None:
        self.edges_mm: Point = (spacing_mm * scanner.slice_ratio, spacing_mm, spacing_mm)
        x, y, z = (
            round(extent / edge)
            for extent, edge in zip(FIELD_OF_VIEW_MM, self.edges_mm, strict=True)
        )
        self.shape = x, y, z
        self.affine = np.diag([*self.edges_mm, 1.0])
        self.affine[:3, 3] = [
            -(size - 1) / 2 * edge for size, edge in zip(self.shape, self.edges_mm, strict=True)
        ]

    def points(self) -> Grid:
        """Centres of the voxels, mm; they broadcast."""
        axes = [
            (np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(edge)
            for n, edge in zip(self.shape, self.edges_mm, strict=True)
        ]
        x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
        return x, y, z

    def stretched(self, knots: Field) -> Field:
        """Trilinear enlargement of a field to the box."""
        factors = [n / m for n, m in zip(self.shape, knots.shape, strict=True)]
        stretched: Field = ndimage.zoom(knots, factors, order=1, grid_mode=True, mode="nearest")
        return stretched
