"""How well a score tells positives from negatives, and with what uncertainty.

The cohort's unit is the patient: DeLong's formulas hold for one exam per patient, the bootstrap
draws patients.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from trainer.statistics.interval import LEVEL, Interval, two_sided
from trainer.statistics.labelled import Labels, Mask, Rows, Values, labelled

Statistic: TypeAlias = Callable[[Labels, Values], float]

REPEATS: Final = 2000
# Variances below are rounding: one pair out of order among 100 000 x 100 000 gives more.
NO_VARIANCE: Final = 1e-25
# Draws within this of one another are equal but for rounding.
NO_SPREAD: Final = 1e-12


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Share of pairs of a positive and a negative that are in the right order; ties count half.

    >>> auroc([0, 0, 1, 1, 1], [0.1, 0.4, 0.4, 0.5, 0.9])
    0.9166666666666666

    Raises:
        ValueError: a class is missing, or a score is not finite.
    """
    truth, values = labelled(labels, scores)
    return _auroc(truth == 1, values)


def _auroc(positive: Mask, scores: Values) -> float:
    """The rank sum of Mann and Whitney (1947)."""
    positives = np.count_nonzero(positive)
    rank_sum = stats.rankdata(scores)[positive].sum() - positives * (positives + 1) / 2
    return float(rank_sum / (positives * (positive.size - positives)))


def delong_interval(labels: ArrayLike, scores: ArrayLike, level: float = LEVEL) -> Interval | None:
    """Interval of an AUROC: DeLong's variance, normal on the logit scale.

    DeLong et al., Biometrics 1988;44:837, in the form of Sun & Xu, IEEE Signal Process Lett
    2014;21:1389; on the logit scale it stays between 0 and 1. Cases count as independent: one
    exam per patient.

    >>> found = delong_interval([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.6, 0.4, 0.7, 0.9])
    >>> round(found.low, 3), round(found.high, 3)
    (0.261, 0.995)

    Returns:
        None where the variance is 0 or unknown: the scores separate the classes or are all alike,
        or a class has a single case.
    """
    truth, values = labelled(labels, scores)
    area = _auroc(truth == 1, values)
    variance = _variance(*_placements(truth == 1, values))
    if variance is None or area in {0.0, 1.0}:
        return None
    margin = two_sided(level) * np.sqrt(variance) / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-margin, margin]))
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """Two scores on the same cases.

    Attributes:
        difference: `auroc_one` less `auroc_other`.
        interval: of the difference; None where it has no variance.
        p_value: two-sided, of no difference; None where the difference has no variance.
    """

    auroc_one: float
    auroc_other: float
    difference: float
    interval: Interval | None
    p_value: float | None


def delong(labels: ArrayLike, one: ArrayLike, other: ArrayLike, level: float = LEVEL) -> Comparison:
    """Compare the AUROCs of two scores on the same cases (DeLong 1988; Sun & Xu 2014).

    The difference has no variance where both scores rank the cases alike, where both separate the
    classes, or where a class has a single case. Cases count as independent.
    """
    truth, first = labelled(labels, one)
    _, second = labelled(labels, other)
    positive = truth == 1
    areas = _auroc(positive, first), _auroc(positive, second)
    difference = areas[0] - areas[1]
    pairs = zip(_placements(positive, first), _placements(positive, second), strict=True)
    variance = _variance(*(mine - theirs for mine, theirs in pairs))
    if variance is None:
        return Comparison(*areas, difference, None, None)
    error = float(np.sqrt(variance))
    margin = two_sided(level) * error
    interval = Interval(difference - margin, difference + margin)
    p_value = float(2 * special.ndtr(-abs(difference) / error))
    return Comparison(*areas, difference, interval, p_value)


def _placements(positive: Mask, scores: Values) -> tuple[Values, Values]:
    """Share of the other class that each positive, and each negative, is ordered rightly against.

    Sun & Xu 2014: from ranks among all cases and ranks within the class.
    """
    ranks = stats.rankdata(scores)
    count = np.count_nonzero(positive)
    below = ranks[positive] - stats.rankdata(scores[positive])
    above = count - (ranks[~positive] - stats.rankdata(scores[~positive]))
    return below / (scores.size - count), above / count


def _variance(of_positives: Values, of_negatives: Values) -> float | None:
    """DeLong's variance of a mean of placements; None where it is 0 or unknown."""
    if min(of_positives.size, of_negatives.size) < 2:
        return None
    variance = sum(each.var(ddof=1) / each.size for each in (of_positives, of_negatives))
    return float(variance) if variance > NO_VARIANCE else None


def hanley_mcneil(area: float, positives: int, negatives: int) -> float:
    """Standard error of an AUROC of which only the size is known (Hanley & McNeil 1982).

    Radiology 1982;143:29, with the exponential model of the scores; for published areas
    without an interval. Use DeLong where scores are at hand.

    >>> round(hanley_mcneil(0.80, positives=66, negatives=63), 3)
    0.039
    """
    if not (0 <= area <= 1 and positives >= 1 and negatives >= 1):
        raise ValueError(
            f"an area of {area} from {positives} positives and {negatives} negatives: "
            "give an area from 0 to 1 and at least one case of each class"
        )
    two_positives, two_negatives = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area)
    variance += (positives - 1) * (two_positives - area**2)
    variance += (negatives - 1) * (two_negatives - area**2)
    return float(np.sqrt(variance / (positives * negatives)))


