"""Voxels and a mask in, a vector out: the only code that knows flash-radiomics.

Axes: volumes and masks are (X, Y, Z) as in volume.py, slices are stacked along Z. The library and
ITK want (Z, Y, X); `_slices_first` is the only place that turns one into the other.
"""

import math
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, Final, TypeAlias

import flash_radiomics
import numpy as np
import SimpleITK
from flash_radiomics._bindings import FlashRadiomicsError
from numpy.typing import NDArray

from worker.preprocess import Mask, Voxels
from worker.radiomics.config import FEATURES, ORIGINAL, Family, Radiomics, log_name
from worker.radiomics.vector import Vector

Spacing: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[slice, slice, slice]

LIBRARY: Final = "flash-radiomics"
# Filters are ITK's, so another release of it may give other numbers as well.
VERSION: Final = f"{metadata.version(LIBRARY)} (SimpleITK {metadata.version('SimpleITK')})"

# Beyond this many sigmas ITK's recursive kernel no longer moves a float32 (tests measure it).
KERNEL_REACH: Final = 12.0
# ITK's recursive filters need four voxels in a line.
FEWEST_IN_LINE: Final = 4
# Texture in more grey levels than this is noise, and its matrices fill the memory.
MOST_GREY_LEVELS: Final = 256

CLASSES: Final = {
    "shape": flash_radiomics.RadiomicsShape,
    "firstorder": flash_radiomics.RadiomicsFirstOrder,
    "glcm": flash_radiomics.RadiomicsGLCM,
    "glrlm": flash_radiomics.RadiomicsGLRLM,
    "glszm": flash_radiomics.RadiomicsGLSZM,
    "gldm": flash_radiomics.RadiomicsGLDM,
    "ngtdm": flash_radiomics.RadiomicsNGTDM,
}


# The reference implementation on one thread: others add in another order, or other numbers.
FIXED: Final[Mapping[str, Any]] = {
    "backend": "cpu",
    "num_threads": 1,
    "distances": [1],
    "gldm_a": 0,
    "voxelArrayShift": 0,
}


class UnusableRegion(ValueError):
    """A region, or the volume that it lies in, has no features: found, expected, next step."""

    def __init__(self, found: str, expected: str, next_step: str) -> None:
        # All arguments go to Exception, so that the error survives pickling between processes.
        super().__init__(found, expected, next_step)
        self.found, self.expected, self.next_step = found, expected, next_step

    def __str__(self) -> str:
        return f"region: found {self.found}, expected {self.expected}; {self.next_step}"


def extract(voxels: Voxels, spacing_mm: Spacing, mask: Mask, config: Radiomics) -> Vector:
    """Compute the features of one region of a volume.

    The same input gives the same bytes, however many threads there are.

    Args:
        voxels: (X, Y, Z), any unit, slices stacked along Z.
        spacing_mm: between voxel centres along X, Y and Z.
        mask: (X, Y, Z), true within the region.
        config: which features, and how.

    Raises:
        UnusableRegion: there is no region, it is too small, or it cannot be measured.
    """
    _refuse_what_does_not_fit(voxels, spacing_mm, mask)
    _refuse_what_is_too_small(mask, spacing_mm, config)
    image, region = _slices_first(voxels), _slices_first(mask)
    box = _bounding_box(region)
    inside = region[box]
    found: dict[str, float] = {}
    for name, pixels in _images(image, box, spacing_mm, config):
        _refuse_too_many_grey_levels(name, pixels[inside], config)
        for family in config.families:
            if family != "shape":
                found |= _measure(name, family, pixels, inside, spacing_mm, config)
    if "shape" in config.families:
        found |= _measure(ORIGINAL, "shape", image[box], inside, spacing_mm, config)
    values = np.array([found[name] for name in config.names], dtype=np.float64)
    values.setflags(write=False)
    return Vector(config.names, values, LIBRARY, VERSION, config.config_hash)


def laplacian_of_gaussian(image: Voxels, spacing_mm: Spacing, sigma_mm: float) -> Voxels:
    """Filter with ITK's Laplacian of Gaussian, times sigma squared, as PyRadiomics does.

    Beyond its faces a volume goes on with the values at its faces.

    Args:
        image: (Z, Y, X), at least FEWEST_IN_LINE voxels along each.
        spacing_mm: along X, Y and Z.
        sigma_mm: of the Gaussian.

    Returns:
        (Z, Y, X).
    """
    volume = SimpleITK.GetImageFromArray(np.ascontiguousarray(image, dtype=np.float64))
    volume.SetSpacing([float(step) for step in spacing_mm])
    filtered = SimpleITK.LaplacianRecursiveGaussian(volume, float(sigma_mm), True)
    return np.asarray(SimpleITK.GetArrayFromImage(filtered), dtype=np.float32)


