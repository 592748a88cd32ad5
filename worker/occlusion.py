"""The occlusion map: where zeros change the fistula logit, and by how much.

A patch of zeros visits every position of a regular grid; the fall of the logit (log odds,
uncalibrated) is recorded for each member (Zeiler and Fergus 2014; Faghani et al. 2024 with
12 x 13 x 13 patches at 1 mm). A patch whose voxels are all 0 already changes nothing: its effect is
exactly 0 and it is not computed. Patches at the far faces may reach beyond the volume.

worker/delta carries the change of each patch through the network. Which positions are looked at,
and how exactly, is the mode; a mode that is not exact is measured against the exact map of the same
study, and the difference goes wherever the map goes.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch
from monai.networks.nets.densenet import DenseNet
from numpy.typing import NDArray
from safetensors.numpy import save as serialise
from scipy import ndimage

from worker.delta.boxes import Box
from worker.delta.engine import DeltaEngine
from worker.delta.parallel import compute
from worker.preprocess import Prepared

log = logging.getLogger(__name__)

Index = tuple[int, int, int]
Mode = Literal["paper", "capped", "preview"]

# From exact to quick: what a map that would take too long falls back to.
MODES: Final[tuple[Mode, ...]] = ("paper", "capped", "preview")
# A box that grows by 4 voxels per block and no more costs half, and errs by 0.6 % of the map's
# standard deviation for random weights and by less than 0.01 % for trained ones.
USUAL_CAP: Final = 4
# `preview` takes patches and strides so many times as long.
COARSENING: Final = 2
# A mode that is not exact is measured at so many positions of the exact map.
CHECKED: Final = 12
# After so many positions, and such a share of the time allowed, the pace is known well enough.
TIMED: Final = 8
SETTLED: Final = 0.05


# Positions times voxels of the volume from which on compiling the element-wise work pays.
EARNS_COMPILING: Final = 1e9


class Members(Protocol):
    """Whose logit is explained: an `Ensemble`, or one member of it."""

    @property
    def networks(self) -> Sequence[DenseNet]:
        """Members in evaluation mode, all on one device."""


@dataclass(frozen=True)
class OcclusionSpec:
    """What map is asked for; part of every bundle.

    Attributes:
        mode: `paper` looks at every position and is exact. `capped` drops what leaves a box that
            may grow `caps` voxels in each block. `preview` is exact on a grid twice as coarse
            (COARSENING).
        patch: voxels of the prepared volume set to 0 together.
        stride: voxels from one position to the next.
        caps: per dense block, for `capped`; empty for 4 (USUAL_CAP) in each.
    """

    mode: Mode
    patch: Index
    stride: Index
    caps: tuple[int, ...] = ()

    @property
    def coarsening(self) -> int:
        """How many times as long patch and stride are as `patch` and `stride` say."""
        return COARSENING if self.mode == "preview" else 1

    @property
    def patch_used(self) -> Index:
        """Voxels set to 0 together, in this mode."""
        return _times(self.patch, self.coarsening)

    @property
    def stride_used(self) -> Index:
        """Voxels from one position to the next, in this mode."""
        return _times(self.stride, self.coarsening)

    def grid(self, shape: Index) -> Index:
        """Number of positions along each axis: as few as touch every voxel.

        >>> OcclusionSpec("paper", (12, 13, 13), (12, 13, 13)).grid((240, 260, 260))
        (20, 20, 20)
        >>> OcclusionSpec("preview", (12, 13, 13), (12, 13, 13)).grid((240, 260, 260))
        (10, 10, 10)
        """
        x, y, z = (
            1 + max(0, -(-(size - patch) // stride))
            for size, patch, stride in zip(shape, self.patch_used, self.stride_used, strict=True)
        )
        return x, y, z

    def box(self, position: Index) -> tuple[slice, slice, slice]:
        """The voxels occluded at a position of the grid."""
        x, y, z = (slice(low, high) for low, high in self.bounds(position))
        return x, y, z

    def bounds(self, position: Index) -> Box:
        """The same as [low, high) along each axis; high may lie beyond the volume."""
        x, y, z = (
            (index * stride, index * stride + patch)
            for index, patch, stride in zip(
                position, self.patch_used, self.stride_used, strict=True
            )
        )
        return x, y, z

    @property
    def growth(self) -> str:
        """By how many voxels boxes may grow in each block; empty where nothing is dropped."""
        if self.mode != "capped":
            return ""
        return "x".join(map(str, self.caps)) or str(USUAL_CAP)

    def quicker(self) -> "OcclusionSpec | None":
        """What to fall back to; None when there is nothing quicker."""
        at = MODES.index(self.mode) + 1
        return replace(self, mode=MODES[at]) if at < len(MODES) else None


@dataclass(frozen=True)
class Effort:
    """What may be spent on a map.

    Attributes:
        seconds: for the whole map, whatever modes are tried for it: one that would end later by
            estimate gives way to a quicker one. None: for ever.
        memory_bytes: of changes computed at a time; maps of the volume come on top.
        dtype: of changes: float32, or bfloat16 where the hardware computes with it.
        fuse: compile the element-wise work; None: where the map is long enough to earn it.
    """

    seconds: float | None = None
    memory_bytes: float = 512e6
    dtype: torch.dtype = torch.float32
    fuse: bool | None = None


@dataclass(frozen=True)
class Error:
    """How far a map that is not exact is from the exact one, measured on the same study.

    Attributes:
        positions: of the exact map that were computed beside.
        largest: difference of effects, in logits.
        relative: root mean square of the differences over the standard deviation of the effects.
    """

    positions: int
    largest: float
    relative: float


@dataclass(frozen=True, eq=False)
class OcclusionMap:
    """Effect of each patch on the fistula logit.

    Attributes:
        delta: float32 (gx, gy, gz), mean over members of (baseline - occluded logit): above 0
            the region speaks for the finding.
        spread: float32 (gx, gy, gz), population standard deviation over members.
        affine: 4 x 4, grid index (patch centre) -> RAS mm.
        spec: what was computed.
        asked: what was asked for; another spec where that would have taken too long.
        dtype: name of the precision of changes: "float32" or "bfloat16".
        shape: of the prepared volume, voxels.
        positions: of the grid.
        computed: positions that were not all 0 already.
        error: None when the map is exact to rounding in float32.
    """

    delta: NDArray[np.float32]
    spread: NDArray[np.float32]
    affine: NDArray[np.float64]
    spec: OcclusionSpec
    asked: OcclusionSpec
    dtype: str
    shape: Index
    positions: int
    computed: int
    error: Error | None

    title = "Occlusion map"
    image_type = "OCCLUSION"
    quantity = "Fall of the log odds where a region is blanked"
    derivation = (
        "change of the log odds of the finding where a region is blanked; warm supports the "
        "finding, cool speaks against it"
    )

    @property
    def strongest(self) -> float:
        """The largest effect either way, in log odds."""
        return float(np.abs(self.delta).max(initial=0.0))

    @property
    def warmest(self) -> float:
        """The largest effect that speaks for the finding, in log odds; 0 where none does."""
        return float(self.delta.max(initial=0.0))

    @property
    def canonical(self) -> str:
        """Mode, precision and parameters as one string, which is part of the results' UIDs."""
        sizes = {"patch": self.spec.patch_used, "stride": self.spec.stride_used}
        told = [f"{name} {'x'.join(map(str, size))}" for name, size in sizes.items()]
        if self.spec.growth:
            told.append(f"caps {self.spec.growth}")
        asked = () if self.asked == self.spec else (f"instead of {self.asked.mode}",)
        return " ".join((self.spec.mode, *asked, self.dtype, *told))

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Edges of a voxel of the prepared volume."""
        steps = np.linalg.norm(self.affine[:3, :3], axis=0) / self.spec.stride_used
        x, y, z = (round(float(each), 6) for each in steps)
        return x, y, z

    @property
    def procedure(self) -> str:
        """What was done, as sentences for people."""
        size = " x ".join(
            f"{voxels * mm:.0f}"
            for voxels, mm in zip(self.spec.patch_used, self.voxel_mm, strict=True)
        )
        return (
            f"Boxes of {size} mm were blanked one after another at {self.computed} places, and "
            "the change of the model's log odds was recorded. Warm colours mark what spoke for "
            "the finding, cool colours what spoke against it"
        )

    @property
    def parameters(self) -> str:
        """What was done, as one line for machines."""
        bounded = f", boxes grow by at most {self.spec.growth} voxels in a block"
        return (
            f"Occlusion map: {self.how}{bounded if self.spec.growth else ''}, patch "
            f"{_by(self.spec.patch_used)}, stride {_by(self.spec.stride_used)} voxels of "
            f"{_by(self.voxel_mm)} mm, "
            f"{self.positions} positions of which {self.computed} hold anatomy"
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values for the ledger."""
        return {"positions": self.positions, "computed": self.computed, "map": self.how}

    @property
    def how(self) -> str:
        """Mode and measured error, in words for every report."""
        mode = f"mode {self.spec.mode}"
        if self.spec != self.asked:
            mode += f" (mode {self.asked.mode} would have taken too long)"
        if self.error is None:
            return f"{mode}, exact"
        return (
            f"{mode}, {self.dtype}: differs from the exact map by up to {self.error.largest:.2g} "
            f"log odds, {_percent(self.error.relative)} of its standard deviation, at "
            f"{self.error.positions} positions"
        )

    @property
    def brief(self) -> str:
        """The same in a few words, for the margin of a picture."""
        if self.error is None:
            return f"Map mode {self.spec.mode}, exact."
        return f"Map mode {self.spec.mode}, error {_percent(self.error.relative)}."

    def serialised(self) -> bytes:
        """The map for research: delta, spread and affine as safetensors, with mode and error."""
        arrays = {"delta": self.delta, "spread": self.spread, "affine": self.affine}
        plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return serialise(plain, metadata={"how": self.how})

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
        voxel = index * self.spec.stride_used + (np.array(self.spec.patch_used) - 1) / 2
        within = np.all((voxel >= -0.5) & (voxel <= np.array(self.shape) - 0.5), axis=-1)
        return np.where(within, values, np.float32(0))


