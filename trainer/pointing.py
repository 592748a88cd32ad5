"""Whether an ensemble that learned from phantoms finds the disease, and where its maps point.

Phantoms know the truth, so maps can be measured against it: a sign planted alone in a healthy head
must be where the map is strongest.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.cohort import Cohort
from trainer.phantom import OVERT, USUAL, Case, Phantom, Spectrum, draw_case, render, visible_signs
from trainer.statistics import auroc
from worker.ensemble import Band, Ensemble
from worker.occlusion import MODES, Mode, OcclusionMap, OcclusionSpec, explain
from worker.preprocess import Prepared, prepare

Values: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]


# Seeds far from those of training, which count from 0.
FIRST_UNSEEN: Final = 1_000_000
PLANTED_SEEDS: Final = 2_000_000
ALL_SIGNS_SEEDS: Final = 5_000_000


@dataclass(frozen=True)
class Trial:
    """Phantoms that no member has seen, and how their disease shows."""

    name: str
    seeds: range
    spectrum: Spectrum


TRIALS: Final = (
    Trial("visible_signs", range(FIRST_UNSEEN, FIRST_UNSEEN + 60), OVERT),
    Trial("all", range(FIRST_UNSEEN + 1000, FIRST_UNSEEN + 1200), USUAL),
)

# A sign is worth looking for in a map when this size differs from health by this much.
STRONG: Final[Mapping[str, tuple[str, float]]] = MappingProxyType(
    {
        "dura": ("dura_gain", 0.4),
        "sinus": ("sinus_mm", 1.0),
        "subdural": ("subdural_mm", 2.0),
        "cisterns": ("suprasellar_mm", 1.5),
        "pituitary": ("pituitary_mm", 1.5),
    }
)


# So many positions of a map are what a reader's eye is drawn to.
STRONGEST: Final = 20


@dataclass(frozen=True)
class Pointing:
    """Whether a map of effects points at the truth.

    Attributes:
        hit: the strongest position touches the truth.
        energy: share of the positive effect on positions that touch the truth.
    """

    hit: bool
    energy: float


@dataclass(frozen=True)
class Localisation:
    """Whether occlusion maps find a planted sign.

    Attributes:
        chance: share of the computed positions that touch the sign: what a blind map would reach
            in hits and in energy.
        alone: the map of the head with the sign, as a reader would see it.
        pair: what the sign added to the map of its healthy twin, the same head without it.
    """

    chance: float
    alone: Pointing
    pair: Pointing


def judge(ensemble: Ensemble, cohort: Cohort, name: str) -> dict[str, float]:
    """Figures of an ensemble on cases that no member was trained on."""
    found = [ensemble.predict(Prepared(_float32(each), np.eye(4))) for each in cohort.voxels]
    probabilities = np.array([each.probability for each in found])
    positive = cohort.labels == 1
    bands = np.array([each.band.value for each in found])
    figures: dict[str, float] = {
        "cases": len(cohort),
        "auroc": round(auroc(cohort.labels, probabilities), 3),
        "brier": round(float(np.mean((probabilities - cohort.labels) ** 2)), 3),
        "out_of_distribution": round(
            float(np.mean([each.ood_percentile > ensemble.bundle.ood_limit for each in found])), 3
        ),
    }
    for band in Band:
        for label, cases in (("positives", positive), ("negatives", ~positive)):
            share = float(np.mean(bands[cases] == band.value))
            figures[f"{label}_{band.value.replace(' ', '_')}"] = round(share, 3)
    return {f"{name}_{figure}": value for figure, value in figures.items()}


def localisation(
    ensemble: Ensemble, sign: str, cases: int, on_progress: Callable[[int, int], None]
) -> dict[str, float]:
    """Figures of the maps of one sign, planted alone in heads that no member has seen.

    Those of mode `paper` are named after the sign, the others after sign and mode.
    """
    if cases == 0:
        return {}
    found = []
    for case in planted_cases(sign, cases):
        found.append([localise(ensemble, case, sign, mode) for mode in MODES])
        on_progress(len(found), cases)
    figures: dict[str, float] = {}
    for mode, maps in zip(MODES, zip(*found, strict=True), strict=True):
        name = sign if mode == MODES[0] else f"{sign}_{mode}"
        figures |= {f"{name}_{figure}": value for figure, value in _means(maps).items()}
    return figures


def _means(maps: Sequence[Localisation]) -> dict[str, float]:
    figures: dict[str, list[float]] = {
        "chance": [each.chance for each in maps],
        "hit": [each.alone.hit for each in maps],
        "energy": [each.alone.energy for each in maps],
        "pair_hit": [each.pair.hit for each in maps],
        "pair_energy": [each.pair.energy for each in maps],
    }
    return {name: round(float(np.mean(each)), 3) for name, each in figures.items()}


def all_signs(
    ensemble: Ensemble, cases: int, on_progress: Callable[[int, int], None]
) -> dict[str, float]:
    """How well maps point in heads with all signs, as a reader meets them; see `sign_lift`."""
    if cases == 0:
        return {}
    lifts = []
    for seed in range(ALL_SIGNS_SEEDS, ALL_SIGNS_SEEDS + cases):
        lifts.append(sign_lift(ensemble, draw_case(seed, positive=True, spectrum=OVERT)))
        on_progress(len(lifts), cases)
    return {
        "all_signs_lift": round(float(np.mean(lifts)), 3),
        "all_signs_least": round(min(lifts), 3),
    }


def sign_lift(ensemble: Ensemble, case: Case) -> float:
    """How much denser a head's signs lie under the strongest positions of its map than under all.

    The head has all signs of the case, and the map is the one that a reader would see. A map that
    knows nothing reaches 1.
    """
    shown, healthy = render(case), render(case.only())
    spec = ensemble.bundle.occlusion
    prepared = prepare(shown.voxels, shown.affine, ensemble.bundle.recipe)
    truth = _on_grid(visible_signs(shown, healthy), shown.affine, prepared)
    delta = _map(ensemble, shown, spec).delta
    computed = np.argwhere(_touches(prepared.voxels > 0, spec, delta.shape))
    density = np.array([truth[spec.box(tuple(at))].mean() for at in computed])
    strongest = np.argsort(delta[tuple(computed.T)])[-STRONGEST:]
    return float(density[strongest].mean() / density.mean())


def planted_cases(sign: str, count: int) -> Iterator[Case]:
    """The first unseen cases that do have the sign, and visibly so."""
    found = 0
    for seed in itertools.count(PLANTED_SEEDS):
        case = draw_case(seed, positive=True, spectrum=OVERT)
        if _strong(case, sign):
            yield case
            found += 1
        if found == count:
            return


def _strong(case: Case, sign: str) -> bool:
    """Whether a sign is well above what separates healthy heads."""
    size, difference = STRONG[sign]
    return bool(abs(getattr(case.shown, size) - getattr(case.usual, size)) >= difference)


def localise(ensemble: Ensemble, case: Case, sign: str, mode: Mode = MODES[0]) -> Localisation:
    """Plant one of a case's signs alone in its head and see whether the maps find it."""
    planted, twin = _rendered(case.only(sign)), _rendered(case.only())
    spec = replace(ensemble.bundle.occlusion, mode=mode)
    prepared = prepare(planted.voxels, planted.affine, ensemble.bundle.recipe)
    with_sign, without = _map(ensemble, planted, spec), _map(ensemble, twin, spec)
    grid = with_sign.delta.shape
    truth = _on_grid(visible_signs(planted, twin), planted.affine, prepared)
    computed = _touches(prepared.voxels > 0, spec, grid)
    touched = _touches(truth, spec, grid) & computed
    centres = np.moveaxis(np.indices(grid), 0, -1) @ with_sign.affine[:3, :3].T
    usual = without.sample(centres + with_sign.affine[:3, 3])
    return Localisation(
        chance=float(touched.sum() / computed.sum()),
        alone=_pointing(with_sign.delta, touched, computed),
        pair=_pointing(with_sign.delta - usual, touched, computed),
    )


