"""From slices to patients: what is called positive, and how often that is right.

slice       every slice for itself
strict      a patient is right only if all slices are; it needs the labels, so it is a figure only
majority    more than half of the slices
mean_logit  the mean of the slices' log odds, as the service decides

A patient stands for one exam of a patient here, as the service judges one exam at a time.

Log odds of two networks have no common zero and no common unit. So the inner folds learn thresholds
in units of how a network judges the slices that it was trained on, which every network has of its
own: the threshold of an outer network is the same in its own units.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.statistics import auroc

Values = NDArray[np.float64]
Labels = NDArray[np.int64]
Called = NDArray[np.bool_]

Strategy: TypeAlias = Literal["slice", "strict", "majority", "mean_logit"]
STRATEGIES: Final[tuple[Strategy, ...]] = ("slice", "strict", "majority", "mean_logit")
MAJORITY: Final = 0.5


@dataclass(frozen=True)
class Thresholds:
    """Log odds from which on something is called positive; learnt by inner folds."""

    slice: float
    patient: float

    def on(self, scale: "Scale") -> "Thresholds":
        """In a network's log odds, from its own units."""
        return Thresholds(scale.log_odds(self.slice), scale.log_odds(self.patient))


@dataclass(frozen=True)
class Scale:
    """How a network judges the slices that it was trained on.

    Attributes:
        middle: between the mean log odds of both labels.
        unit: deviation of all of them.
    """

    middle: float
    unit: float

    def units(self, log_odds: Values) -> Values:
        """Log odds in units of the network."""
        found: Values = (log_odds - self.middle) / self.unit
        return found

    def log_odds(self, units: float) -> float:
        """The way back."""
        return self.middle + self.unit * units


def scale_of(labels: Labels, log_odds: Values) -> Scale:
    """The scale of a network, by slices that it was trained on.

    >>> scale_of(np.array([0, 0, 0, 1]), np.array([1.0, 1.0, 1.0, 5.0])).middle
    3.0
    """
    # A network that says the same of all slices still has to have a unit.
    unit = max(float(log_odds.std()), float(np.finfo(np.float32).eps))
    return Scale(halfway(labels, log_odds), unit)


@dataclass(frozen=True)
class Figures:
    """How often calls are right.

    Attributes:
        precision: 0 where nothing is called positive.
        f1: 0 where no positive is found.
        auroc: None where a strategy ranks nobody.
        called: how many are called positive.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    auroc: float | None
    called: int


@dataclass(frozen=True, eq=False)
class Slices:
    """What a network says of slices it has not seen.

    Attributes:
        labels: (M,) of their exams.
        log_odds: (M,).
        exam_of: (M,) index of the exam.
    """

    labels: Labels
    log_odds: Values
    exam_of: Labels

    def patients(self) -> tuple[Labels, Values]:
        """Label and mean log odds of each exam, by index."""
        _, place = np.unique(self.exam_of, return_inverse=True)
        labels = np.rint(means(self.labels.astype(np.float64), place)).astype(np.int64)
        return labels, means(self.log_odds, place)


def means(values: Values, place: NDArray[np.int64]) -> Values:
    """Mean of the values at each place, 0 to the largest.

    >>> means(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1])).tolist()
    [2.0, 5.0]
    """
    found: Values = np.bincount(place, values) / np.bincount(place)
    return found


def thresholds(slices: Slices) -> Thresholds:
    """Thresholds between both labels, for slices and for patients."""
    return Thresholds(halfway(slices.labels, slices.log_odds), halfway(*slices.patients()))


def halfway(labels: Labels, values: Values) -> float:
    """The middle between the means of both labels.

    The threshold of the highest balanced accuracy follows single patients, and where a network
    tells nothing it lies anywhere, so that everybody is called positive, or nobody.

    >>> halfway(np.array([0, 0, 1, 1]), np.array([-3.0, -1.0, 2.0, 4.0]))
    0.5
    """
    return float(values[labels == 1].mean() + values[labels == 0].mean()) / 2


def figures(slices: Slices, at: Thresholds) -> Mapping[Strategy, Figures]:
    """Every strategy's figures on slices that its thresholds have not seen."""
    called = slices.log_odds >= at.slice
    _, place = np.unique(slices.exam_of, return_inverse=True)
    labels, mean_odds = slices.patients()
    share = means(called.astype(np.float64), place)
    all_right = means((called == (slices.labels == 1)).astype(np.float64), place) == 1
    return {
        "slice": _figures(slices.labels, called, slices.log_odds),
        "strict": _figures(labels, np.where(all_right, labels == 1, labels == 0), None),
        "majority": _figures(labels, share > MAJORITY, share),
        "mean_logit": _figures(labels, mean_odds >= at.patient, mean_odds),
    }


def _figures(labels: Labels, called: Called, ranking: Values | None) -> Figures:
    positive = labels == 1
    hits = np.count_nonzero(called & positive)
    calls, positives = int(np.count_nonzero(called)), np.count_nonzero(positive)
    return Figures(
        accuracy=float((called == positive).mean()),
        precision=hits / calls if calls else 0.0,
        recall=hits / positives,
        f1=2 * hits / (calls + positives),
        auroc=None if ranking is None else auroc(labels, ranking),
        called=calls,
    )
