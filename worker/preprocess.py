"""Volume -> what the network sees: one pure definition for training and service.

Axes: voxel axis 0 runs to the patient's Right, axis 1 to Anterior, axis 2 to Superior, as in
volume.py. Affines map (i, j, k, 1) to RAS mm. A scan that was tilted to fit the head stays tilted:
its axes are reordered and flipped, never rotated.

The recipe follows Faghani et al., AJNR 2024;45:439 (1 mm trilinear, padded to 240 x 260 x 260).
The paper gives no intensity scale; ours sets everything outside of the head to exactly 0, which
is what padding and an occluded patch hold as well, and scales the inside to (0, 1].
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

Voxels: TypeAlias = NDArray[np.float32]
Affine: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

# The head is found on a coarse grid whatever the recipe, so that every recipe sees one outline.
MASK_SPACING_MM: Final = 4.0
# Otsu halves the way between air and bright tissue; fat-suppressed scalp lies below that.
MASK_THRESHOLD_OF_OTSU: Final = 0.6
# Ghosts hang on the head by thin bridges, air cells and orbits open to the outside by narrow gaps.
BRIDGE_MM: Final = 4.0
GAP_MM: Final = 16.0
# The skull reaches about this far below the vertex; chin, neck and shoulders must not pull the
# centre of the head.
SKULL_HEIGHT_MM: Final = 140.0
# A Gaussian's full width at half maximum is 2.355 standard deviations.
FWHM_IN_SD: Final = 2.3548
# The darkest voxel of the head: above 0, and exact in float16.
DARKEST: Final = 2.0**-10


class NoHead(ValueError):
    """The volume holds nothing that stands out from its background."""


@dataclass(frozen=True)
class Recipe:
    """How a volume is prepared; part of every bundle.

    Attributes:
        spacing_mm: of the prepared grid, right, anterior, superior.
        shape: of the prepared grid.
        vertex_margin_mm: empty space left above the vertex; what does not fit is cut at the neck.
        low_percentile: of the head's intensities, mapped to just above 0.
        anchor_percentile: of the head's intensities, near white matter, mapped to anchor_value.
            Vessels and membranes are too few to move it: a percentile near 100 would let a wide
            sinus darken the whole brain.
        anchor_value: what is brighter than 1 / anchor_value anchors is clipped to 1.
    """

    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    vertex_margin_mm: float = 16.0
    low_percentile: float = 0.5
    anchor_percentile: float = 80.0
    anchor_value: float = 0.5


PAPER_RECIPE: Final = Recipe(spacing_mm=(1.0, 1.0, 1.0), shape=(240, 260, 260))
DEMO_RECIPE: Final = Recipe(spacing_mm=(4.0, 4.0, 4.0), shape=(60, 65, 65))


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the network sees.

    Attributes:
        voxels: float32 of the recipe's shape, rounded to float16; exactly 0 outside of the head,
            in (0, 1] inside.
        affine: 4 x 4, voxel -> RAS mm.
    """

    voxels: Voxels
    affine: Affine


def prepare(voxels: Voxels, affine: Affine, recipe: Recipe) -> Prepared:
    """Bring a head of any grid onto the recipe's grid and intensity scale.

    Args:
        voxels: (X, Y, Z), any unit, axes in any order and direction.
        affine: 4 x 4, voxel -> RAS mm; oblique is welcome.
        recipe: what the network was trained on.

    Raises:
        NoHead: nothing stands out from the background.
    """
    voxels, affine = canonical(voxels, affine)
    mask, mask_affine = head_mask(voxels, affine)
    grid = _place(mask, mask_affine, recipe)
    image = resample(voxels, affine, grid, recipe.shape)
    soft_mask = resample(mask.astype(np.float32), mask_affine, grid, recipe.shape)
    inside = (soft_mask > 0.5) & _within(voxels.shape, affine, grid, recipe.shape)
    return Prepared(_scale(image, inside, recipe), grid)


