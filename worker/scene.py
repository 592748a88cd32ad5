"""The head on an axial T2, as far as regions in it are looked for: its frame, and its fluid.

Axes: Right, Anterior, Superior, as volume.py gives them. Lengths are in mm along the axes of the
voxels, so that slices planned obliquely are taken as they lie. Constants are those of a head of
the reference breadth and length, and grow and shrink with the head.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize

from worker.preprocess import (
    MASK_SPACING_MM,
    Affine,
    Mask,
    NoHead,
    Voxels,
    head_mask,
    resample,
)
from worker.quality import NEEDED, Reason, UnusableStudy

Numbers: TypeAlias = NDArray[np.float64]

AXIAL_T2: Final = NEEDED[Reason.NO_REGION]

# Side to side and front to back with the scalp, as the outline of 4 mm gives them; adults range
# over 140 to 170 and 175 to 210. Narrow heads are long: the geometric mean of both tells the size.
REFERENCE_BREADTH_MM: Final = 163.0
REFERENCE_LENGTH_MM: Final = 191.0
BREADTHS_MM: Final = (110.0, 210.0)  # of an infant, and of anything that is no head
# From the forehead to the occiput: nose and neck lie lower.
CALVARIUM_MM: Final = 80.0
# The part of the head whose sides are alike and whose front is the forehead, below the vertex.
CRANIUM_MM: Final = 110.0
# The search for the middle plane: first steps in mm and as slopes; its end in the same units, a
# tenth of a millimetre at the skull; and how often it looks at most, three times what it needs.
PLANE_STEPS: Final = (6.0, 0.12, 0.12)
PLANE_PRECISION: Final = 0.001
PLANE_TRIES: Final = 300


# The ellipsoid around the ventricles. Bodies and roofs lie 55 to 60 mm below the vertex of the
# skin, atria 35 mm beside the middle and 45 mm behind the commissure, frontal horns 35 mm ahead.
CENTRE_BELOW_VERTEX_MM: Final = 68.0
CENTRE_BEHIND_MIDDLE_MM: Final = 4.0
REACH_SIDE_MM: Final = 42.0
REACH_AHEAD_MM: Final = 62.0
REACH_UP_MM: Final = 23.0
REACH_DOWN_MM: Final = 22.0  # stops above the suprasellar cistern
# Fluid on T2 is two to three times as bright as brain; on T1 white matter exceeds grey by a third.
LEAST_CONTRAST: Final = 1.6
MOST_FLUID: Final = 0.4  # of the ellipsoid, so that brain is its median
FLUID_PERCENTILE: Final = 80.0  # of what is bright: voxels that fluid fills, not those it shares
DARK: Final = 0.5  # of brain: bone, air, flowing blood
# The field of the coil varies over 5 cm and more; anatomy over less.
COIL_MM: Final = 25.0


@dataclass(frozen=True, eq=False)
class Scene:
    """A head as far as both regions need it: its frame, and what is fluid in it.

    Attributes:
        voxels: (X, Y, Z), evened out; 1 is brain.
        affine: 4 x 4, voxel -> RAS mm.
        scale: the head's size, 1 for one of the reference breadth and length.
        beside: (X, Y, Z) mm to the right of the middle plane.
        ahead: (X, Y, Z) mm before the middle of the head, square to the middle plane.
        above: (X, Y, Z) mm from the vertex, negative below, square to the middle plane.
        level: (X, Y, Z) distance from the centre of the ellipsoid; 1 is its surface.
        fluid: how bright fluid is.
    """

    voxels: Voxels
    affine: Affine
    scale: float
    beside: Voxels
    ahead: Voxels
    above: Voxels
    level: Voxels
    fluid: float

    @property
    def threshold(self) -> float:
        """Halfway from brain to fluid: a voxel that both fill by half."""
        return (1 + self.fluid) / 2

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def survey(voxels: Voxels, affine: Affine) -> Scene:
    """Find the head's frame and its fluid.

    Args:
        voxels: (X, Y, Z) in canonical order.
        affine: 4 x 4, voxel -> RAS mm.

    Raises:
        UnusableStudy: NOT_HEAD, or NO_REGION where nothing in its middle is bright as fluid.
    """
    try:
        mask, grid = head_mask(voxels, affine)
    except NoHead as error:
        raise _no_head("nothing that stands out from its background") from error
    scale, beside, ahead, above = _frame(voxels, affine, mask, grid)
    level = _level(scale, beside, ahead, above)
    even, fluid = _evened(voxels, affine, level)
    return Scene(even, affine, scale, beside, ahead, above, level, fluid)


def _frame(
    voxels: Voxels, affine: Affine, mask: Mask, grid: Affine
) -> tuple[float, Voxels, Voxels, Voxels]:
    """Size of the head, and where each voxel lies in it: beside, ahead and above."""
    lit = np.flatnonzero(mask.any(axis=(0, 1)))
    lowest = max(lit[0], lit[-1] + 1 - round(CRANIUM_MM / MASK_SPACING_MM))
    cranium = mask.copy()
    cranium[:, :, :lowest] = False
    first, last = np.argwhere(cranium).min(axis=0), np.argwhere(cranium).max(axis=0)
    breadth = float(_extent(cranium, 0).max()) * MASK_SPACING_MM
    if not BREADTHS_MM[0] <= breadth <= BREADTHS_MM[1]:
        raise _no_head(f"an object {breadth:.0f} mm wide")
    calvarium = cranium[:, :, max(0, lit[-1] + 1 - round(CALVARIUM_MM / MASK_SPACING_MM)) :]
    length = float(_extent(calvarium, 1).max()) * MASK_SPACING_MM
    scale = np.sqrt(breadth / REFERENCE_BREADTH_MM * length / REFERENCE_LENGTH_MM)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    start = np.linalg.solve(affine, grid)[:3, 3] * spacing  # of the outline's first voxel, mm
    centre = start + (first + last) / 2 * MASK_SPACING_MM
    coarse = resample(voxels, affine, grid, (mask.shape[0], mask.shape[1], mask.shape[2]))
    offset, yaw, roll = _middle_plane(coarse, cranium)
    axes = zip(voxels.shape, spacing, centre, strict=True)
    x, y, z = np.meshgrid(
        *((np.arange(n) * step - at).astype(np.float32) for n, step, at in axes),
        indexing="ij",
        sparse=True,
    )
    beside = x - offset - yaw * y - roll * z
    vertex = float(last[2] - first[2] + 1) / 2 * MASK_SPACING_MM
    above = z - vertex + roll * beside
    return float(scale), beside, y + yaw * beside, above


def _extent(mask: Mask, axis: int) -> NDArray[np.intp]:
    """From the first to the last voxel of the mask along each line of an axis; 0 where none is."""
    first, last = mask.argmax(axis=axis), np.flip(mask, axis).argmax(axis=axis)
    return np.where(mask.any(axis=axis), mask.shape[axis] - last - first, 0)


def _middle_plane(coarse: Voxels, cranium: Mask) -> tuple[float, float, float]:
    """The plane x = offset + yaw * y + roll * z about which the head is most alike on both sides.

    The outline alone would not do: the middles of the rows of a turned ellipse turn by a quarter
    of its angle. Lengths are in mm from the middle of the cranium.
    """
    where = np.argwhere(cranium).astype(np.float64)
    centre = (where.min(axis=0) + where.max(axis=0)) / 2
    points = (where - centre) * MASK_SPACING_MM
    values = coarse[cranium]

    def unlikeness(plane: Numbers) -> float:
        normal = np.array([1, -plane[1], -plane[2]])
        apart = (points @ normal - plane[0]) / (normal @ normal)
        mirrored = (points - 2 * np.outer(apart, normal)) / MASK_SPACING_MM + centre
        other = ndimage.map_coordinates(coarse, mirrored.T, order=1, mode="nearest")
        return float(np.mean((other - values) ** 2))

    start = np.zeros(3)
    steps = np.vstack([start, np.diag(PLANE_STEPS)])
    found = minimize(
        unlikeness,
        start,
        method="Nelder-Mead",
        options={
            "initial_simplex": steps,
            "xatol": PLANE_PRECISION,
            "fatol": np.inf,
            "maxfev": PLANE_TRIES,
        },
    )
    offset, yaw, roll = (float(each) for each in found.x)
    return offset, yaw, roll


def _level(scale: float, beside: Voxels, ahead: Voxels, above: Voxels) -> Voxels:
    """Distance from the centre of the ellipsoid around the ventricles; 1 is its surface."""
    height = above / scale + CENTRE_BELOW_VERTEX_MM
    reach_z = np.where(height > 0, np.float32(REACH_UP_MM), np.float32(REACH_DOWN_MM))
    level: Voxels = np.sqrt(
        (beside / scale / REACH_SIDE_MM) ** 2
        + ((ahead / scale + CENTRE_BEHIND_MIDDLE_MM) / REACH_AHEAD_MM) ** 2
        + (height / reach_z) ** 2
    )
    return level


def _evened(voxels: Voxels, affine: Affine, level: Voxels) -> tuple[Voxels, float]:
    """The volume over the coil's field, so that brain is 1, and how bright fluid is then."""
    inside = level < 1
    if not inside.any():
        raise _no_head("no slice through the middle of the head")
    brain = float(np.median(voxels[inside]))
    if brain <= 0:
        raise _no_head("darkness in the middle of the head")
    # Only brain tells of the coil: what is bright or dark is left out, and filled from around.
    likely = (voxels > DARK * brain) & (voxels < LEAST_CONTRAST * brain)
    sigma = COIL_MM / np.linalg.norm(affine[:3, :3], axis=0)
    weight = ndimage.gaussian_filter(likely.astype(np.float32), sigma, truncate=3.0)
    total = ndimage.gaussian_filter(np.where(likely, voxels, 0), sigma, truncate=3.0)
    coil = np.where(weight > 0.01, total / np.maximum(weight, 0.01), brain)
    even = (voxels / coil).astype(np.float32)
    even /= np.median(even[inside])
    return even, _fluid(even[inside])


def _fluid(values: Voxels) -> float:
    """How bright fluid is in the middle of the head, where brain is 1.

    Otsu's threshold would not do: small ventricles are 3 % of the ellipsoid, and noise or the coil
    part brain from brain then.
    """
    bright = values[values > LEAST_CONTRAST]
    if not bright.size:
        found = f"nothing in the middle of the head {LEAST_CONTRAST} times as bright as brain"
        raise _no_fluid(found)
    share = bright.size / values.size
    if share > MOST_FLUID:
        raise _no_fluid(f"{100 * share:.0f} % of the middle of the head as bright as fluid")
    return float(np.percentile(bright, FLUID_PERCENTILE))


def _no_head(found: str) -> UnusableStudy:
    return UnusableStudy(Reason.NOT_HEAD, found, AXIAL_T2)


def _no_fluid(found: str) -> UnusableStudy:
    return UnusableStudy(Reason.NO_REGION, found, AXIAL_T2)