def _images(
    image: Voxels, box: Box, spacing_mm: Spacing, config: Radiomics
) -> Iterator[tuple[str, Voxels]]:
    """The original and each filtered image by name, cropped to the region's box."""
    if config.original:
        yield ORIGINAL, image[box]
    for sigma_mm in config.log_sigmas_mm:
        wide = _widened(box, image.shape, spacing_mm, sigma_mm)
        filtered = laplacian_of_gaussian(image[wide], spacing_mm, sigma_mm)
        z, y, x = (
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip(box, wide, strict=True)
        )
        yield log_name(sigma_mm), filtered[z, y, x]


def _measure(
    image: str, family: Family, pixels: Voxels, inside: Mask, spacing_mm: Spacing, config: Radiomics
) -> dict[str, float]:
    """The features of one family in one image; the library gets a box that the region fills."""
    calculator = CLASSES[family](
        np.ascontiguousarray(pixels, dtype=np.float64),
        np.ascontiguousarray(inside, dtype=np.uint8),
        spacing=spacing_mm,
        force2D=config.in_plane,
        **({"binCount": config.bin_count} if config.bin_count else {"binWidth": config.bin_width}),
        **FIXED,
    )
    try:
        found = calculator.execute()
    except FlashRadiomicsError as error:
        raise _not_measured(f"{family} of {image}") from error
    names = {name: f"{image}_{family}_{name}" for name in FEATURES[family]}
    values = {full: float(found.get(name, math.nan)) for name, full in names.items()}
    if missing := [name for name, value in values.items() if not math.isfinite(value)]:
        raise _not_measured(", ".join(missing))
    return values


def _not_measured(what: str) -> UnusableRegion:
    return UnusableRegion(
        f"no value of {what}",
        "voxels that touch each other",
        "look at the outline of the region, and draw it anew",
    )


def _refuse_what_does_not_fit(voxels: Voxels, spacing_mm: Spacing, mask: Mask) -> None:
    if voxels.ndim != 3 or voxels.shape != mask.shape or mask.dtype != np.bool_:
        raise UnusableRegion(
            f"a volume of shape {voxels.shape} and a mask of {mask.dtype}, shape {mask.shape}",
            "a mask of bool on the grid of a volume in three dimensions",
            "bring the mask onto the grid of the volume first",
        )
    if len(spacing_mm) != 3 or not all(0 < step < math.inf for step in spacing_mm):
        raise UnusableRegion(
            f"voxels {tuple(spacing_mm)} mm apart",
            "three distances above 0 mm",
            "take them from the affine of the volume",
        )
    if not np.isfinite(voxels).all():
        raise UnusableRegion(
            f"{np.count_nonzero(~np.isfinite(voxels))} voxels of the volume without a finite value",
            "a number in each",
            "look at the volume's pixels and at what prepared them",
        )


def _refuse_what_is_too_small(mask: Mask, spacing_mm: Spacing, config: Radiomics) -> None:
    size = np.count_nonzero(mask)
    if size < max(1, config.min_voxels):
        raise UnusableRegion(
            f"{size} voxels",
            f"at least {max(1, config.min_voxels)}",
            "draw the region anew, or leave it out",
        )
    widest = max(config.log_sigmas_mm, default=0)
    fewest = [max(FEWEST_IN_LINE, math.ceil(widest / step) + 1) for step in spacing_mm]
    if widest and any(n < least for n, least in zip(mask.shape, fewest, strict=True)):
        raise UnusableRegion(
            f"a volume of {mask.shape} voxels",
            f"at least {tuple(fewest)} for a Laplacian of Gaussian of {widest:g} mm",
            "give the whole volume, not a crop of it, or leave that filter out",
        )


def _refuse_too_many_grey_levels(name: str, values: Voxels, config: Radiomics) -> None:
    levels = config.bin_count or float(np.ptp(values)) / (config.bin_width or 1)
    if levels > MOST_GREY_LEVELS:
        raise UnusableRegion(
            f"{levels:.0f} grey levels in {name}",
            f"at most {MOST_GREY_LEVELS}",
            "configure wider bins, or a number of them",
        )


def _slices_first(array: NDArray[Any]) -> NDArray[Any]:
    """(X, Y, Z) -> (Z, Y, X): monro's order of axes to that of the library and of ITK."""
    return array.transpose(2, 1, 0)


def _bounding_box(region: Mask) -> Box:
    z, y, x = (slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(region))
    return z, y, x


def _widened(box: Box, shape: tuple[int, ...], spacing_mm: Spacing, sigma_mm: float) -> Box:
    """The box and all around it that a filter of this width can see, within the volume."""
    reach = [
        max(FEWEST_IN_LINE, math.ceil(KERNEL_REACH * sigma_mm / step))
        for step in reversed(spacing_mm)
    ]
    z, y, x = (
        slice(max(0, part.start - more), min(size, part.stop + more))
        for part, size, more in zip(box, shape, reach, strict=True)
    )
    return z, y, x
