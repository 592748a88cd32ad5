"""Confidence intervals of shares and of means over folds.

Intervals hold 95 % unless another level is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special, stats

from trainer.statistics.labelled import Values

LEVEL: Final = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float


def two_sided(level: float) -> float:
    """The quantile of a standard normal that leaves out half of the rest on either side.

    >>> round(two_sided(0.95), 6)
    1.959964
    """
    if not 0 < level < 1:
        raise ValueError(f"a confidence level of {level}: give one between 0 and 1, such as 0.95")
    return float(special.ndtri((1 + level) / 2))


def wilson(hits: int, of: int, level: float = LEVEL) -> Interval:
    """Score interval of a proportion (Wilson, J Am Stat Assoc 1927;22:209).

    >>> found = wilson(27, 252)  # fistulas where the brain MRI is normal (Tay et al., AJNR 2025)
    >>> round(found.low, 3), round(found.high, 3)
    (0.075, 0.151)

    Raises:
        ValueError: there are no cases, or more hits than cases.
    """
    if not 0 <= hits <= of or of == 0:
        raise ValueError(f"a proportion of {hits} of {of} cases does not exist")
    z = two_sided(level)
    share = hits / of
    centre = share + z**2 / (2 * of)
    margin = z * np.sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    low, high = (centre + np.array([-margin, margin])) / (1 + z**2 / of)
    # At either end the limit is exact, but for rounding.
    return Interval(0.0 if hits == 0 else float(low), 1.0 if hits == of else float(high))


@dataclass(frozen=True)
class FoldSummary:
    """One figure over the folds of a cross-validation.

    Attributes:
        mean: over the folds.
        sd: over the folds, divided by their number less `ddof`.
        sd_ddof0: divided by the number of folds, as in the paper.
        values: one per fold.
        ddof: of `sd`.
    """

    mean: float
    sd: float
    sd_ddof0: float
    values: tuple[float, ...]
    ddof: int = 1


def fold_summary(values: Sequence[float]) -> FoldSummary:
    """Mean and standard deviation over folds.

    >>> paper = fold_summary([0.8988, 0.8284, 0.8580, 0.8580, 0.8910])
    >>> round(paper.mean, 4), round(paper.sd, 4), round(paper.sd_ddof0, 4)
    (0.8668, 0.0285, 0.0255)
    """
    found = _folds(values)
    return FoldSummary(
        mean=float(found.mean()),
        sd=float(found.std(ddof=1)),
        sd_ddof0=float(found.std()),
        values=tuple(found.tolist()),
    )


def corrected_interval(
    values: Sequence[float], train_size: int, test_size: int, level: float = LEVEL
) -> Interval:
    """Interval of a mean over folds whose training sets overlap.

    The corrected resampled t of Nadeau & Bengio, Machine Learning 2003;52:239: the variance over
    k folds is taken (1/k + test/train) times rather than 1/k times. It does not know that an
    AUROC ends at 1.

    Args:
        values: one per fold.
        train_size: cases that a fold was trained on.
        test_size: cases that a fold was measured on.
        level: of confidence.
    """
    found = _folds(values)
    if train_size < 1 or test_size < 1:
        raise ValueError(f"{train_size} cases to train on and {test_size} to test on")
    error = np.sqrt(found.var(ddof=1) * (1 / found.size + test_size / train_size))
    margin = float(stats.t.ppf((1 + level) / 2, found.size - 1) * error)
    mean = float(found.mean())
    return Interval(mean - margin, mean + margin)


def _folds(values: Sequence[float]) -> Values:
    found = np.asarray(values, dtype=np.float64)
    if found.size < 2 or not np.isfinite(found).all():
        raise ValueError(f"a spread needs at least two finite values, not {found.tolist()}")
    return found
