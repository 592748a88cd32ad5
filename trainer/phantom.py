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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trainer.scanner import PHANTOM_SCANNER, Scanner

Field: TypeAlias = NDArray[np.float32]
Point: TypeAlias = tuple[float, float, float]

# Streams of randomness per seed.
SIGN_STREAM, ANATOMY_STREAM, NOISE_STREAM = range(3)

NORMAL_MRI: Final = 0.19  # share of patients without any sign (D'Antona 2021)
KEPT_SIGN: Final = 0.4  # probability that a patient with few signs has a given one
FIELD_OF_VIEW_MM: Final = (184.0, 228.0, 216.0)
SPACING_MM: Final = 2.0
# Grey values per unit of MEANS: white matter near 400, as scanners deliver.
GREY_VALUES: Final = 4.0
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


@dataclass(frozen=True)
class Signs:
    """What intracranial hypotension changes, as sizes.

    Attributes:
        dura_mm: thickness of the pachymeninges.
        dura_gain: their enhancement, 1 for normal.
        sinus_mm: half width of the venous sinuses.
        sinus_round: their section is round rather than triangular (venous distension).
        subdural_mm: depth of fluid over the convexities, 0 for none.
        prepontine_mm: depth of the prepontine cistern.
        mamillopontine_mm: from mamillary bodies to pons.
        suprasellar_mm: height of the suprasellar cistern.
        pituitary_mm: height of the pituitary gland.
    """

    dura_mm: float
    dura_gain: float
    sinus_mm: float
    sinus_round: bool
    subdural_mm: float
    prepontine_mm: float
    mamillopontine_mm: float
    suprasellar_mm: float
    pituitary_mm: float


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
    edges_mm = (spacing_mm * scanner.slice_ratio, spacing_mm, spacing_mm)
    shape = _shape(edges_mm)
    affine = np.diag([*edges_mm, 1.0])
    affine[:3, 3] = [-(size - 1) / 2 * edge for size, edge in zip(shape, edges_mm, strict=True)]
    rng = np.random.default_rng([case.seed, ANATOMY_STREAM])
    means = _draw_means(rng, dict(scanner.contrast))
    head = _Head(_warped_grid(shape, edges_mm, rng), edges_mm, rng, case.shown)
    clean = head.paint(means) * _bias(shape, rng, scanner.bias) * np.float32(GREY_VALUES)
    clean *= np.float32(scanner.gain)
    noise = np.random.default_rng([case.seed, NOISE_STREAM])
    return Phantom(case, _acquire(clean, noise, scanner), affine, clean, scanner)


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


def _draw_means(rng: np.random.Generator, contrast: Mapping[str, float]) -> dict[str, float]:
    """Signal of each tissue for this patient and scanner."""
    return {
        tissue: mean
        * contrast.get(tissue, 1.0)
        * float(np.exp(rng.normal(0, 0.05)) * rng.uniform(0.93, 1.07))
        for tissue, mean in MEANS.items()
    }


def _shape(edges_mm: Point) -> tuple[int, int, int]:
    x, y, z = (
        round(extent / edge) for extent, edge in zip(FIELD_OF_VIEW_MM, edges_mm, strict=True)
    )
    return x, y, z


