"""Temperatures, thresholds and sets of one region, on regions as drawn and as proposed.

Members learn from regions as readers draw them, and temperatures are fitted to these. By default a
service looks at proposed regions first: thresholds are those that keep what was asked for on both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.operation import Operation, Targets, limits, operation
from trainer.regional.cohort import RegionalCohort
from trainer.regional.patientwise import means
from trainer.regional.run import MemberResult
from trainer.statistics import Interval, wilson
from worker.ensemble import calibrate

Members: TypeAlias = tuple[MemberResult, ...]

DRAWN: Final = "as gathered"
PROPOSED: Final = "as proposed"
SHIPPED: Final = "as shipped"
ELSEWHERE: Final = "of the other folds"


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What was said of the exams of one region, each by the one member that had not seen it.

    Attributes:
        exams: (n,) indices, ascending; without those whose region could not be looked at.
        labels: (n,).
        log_odds: (n,) mean over the slices, uncalibrated.
        fold_of: (n,) number of the member.
    """

    exams: NDArray[np.int64]
    labels: NDArray[np.int64]
    log_odds: NDArray[np.float64]
    fold_of: NDArray[np.int64]

    @property
    def has_both(self) -> bool:
        """Whether there are exams of either label."""
        return 0 < int(self.labels.sum()) < self.labels.size

    def probabilities(self, temperatures: tuple[float, ...]) -> NDArray[np.float64]:
        """(n,) calibrated."""
        return calibrate(self.log_odds, np.array(temperatures)[self.fold_of])

    def part(self, chosen: NDArray[np.bool_]) -> "OutOfFold":
        """Some of them."""
        return OutOfFold(
            self.exams[chosen], self.labels[chosen], self.log_odds[chosen], self.fold_of[chosen]
        )


@dataclass(frozen=True)
class Kept:
    """What the thresholds of a statement do to exams that no member had seen.

    Attributes:
        regions: DRAWN or PROPOSED.
        thresholds: SHIPPED, fitted to these very exams; or ELSEWHERE, each fold judged by those of
            the others, which is what to expect of another patient.
        sensitivity: share of positives at or above the lower threshold: not called "not suggested".
        specificity: share of negatives below the upper one: not called "suggested".
        called: share of positives that are called "suggested" by the upper threshold.
        excluded: share of negatives that are called "not suggested" by the lower one.
    """

    regions: str
    thresholds: str
    positives: int
    negatives: int
    sensitivity: float
    sensitivity_interval: Interval
    specificity: float
    specificity_interval: Interval
    called: float
    excluded: float


def out_of_fold(members: Members, cohort: RegionalCohort) -> OutOfFold:
    """Put together what the members of one region say."""
    odds = np.full(len(cohort), np.nan)
    fold_of = np.full(len(cohort), -1, dtype=np.int64)
    for number, member in enumerate(members):
        exams, place = np.unique(member.slices.exam_of, return_inverse=True)
        odds[exams], fold_of[exams] = means(member.slices.log_odds, place), number
    exams = np.flatnonzero(fold_of >= 0).astype(np.int64)
    return OutOfFold(exams, cohort.labels[exams], odds[exams], fold_of[exams])


def fitted(drawn: OutOfFold, proposed: OutOfFold | None, targets: Targets) -> Operation:
    """The operation of one region.

    Args:
        drawn: by regions as they were gathered.
        proposed: the same by proposed ones; None where these are the same, or lack a label.
        targets: what the thresholds keep on either.
    """
    found = operation(drawn.labels, drawn.log_odds, drawn.fold_of, targets)
    if proposed is None or not proposed.has_both:
        return found
    temperatures = found.temperatures
    other = limits(proposed.labels, proposed.probabilities(temperatures), temperatures, targets)
    return replace(
        found,
        threshold_low=min(found.threshold_low, other.threshold_low),
        threshold_high=max(found.threshold_high, other.threshold_high),
        conformal={
            label: max(value, other.conformal[label]) for label, value in found.conformal.items()
        },
    )


def kept(
    drawn: OutOfFold, proposed: OutOfFold | None, shipped: Operation, targets: Targets
) -> tuple[Kept, ...]:
    """What thresholds do: those that are shipped, and those that owe nothing to a fold."""
    found = []
    for regions, judged in {DRAWN: drawn, PROPOSED: proposed}.items():
        if judged is None or not judged.has_both:
            continue
        probabilities = judged.probabilities(shipped.temperatures)
        at = np.full(len(judged.exams), shipped.threshold_low)
        above = np.full(len(judged.exams), shipped.threshold_high)
        found.append(_kept(regions, SHIPPED, judged, probabilities, at, above))
        others = _elsewhere(drawn, proposed, judged, targets)
        found.append(_kept(regions, ELSEWHERE, judged, *others))
    return tuple(found)


def kept_figures(found: tuple[Kept, ...], region: str) -> Mapping[str, float]:
    """What goes onto a model's card: sensitivity and specificity by regions and thresholds."""
    names = {DRAWN: "", PROPOSED: "proposed_", SHIPPED: "", ELSEWHERE: "other_folds_"}
    return {
        f"{region}_{names[each.regions]}{names[each.thresholds]}{figure}": round(value, 3)
        for each in found
        for figure, value in (
            ("sensitivity", each.sensitivity),
            ("specificity", each.specificity),
            ("called", each.called),
            ("excluded", each.excluded),
        )
    }


def _elsewhere(
    drawn: OutOfFold, proposed: OutOfFold | None, judged: OutOfFold, targets: Targets
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities of the judged exams, lower and upper thresholds, all by the other folds.

    A fold's own temperature would be fitted to the patients judged: the other folds' together is
    taken.
    """
    probabilities, low, high = (np.empty(len(judged.exams)) for _ in range(3))
    for fold in np.unique(judged.fold_of):
        rest = _as_one(drawn.part(drawn.fold_of != fold))
        other = None if proposed is None else _as_one(proposed.part(proposed.fold_of != fold))
        found = fitted(rest, other, targets)
        here = judged.fold_of == fold
        probabilities[here] = calibrate(judged.log_odds[here], found.temperatures[0])
        low[here], high[here] = found.threshold_low, found.threshold_high
    return probabilities, low, high


def _as_one(judged: OutOfFold) -> OutOfFold:
    return replace(judged, fold_of=np.zeros_like(judged.fold_of))


def _kept(
    regions: str,
    thresholds: str,
    judged: OutOfFold,
    probabilities: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> Kept:
    positive = judged.labels == 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    hits = int(np.count_nonzero((probabilities >= low)[positive]))
    rejected = int(np.count_nonzero((probabilities < high)[~positive]))
    return Kept(
        regions=regions,
        thresholds=thresholds,
        positives=positives,
        negatives=negatives,
        sensitivity=hits / positives,
        sensitivity_interval=wilson(hits, positives),
        specificity=rejected / negatives,
        specificity_interval=wilson(rejected, negatives),
        called=float((probabilities >= high)[positive].mean()),
        excluded=float((probabilities < low)[~positive].mean()),
    )