def explain(
    members: Members,
    prepared: Prepared,
    spec: OcclusionSpec,
    on_progress: Callable[[int, int], None],
    effort: Effort = Effort(),
) -> OcclusionMap:
    """Occlude every position of the grid in turn, with every member.

    Args:
        members: whose logit is explained.
        prepared: the study.
        spec: usually the bundle's.
        on_progress: called between batches with the effects computed and to compute, positions
            times members; it may raise to cancel, and what it raises is passed on. A quicker mode
            begins at 0 again, and a measurement of its error stays at the end.
        effort: what may be spent.

    Returns:
        The same map, bit for bit, for the same arguments on the same machine, unless `effort`
        limits the seconds.

    Raises:
        CannotFold: a member is no network that worker/delta is exact for.
    """
    study = _Study(members, prepared, effort)
    asked, effects = spec, None
    while effects is None:
        effects = study.effects(spec, on_progress)
        if effects is None:
            quicker = spec.quicker()
            assert quicker is not None
            log.warning("a %s map would take too long; %s instead", spec.mode, quicker.mode)
            spec = quicker
    delta = effects.mean(axis=0)
    found = OcclusionMap(
        delta=delta.astype(np.float32),
        spread=effects.std(axis=0).astype(np.float32),
        affine=_grid_affine(prepared, spec),
        spec=spec,
        asked=asked,
        dtype=str(effort.dtype).removeprefix("torch."),
        shape=_index(prepared.voxels.shape),
        positions=delta.size,
        computed=len(study.active(spec)),
        error=None,
    )
    if spec.mode == "paper" and effort.dtype == torch.float32:
        return found
    return replace(found, error=study.error(found, on_progress))