# The modes look at the same heads, and a head takes longer than most maps of it.
_rendered = lru_cache(maxsize=2)(render)


def _map(ensemble: Ensemble, phantom: Phantom, spec: OcclusionSpec) -> OcclusionMap:
    prepared = prepare(phantom.voxels, phantom.affine, ensemble.bundle.recipe)
    return explain(ensemble, prepared, spec, _unwatched)


def _pointing(effects: NDArray[np.float32], touched: Mask, computed: Mask) -> Pointing:
    positive = np.where(computed, np.maximum(effects, 0), 0)
    total = max(float(positive.sum()), float(np.finfo(np.float32).tiny))
    strongest = np.unravel_index(np.argmax(positive), positive.shape)
    return Pointing(bool(touched[strongest]), float(positive[touched].sum()) / total)


def _on_grid(truth: Mask, affine: Values, prepared: Prepared) -> Mask:
    """Which voxels of the prepared volume hold a marked voxel of another grid."""
    marked = np.argwhere(truth)
    to_prepared = np.linalg.inv(prepared.affine) @ affine
    index = np.rint(marked @ to_prepared[:3, :3].T + to_prepared[:3, 3]).astype(int)
    index = index[np.all((index >= 0) & (index < prepared.voxels.shape), axis=1)]
    grid = np.zeros(prepared.voxels.shape, dtype=np.bool_)
    grid[tuple(index.T)] = True
    return grid


def _touches(mask: Mask, spec: OcclusionSpec, grid: tuple[int, ...]) -> Mask:
    """Which positions of the occlusion grid have a marked voxel under their patch."""
    touched = np.zeros(grid, dtype=np.bool_)
    for x, y, z in np.ndindex(grid):
        touched[x, y, z] = mask[spec.box((x, y, z))].any()
    return touched


def _float32(voxels: NDArray[np.float16]) -> NDArray[np.float32]:
    return voxels.astype(np.float32)


def _unwatched(done: int, total: int) -> None:
    """Progress that nobody watches."""
