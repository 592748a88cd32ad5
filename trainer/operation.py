"""The numbers that turn an ensemble's log odds into a probability and a statement.

After a training all of them are fitted to out-of-fold log odds, that is to single members, each
judging exams it has not seen. The service averages all members, which makes it a little less
extreme than what the thresholds were fitted to; report.html says so, `evaluate --bundle` measures
it, and recalibrate.py fits them anew where labelled exams of the service are at hand.
"""

from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.statistics import LOWEST_TEMPERATURE, conformal_threshold, fit_temperature
from worker.bundle import NOT_SUGGESTED, PARTS, SUGGESTED, Validation
from worker.ensemble import calibrate

# 0.95 * 60 is 57 and a little more, in binary.
ROUNDING: Final = 1e-9

Values: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]


class Targets(Protocol):
    """What the thresholds are to keep; each a share between 0 and 1."""

    @property
    def sensitivity(self) -> float:
        """Share of positives at or above the lower threshold."""

    @property
    def specificity(self) -> float:
        """Share of negatives below the upper threshold."""

    @property
    def missed_positives(self) -> float:
        """Share of positives that the conformal set may miss."""

    @property
    def missed_negatives(self) -> float:
        """Share of negatives that the conformal set may miss."""


@dataclass(frozen=True)
class Operation:
    """What turns log odds into a probability and a statement; see bundle.Description.

    Attributes:
        temperatures: one per member.
        validation: how often which probability was right, of the exams that it was fitted to.
    """

    temperatures: tuple[float, ...]
    threshold_low: float
    threshold_high: float
    conformal: dict[str, float]
    validation: Validation | None = None


def operation(labels: Labels, log_odds: Values, fold_of: Labels, targets: Targets) -> Operation:
    """Fit temperatures, thresholds and conformal sets to out-of-fold log odds.

    Args:
        labels: (N,), 1 for positive.
        log_odds: (N,) uncalibrated, each by the one member that has not seen the exam.
        fold_of: (N,) that member's number, from 0.
        targets: what to keep.
    """
    temperatures = member_temperatures(labels, log_odds, fold_of)
    probabilities = calibrate(log_odds, np.array(temperatures)[fold_of])
    return limits(labels, probabilities, temperatures, targets)


def limits(
    labels: Labels, probabilities: Values, temperatures: tuple[float, ...], targets: Targets
) -> Operation:
    """Fit thresholds and conformal sets to (N,) probabilities made with `temperatures`."""
    positives, negatives = probabilities[labels == 1], probabilities[labels == 0]
    high = lowest_above(negatives, targets.specificity)
    low = min(highest_below(positives, targets.sensitivity), high)
    return Operation(
        temperatures=temperatures,
        threshold_low=low,
        threshold_high=high,
        conformal={
            SUGGESTED: conformal_threshold(1 - positives, targets.missed_positives),
            NOT_SUGGESTED: conformal_threshold(negatives, targets.missed_negatives),
        },
        validation=in_tenths(labels, probabilities),
    )


def in_tenths(labels: Labels, probabilities: Values) -> Validation:
    """How many exams, and positives among them, had a probability in each tenth.

    >>> in_tenths(np.array([0, 1, 1]), np.array([0.05, 0.09, 1.0])).positives
    (1, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    """
    tenth = np.minimum((probabilities * PARTS).astype(int), PARTS - 1)
    patients = np.bincount(tenth, minlength=PARTS)
    positives = np.bincount(tenth[labels == 1], minlength=PARTS)
    return Validation(tuple(map(int, patients)), tuple(map(int, positives)))


def lowest_above(values: Values, share: float) -> float:
    """The lowest threshold with at least this share of values below it.

    >>> lowest_above(np.arange(1.0, 6.0), share=0.75)
    5.0
    """
    ordered = np.sort(values)
    rank = int(np.ceil(share * values.size - ROUNDING))
    return float(ordered[rank] if rank < values.size else np.nextafter(ordered[-1], np.inf))


def highest_below(values: Values, share: float) -> float:
    """The highest threshold with at least this share of values at or above it.

    >>> highest_below(np.arange(1.0, 6.0), share=0.75)
    2.0
    """
    return float(np.sort(values)[int(np.floor((1 - share) * values.size + ROUNDING))])


def member_temperatures(labels: Labels, log_odds: Values, fold_of: Labels) -> tuple[float, ...]:
    """One temperature per member, fitted to the exams that it has not seen.

    A fold of some 26 exams can be without a single error; cross-entropy then falls for ever as
    the temperature goes to 0, and one lucky member would outvote the rest. Such a member gets the
    temperature of all members together, or 1 where they are all without error.
    """
    usual = _temperature(labels, log_odds, otherwise=1.0)
    folds = (fold_of == number for number in range(int(fold_of.max()) + 1))
    return tuple(_temperature(labels[fold], log_odds[fold], otherwise=usual) for fold in folds)


def left_out_probabilities(
    labels: Labels, log_odds: Values, fold_of: Labels, groups: Labels
) -> Values:
    """(N,) each exam calibrated without its patient: an honest test of temperature scaling.

    Args:
        labels: (N,), 1 for positive.
        log_odds: (N,) uncalibrated, out of fold.
        fold_of: (N,) which member judged.
        groups: (N,), a number per patient.
    """
    probabilities = np.empty_like(log_odds)
    for patient in np.unique(groups):
        theirs = groups == patient
        usual = _temperature(labels[~theirs], log_odds[~theirs], otherwise=1.0)
        rest = (fold_of == fold_of[theirs][0]) & ~theirs
        temperature = _temperature(labels[rest], log_odds[rest], otherwise=usual)
        probabilities[theirs] = calibrate(log_odds[theirs], temperature)
    return probabilities


def _temperature(labels: Labels, log_odds: Values, otherwise: float) -> float:
    """The temperature, or another one where these exams do not settle it."""
    if labels.size == 0 or np.ptp(labels) == 0 or not log_odds.any():
        return otherwise
    found = fit_temperature(labels, log_odds)
    return otherwise if found == LOWEST_TEMPERATURE else found