class _Study:
    """One volume and the members that explain it."""

    def __init__(self, members: Members, prepared: Prepared, effort: Effort) -> None:
        self._networks, self._prepared, self._effort = members.networks, prepared, effort
        device = next(self._networks[0].parameters()).device
        self._volume = torch.from_numpy(np.ascontiguousarray(prepared.voxels)).to(device)
        self._begun = time.monotonic()

    def active(self, spec: OcclusionSpec) -> list[Index]:
        """Positions whose patch is not all 0 already."""
        voxels = self._prepared.voxels
        grid = spec.grid(_index(voxels.shape))
        return [_index(at) for at in np.ndindex(grid) if voxels[spec.box(_index(at))].any()]

    def effects(
        self, spec: OcclusionSpec, on_progress: Callable[[int, int], None]
    ) -> NDArray[np.float64] | None:
        """(members, gx, gy, gz); None when that would end too late and something else would not."""
        active = self.active(spec)
        grid = spec.grid(_index(self._prepared.voxels.shape))
        found = np.zeros((len(self._networks), *grid))
        boxes, total = [spec.bounds(at) for at in active], len(self._networks) * len(active)
        watch = _Watch(self._seconds_left() if spec.quicker() else None, total)
        for number, network in enumerate(self._networks):
            on_progress(number * len(active), total)
            engine = self._engine(network, self._effort.dtype, len(boxes))
            caps = _caps(spec, engine)
            done = 0
            for part in compute(engine, boxes, caps, self._effort.memory_bytes):
                here = active[done : done + len(part)]
                found[number, *np.transpose(here)] = -part
                done += len(part)
                on_progress(number * len(active) + done, total)
                if watch.is_too_slow(number * len(active) + done):
                    return None
        return found

    def _seconds_left(self) -> float | None:
        allowed = self._effort.seconds
        return None if allowed is None else allowed - (time.monotonic() - self._begun)

    def error(self, found: OcclusionMap, on_progress: Callable[[int, int], None]) -> Error:
        """Compare a map with a few positions of the exact one, evenly spread over the head."""
        exact = replace(found.spec, mode="paper")
        active = self.active(exact)
        if not active:
            return Error(0, 0.0, 0.0)
        places = np.linspace(0, len(active) - 1, min(CHECKED, len(active))).round().astype(int)
        positions = [active[place] for place in places]
        boxes = [exact.bounds(at) for at in positions]
        deltas, total = [], len(self._networks) * found.computed
        for network in self._networks:
            on_progress(total, total)
            engine = self._engine(network, torch.float32, len(boxes))
            parts = compute(engine, boxes, None, self._effort.memory_bytes)
            deltas.append(np.concatenate([*parts]))
        truth = -np.mean(deltas, axis=0)
        differences = self._effects_at(found, exact, positions) - truth
        return Error(
            positions=len(boxes),
            largest=float(np.abs(differences).max()),
            relative=float(np.sqrt(np.mean(differences**2)) / (truth.std() or 1.0)),
        )

    def _effects_at(
        self, found: OcclusionMap, exact: OcclusionSpec, positions: Sequence[Index]
    ) -> NDArray[np.float32]:
        """What a map says of positions of the exact one: there, or between its own positions."""
        if found.spec.coarsening == exact.coarsening:
            there: NDArray[np.float32] = found.delta[*np.transpose(positions)]
            return there
        low, high = np.moveaxis(np.array([exact.bounds(at) for at in positions]), 2, 0)
        centres = (low + np.minimum(high, found.shape) - 1) / 2
        to_patient = self._prepared.affine
        return found.sample(centres @ to_patient[:3, :3].T + to_patient[:3, 3])

    def _engine(self, network: DenseNet, dtype: torch.dtype, boxes: int) -> DeltaEngine:
        fuse = self._effort.fuse
        if fuse is None:
            fuse = boxes * self._volume.numel() > EARNS_COMPILING
        return DeltaEngine(network, self._volume, dtype=dtype, fuse=fuse)