def _warped_grid(
    shape: tuple[int, int, int], edges_mm: Point, rng: np.random.Generator
) -> tuple[Field, Field, Field]:
    """Where each voxel lies in the standard head: tilted, scaled, shifted, bent."""
    tilt = _rotation(np.deg2rad(rng.uniform(-6, 6, 3)))
    matrix = (tilt @ np.diag(1 + rng.uniform(-0.05, 0.05, 3))).astype(np.float32)
    shift = rng.uniform(-4, 4, 3).astype(np.float32)
    axes = [
        (np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(edge)
        for n, edge in zip(shape, edges_mm, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    bends = [2.0 * _smooth_field(shape, 6, rng) for _ in range(3)]
    a, b, c = (
        row[0] * x + row[1] * y + row[2] * z + offset + bend
        for row, offset, bend in zip(matrix, shift, bends, strict=True)
    )
    return a, b, c


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn about x, then y, then z, in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def _smooth_field(shape: tuple[int, ...], knots: int, rng: np.random.Generator) -> Field:
    """Noise of unit deviation at `knots` points per axis, smooth in between."""
    coarse = rng.normal(size=(knots, knots, knots)).astype(np.float32)
    fine = ndimage.zoom(coarse, 4, order=3)
    return _stretched(fine, shape)


def _stretched(coarse: Field, shape: tuple[int, ...]) -> Field:
    """Trilinear enlargement to a shape."""
    factors = [n / m for n, m in zip(shape, coarse.shape, strict=True)]
    stretched: Field = ndimage.zoom(coarse, factors, order=1, grid_mode=True, mode="nearest")
    return stretched


def _bias(shape: tuple[int, int, int], rng: np.random.Generator, factor: float) -> Field:
    """Uneven sensitivity of the coil."""
    strength = np.float32(rng.uniform(0, 0.15) * factor)
    bias: Field = np.exp(strength * _smooth_field(shape, 4, rng))
    return bias


def _acquire(clean: Field, rng: np.random.Generator, scanner: Scanner) -> Field:
    """Texture, the magnitude of complex noise, and whole stored values."""
    noise = np.float32(rng.uniform(1.5, 3.5) * GREY_VALUES * scanner.gain * scanner.noise)
    slope = np.float32(scanner.slope)
    real = clean + noise * rng.standard_normal(clean.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(clean.shape, dtype=np.float32)
    magnitude: Field = np.rint(np.hypot(real, imaginary) / slope) * slope
    return magnitude


def _ellipsoid(grid: tuple[Field, ...], centre: Point, radii: Point) -> Field:
    """Signed distance from an ellipsoid, mm, negative inside; true to first order."""
    offsets = [each - np.float32(at) for each, at in zip(grid, centre, strict=True)]
    inverse = [np.float32(1 / radius) for radius in radii]
    unit = [offset * each for offset, each in zip(offsets, inverse, strict=True)]
    level = np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2) + np.float32(1e-6)
    slopes = [each * scale for each, scale in zip(unit, inverse, strict=True)]
    slope = np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2) + np.float32(1e-9)
    distance: Field = level * (level - 1) / slope
    return distance


def _capsule(grid: tuple[Field, ...], start: Point, end: Point, radius: float) -> Field:
    """Signed distance from a rod with round ends, mm."""
    axis = np.subtract(end, start)
    offsets = [each - np.float32(at) for each, at in zip(grid, start, strict=True)]
    along = sum(offset * np.float32(part) for offset, part in zip(offsets, axis, strict=True))
    share = np.clip(along / np.float32(axis @ axis), 0, 1)
    rest = [offset - share * np.float32(part) for offset, part in zip(offsets, axis, strict=True)]
    distance: Field = np.sqrt(rest[0] ** 2 + rest[1] ** 2 + rest[2] ** 2) - np.float32(radius)
    return distance


def _both(*distances: Field) -> Field:
    """Signed distance of what all shapes share."""
    shared = distances[0]
    for distance in distances[1:]:
        shared = np.maximum(shared, distance)
    return shared


def _either(*distances: Field) -> Field:
    """Signed distance of what any shape covers."""
    joined = distances[0]
    for distance in distances[1:]:
        joined = np.minimum(joined, distance)
    return joined


Shapes: TypeAlias = Iterator[tuple[str, Field]]


class _Head:
    """The standard head, seen through a warped grid, with signs of given sizes."""

    SKULL_CENTRE: Final = (0.0, 0.0, 8.0)
    SKULL_RADII: Final = (66.0, 80.0, 62.0)  # of the inner table
    BRAIN_GAP_MM: Final = 3.0
    CORTEX_MM: Final = 3.2
    DORSUM_SELLAE: Final = (0.0, 16.0, -16.0)
    CLIVUS_END: Final = (0.0, -6.0, -58.0)
    CLIVUS_MM: Final = 5.0  # half thickness
    PONS_RADII: Final = (15.0, 11.0, 13.0)
    PONS_HEIGHT: Final = -34.0  # z of its centre
    # Direction from the centre of the pons to the point of its surface nearest the mamillary
    # bodies: this far up from straight ahead.
    MAMILLARY_ANGLE: Final = np.deg2rad(52.0)

    def __init__(
        self,
        grid: tuple[Field, Field, Field],
        edges_mm: Point,
        rng: np.random.Generator,
        signs: Signs,
    ) -> None:
        self.x, self.y, self.z = self.grid = grid
        self.edges_mm = edges_mm
        self.signs = signs
        self.inner = _ellipsoid(grid, self.SKULL_CENTRE, self.SKULL_RADII)
        self.folds = self._gyri(rng)
        self.ventricle_mm = rng.uniform(3.4, 4.8)
        # Fluid gathers over the convexities, not at the base.
        convexity = np.asarray(np.clip((self.z - 10) / 25, 0, 1), dtype=np.float32)
        self.fluid: Field = convexity * np.float32(signs.subdural_mm)

    def paint(self, means: Mapping[str, float]) -> Field:
        """Signal of every voxel, shape over shape, each weighed by the share it fills."""
        image = self._shells(means)
        for tissue, distance in self._shapes():
            share = self._share(distance)
            image += share * (np.float32(means[tissue]) - image)
        return image

    def _share(self, distance: Field) -> Field:
        """How much of each voxel a shape fills, 0..1."""
        share: Field = np.clip(0.5 - distance / np.float32(max(self.edges_mm)), 0, 1)
        return share

    def _shells(self, means: Mapping[str, float]) -> Field:
        """Layers from the skin inwards; nested, so that the thinnest keeps its right share."""
        neck = _capsule(self.grid, (0, -18, -50), (0, -26, -140), 46)
        face = _ellipsoid(self.grid, (0, 42, -52), (48, 44, 52))
        dura = self.inner + np.float32(self.signs.dura_mm)
        layers = [
            ("scalp", _either(self.inner - 13, neck, face), 1.0),
            ("bone", self.inner - 8, 1.0),
            ("dura", self.inner, self.signs.dura_gain),
            ("subdural", dura, 1.0),
            ("csf", dura + self.fluid, 1.0),
        ]
        signal = means["air"]
        image = np.full(self.inner.shape, signal, dtype=np.float32)
        for tissue, distance, gain in layers:
            image += self._share(distance) * np.float32(means[tissue] * gain - signal)
            signal = means[tissue] * gain
        return image

    def _shapes(self) -> Shapes:
        """What lies within the dura, in the order in which it is painted."""
        yield from self._cerebrum()
        yield from self._deep_nuclei()
        yield from self._sella()
        yield from self._posterior_fossa()
        yield from self._sinuses()

    def _gyri(self, rng: np.random.Generator) -> Field:
        """Ups and downs of the cortex every 9 mm or so."""
        knots = [int(n * mm / 9) for n, mm in zip(self.inner.shape, self.edges_mm, strict=True)]
        return _stretched(rng.normal(size=knots).astype(np.float32), self.inner.shape)

    def _cerebrum(self) -> Shapes:
        gap: Field = self.inner + np.float32(self.BRAIN_GAP_MM + self.signs.dura_mm)
        depth = gap + self.fluid
        surface = depth + 1.6 * self.folds
        above_tentorium = (-14 - 0.15 * self.y) - self.z
        temporal = _either(
            *(_ellipsoid(self.grid, (side * 42, 6, -18), (23, 36, 20)) for side in (-1, 1))
        )
        yield "bone", _both(self.inner, self.z + 16, 20 - self.y)  # floor of the anterior fossa
        lobes = _both(surface, _either(above_tentorium, temporal))
        yield "grey matter", lobes
        yield "white matter", lobes + self.CORTEX_MM
        # The fissure between the hemispheres spares the corpus callosum.
        yield "csf", _both(np.abs(self.x) - 1, depth, -22 - depth, 18 - self.z)

    def _deep_nuclei(self) -> Shapes:
        radius = self.ventricle_mm
        for side in (-1, 1):
            yield "lentiform nucleus", _ellipsoid(self.grid, (23 * side, 8, 6), (7, 16, 10))
            body = _capsule(self.grid, (9 * side, 26, 22), (11 * side, -18, 24), radius)
            horn = _capsule(self.grid, (11 * side, -18, 24), (20 * side, -26, 4), radius)
            yield "ventricle", _either(body, horn)
        yield "ventricle", _ellipsoid(self.grid, (0, 4, 8), (1.8, 13, 9))

    def _sella(self) -> Shapes:
        """Bone of the skull base, the gland in its fossa, the cistern and chiasm above."""
        _, y, z = self.DORSUM_SELLAE
        clivus = _capsule(self.grid, self.DORSUM_SELLAE, self.CLIVUS_END, self.CLIVUS_MM)
        body = _capsule(self.grid, (0, y + 14, z - 14), (0, y + 30, z - 14), 8)
        diaphragm, floor, height = z + 0.5, z - 6, self.signs.pituitary_mm
        cistern = _ellipsoid(self.grid, (0, y + 8, diaphragm + 4), (15, 13, 9))
        yield "csf", _both(cistern, diaphragm - self.z)
        yield "bone", _either(_both(clivus, np.abs(self.x) - 22), body)
        yield (
            "pituitary",
            _ellipsoid(self.grid, (0, y + 9.5, floor + height / 2), (7, 5, height / 2)),
        )
        chiasm = diaphragm + self.signs.suprasellar_mm + 1.5
        yield "chiasm", _capsule(self.grid, (-7, y + 8, chiasm), (7, y + 8, chiasm), 1.5)

    def _posterior_fossa(self) -> Shapes:
        """Cerebellum, brainstem in its cistern, mamillary bodies above."""
        below_tentorium = self.z - (-15 - 0.15 * self.y)
        cerebellum = _ellipsoid(self.grid, (0, -38, -32), (46, 26, 21)) + 0.8 * self.folds
        yield "cerebellum", _both(cerebellum, below_tentorium, self.inner + 3)
        x, y, z = 0.0, self._pons_centre(), self.PONS_HEIGHT
        behind_clivus = self._behind_clivus()
        cistern = _ellipsoid(self.grid, (x, y + 4, z + 6), (22, 18, 24))
        yield "csf", _both(cistern, behind_clivus, self.z + 4)
        midbrain = _capsule(self.grid, (x, y - 8, z + 8), (x, y - 9, -2), 7.5)
        medulla = _capsule(self.grid, (x, y - 3, z - 8), (x, y - 8, -75), 7)
        cord = _capsule(self.grid, (x, y - 8, -75), (x, y - 12, -140), 6)
        yield "csf", _both(_either(medulla, cord) - 3.5, self.z - z)
        yield "brainstem", _either(midbrain, medulla, cord)
        yield "brainstem", _ellipsoid(self.grid, (x, y, z), self.PONS_RADII)
        for side in (-2.0, 2.0):
            yield "mamillary body", _ellipsoid(self.grid, self._mamillary(side), (2, 2, 2))

    def _behind_clivus(self) -> Field:
        """Signed distance of the half space behind the middle of the clivus."""
        top, end = np.array(self.DORSUM_SELLAE), np.array(self.CLIVUS_END)
        _, along_y, along_z = (end - top) / np.linalg.norm(end - top)
        up, ahead = self.z - top[2], self.y - top[1]
        distance: Field = up * np.float32(along_y) - ahead * np.float32(along_z)
        return distance

    def _pons_centre(self) -> float:
        """The y that leaves the prepontine cistern its depth at the height of mid-pons."""
        top, end = self.DORSUM_SELLAE, self.CLIVUS_END
        slope = (top[1] - end[1]) / (top[2] - end[2])
        middle = end[1] + slope * (self.PONS_HEIGHT - end[2])
        surface = middle - self.CLIVUS_MM * np.hypot(1, slope)
        return float(surface - self.signs.prepontine_mm - self.PONS_RADII[1])

    def _mamillary(self, side: float) -> Point:
        """Centre of a mamillary body, its distance off the pons along the normal there."""
        angle, (_, ry, rz) = self.MAMILLARY_ANGLE, self.PONS_RADII
        normal = np.array([np.cos(angle) / ry, np.sin(angle) / rz])
        normal *= (self.signs.mamillopontine_mm + 2) / np.linalg.norm(normal)
        y = self._pons_centre() + ry * np.cos(angle) + normal[0]
        z = self.PONS_HEIGHT + rz * np.sin(angle) + normal[1]
        return side, float(y), float(z)

    def _sinuses(self) -> Shapes:
        """Superior sagittal and transverse: a triangle in health, a tube when distended."""
        radius, depth = np.float32(self.signs.sinus_mm), -self.inner
        if self.signs.sinus_round:
            sagittal = np.hypot(depth - 0.8 * radius, self.x) - radius
        else:
            sagittal = _both((np.abs(self.x) + 0.9 * depth - 1.1 * radius) / 1.35, -depth)
        yield "sinus", _both(sagittal, -6 - self.z, self.inner - 0.5)
        transverse = np.hypot(depth - 0.7 * radius, self.z + 12) - radius
        yield "sinus", _both(transverse, self.y + 25, self.inner - 0.5)
