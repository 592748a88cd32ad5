"""The occlusion map: where zeros change the fistula logit, and by how much.

A patch of zeros visits every position of a regular grid; the fall of the logit (log odds,
uncalibrated) is recorded for each member (Zeiler and Fergus 2014; Faghani et al. 2024 with
12 x 13 x 13 patches at 1 mm). A patch whose voxels are all 0 already changes nothing: its effect is
exactly 0 and it is not computed. Patches at the far faces may reach beyond the volume.

Correct first: mode "exact" runs the whole network for every position.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from worker.preprocess import Prepared

# Positions computed together. Fixed: another batch size may round differently.
BATCH: Final = 16

Index = tuple[int, int, int]


class Members(Protocol):
    """Whose logit is explained: an `Ensemble`, or one member of it."""

    def batch(self, voxels: NDArray[np.float32]) -> Tensor:
        """(N, X, Y, Z) voxels as a batch on the members' device."""

    def logits(self, batch: Tensor) -> NDArray[np.float64]:
        """Uncalibrated logits (log odds), (members, N)."""


@dataclass(frozen=True)
class OcclusionSpec:
    """How a map is made; part of every bundle.

    Attributes:
        mode: "exact" recomputes the whole network for every position.
        patch: voxels of the prepared volume set to 0 together.
        stride: voxels from one position to the next.
    """

    mode: Literal["exact"]
    patch: Index
    stride: Index

    def grid(self, shape: Index) -> Index:
        """Number of positions along each axis: as few as touch every voxel.

        >>> OcclusionSpec("exact", (12, 13, 13), (12, 13, 13)).grid((240, 260, 260))
        (20, 20, 20)
        >>> OcclusionSpec("exact", (6, 7, 7), (6, 7, 7)).grid((60, 65, 65))
        (10, 10, 10)
        """
        x, y, z = (
            1 + max(0, -(-(size - patch) // stride))
            for size, patch, stride in zip(shape, self.patch, self.stride, strict=True)
        )
        return x, y, z

    def box(self, position: Index) -> tuple[slice, slice, slice]:
        """The voxels occluded at a position of the grid."""
        x, y, z = (
            slice(index * stride, index * stride + patch)
            for index, patch, stride in zip(position, self.patch, self.stride, strict=True)
        )
        return x, y, z


@dataclass(frozen=True, eq=False)
class OcclusionMap:
    """Effect of each patch on the fistula logit.

    Attributes:
        delta: float32 (gx, gy, gz), mean over members of (baseline - occluded logit): above 0
            the region speaks for the finding.
        spread: float32 (gx, gy, gz), population standard deviation over members.
        affine: 4 x 4, grid index (patch centre) -> RAS mm.
        mode: as in the spec.
        patch: voxels, as in the spec.
        stride: voxels, as in the spec.
        shape: of the prepared volume, voxels.
        positions: of the grid.
        computed: positions that were not all 0 already.
        error: largest difference from a full recomputation measured, in logits; None when the
            map is the full recomputation itself.
    """

    delta: NDArray[np.float32]
    spread: NDArray[np.float32]
    affine: NDArray[np.float64]
    mode: str
    patch: Index
    stride: Index
    shape: Index
    positions: int
    computed: int
    error: float | None

    def sample(self, ras: NDArray[np.floating]) -> NDArray[np.float32]:
        """Effect at points of the patient, trilinear between patch centres.

        Beyond the outermost centres the value there goes on; outside of the prepared volume it
        is 0.

        Args:
            ras: (..., 3) in mm.

        Returns:
            (...) float32, in logits.
        """
        inverse = np.linalg.inv(self.affine)
        index = ras @ inverse[:3, :3].T + inverse[:3, 3]
        values = ndimage.map_coordinates(
            self.delta, index.reshape(-1, 3).T, order=1, mode="nearest", output=np.float32
        ).reshape(index.shape[:-1])
        voxel = index * self.stride + (np.array(self.patch) - 1) / 2
        within = np.all((voxel >= -0.5) & (voxel <= np.array(self.shape) - 0.5), axis=-1)
        return np.where(within, values, np.float32(0))


def explain(
    ensemble: Members,
    prepared: Prepared,
    spec: OcclusionSpec,
    on_progress: Callable[[int, int], None],
) -> OcclusionMap:
    """Occlude every position of the grid in turn, with every member.

    Args:
        ensemble: whose logit is explained.
        prepared: the study.
        spec: usually the bundle's.
        on_progress: called between batches with the positions done and to do; it may raise to
            cancel, and what it raises is passed on.

    Returns:
        The same map, bit for bit, for the same arguments on the same machine.
    """
    grid = spec.grid(_index(prepared.voxels.shape))
    active = [at for at in np.ndindex(grid) if prepared.voxels[spec.box(_index(at))].any()]
    baseline = ensemble.logits(ensemble.batch(prepared.voxels[None]))
    effects = np.zeros((len(baseline), *grid), dtype=np.float64)
    on_progress(0, len(active))
    done = 0
    for positions in _batches(active):
        occluded = _occlude(prepared.voxels, [spec.box(_index(at)) for at in positions])
        logits = ensemble.logits(ensemble.batch(occluded))
        effects[:, *np.transpose(positions)] = baseline - logits
        done += len(positions)
        on_progress(done, len(active))
    return OcclusionMap(
        delta=effects.mean(axis=0).astype(np.float32),
        spread=effects.std(axis=0).astype(np.float32),
        affine=_grid_affine(prepared, spec),
        mode=spec.mode,
        patch=spec.patch,
        stride=spec.stride,
        shape=_index(prepared.voxels.shape),
        positions=int(np.prod(grid)),
        computed=len(active),
        error=None,
    )


def _occlude(
    voxels: NDArray[np.float32], boxes: list[tuple[slice, slice, slice]]
) -> NDArray[np.float32]:
    """(N, X, Y, Z): the volume once per box, with the box set to 0."""
    occluded = np.repeat(voxels[None], len(boxes), axis=0)
    for copy, box in zip(occluded, boxes, strict=True):
        copy[box] = 0
    return occluded


def _batches(positions: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    remaining = iter(positions)
    while batch := list(itertools.islice(remaining, BATCH)):
        yield batch


def _grid_affine(prepared: Prepared, spec: OcclusionSpec) -> NDArray[np.float64]:
    to_voxel = np.diag([*spec.stride, 1.0])
    to_voxel[:3, 3] = (np.array(spec.patch) - 1) / 2
    affine: NDArray[np.float64] = prepared.affine @ to_voxel
    return affine


def _index(values: tuple[int, ...]) -> Index:
    x, y, z = values
    return x, y, z
