"""The geometric model of a head: shapes in mm, the same for every way of imaging it.

Axes: x to the patient's Right, y to Anterior, z to Superior, in mm, as everywhere in monro. The
origin is near the middle of the head, about where the anterior commissure lies.

A raster says where voxels lie; a person says how their head departs from the standard one. The
same person on two rasters is the same head, at the same place.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trainer.scanner import Scanner
from trainer.shapes import Field, Grid, Point, both, capsule, either, ellipsoid

Shape: TypeAlias = tuple[str, Field]  # what it is made of, and its signed distance
Shapes: TypeAlias = Iterable[Shape]

TISSUES: Final = (
    "air",
    "scalp",
    "bone",
    "dura",
    "subdural",
    "csf",
    "grey matter",
    "white matter",
    "ventricle",
    "lentiform nucleus",
    "brainstem",
    "cerebellum",
    "pituitary",
    "chiasm",
    "mamillary body",
    "sinus",
)
# The box that holds a head; what is a person's own is given by knots spread evenly over it.
FIELD_OF_VIEW_MM: Final = (184.0, 228.0, 216.0)
BEND_MM: Final = 2.0  # deviation of what bends a head
GYRUS_MM: Final = 9.0  # about the width of a gyrus: the distance of knots of the cortex


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


class Raster(Protocol):
    """Where voxels lie.

    Attributes:
        edges_mm: of a voxel, or of the part of it that is painted at a time.
    """

    edges_mm: Point

    def points(self) -> Grid:
        """Centres of the voxels, mm."""

    def stretched(self, knots: Field) -> Field:
        """Values of a field at the voxels, given at knots over FIELD_OF_VIEW_MM; trilinear."""


@dataclass(frozen=True, eq=False)
class Person:
    """What tells one head from another.

    Attributes:
        brightness: factor on the signal of each tissue.
        tilt: (3, 3) turn and growth, from where a voxel lies to the standard head.
        shift_mm: (3,) likewise.
        bends: knots of x, y and z of what bends the standard head, in units of BEND_MM.
        gyri: knots of ups and downs of the cortex, of unit deviation.
        ventricle_mm: radius of the lateral ventricles.
    """

    brightness: Mapping[str, float]
    tilt: Field
    shift_mm: Field
    bends: tuple[Field, Field, Field]
    gyri: Field
    ventricle_mm: float


def draw_person(rng: np.random.Generator) -> Person:
    """Draw a head."""
    brightness = {
        tissue: float(np.exp(rng.normal(0, 0.05)) * rng.uniform(0.93, 1.07)) for tissue in TISSUES
    }
    turn = rotation(np.deg2rad(rng.uniform(-6, 6, 3)))
    tilt = (turn @ np.diag(1 + rng.uniform(-0.05, 0.05, 3))).astype(np.float32)
    shift = rng.uniform(-4, 4, 3).astype(np.float32)
    bends = (smooth_knots(6, rng), smooth_knots(6, rng), smooth_knots(6, rng))
    knots = [int(extent / GYRUS_MM) for extent in FIELD_OF_VIEW_MM]
    gyri = rng.normal(size=knots).astype(np.float32)
    return Person(brightness, tilt, shift, bends, gyri, rng.uniform(3.4, 4.8))


def tissue_means(means: Mapping[str, float], person: Person, scanner: Scanner) -> dict[str, float]:
    """Signal of each tissue for this person on this scanner."""
    contrast = dict(scanner.contrast)
    return {
        tissue: mean * contrast.get(tissue, 1.0) * person.brightness[tissue]
        for tissue, mean in means.items()
    }


def smooth_knots(count: int, rng: np.random.Generator) -> Field:
    """Knots of a smooth field: `count` per axis of unit deviation, and more in between."""
    coarse = rng.normal(size=(count, count, count)).astype(np.float32)
    knots: Field = ndimage.zoom(coarse, 4, order=3)
    return knots


def rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn about x, then y, then z, in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def _warped(raster: Raster, person: Person) -> Grid:
    """Where each voxel lies in the standard head: tilted, scaled, shifted, bent."""
    x, y, z = raster.points()
    bends = [np.float32(BEND_MM) * raster.stretched(knots) for knots in person.bends]
    a, b, c = (
        row[0] * x + row[1] * y + row[2] * z + offset + bend
        for row, offset, bend in zip(person.tilt, person.shift_mm, bends, strict=True)
    )
    return a, b, c


class Head:
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

    def __init__(self, raster: Raster, person: Person, signs: Signs) -> None:
        self.x, self.y, self.z = self.grid = _warped(raster, person)
        self.bottom_mm, self.top_mm = float(self.z.min()), float(self.z.max())
        self.ramp_mm = np.float32(max(raster.edges_mm))
        self.signs = signs
        self.inner = ellipsoid(self.grid, self.SKULL_CENTRE, self.SKULL_RADII)
        self.folds = raster.stretched(person.gyri)
        self.ventricle_mm = person.ventricle_mm
        # Fluid gathers over the convexities, not at the base.
        convexity = np.asarray(np.clip((self.z - 10) / 25, 0, 1), dtype=np.float32)
        self.fluid: Field = convexity * np.float32(signs.subdural_mm)

    def paint(self, *looks: Mapping[str, float], more: Shapes = ()) -> tuple[Field, ...]:
        """Paint shape over shape, each weighed by the share of a voxel that it fills.

        Args:
            looks: value of each tissue; each look is a picture of its own.
            more: shapes and their tissues, painted last.
        """
        images = [self._shells(look) for look in looks]
        for tissue, distance in chain(self._shapes(), more):
            share = self.share(distance)
            for at, look in enumerate(looks):
                images[at] += share * (np.float32(look[tissue]) - images[at])
        return tuple(images)

    def reaches(self, bottom_mm: float, top_mm: float) -> bool:
        """Whether any voxel lies between these heights of the standard head."""
        return self.bottom_mm <= top_mm and self.top_mm >= bottom_mm

    def share(self, distance: Field) -> Field:
        """How much of each voxel a shape fills, 0..1."""
        share: Field = np.clip(0.5 - distance / self.ramp_mm, 0, 1)
        return share

    def _shells(self, means: Mapping[str, float]) -> Field:
        """Layers from the skin inwards; nested, so that the thinnest keeps its right share."""
        neck = capsule(self.grid, (0, -18, -50), (0, -26, -140), 46)
        face = ellipsoid(self.grid, (0, 42, -52), (48, 44, 52))
        dura = self.inner + np.float32(self.signs.dura_mm)
        layers = [
            ("scalp", either(self.inner - 13, neck, face), 1.0),
            ("bone", self.inner - 8, 1.0),
            ("dura", self.inner, self.signs.dura_gain),
            ("subdural", dura, 1.0),
            ("csf", dura + self.fluid, 1.0),
        ]
        signal = means["air"]
        image = np.full(self.inner.shape, signal, dtype=np.float32)
        for tissue, distance, gain in layers:
            image += self.share(distance) * np.float32(means[tissue] * gain - signal)
            signal = means[tissue] * gain
        return image

    def _shapes(self) -> Iterator[Shape]:
        """What lies within the dura, in the order in which it is painted."""
        yield from self._cerebrum()
        for part, bottom_mm, top_mm in (
            (self._deep_nuclei, -10, 35),
            (self._sella, -75, 10),
            (self._posterior_fossa, -160, 10),
            (self._sinuses, -25, 80),
        ):
            if self.reaches(bottom_mm, top_mm):
                yield from part()

    def _cerebrum(self) -> Iterator[Shape]:
        gap: Field = self.inner + np.float32(self.BRAIN_GAP_MM + self.signs.dura_mm)
        depth = gap + self.fluid
        surface = depth + 1.6 * self.folds
        above_tentorium = (-14 - 0.15 * self.y) - self.z
        temporal = either(
            *(ellipsoid(self.grid, (side * 42, 6, -18), (23, 36, 20)) for side in (-1, 1))
        )
        yield "bone", both(self.inner, self.z + 16, 20 - self.y)  # floor of the anterior fossa
        lobes = both(surface, either(above_tentorium, temporal))
        yield "grey matter", lobes
        yield "white matter", lobes + self.CORTEX_MM
        # The fissure between the hemispheres spares the corpus callosum.
        yield "csf", both(np.abs(self.x) - 1, depth, -22 - depth, 18 - self.z)

    def _deep_nuclei(self) -> Iterator[Shape]:
        radius = self.ventricle_mm
        for side in (-1, 1):
            yield "lentiform nucleus", ellipsoid(self.grid, (23 * side, 8, 6), (7, 16, 10))
            body = capsule(self.grid, (9 * side, 26, 22), (11 * side, -18, 24), radius)
            horn = capsule(self.grid, (11 * side, -18, 24), (20 * side, -26, 4), radius)
            yield "ventricle", either(body, horn)
        yield "ventricle", ellipsoid(self.grid, (0, 4, 8), (1.8, 13, 9))

    def _sella(self) -> Iterator[Shape]:
        """Bone of the skull base, the gland in its fossa, the cistern and chiasm above."""
        _, y, z = self.DORSUM_SELLAE
        clivus = capsule(self.grid, self.DORSUM_SELLAE, self.CLIVUS_END, self.CLIVUS_MM)
        body = capsule(self.grid, (0, y + 14, z - 14), (0, y + 30, z - 14), 8)
        diaphragm, floor, height = z + 0.5, z - 6, self.signs.pituitary_mm
        cistern = ellipsoid(self.grid, (0, y + 8, diaphragm + 4), (15, 13, 9))
        yield "csf", both(cistern, diaphragm - self.z)
        yield "bone", either(both(clivus, np.abs(self.x) - 22), body)
        yield (
            "pituitary",
            ellipsoid(self.grid, (0, y + 9.5, floor + height / 2), (7, 5, height / 2)),
        )
        chiasm = diaphragm + self.signs.suprasellar_mm + 1.5
        yield "chiasm", capsule(self.grid, (-7, y + 8, chiasm), (7, y + 8, chiasm), 1.5)

    def _posterior_fossa(self) -> Iterator[Shape]:
        """Cerebellum, brainstem in its cistern, mamillary bodies above."""
        below_tentorium = self.z - (-15 - 0.15 * self.y)
        cerebellum = ellipsoid(self.grid, (0, -38, -32), (46, 26, 21)) + 0.8 * self.folds
        yield "cerebellum", both(cerebellum, below_tentorium, self.inner + 3)
        x, y, z = 0.0, self._pons_centre(), self.PONS_HEIGHT
        behind_clivus = self._behind_clivus()
        cistern = ellipsoid(self.grid, (x, y + 4, z + 6), (22, 18, 24))
        yield "csf", both(cistern, behind_clivus, self.z + 4)
        midbrain = capsule(self.grid, (x, y - 8, z + 8), (x, y - 9, -2), 7.5)
        medulla = capsule(self.grid, (x, y - 3, z - 8), (x, y - 8, -75), 7)
        cord = capsule(self.grid, (x, y - 8, -75), (x, y - 12, -140), 6)
        yield "csf", both(either(medulla, cord) - 3.5, self.z - z)
        yield "brainstem", either(midbrain, medulla, cord)
        yield "brainstem", ellipsoid(self.grid, (x, y, z), self.PONS_RADII)
        for side in (-2.0, 2.0):
            yield "mamillary body", ellipsoid(self.grid, self._mamillary(side), (2, 2, 2))

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

    def _sinuses(self) -> Iterator[Shape]:
        """Superior sagittal and transverse: a triangle in health, a tube when distended."""
        radius, depth = np.float32(self.signs.sinus_mm), -self.inner
        if self.signs.sinus_round:
            sagittal = np.hypot(depth - 0.8 * radius, self.x) - radius
        else:
            sagittal = both((np.abs(self.x) + 0.9 * depth - 1.1 * radius) / 1.35, -depth)
        yield "sinus", both(sagittal, -6 - self.z, self.inner - 0.5)
        transverse = np.hypot(depth - 0.7 * radius, self.z + 12) - radius
        yield "sinus", both(transverse, self.y + 25, self.inner - 0.5)
