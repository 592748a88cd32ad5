"""Whether probabilities mean what they say, and the temperature that makes them."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from trainer.statistics.interval import LEVEL, Interval, two_sided, wilson
from trainer.statistics.labelled import Labels, Values, labelled, labelled_probabilities

# A fitted temperature stays within these; one that is equal to either had no optimum inside.
LOWEST_TEMPERATURE: Final = float(np.exp(-4))
HIGHEST_TEMPERATURE: Final = float(np.exp(4))
# Cases whose probabilities are all this close to 0 or 1 say nothing about an intercept.
NO_INFORMATION: Final = 1e-12


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared error of probabilities (Brier, Mon Weather Rev 1950;78:1).

    >>> brier([0, 1], [0.5, 1.0])
    0.125
    """
    truth, stated = labelled_probabilities(labels, probabilities)
    return float(np.mean((stated - truth) ** 2))


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities mean what they say.

    Attributes:
        brier: mean squared error.
        intercept_at_slope_1: calibration in the large; 0 is right, above 0 is too low a
            probability on average.
        intercept_at_slope_1_interval: Wald; None where all probabilities are 0 or 1.
        slope: 1 is right, below 1 is over-confident. It, its intercept and their intervals (Wald)
            are None where no finite slope fits best: log odds separate the classes or are alike.
        slope_interval: of `slope`.
        intercept: of the fit with `slope`.
        intercept_interval: of `intercept`.
    """

    brier: float
    intercept_at_slope_1: float
    intercept_at_slope_1_interval: Interval | None
    slope: float | None = None
    slope_interval: Interval | None = None
    intercept: float | None = None
    intercept_interval: Interval | None = None


def calibration(labels: ArrayLike, log_odds: ArrayLike, level: float = LEVEL) -> Calibration:
    """Calibration by logistic regression of labels on log odds, without penalty.

    Cox, Biometrika 1958;45:562; Van Calster et al., J Clin Epidemiol 2016;74:167.

    Raises:
        ValueError: a class is missing, or log odds are not finite.
    """
    truth, values = labelled(labels, log_odds)
    z = two_sided(level)
    shift, shift_error = _intercept_at_slope_1(truth, values)
    found = Calibration(
        brier=brier(truth, special.expit(values)),
        intercept_at_slope_1=shift,
        intercept_at_slope_1_interval=None if shift_error is None else _wald(shift, shift_error, z),
    )
    if _separated(truth, values):
        return found
    (intercept, slope), (intercept_error, slope_error) = _logistic(truth, values)
    return replace(
        found,
        slope=slope,
        slope_interval=_wald(slope, slope_error, z),
        intercept=intercept,
        intercept_interval=_wald(intercept, intercept_error, z),
    )


def _wald(value: float, error: float, z: float) -> Interval:
    return Interval(value - z * error, value + z * error)


def _separated(labels: Labels, log_odds: Values) -> bool:
    """Whether a threshold parts the classes, shared values allowed (Albert & Anderson 1984)."""
    positives, negatives = log_odds[labels == 1], log_odds[labels == 0]
    return bool(positives.min() >= negatives.max() or positives.max() <= negatives.min())


def _intercept_at_slope_1(labels: Labels, log_odds: Values) -> tuple[float, float | None]:
    """What to add to all log odds to match the prevalence, and its standard error."""
    prevalence = labels.mean()
    # Beyond these every probability lies to one side of the prevalence.
    reach = float(np.abs(log_odds).max()) + 1
    centre = float(special.logit(prevalence))

    def excess(shift: float) -> float:
        return float(np.mean(special.expit(log_odds + shift)) - prevalence)

    shift = float(optimize.brentq(excess, centre - reach, centre + reach, xtol=1e-12))
    stated = special.expit(log_odds + shift)
    information = float(np.sum(stated * special.expit(-log_odds - shift)))
    return shift, None if information < NO_INFORMATION else float(information**-0.5)


def _logistic(labels: Labels, log_odds: Values) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intercept and slope of greatest likelihood, and their standard errors; never separated."""
    centre, spread = log_odds.mean(), log_odds.std()
    design = np.column_stack([np.ones_like(log_odds), (log_odds - centre) / spread])

    def loss(weights: Values) -> float:
        logits = design @ weights
        return float(np.mean(np.logaddexp(0, logits) - labels * logits))

    def slope_of(weights: Values) -> Values:
        return np.asarray(design.T @ (special.expit(design @ weights) - labels) / labels.size)

    def curvature(weights: Values) -> Values:
        logits = design @ weights
        weight = special.expit(logits) * special.expit(-logits) / labels.size
        return np.asarray(design.T @ (design * weight[:, None]))

    best = optimize.minimize(
        loss,
        np.zeros(2),
        jac=slope_of,
        hess=curvature,
        method="trust-exact",
        options={"gtol": 1e-11},
    )
    back = np.array([[1, -centre / spread], [0, 1 / spread]])  # to log odds as they were
    covariance = back @ np.linalg.inv(curvature(best.x) * labels.size) @ back.T
    intercept, slope = back @ best.x
    errors = np.sqrt(np.diag(covariance))
    return (float(intercept), float(slope)), (float(errors[0]), float(errors[1]))


@dataclass(frozen=True)
class ReliabilityBin:
    """Cases with like probabilities.

    Attributes:
        mean_predicted: mean probability.
        observed: share of positives.
        interval: of `observed`, Wilson.
        count: of cases, at least 1.
    """

    mean_predicted: float
    observed: float
    interval: Interval
    count: int


def reliability(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """A reliability diagram by quantiles of the probability.

    Like probabilities stay together, so there may be fewer bins than asked for.
    """
    truth, stated = labelled_probabilities(labels, probabilities)
    if bins < 1:
        raise ValueError(f"{bins} bins: give at least one")
    edges = np.quantile(stated, np.linspace(0, 1, bins + 1))[1:-1]
    which = np.searchsorted(edges, stated)
    return tuple(_bin(truth[which == each], stated[which == each]) for each in np.unique(which))


def _bin(labels: Labels, probabilities: Values) -> ReliabilityBin:
    return ReliabilityBin(
        mean_predicted=float(probabilities.mean()),
        observed=float(labels.mean()),
        interval=wilson(int(labels.sum()), labels.size),
        count=labels.size,
    )


def fit_temperature(labels: ArrayLike, log_odds: ArrayLike) -> float:
    """The temperature of least cross-entropy: log odds are to be divided by it.

    Guo et al., ICML 2017, arXiv 1706.04599. Cross-entropy is convex in 1 / temperature, so the
    optimum is where its derivative is 0.

    Returns:
        Exactly LOWEST_TEMPERATURE where the signs of the log odds separate the classes so that
        sharper is always better; exactly HIGHEST_TEMPERATURE where flatter is always better.

    Raises:
        ValueError: a class is missing, or log odds are all 0 or not finite.
    """
    truth, values = labelled(labels, log_odds)
    if not values.any():
        raise ValueError("the log odds of all cases are 0, and no temperature changes that")

    def derivative(log_sharpness: float) -> float:
        stated = special.expit(np.exp(log_sharpness) * values)
        return float(np.mean((stated - truth) * values))

    bluntest, sharpest = -np.log(HIGHEST_TEMPERATURE), -np.log(LOWEST_TEMPERATURE)
    if derivative(bluntest) >= 0:
        return HIGHEST_TEMPERATURE
    if derivative(sharpest) <= 0:
        return LOWEST_TEMPERATURE
    return float(np.exp(-optimize.brentq(derivative, bluntest, sharpest, xtol=1e-12)))
