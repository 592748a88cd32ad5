"""Handcrafted features, chosen within a training part: what is learnt here has seen nothing else.

Near-constant features go first; of features that say the same, the more telling one stays; of what
is left, minimum redundancy and maximum relevance (mRMR) ranks the first few. Relevance is the F
statistic of the label, redundancy the mean |rho| with those already ranked, and a feature is worth
their quotient (FCQ; Zhao et al., IEEE DSAA 2019, after Ding and Peng 2005).
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

Values = NDArray[np.float64]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]

# A correlation of 0 must not make a feature infinitely good.
LEAST_REDUNDANCY: Final = 0.001


class Limits(Protocol):
    """What a feature must keep to be ranked; see settings.FeaturesConfig."""

    @property
    def most_common(self) -> float:
        """Share of exams that may have the same value."""

    @property
    def correlation(self) -> float:
        """Largest |rho| with a more telling feature."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Features that were chosen, and their scale in the part that chose them.

    Attributes:
        columns: (K,) which, best first.
        mean: (K,) of each.
        deviation: (K,) of each, above 0.
    """

    columns: Indices
    mean: Values
    deviation: Values

    def first(self, number: int) -> "Choice":
        """The best few."""
        return Choice(self.columns[:number], self.mean[:number], self.deviation[:number])

    def scaled(self, values: Values, width: int | None = None) -> Values:
        """(N, features) -> (N, K) z-scores; 0 fills up to a width."""
        scores = (values[:, self.columns] - self.mean) / self.deviation
        more = 0 if width is None else width - scores.shape[1]
        return np.pad(scores, ((0, 0), (0, more)))


def choose(values: Values, labels: Labels, most: int, limits: Limits) -> Choice:
    """Choose features by the exams of one training part.

    Args:
        values: (N, features) of these exams only.
        labels: (N,), 1 for positive.
        most: how many are chosen at most.
        limits: what a feature must keep.
    """
    varied = np.array([_varies(column, limits.most_common) for column in values.T])
    columns = np.flatnonzero(varied).astype(np.int64)
    relevance = _f_statistic(values[:, columns], labels)
    likeness = np.abs(np.corrcoef(values[:, columns], rowvar=False)).reshape(columns.size, -1)
    kept = _pruned(relevance, likeness, limits.correlation)
    ranked = _mrmr(relevance[kept], likeness[np.ix_(kept, kept)], most)
    chosen = columns[kept[ranked]]
    return Choice(chosen, values[:, chosen].mean(axis=0), values[:, chosen].std(axis=0))


def classifier_log_odds(
    train: Values, labels: Labels, unseen: Values, choice: Choice, penalty_c: float
) -> Values:
    """(M,) log odds of unseen exams by a logistic regression of the chosen features alone.

    Args:
        train: (N, features).
        labels: (N,), 1 for positive.
        unseen: (M, features).
        choice: of features.
        penalty_c: inverse strength of the L2 penalty.
    """
    model = LogisticRegression(C=penalty_c, class_weight="balanced")
    model.fit(choice.scaled(train), labels)
    found: Values = model.decision_function(choice.scaled(unseen))
    return found


def _varies(column: Values, most_common: float) -> bool:
    _, counts = np.unique(column, return_counts=True)
    # Below float32's precision a deviation is rounding.
    flat = column.std() <= np.finfo(np.float32).eps * np.abs(column).max()
    return bool(not flat and counts.max() <= most_common * column.size)


def _f_statistic(values: Values, labels: Labels) -> Values:
    """(features,) variance between the two labels over variance within them."""
    one, other = values[labels == 1], values[labels == 0]
    within = one.var(axis=0) * len(one) + other.var(axis=0) * len(other)
    between = (one.mean(axis=0) - other.mean(axis=0)) ** 2 * len(one) * len(other) / len(values)
    # Features that part the labels without a rest would be infinitely good.
    rest = np.maximum(within, np.finfo(np.float64).eps * (between + within))
    found: Values = between / rest * (len(values) - 2)
    return found


def _pruned(relevance: Values, likeness: Values, correlation: float) -> Indices:
    """Features of which no more telling one says the same, most telling first."""
    kept: list[int] = []
    for feature in np.argsort(-relevance, kind="stable"):
        if not kept or likeness[feature, kept].max() <= correlation:
            kept.append(int(feature))
    return np.array(kept, dtype=np.int64)


def _mrmr(relevance: Values, likeness: Values, most: int) -> Indices:
    """The first few by relevance over mean likeness with those already ranked."""
    ranked: list[int] = []
    total = np.zeros_like(relevance)
    for _ in range(min(most, relevance.size)):
        redundancy = np.maximum(total / len(ranked), LEAST_REDUNDANCY) if ranked else 1.0
        worth = relevance / redundancy
        worth[ranked] = -np.inf
        ranked.append(int(np.argmax(worth)))
        total += likeness[ranked[-1]]
    return np.array(ranked, dtype=np.int64)
