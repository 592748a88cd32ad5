"""Class-conditional (Mondrian) conformal sets of labels, and how many cases they cover."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from trainer.statistics.interval import Interval, wilson
from trainer.statistics.labelled import Mask, labelled_probabilities

# Shares such as 1 - 0.7 miss their decimal value by about 1e-16.
ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class ClassCoverage:
    """What conformal sets did for the cases of one class.

    Attributes:
        promised: the least share of the class that its sets are to cover.
        covered: share whose set holds the true label.
        interval: of `covered`, Wilson.
        single: share with one label, right or wrong.
        both: share with both labels: undecided.
        empty: share with none: unlike either class.
        count: cases of the class.
    """

    promised: float
    covered: float
    interval: Interval
    single: float
    both: float
    empty: float
    count: int


@dataclass(frozen=True)
class ConformalCoverage:
    """Coverage of class-conditional sets, measured on cases that did not set the thresholds."""

    positives: ClassCoverage
    negatives: ClassCoverage


def conformal_threshold(nonconformity: ArrayLike, missed: float) -> float:
    """The quantile that leaves out the share `missed` of a class, corrected for its size.

    A label is kept while its nonconformity, 1 less its probability, is at most the threshold;
    1 where there are too few cases to leave any out.

    >>> conformal_threshold(np.arange(1.0, 10.0) / 10, missed=0.5)
    0.5
    """
    values = np.asarray(nonconformity, dtype=np.float64)
    if not 0 < missed < 1:
        raise ValueError(f"a share to miss of {missed}: give one between 0 and 1")
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"a threshold from {values.size} values: give finite ones, at least one")
    rank = int(np.ceil((values.size + 1) * (1 - missed) - ROUNDING))
    return 1.0 if rank > values.size else float(np.sort(values)[rank - 1])


def cross_conformal(
    labels: ArrayLike,
    probabilities: ArrayLike,
    fold_of: ArrayLike,
    missed_positives: float,
    missed_negatives: float,
) -> ConformalCoverage:
    """Coverage of Mondrian conformal sets, the thresholds of each fold from the other folds.

    Class-conditional: Vovk et al., Algorithmic Learning in a Random World, 2005;
    folds: Vovk, Ann Math Artif Intell 2015;74:9. Out-of-fold probabilities come from one model
    per fold, so the promise holds only as far as the models are exchangeable.

    Args:
        labels: (N,).
        probabilities: (N,), out of fold.
        fold_of: (N,), the fold that holds out each case.
        missed_positives: share of positives that sets may miss.
        missed_negatives: share of negatives that sets may miss.

    Raises:
        ValueError: there is a single fold, or the others lack a class.
    """
    truth, stated = labelled_probabilities(labels, probabilities, both_classes=True)
    folds = np.asarray(fold_of)
    if folds.shape != truth.shape:
        raise ValueError(f"{truth.size} labels with folds of shape {folds.shape}")
    positive = truth == 1
    holds_positive, holds_negative = np.zeros_like(positive), np.zeros_like(positive)
    for fold in np.unique(folds):
        held_out, rest = folds == fold, folds != fold
        kept = conformal_threshold(1 - stated[rest & positive], missed_positives)
        holds_positive[held_out] = 1 - stated[held_out] <= kept
        kept = conformal_threshold(stated[rest & ~positive], missed_negatives)
        holds_negative[held_out] = stated[held_out] <= kept
    return ConformalCoverage(
        _coverage(1 - missed_positives, holds_positive[positive], holds_negative[positive]),
        _coverage(1 - missed_negatives, holds_negative[~positive], holds_positive[~positive]),
    )


def _coverage(promised: float, right: Mask, wrong: Mask) -> ClassCoverage:
    """Sets of one class: whether each holds the right label, and the wrong one."""
    return ClassCoverage(
        promised=promised,
        covered=float(right.mean()),
        interval=wilson(int(right.sum()), right.size),
        single=float((right ^ wrong).mean()),
        both=float((right & wrong).mean()),
        empty=float((~right & ~wrong).mean()),
        count=right.size,
    )