class _Watch:
    """Estimates whether a map will be done in time; started by the first part that is done."""

    def __init__(self, seconds: float | None, total: int) -> None:
        self._seconds, self._total = seconds, total
        self._first: tuple[float, int] | None = None

    def is_too_slow(self, done: int) -> bool:
        """Whether the rest, at the pace so far, ends too late."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        started, already = self._first
        if self._seconds is None or done - already < TIMED or done == self._total:
            return False
        # Many threads end their first positions together: a pace needs some time to be one.
        if now - started < SETTLED * self._seconds:
            return False
        return (now - started) / (done - already) * self._total > self._seconds


def _by(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)


def _percent(share: float) -> str:
    """A share in percent, with two digits and never as a power of ten.

    >>> _percent(0.00613), _percent(0.2345), _percent(5.234)
    ('0.61 %', '23 %', '523 %')
    """
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _caps(spec: OcclusionSpec, engine: DeltaEngine) -> tuple[int, ...] | None:
    if spec.mode != "capped":
        return None
    return spec.caps or (USUAL_CAP,) * engine.blocks


def _grid_affine(prepared: Prepared, spec: OcclusionSpec) -> NDArray[np.float64]:
    to_voxel = np.diag([*spec.stride_used, 1.0])
    to_voxel[:3, 3] = (np.array(spec.patch_used) - 1) / 2
    affine: NDArray[np.float64] = prepared.affine @ to_voxel
    return affine


def _times(size: Index, factor: int) -> Index:
    x, y, z = (factor * each for each in size)
    return x, y, z


def _index(values: tuple[int, ...]) -> Index:
    x, y, z = values
    return x, y, z
