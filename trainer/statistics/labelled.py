"""Labelled cases as arrays, and what every figure asks of them.

Labels are 1 (positive) and 0 (negative), shape (N,). Scores rise with suspicion and may have any
unit. Probabilities and log odds are of the positive class.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = NDArray[np.intp]


def labelled(
    labels: ArrayLike, values: ArrayLike, both_classes: bool = True
) -> tuple[Labels, Values]:
    """Labels and values as arrays.

    Args:
        labels: (N,).
        values: (N,), or (N, K).
        both_classes: refuse cases of one class only.

    Raises:
        ValueError: there are no cases, their numbers differ, a label is neither 0 nor 1, a class
            is missing, or a value is not finite.
    """
    given, found = np.asarray(labels), np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or found.shape[:1] != given.shape or given.size == 0:
        raise ValueError(
            f"labels of shape {given.shape} with values of shape {found.shape}: "
            "give one value per label, and at least one case"
        )
    if not np.isin(given, (0, 1)).all():
        raise ValueError("a label is neither 0 (negative) nor 1 (positive)")
    unusable = int(np.count_nonzero(~np.isfinite(found)))
    if unusable:
        raise ValueError(f"{unusable} of {found.size} values are not finite")
    positives = int(np.count_nonzero(given))
    if both_classes and positives in {0, given.size}:
        raise ValueError(
            f"{positives} positives and {given.size - positives} negatives: "
            "this figure needs cases of both classes"
        )
    return given.astype(np.int64), found


def labelled_probabilities(
    labels: ArrayLike, probabilities: ArrayLike, both_classes: bool = False
) -> tuple[Labels, Values]:
    """Labels and probabilities as arrays.

    Raises:
        ValueError: as in `labelled`, or a probability lies outside 0 to 1.
    """
    truth, stated = labelled(labels, probabilities, both_classes)
    if stated.min() < 0 or stated.max() > 1:
        raise ValueError(
            f"probabilities run from {stated.min():.3g} to {stated.max():.3g}: "
            "they must lie from 0 to 1; were log odds given?"
        )
    return truth, stated
