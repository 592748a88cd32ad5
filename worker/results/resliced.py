"""The map at the pixels of the source slices: linear between its patches, nothing out of the head.

The way from a pixel of a slice to the grid of the map is affine, and so is that to the outline of
the head. Where the pixels run along the axes of the grid, as they do in a volume that was prepared
in its own orientation, both are two small matrix products; else an interpolation at each pixel.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from worker.analyses.interface import Explanation
from worker.gradcam import CamMap
from worker.occlusion import OcclusionMap
from worker.preprocess import head_mask
from worker.volume import Slice, Volume

Plane = NDArray[np.float32]

# In indices of a grid from pixel to pixel: less is rounding, and a thousandth over a whole image.
SMALLEST_STEP: Final = 1e-6


class OnSlices(Protocol):
    """A map at the pixels of the slices of the volume that it was made of."""

    def share(self, source: Slice) -> Plane:
        """(rows, columns) how much of the map is to be seen: 0 nothing, 1 all of it."""

    def effects(self, source: Slice) -> Plane:
        """(rows, columns) of the map, in log odds."""


def resliced(volume: Volume, map_: Explanation) -> OnSlices:
    """Lay a map on the slices of its volume."""
    match map_:
        case OcclusionMap():
            return Resliced.over(volume, map_)
        case CamMap():
            return CamOnSlices(map_)


@dataclass(frozen=True, eq=False)
class CamOnSlices:
    """A Grad-CAM map, which lies on the voxels of the volume already."""

    map: CamMap

    def share(self, source: Slice) -> Plane:
        """(rows, columns) 1 where there was a crop."""
        return on_plane(self.map.looked.astype(np.float32), self.map.affine, source)

    def effects(self, source: Slice) -> Plane:
        """(rows, columns) of the map, in log odds."""
        return on_plane(self.map.heat, self.map.affine, source)


@dataclass(frozen=True, eq=False)
class Resliced:
    """An occlusion map over the volume that it was made of.

    Attributes:
        map: the map.
        head: (x, y, z) 1 inside and 0 outside of the outline beyond which the network sees zeros,
            so that nothing there can matter; at the coarse spacing of `head_mask`.
        head_affine: 4 x 4, voxel of `head` -> RAS mm.
    """

    map: OcclusionMap
    head: NDArray[np.float32]
    head_affine: NDArray[np.float64]

    @classmethod
    def over(cls, volume: Volume, map_: OcclusionMap) -> "Resliced":
        """A map, and the head in the volume."""
        mask, affine = head_mask(volume.voxels, volume.affine)
        return cls(map_, mask.astype(np.float32), affine)

    def share(self, source: Slice) -> Plane:
        """(rows, columns) how far inside of the head: 0 outside, 1 inside, a ramp between."""
        return on_plane(self.head, self.head_affine, source)

    def effects(self, source: Slice) -> Plane:
        """(rows, columns) of the map in logits; beyond the prepared volume 0."""
        effects = on_plane(self.map.delta, self.map.affine, source)
        effects[~self._is_covered(source)] = 0
        return effects

    def _is_covered(self, source: Slice) -> NDArray[np.bool_]:
        """(rows, columns) whether a pixel lies within the prepared volume."""
        across, down, offset = _steps(self.map.affine, source)
        covered = np.ones((source.rows, source.columns), dtype=bool)
        spec = self.map.spec
        for axis, (stride, patch, size) in enumerate(
            zip(spec.stride_used, spec.patch_used, self.map.shape, strict=True)
        ):
            index = (
                offset[axis]
                + across[axis] * np.arange(source.columns)
                + down[axis] * np.arange(source.rows)[:, None]
            )
            first_centre = (patch - 1) / 2  # in voxels
            covered &= index >= (-0.5 - first_centre) / stride
            covered &= index <= (size - 0.5 - first_centre) / stride
        return covered


def on_plane(grid: NDArray[np.float32], affine: NDArray[np.float64], source: Slice) -> Plane:
    """A grid, whose index an affine takes to RAS mm, at the pixels of a slice; faces go on."""
    steps = _steps(affine, source)
    moved = np.abs(steps[:2]) > SMALLEST_STEP
    if moved.sum(axis=1).max() <= 1 and moved.sum(axis=0).max() <= 1:
        return _along_axes(grid, steps, source)
    return _across_axes(grid, steps, source)


def _along_axes(grid: NDArray[np.float32], steps: NDArray[np.float64], source: Slice) -> Plane:
    """`on_plane` where a column is a step along one axis of the grid, and a row along another."""
    across, down, first = steps
    column_axis = int(np.argmax(np.abs(across)))
    row_axis = int(np.argmax(np.where(np.arange(3) == column_axis, -1, np.abs(down))))
    (slice_axis,) = {0, 1, 2} - {column_axis, row_axis}
    ordered = grid.transpose(slice_axis, row_axis, column_axis)
    rows = first[row_axis] + down[row_axis] * np.arange(source.rows)
    columns = first[column_axis] + across[column_axis] * np.arange(source.columns)
    (here,) = _weights(first[slice_axis : slice_axis + 1], ordered.shape[0])
    near = np.flatnonzero(here)
    layer = np.tensordot(here[near], ordered[near], axes=1)
    found: Plane = _weights(rows, layer.shape[0]) @ layer @ _weights(columns, layer.shape[1]).T
    return found


def _weights(index: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """(places, size) what each value of a line counts at places along it: linear between them."""
    within = np.clip(index, 0, size - 1)
    weights: Plane = np.maximum(0, 1 - np.abs(within[:, None] - np.arange(size))).astype(np.float32)
    return weights


def _across_axes(grid: NDArray[np.float32], steps: NDArray[np.float64], source: Slice) -> Plane:
    """`on_plane` where a slice lies askew in the grid."""
    scale = 2 / np.maximum(np.array(grid.shape) - 1, 1)
    # PyTorch wants places between -1, the first index of an axis, and 1, the last; x last to first.
    across, down, first = torch.from_numpy(scale * steps).float().flip(1)
    rows = torch.arange(source.rows)[:, None, None] * down
    columns = torch.arange(source.columns)[:, None] * across
    places = (first - 1) + rows + columns
    values = torch.from_numpy(np.ascontiguousarray(grid))
    plane = functional.grid_sample(
        values[None, None], places[None, None], padding_mode="border", align_corners=True
    )
    found: Plane = plane[0, 0, 0].numpy()
    return found


def _steps(affine: NDArray[np.float64], source: Slice) -> NDArray[np.float64]:
    """(3, 3) in indices of a grid: from column to column, from row to row, and the first pixel."""
    to_grid = np.linalg.inv(affine) @ source.pixel_to_ras()
    return np.stack([to_grid[:3, 0], to_grid[:3, 1], to_grid[:3, 3]])