def bootstrap(
    labels: ArrayLike,
    scores: ArrayLike,
    statistic: Statistic,
    groups: ArrayLike,
    repeats: int = REPEATS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval | None:
    """BCa bootstrap over patients (Efron, J Am Stat Assoc 1987;82:171).

    Patients are drawn with replacement, each with all exams; a draw without one of the classes is
    drawn again. The acceleration is the jackknife's, over patients.

    Args:
        labels: (N,).
        scores: (N,), or (N, K) for a statistic of K scores.
        statistic: of labels and scores.
        groups: (N,), a number per patient.
        repeats: draws.
        seed: of the draws.
        level: of confidence.

    Returns:
        None where the draws do not vary about the statistic (classes separated, scores alike).

    Raises:
        ValueError: a class has fewer than two patients, or the statistic is not finite.
    """
    truth, values = labelled(labels, scores)
    patient = _patients(truth, groups)
    found = statistic(truth, values)
    draws = _resamples(truth, patient, repeats, seed)
    drawn = np.array([statistic(truth[rows], values[rows]) for rows in draws])
    kept = (np.flatnonzero(patient != each) for each in range(patient.max() + 1))
    jackknife = np.array([statistic(truth[rows], values[rows]) for rows in kept])
    if not np.isfinite([found, drawn.sum(), jackknife.sum()]).all():
        raise ValueError("the statistic is not finite on all cases or on a draw of them")
    return _bca(found, drawn, jackknife, level)


def _patients(labels: Labels, groups: ArrayLike) -> Rows:
    """Patients numbered from 0, shape (N,)."""
    _, patient = np.unique(np.asarray(groups), return_inverse=True)
    if patient.shape != labels.shape:
        raise ValueError(f"{labels.size} cases with the patients of {patient.size}")
    positives, negatives = (np.unique(patient[labels == each]).size for each in (1, 0))
    if min(positives, negatives) < 2:
        raise ValueError(
            f"{positives} patients with positive and {negatives} with negative exams: "
            "drawing patients needs at least two of each"
        )
    return np.asarray(patient, dtype=np.intp)


def _bca(found: float, drawn: Values, jackknife: Values, level: float) -> Interval | None:
    """Efron 1987; draws that equal the statistic count half."""
    below = float(np.mean((drawn < found) + (drawn == found) / 2))
    influence = jackknife.mean() - jackknife
    spread = float(np.sum(influence**2))
    if below in {0.0, 1.0} or np.ptp(drawn) < NO_SPREAD or spread == 0:
        return None
    acceleration = float(np.sum(influence**3)) / (6 * spread**1.5)
    bias, margin = float(special.ndtri(below)), two_sided(level)
    shifted = bias + np.array([-margin, margin])
    tails = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    low, high = np.quantile(drawn, tails)
    return Interval(float(low), float(high))


def _resamples(labels: Labels, patient: Rows, repeats: int, seed: int) -> Iterator[Rows]:
    """Rows of cases, patients drawn with replacement, both classes present."""
    if repeats < 2:
        raise ValueError(f"{repeats} draws of patients: give at least two, better {REPEATS}")
    random = np.random.default_rng(seed)
    count = int(patient.max()) + 1
    for drawn in random.integers(count, size=(repeats, count)):
        rows = _exams_of(drawn, patient)
        while np.ptp(labels[rows]) == 0:
            rows = _exams_of(random.integers(count, size=count), patient)
        yield rows


def _exams_of(drawn: Rows, patient: Rows) -> Rows:
    """Every exam as often as its patient was drawn."""
    times = np.bincount(drawn, minlength=int(patient.max()) + 1)
    return np.repeat(np.arange(patient.size), times[patient])


@dataclass(frozen=True, eq=False)
class Roc:
    """A receiver operating characteristic from (0, 0) to (1, 1), every distinct score a point.

    Attributes:
        false_positive_rate: rising.
        sensitivity: rising.
        thresholds: falling; the first is infinite, where nobody is called positive.
    """

    false_positive_rate: Values
    sensitivity: Values
    thresholds: Values


def roc(labels: ArrayLike, scores: ArrayLike) -> Roc:
    """The empirical curve; ties are one slanted step, so the area beneath it is `auroc`.

    >>> roc([0, 1, 1], [0.2, 0.2, 0.7]).sensitivity.tolist()
    [0.0, 0.5, 1.0]
    """
    truth, values = labelled(labels, scores)
    thresholds, hits, alarms = cumulated(truth, values)
    return Roc(alarms / alarms[-1], hits / hits[-1], thresholds)


def cumulated(labels: Labels, scores: Values) -> tuple[Values, Labels, Labels]:
    """Falling thresholds, infinity first, and how many of each class lie at or above them.

    Returns:
        Thresholds, positives and negatives, one more than there are distinct scores.
    """
    distinct, which = np.unique(scores, return_inverse=True)
    falling = distinct.size - 1 - which
    positives, negatives = (
        np.bincount(falling[labels == each], minlength=distinct.size) for each in (1, 0)
    )
    thresholds = np.concatenate([[np.inf], distinct[::-1]])
    return thresholds, np.cumsum([0, *positives]), np.cumsum([0, *negatives])


def roc_band(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    grid: ArrayLike,
    repeats: int = REPEATS,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[Values, Values]:
    """Pointwise bootstrap band of the sensitivity at given false positive rates.

    Percentiles over draws of patients. Each point holds the level by itself, not the whole curve.

    Args:
        labels: (N,).
        scores: (N,).
        groups: (N,), a number per patient.
        grid: (G,), false positive rates.
        repeats: draws.
        seed: of the draws.
        level: of confidence.

    Returns:
        Low and high sensitivity, (G,) each.
    """
    truth, values = labelled(labels, scores)
    patient = _patients(truth, groups)
    rates = np.asarray(grid, dtype=np.float64)
    drawn = []
    for rows in _resamples(truth, patient, repeats, seed):
        _, hits, alarms = cumulated(truth[rows], values[rows])
        drawn.append(np.interp(rates, alarms / alarms[-1], hits / hits[-1]))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
