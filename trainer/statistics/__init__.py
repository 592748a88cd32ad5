"""Figures of a classifier on labelled cases, with their uncertainty: all of them in one place.

They live by subject in discrimination, calibration, operating, conformal and interval.

Two kinds of degenerate input: what a caller should have kept away (nothing at all, a class that
is missing, a value that is not finite) raises ValueError; what honest data can bring about
(classes that a score separates, scores that are all alike) gives None where a figure or its
interval does not exist. Nothing warns and nothing is NaN.
"""

from trainer.statistics.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    Calibration,
    ReliabilityBin,
    brier,
    calibration,
    fit_temperature,
    reliability,
)
from trainer.statistics.conformal import (
    ClassCoverage,
    ConformalCoverage,
    conformal_threshold,
    cross_conformal,
)
from trainer.statistics.discrimination import (
    Comparison,
    Roc,
    auroc,
    bootstrap,
    delong,
    delong_interval,
    hanley_mcneil,
    roc,
    roc_band,
)
from trainer.statistics.interval import (
    FoldSummary,
    Interval,
    corrected_interval,
    fold_summary,
    wilson,
)
from trainer.statistics.operating import (
    NetBenefit,
    OperatingPoint,
    PredictiveValues,
    decision_curve,
    operating_points,
    predictive_values,
)

__all__ = [
    "HIGHEST_TEMPERATURE",
    "LOWEST_TEMPERATURE",
    "Calibration",
    "ClassCoverage",
    "Comparison",
    "ConformalCoverage",
    "FoldSummary",
    "Interval",
    "NetBenefit",
    "OperatingPoint",
    "PredictiveValues",
    "ReliabilityBin",
    "Roc",
    "auroc",
    "bootstrap",
    "brier",
    "calibration",
    "conformal_threshold",
    "corrected_interval",
    "cross_conformal",
    "decision_curve",
    "delong",
    "delong_interval",
    "fit_temperature",
    "fold_summary",
    "hanley_mcneil",
    "operating_points",
    "predictive_values",
    "reliability",
    "roc",
    "roc_band",
    "wilson",
]
