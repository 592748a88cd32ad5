"""A region of an axial T2 -> what the networks of the infection analysis see; for training too.

Each slice that holds enough of the region gives a crop: a square around the region, as a
radiologist sees it (rows run to posterior, columns to the patient's left). Its channels are the
image, the image within the region, and the image's Laplacian of Gaussian. The region as a whole
gives one vector of handcrafted features, which all of its crops share.

The recipe is our reading of Cüce et al., Front Med 2025;12:1659653, whose abstract does not tell
it. Axes as in volume.py: Right, Anterior, Superior; slices are stacked along the last one.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from worker.preprocess import Mask, Voxels
from worker.quality import Reason, UnusableStudy
from worker.radiomics.config import PAPER_RADIOMICS, Radiomics
from worker.radiomics.extraction import UnusableRegion, extract
from worker.radiomics.vector import Vector
from worker.scene import DARK, Scene

CHANNELS: Final = 3


@dataclass(frozen=True)
class CropRecipe:
    """How regions are looked at; part of the bundle.

    Attributes:
        fewest_pixels: of the region in a slice; a slice with less gives no crop.
        margin: pixels around the region's bounding box within its slice.
        side: rows and columns of a crop.
        log_sigma_mm: width of the Laplacian of Gaussian, within the slice.
        radiomics: which handcrafted features.
        scaled_by: whose mean becomes 0 and whose deviation 1 in a crop: those of the "brain", or of
            the "middle" of the head, where it lies beside as much fluid as there is.
    """

    fewest_pixels: int = 50
    margin: int = 8
    side: int = 224
    log_sigma_mm: float = 1.0
    radiomics: Radiomics = field(default=PAPER_RADIOMICS)
    # What a bundle means that does not say it.
    scaled_by: Literal["brain", "middle"] = "middle"


PAPER_CROPS: Final = CropRecipe(scaled_by="brain")


@dataclass(frozen=True)
class Place:
    """Where a crop lies in the volume.

    Attributes:
        slice: index along the last axis.
        centre: of the square, in voxels along the first two axes; may lie between voxels.
        sides: of the square, in voxels along the first two axes.
    """

    slice: int
    centre: tuple[float, float]
    sides: tuple[float, float]


@dataclass(frozen=True, eq=False)
class RegionView:
    """One region as the networks see it.

    Attributes:
        places: of the N crops, from below.
        crops: float32 (N, 3, side, side), rounded to float16, the same in training and service.
        radiomics: of the whole region.
        volume_ml: of the whole region.
    """

    places: tuple[Place, ...]
    crops: NDArray[np.float32]
    radiomics: Vector
    volume_ml: float


def look(scene: Scene, mask: Mask, recipe: CropRecipe) -> RegionView:
    """Look at one region of a head.

    Args:
        scene: the head; its voxels are evened out, so that brain is 1 whatever the scanner.
        mask: bool (X, Y, Z) on the same grid, as proposed or as a reader drew it.
        recipe: how.

    Raises:
        UnusableStudy: NO_REGION, where the region is too small to be looked at.
    """
    spacing = np.linalg.norm(scene.affine[:3, :3], axis=0)
    pixels = mask.sum(axis=(0, 1))
    slices = np.flatnonzero(pixels >= recipe.fewest_pixels)
    if slices.size == 0:
        raise UnusableStudy(
            Reason.NO_REGION,
            f"{int(pixels.max(initial=0))} pixels of the region in the slice that holds most",
            f"a slice with {recipe.fewest_pixels} at least",
        )
    try:
        across, along, through = (float(each) for each in spacing)
        radiomics = extract(scene.voxels, (across, along, through), mask, recipe.radiomics)
    except UnusableRegion as error:
        raise UnusableStudy(Reason.NO_REGION, error.found, error.expected) from error
    usual = scene.voxels[_scale_of(scene, recipe)]
    mean, deviation = float(usual.mean()), float(usual.std())
    places = tuple(_place(mask[..., index], int(index), spacing, recipe) for index in slices)
    crops = np.stack(
        [
            _crop((scene.voxels[..., each.slice] - mean) / deviation, mask, each, spacing, recipe)
            for each in places
        ]
    )
    volume_ml = float(np.count_nonzero(mask)) * scene.voxel_ml
    return RegionView(places, crops.astype(np.float16).astype(np.float32), radiomics, volume_ml)


def paste(heat: Voxels, places: tuple[Place, ...], shape: tuple[int, int, int]) -> Voxels:
    """Put values of crops back on the volume's grid: (N, side, side) -> (X, Y, Z), 0 elsewhere."""
    pasted = np.zeros(shape, dtype=np.float32)
    side = heat.shape[-1]
    for values, place in zip(heat, places, strict=True):
        rows, columns = (
            (np.arange(extent) - centre) / reach * side + (side - 1) / 2
            for extent, centre, reach in zip(
                shape[1::-1], place.centre[::-1], place.sides[::-1], strict=True
            )
        )
        # Rows run to posterior and columns to the left, against the axes of the volume.
        at = np.meshgrid(side - 1 - columns, side - 1 - rows, indexing="ij")
        pasted[..., place.slice] = ndimage.map_coordinates(
            values.T, at, order=1, mode="constant", cval=0.0
        )
    return pasted


def _scale_of(scene: Scene, recipe: CropRecipe) -> Mask:
    """(X, Y, Z), voxels in the middle of the head whose mean and deviation are the crop's unit."""
    middle: Mask = scene.level < 1
    if recipe.scaled_by == "middle":
        return middle
    return middle & (scene.voxels > DARK) & (scene.voxels < scene.threshold)


def _place(mask: Mask, index: int, spacing: NDArray[np.float64], recipe: CropRecipe) -> Place:
    """The square around the region in one slice; square in mm, whatever the pixels."""
    lit = np.argwhere(mask)
    first, last = lit.min(axis=0), lit.max(axis=0)
    reach_mm = float(((last - first + 1 + 2 * recipe.margin) * spacing[:2]).max())
    x, y = ((first + last) / 2).tolist()
    return Place(index, (x, y), (reach_mm / float(spacing[0]), reach_mm / float(spacing[1])))


def _crop(
    image: Voxels, mask: Mask, place: Place, spacing: NDArray[np.float64], recipe: CropRecipe
) -> Voxels:
    """(3, side, side) of one slice whose brain has mean 0 and deviation 1."""
    sigma = recipe.log_sigma_mm / spacing[:2]
    edges = -(recipe.log_sigma_mm**2) * _laplacian(image, sigma, spacing)
    within = np.where(mask[..., place.slice], image, 0)
    x, y = (
        centre + reach * ((np.arange(recipe.side)[::-1] + 0.5) / recipe.side - 0.5)
        for centre, reach in zip(place.centre, place.sides, strict=True)
    )
    at = np.meshgrid(x, y, indexing="ij")
    channels = [
        ndimage.map_coordinates(each, at, order=1, mode="nearest").T
        for each in (image, within, edges)
    ]
    return np.stack(channels).astype(np.float32)


def _laplacian(image: Voxels, sigma: NDArray[np.float64], spacing: NDArray[np.float64]) -> Voxels:
    """Second derivatives of the smoothed slice along both axes, per square mm, added up.

    Args:
        image: (X, Y).
        sigma: (2,) of the Gaussian, in pixels.
        spacing: (3,) mm.
    """
    along_x = ndimage.gaussian_filter(image, sigma, order=(2, 0)) / spacing[0] ** 2
    along_y = ndimage.gaussian_filter(image, sigma, order=(0, 2)) / spacing[1] ** 2
    found: Voxels = along_x + along_y
    return found
