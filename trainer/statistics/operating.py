"""What thresholds do: operating points, predictive values, net benefit.

A case is called positive where its score is at or above the threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from trainer.statistics.discrimination import cumulated
from trainer.statistics.interval import Interval, wilson
from trainer.statistics.labelled import Labels, Mask, Values, labelled, labelled_probabilities

Kind: TypeAlias = Literal["sensitivity", "specificity"]

# Shares such as 1 - 0.7 miss their decimal value by about 1e-16.
ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does.

    Attributes:
        kind: which of the two was asked for.
        target: the least value asked for.
        threshold: scores at or above it are called positive; None where nobody may be.
    """

    kind: Kind
    target: float
    threshold: float | None
    sensitivity: float
    sensitivity_interval: Interval
    specificity: float
    specificity_interval: Interval


def operating_points(
    labels: ArrayLike, scores: ArrayLike, targets: Sequence[float]
) -> tuple[OperatingPoint, ...]:
    """The best specificity at each target of sensitivity, then the reverse.

    Thresholds are scores that occur. Chosen and measured on the same cases, they are optimistic.

    >>> points = operating_points([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8], [1.0])
    >>> [(each.kind, each.threshold) for each in points]
    [('sensitivity', 0.3), ('specificity', 0.8)]
    """
    truth, values = labelled(labels, scores)
    counts = cumulated(truth, values)
    kinds: tuple[Kind, ...] = ("sensitivity", "specificity")
    return tuple(_operating_point(kind, target, *counts) for kind in kinds for target in targets)


def _operating_point(
    kind: Kind, target: float, thresholds: Values, hits: Labels, alarms: Labels
) -> OperatingPoint:
    if not 0 <= target <= 1:
        raise ValueError(f"a target {kind} of {target}: give a share from 0 to 1")
    positives, negatives = int(hits[-1]), int(alarms[-1])
    rejected = negatives - alarms
    if kind == "sensitivity":  # the highest threshold that reaches it
        at = np.flatnonzero(hits / positives >= target - ROUNDING)[0]
    else:  # the lowest
        at = np.flatnonzero(rejected / negatives >= target - ROUNDING)[-1]
    return OperatingPoint(
        kind=kind,
        target=target,
        threshold=float(thresholds[at]) if at > 0 else None,
        sensitivity=float(hits[at] / positives),
        sensitivity_interval=wilson(int(hits[at]), positives),
        specificity=float(rejected[at] / negatives),
        specificity_interval=wilson(int(rejected[at]), negatives),
    )


@dataclass(frozen=True)
class PredictiveValues:
    """What a call means where so many of those examined are positive.

    Attributes:
        prevalence: share of positives.
        ppv: share of positives among those called positive; None where nobody is.
        npv: share of negatives among those called negative; None where nobody is.
    """

    prevalence: float
    ppv: float | None
    npv: float | None


def predictive_values(
    sensitivity: float, specificity: float, prevalences: Sequence[float]
) -> tuple[PredictiveValues, ...]:
    """Bayes' rule, for each prevalence.

    >>> predictive_values(0.75, 0.5, [0.5])
    (PredictiveValues(prevalence=0.5, ppv=0.6, npv=0.6666666666666666),)
    """
    for share in (sensitivity, specificity, *prevalences):
        if not 0 <= share <= 1:
            raise ValueError(f"sensitivity, specificity and prevalence are shares, not {share}")
    return tuple(
        PredictiveValues(
            prevalence=each,
            ppv=_share(each * sensitivity, (1 - each) * (1 - specificity)),
            npv=_share((1 - each) * specificity, each * (1 - sensitivity)),
        )
        for each in prevalences
    )


def _share(part: float, rest: float) -> float | None:
    return part / (part + rest) if part + rest > 0 else None


@dataclass(frozen=True)
class NetBenefit:
    """True positives per case, less false positives at the rate that a threshold is worth.

    Attributes:
        threshold: the probability from which one would examine.
        model: examine whom the model says.
        treat_all: examine everybody.
        treat_none: examine nobody, 0 by definition.
    """

    threshold: float
    model: float
    treat_all: float
    treat_none: float = 0.0


def decision_curve(
    labels: ArrayLike, probabilities: ArrayLike, thresholds: Sequence[float]
) -> tuple[NetBenefit, ...]:
    """Net benefit over thresholds (Vickers & Elkin, Med Decis Making 2006;26:565).

    >>> decision_curve([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.9], [0.5])
    (NetBenefit(threshold=0.5, model=0.25, treat_all=0.0, treat_none=0.0),)
    """
    truth, stated = labelled_probabilities(labels, probabilities)
    return tuple(
        NetBenefit(
            threshold=each,
            model=_net_benefit(truth, stated >= each, each),
            treat_all=_net_benefit(truth, np.ones_like(truth, dtype=np.bool_), each),
        )
        for each in thresholds
    )


def _net_benefit(labels: Labels, called: Mask, threshold: float) -> float:
    if not 0 <= threshold < 1:
        raise ValueError(f"a threshold of {threshold}: give a probability from 0 to below 1")
    harm = threshold / (1 - threshold)
    return float(np.mean(called & (labels == 1)) - harm * np.mean(called & (labels == 0)))