def canonical(voxels: Voxels, affine: Affine) -> tuple[Voxels, Affine]:
    """Reorder and flip the axes so that they run nearest to Right, Anterior, Superior.

    >>> lpi = np.diag([-1.0, -1.0, 1.0, 1.0])
    >>> flipped, ras = canonical(np.arange(2, dtype=np.float32).reshape(2, 1, 1), lpi)
    >>> flipped.ravel().tolist(), ras[:3, 3].tolist()
    ([1.0, 0.0], [-1.0, 0.0, 0.0])
    """
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order = linear_sum_assignment(-np.abs(cosines))[1]  # order[w]: the voxel axis along world w
    voxels = voxels.transpose(order)
    affine = affine[:, [*order, 3]]
    for axis in range(3):
        if affine[axis, axis] < 0:
            voxels, affine = _flip(voxels, affine, axis)
    return voxels, affine


def head_mask(voxels: Voxels, affine: Affine) -> tuple[Mask, Affine]:
    """Outline the head, cavities included, on a grid of MASK_SPACING_MM over the same box.

    Args:
        voxels: (X, Y, Z) in canonical order.
        affine: 4 x 4, voxel -> RAS mm.

    Raises:
        NoHead: nothing stands out from the background.
    """
    extent_mm = np.array(voxels.shape) * _spacing(affine)
    shape = tuple(int(n) for n in np.ceil(extent_mm / MASK_SPACING_MM))
    spacing = np.full(3, MASK_SPACING_MM)
    grid = _grid(affine, spacing, _centre(voxels.shape), _centre(shape))
    coarse = resample(voxels, affine, grid, (shape[0], shape[1], shape[2]))
    bright = coarse > MASK_THRESHOLD_OF_OTSU * otsu(coarse)
    if not bright.any() or bright.all():
        raise NoHead(
            "no head found: the whole volume is equally bright; "
            "look at its pixels before sending it again"
        )
    return _solid(bright), grid


def otsu(values: Voxels) -> float:
    """Threshold that parts values into two classes of the least variance (Otsu, 1979).

    >>> 1.0 < otsu(np.array([0, 1, 1, 0, 10, 9, 10, 9], dtype=np.float32)) < 9.0
    True
    """
    top = np.percentile(values, 99.5)  # vessels and spikes must not stretch the histogram
    counts, edges = np.histogram(np.minimum(values, top), bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    # Equally good thresholds form a plateau over the gap between the classes: take its middle.
    between = np.nan_to_num(between)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1:][best].mean())


def resample(voxels: Voxels, affine: Affine, grid: Affine, shape: tuple[int, int, int]) -> Voxels:
    """Trilinear values of a volume on another grid whose axes run along the same directions.

    Where the grid is coarser, a Gaussian first widens each voxel to the new spacing, so that a
    thin bright membrane dims rather than coming and going with the position of the grid. Beyond
    its faces a volume goes on with the values at its faces.

    Args:
        voxels: (X, Y, Z).
        affine: 4 x 4, voxel -> RAS mm, of `voxels`.
        grid: 4 x 4, voxel -> RAS mm, of the result.
        shape: of the result.
    """
    ratio = _spacing(grid) / _spacing(affine)
    sigma = np.sqrt(np.maximum(ratio**2 - 1, 0)) / FWHM_IN_SD
    if sigma.any():
        voxels = ndimage.gaussian_filter(voxels, sigma, mode="nearest", truncate=3.0)
    step, start = _between(affine, grid)
    return ndimage.affine_transform(
        voxels, step, start, output_shape=shape, order=1, mode="nearest", output=np.float32
    )


def _scale(image: Voxels, inside: Mask, recipe: Recipe) -> Voxels:
    """Percentiles of the head to (0, 1], all else to 0, at the precision of float16."""
    low, anchor = np.percentile(image[inside], (recipe.low_percentile, recipe.anchor_percentile))
    unit = max(anchor - low, np.finfo(np.float32).tiny) / recipe.anchor_value
    scaled = np.clip((image - low) / unit, DARKEST, 1)
    return np.where(inside, scaled, 0).astype(np.float16).astype(np.float32)


