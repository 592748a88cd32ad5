"""Occlusion maps over a cohort: the mean of many, and those of the worst errors.

Prepared volumes lie on one grid that is hung on the head's outline, so that maps of different
heads can be averaged position by position; anatomy agrees to within about a centimetre.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from monai.networks.nets.densenet import DenseNet
from numpy.typing import NDArray
from scipy import ndimage

from trainer.cohort import Cohort
from trainer.reporting.figures import Shown, show
from worker.occlusion import Members, OcclusionMap, OcclusionSpec, explain
from worker.preprocess import Prepared

# So many of the worst errors of each label are shown.
WORST: Final = 3

Progress: TypeAlias = Callable[[int, int], None]


class Member:
    """One member by itself, in the shape that `explain` asks for."""

    def __init__(self, network: DenseNet, device: str = "cpu") -> None:
        self.networks = (network.to(device).eval().requires_grad_(False),)


@dataclass(frozen=True, eq=False)
class Case:
    """One exam as the gallery shows it.

    Attributes:
        exam: its salted hash, all that is told of whom it is.
        probability: calibrated, of the label "positive".
        shown: planes through the strongest position; None where crops are judged.
    """

    exam: str
    label: int
    probability: float
    shown: Shown | None


@dataclass(frozen=True, eq=False)
class Maps:
    """What occlusion says about a cohort.

    Attributes:
        mean: mean volume and mean effects over positives; None if no map was asked for.
        averaged: positives in the mean.
        example: the mapped positive of the highest probability.
        worst: exams of the highest loss, positives first.
    """

    mean: Shown | None
    averaged: int
    example: Case | None
    worst: tuple[Case, ...]


def map_cohort(
    cohort: Cohort,
    probabilities: NDArray[np.float64],
    judge: Callable[[int], Members],
    spec: OcclusionSpec,
    maps: int,
    on_progress: Progress,
) -> Maps:
    """Map positives for the mean and the worst errors for the gallery.

    Args:
        cohort: whose exams are mapped.
        probabilities: (N,) calibrated, by members that have not seen the exam.
        judge: the members to explain, by index of the exam.
        spec: how maps are made.
        maps: positives in the mean at most; with 0 nothing is mapped at all.
        on_progress: told of exams mapped and to map.
    """
    averaged = _evenly(np.flatnonzero(cohort.labels == 1), maps)
    wrong = worst(cohort.labels, probabilities)
    if not averaged:
        return Maps(None, 0, None, tuple(_unmapped(cohort, probabilities, at) for at in wrong))
    chosen = list(dict.fromkeys((*averaged, *wrong)))
    found: dict[int, OcclusionMap] = {}
    for index in chosen:
        found[index] = explain(judge(index), _prepared(cohort, index), spec, _unwatched)
        on_progress(len(found), len(chosen))
    surest = max(averaged, key=lambda index: probabilities[index])
    return Maps(
        mean=_mean(cohort, averaged, found),
        averaged=len(averaged),
        example=_case(cohort, probabilities, surest, found[surest], found[surest].delta),
        worst=tuple(
            _case(cohort, probabilities, at, found[at], np.abs(found[at].delta)) for at in wrong
        ),
    )


def exams_to_map(cohort: Cohort, probabilities: NDArray[np.float64], maps: int) -> int:
    """How many exams `map_cohort` will map."""
    averaged = _evenly(np.flatnonzero(cohort.labels == 1), maps)
    return len({*averaged, *worst(cohort.labels, probabilities)}) if averaged else 0


def worst(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> list[int]:
    """Indices of the exams of the highest loss: positives, then negatives."""
    wrongness = np.where(labels == 1, 1 - probabilities, probabilities)
    chosen: list[int] = []
    for label in (1, 0):
        members = np.flatnonzero(labels == label)
        chosen += members[np.argsort(-wrongness[members], kind="stable")][:WORST].tolist()
    return chosen


def _evenly(indices: NDArray[np.int64], count: int) -> list[int]:
    """At most so many of them, spread from the first to the last."""
    if count >= indices.size:
        return [int(index) for index in indices]
    return [int(indices[at]) for at in np.linspace(0, indices.size - 1, count).round().astype(int)]


def _mean(cohort: Cohort, averaged: Sequence[int], found: dict[int, OcclusionMap]) -> Shown:
    grids = np.stack([found[index].delta for index in averaged])
    delta = np.asarray(grids.mean(axis=0), dtype=np.float32)
    volume = np.zeros(cohort.voxels.shape[1:], dtype=np.float32)
    for index in averaged:
        volume += cohort.voxels[index]
    mean = dataclasses.replace(found[averaged[0]], delta=delta)
    volume /= np.float32(len(averaged))
    return _shown(volume, mean, delta, cohort.recipe.spacing_mm)


def _case(
    cohort: Cohort,
    probabilities: NDArray[np.float64],
    index: int,
    effects: OcclusionMap,
    strength: NDArray[np.float32],
) -> Case:
    exam = cohort.exams[index]
    volume = cohort.voxels[index].astype(np.float32)
    shown = _shown(volume, effects, strength, cohort.recipe.spacing_mm)
    return Case(exam.exam, exam.label, float(probabilities[index]), shown)


def _unmapped(cohort: Cohort, probabilities: NDArray[np.float64], index: int) -> Case:
    """A case without effects, planes through the middle."""
    volume = cohort.voxels[index].astype(np.float32)
    x, y, z = (size // 2 for size in volume.shape)
    exam = cohort.exams[index]
    shown = show(volume, np.zeros_like(volume), (x, y, z), cohort.recipe.spacing_mm)
    return Case(exam.exam, exam.label, float(probabilities[index]), shown)


def _shown(
    volume: NDArray[np.float32],
    effects: OcclusionMap,
    strength: NDArray[np.float32],
    spacing_mm: tuple[float, float, float],
) -> Shown:
    """Planes through the position of most strength, with effects between patch centres."""
    strongest = np.unravel_index(np.argmax(strength), strength.shape)
    stride, patch = np.array(effects.spec.stride_used), np.array(effects.spec.patch_used)
    centre = np.array(strongest) * stride + (patch - 1) // 2
    x, y, z = np.minimum(centre, np.array(volume.shape) - 1).tolist()
    # Trilinear between patch centres, as in OcclusionMap.sample, without a point for each voxel.
    everywhere = ndimage.affine_transform(
        effects.delta,
        1 / stride,
        -(patch - 1) / 2 / stride,
        output_shape=volume.shape,
        order=1,
        mode="nearest",
    )
    return show(volume, np.where(volume > 0, everywhere, 0), (x, y, z), spacing_mm)


def _prepared(cohort: Cohort, index: int) -> Prepared:
    """A volume whose affine is that of its own grid: where it lay in the patient is not kept."""
    return Prepared(cohort.voxels[index].astype(np.float32), np.eye(4))


def _unwatched(done: int, total: int) -> None:
    """Progress within one map, which nobody watches."""