def _place(mask: Mask, mask_affine: Affine, recipe: Recipe) -> Affine:
    """The recipe's grid, centred on the skull sideways and held by the vertex in height."""
    spacing = np.array(recipe.spacing_mm)
    top = int(np.flatnonzero(mask.any(axis=(0, 1)))[-1])
    skull = mask[:, :, max(0, top - round(SKULL_HEIGHT_MM / MASK_SPACING_MM)) :]
    anchor = np.array([_middle(skull, 0), _middle(skull, 1), top + 0.5])
    target = _centre(recipe.shape)
    target[2] = recipe.shape[2] - 0.5 - recipe.vertex_margin_mm / spacing[2]
    return _grid(mask_affine, spacing, anchor, target)


def _middle(mask: Mask, axis: int) -> float:
    """Midway between the outermost true voxels along an axis."""
    others = tuple(other for other in range(3) if other != axis)
    where = np.flatnonzero(mask.any(axis=others))
    return float(where[0] + where[-1]) / 2


def _solid(bright: Mask) -> Mask:
    """The largest piece without bridges to others, its gaps closed and its cavities filled.

    Cavities are filled before bridges are cut, or the scalp, thin and parted from the brain by
    dark bone, would go with the bridges.
    """
    filled = _without_cavities(bright)
    opened = ndimage.binary_opening(filled, iterations=round(BRIDGE_MM / MASK_SPACING_MM))
    pieces, count = ndimage.label(opened if opened.any() else filled)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    head = pieces == 1 + int(np.argmax(sizes))
    reach = round(GAP_MM / MASK_SPACING_MM)
    padded = np.pad(head, reach)  # closing must not eat the head where the field of view ends
    closed = ndimage.binary_closing(padded, iterations=reach)
    return _without_cavities(closed)[reach:-reach, reach:-reach, reach:-reach]


def _without_cavities(mask: Mask) -> Mask:
    """Fill what is enclosed in space or within any plane: the neck's cut end opens the skull."""
    filled = ndimage.binary_fill_holes(mask)
    plane = ndimage.generate_binary_structure(2, 1)
    for axis in range(3):
        filled |= ndimage.binary_fill_holes(mask, np.expand_dims(plane, axis))
    return filled


def _within(
    source: tuple[int, ...], affine: Affine, grid: Affine, shape: tuple[int, int, int]
) -> Mask:
    """Which voxel centres of the grid lie between the outer faces of the source's voxels."""
    step, start = _between(affine, grid)
    inside = np.ones(shape, dtype=np.bool_)
    for axis in range(3):
        index = start[axis] + step[axis] * np.arange(shape[axis])
        along = (index >= -0.5) & (index <= source[axis] - 0.5)
        inside &= along.reshape([-1 if other == axis else 1 for other in range(3)])
    return inside


def _between(affine: Affine, grid: Affine) -> tuple[Affine, Affine]:
    """Per axis, the step from one grid voxel to the next and the start, in source voxels."""
    relative = np.asarray(np.linalg.solve(affine, grid), dtype=np.float64)
    return np.diag(relative)[:3].copy(), relative[:3, 3].copy()


def _grid(affine: Affine, spacing: Affine, anchor: Affine, target: Affine) -> Affine:
    """A grid along the axes of `affine` whose voxel `target` lies where voxel `anchor` does."""
    grid = np.eye(4)
    grid[:3, :3] = affine[:3, :3] / _spacing(affine) * spacing
    grid[:3, 3] = affine[:3, :3] @ anchor + affine[:3, 3] - grid[:3, :3] @ target
    return grid


def _flip(voxels: Voxels, affine: Affine, axis: int) -> tuple[Voxels, Affine]:
    """Run one axis backwards; every voxel stays where it is in the patient."""
    flipped = affine.copy()
    flipped[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
    flipped[:3, axis] *= -1
    return np.flip(voxels, axis), flipped


def _spacing(affine: Affine) -> Affine:
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0), dtype=np.float64)


def _centre(shape: tuple[int, ...]) -> Affine:
    """The index, between voxels perhaps, of the middle of a grid."""
    return (np.array(shape) - 1) / 2
