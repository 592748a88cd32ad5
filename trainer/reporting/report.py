"""An evaluation as a report: one self-contained page, and every figure and number beside it.

report.html       needs nothing else: pictures are inside
metrics.json      every number
figures/*.png     as in the page
tables/*.csv      as in the page, in full precision; predictions.csv has every exam
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from trainer.reporting import figures
from trainer.reporting.characteristics import Share
from trainer.reporting.evaluate import (
    BAND_GRID,
    FEWEST,
    HONEST_WORDS,
    PREVALENCES,
    Evaluation,
    Weights,
)
from trainer.reporting.figures import Band, Bar, Curve, Reliability
from trainer.reporting.page import Cell, Picture, Sheet, plain, write_page
from trainer.reporting.tripod import answered
from trainer.reporting.wording import WORDING
from trainer.statistics import ClassCoverage
from trainer.subject import Example

# Rows of the table of predictive values; the figure has all.
SHOWN_PREVALENCES: Final = (0.1, 0.2, 0.3, 0.5, 0.7)
PREDICTIVE: Final = ("threshold", "prevalence", "PPV", "NPV")
# Faghani et al. 2024, tables 1 and 2: another cohort, for orientation only.
PAPER_AUROCS: Final = (0.8988, 0.8284, 0.8580, 0.8580, 0.8910)


def write_report(folder: Path, evaluation: Evaluation) -> Path:
    """Write report, figures, tables and numbers into a folder; what is there is replaced.

    Returns:
        The page.
    """
    return write_page(
        folder,
        "report.html",
        pictures(evaluation),
        sheets(evaluation),
        unprinted(evaluation),
        metrics(evaluation),
        e=evaluation,
        **words_of(evaluation),
    )


def words_of(evaluation: Evaluation) -> dict[str, Any]:
    """What judgement.html needs beside an evaluation."""
    analysis = evaluation.cohort.analysis
    return {
        "external": evaluation.design == "external validation",
        "honest_words": HONEST_WORDS,
        "repeated": len(set(evaluation.cohort.groups.tolist())) < len(evaluation.cohort),
        "paper": _paper() if analysis == "fistula" else "",
        "fewest": FEWEST,
        "words": WORDING[analysis],
    }


def metrics(evaluation: Evaluation) -> dict[str, Any]:
    """Every number of an evaluation as plain values; None where a number does not exist."""
    found: dict[str, Any] = plain(evaluation)
    cohort = evaluation.cohort
    found["cohort"] = {
        "exams": len(cohort),
        "patients": len(set(cohort.groups.tolist())),
        "positives": int(cohort.labels.sum()),
        "fingerprint": cohort.fingerprint,
        "flow": cohort.flow.to_json(),
    }
    return found


def _paper() -> str:
    mean = float(np.mean(PAPER_AUROCS))
    spread = float(np.std(PAPER_AUROCS)), float(np.std(PAPER_AUROCS, ddof=1))
    return (
        f"mean {mean:.4f}, sd {spread[0]:.4f} with ddof 0 (printed as 0.0254) and "
        f"{spread[1]:.4f} with ddof 1"
    )


# --- tables ---


def sheets(evaluation: Evaluation) -> Iterator[Sheet]:
    """Tables of the page."""
    yield _characteristics(evaluation)
    yield _members(evaluation)
    if evaluation.weights:
        yield _summary(evaluation.weights)
    if evaluation.bern is not None:
        yield _bern(evaluation)
    yield _calibration(evaluation)
    yield _thresholds(evaluation)
    yield _operating(evaluation)
    yield _predictive(evaluation)
    yield _conformal(evaluation)
    if evaluation.statements:
        yield _statements(evaluation)
    yield _subgroups(evaluation)
    yield Sheet(
        "decision_curve",
        ("threshold", "net benefit of the model", "of all", "of none"),
        tuple((e.threshold, e.model, e.treat_all, e.treat_none) for e in evaluation.decisions),
    )
    yield Sheet("methods", ("what", "how"), tuple(evaluation.facts.items()))
    yield Sheet(
        "tripod_ai",
        ("item", "topic", "answered", "where"),
        tuple(
            (each.number, each.topic, each.answer, each.where)
            for each in answered(
                evaluation.design == "external validation", WORDING[evaluation.cohort.analysis]
            )
        ),
    )


def _characteristics(evaluation: Evaluation) -> Sheet:
    return Sheet(
        "characteristics",
        ("characteristic", "", "all", "positive", "negative"),
        tuple(
            (each.topic, each.level, each.everyone, each.positive, each.negative)
            for each in evaluation.characteristics
        ),
        grouped=True,
    )


def _members(evaluation: Evaluation) -> Sheet:
    """One row per fold with all kinds of weights, or one row per member of a bundle."""
    if not evaluation.weights:
        rows: list[tuple[Cell, ...]] = [
            (each.name, each.exams, each.positives, each.auroc, each.interval)
            for each in evaluation.members
        ]
        whole = evaluation.discrimination
        rows.append(
            (
                "ensemble",
                len(evaluation.cohort),
                int(evaluation.cohort.labels.sum()),
                whole.auroc,
                whole.delong,
            )
        )
        headings = ("member", "exams", "positives", "AUROC", "95 % interval (DeLong)")
        return Sheet("folds", headings, tuple(rows), frozenset({len(rows) - 1}))
    honest, *others = evaluation.weights
    rows = [
        (
            first.name,
            first.exams,
            first.positives,
            first.auroc,
            first.interval,
            *(each.members[number].auroc for each in others),
            evaluation.learning[number].best_epoch if evaluation.learning else None,
        )
        for number, first in enumerate(honest.members)
    ]
    blank: tuple[Cell, ...] = ("", "")
    for name, pick in (("mean", "mean"), ("sd, ddof 1", "sd"), ("sd, ddof 0", "sd_ddof0")):
        values = [getattr(each.summary, pick) for each in evaluation.weights]
        interval = honest.corrected if pick == "mean" else None
        rows.append((name, *blank, values[0], interval or "", *values[1:], ""))
    columns = (
        "fold",
        "exams",
        "positives",
        f"AUROC, {honest.kind} (honest)",
        "95 % interval",
        *(
            f"AUROC, {each.kind}" + (" (optimistic)" if each.kind == "best" else "")
            for each in others
        ),
        "best epoch",
    )
    return Sheet("folds", columns, tuple(rows), frozenset(range(len(rows) - 3, len(rows))))


def _summary(weights: Sequence[Weights]) -> Sheet:
    return Sheet(
        "weights",
        (
            "weights",
            "mean of folds",
            "sd, ddof 1",
            "sd, ddof 0",
            "95 % of the mean (Nadeau-Bengio)",
            "pooled AUROC",
            "95 % DeLong",
            "95 % bootstrap (BCa)",
        ),
        tuple(
            (
                each.kind,
                each.summary.mean,
                each.summary.sd,
                each.summary.sd_ddof0,
                each.corrected,
                each.pooled,
                each.delong,
                each.bootstrap,
            )
            for each in weights
        ),
    )


def _bern(evaluation: Evaluation) -> Sheet:
    assert evaluation.bern is not None
    return Sheet(
        "bern",
        (
            "Bern score read with",
            "exams",
            "AUROC, model",
            "95 % of the model",
            "AUROC, Bern",
            "95 % of Bern",
            "difference",
            "95 % of the difference",
            "p (DeLong)",
        ),
        tuple(
            (
                row.reading,
                evaluation.bern.exams,
                row.comparison.auroc_one,
                row.model_interval,
                row.comparison.auroc_other,
                row.bern_interval,
                row.comparison.difference,
                row.comparison.interval,
                row.comparison.p_value,
            )
            for row in evaluation.bern.rows
        ),
    )


def _calibration(evaluation: Evaluation) -> Sheet:
    return Sheet(
        "calibration",
        (
            "stage",
            "Brier",
            "slope",
            "95 % of the slope",
            "intercept",
            "95 % of the intercept",
            "calibration in the large",
            "95 % of it",
        ),
        tuple(
            (
                each.name,
                each.figures.brier,
                each.figures.slope,
                each.figures.slope_interval,
                each.figures.intercept,
                each.figures.intercept_interval,
                each.figures.intercept_at_slope_1,
                each.figures.intercept_at_slope_1_interval,
            )
            for each in evaluation.calibration
        ),
    )


def _thresholds(evaluation: Evaluation) -> Sheet:
    return Sheet(
        "thresholds",
        (
            "threshold of the statement",
            "probability",
            "sensitivity",
            "95 % of the sensitivity",
            "specificity",
            "95 % of the specificity",
        ),
        tuple(
            (
                each.name,
                each.threshold,
                each.sensitivity,
                each.sensitivity_interval,
                each.specificity,
                each.specificity_interval,
            )
            for each in evaluation.thresholds
        ),
    )


def _operating(evaluation: Evaluation) -> Sheet:
    return Sheet(
        "operating_points",
        (
            "asked for",
            "probability at least",
            "sensitivity",
            "95 % of the sensitivity",
            "specificity",
            "95 % of the specificity",
        ),
        tuple(
            (
                f"{each.kind} {each.target:.0%}".replace("%", " %"),
                each.threshold,
                each.sensitivity,
                each.sensitivity_interval,
                each.specificity,
                each.specificity_interval,
            )
            for each in evaluation.operating_points
        ),
    )


def _predictive(evaluation: Evaluation) -> Sheet:
    rows = _predictive_rows(evaluation)
    shown_rows = tuple(row for row in rows if row[1] in SHOWN_PREVALENCES)
    return Sheet("predictive_values", PREDICTIVE, shown_rows, grouped=True)


def _predictive_rows(evaluation: Evaluation) -> tuple[tuple[Cell, ...], ...]:
    return tuple(
        (threshold.name, each.prevalence, each.ppv, each.npv)
        for threshold in evaluation.thresholds
        for each in threshold.by_prevalence
    )


def _conformal(evaluation: Evaluation) -> Sheet:
    return Sheet(
        "conformal",
        ("class", "exams", "promised", "covered", "95 % of it", "one label", "both", "none"),
        tuple(
            (
                name,
                each.count,
                each.promised,
                each.covered,
                each.interval,
                each.single,
                each.both,
                each.empty,
            )
            for name, each in _classes(evaluation).items()
        ),
    )


def _classes(evaluation: Evaluation) -> dict[str, ClassCoverage]:
    found = evaluation.conformal
    return {"positives": found.positives, "negatives": found.negatives}


def _statements(evaluation: Evaluation) -> Sheet:
    bands = tuple(evaluation.statements[0].bands)
    return Sheet(
        "statements",
        ("label", "exams", *bands),
        tuple(
            (each.label, each.exams, *(Share(each.bands[band], each.exams) for band in bands))
            for each in evaluation.statements
        ),
    )


def _subgroups(evaluation: Evaluation) -> Sheet:
    return Sheet(
        "subgroups",
        ("grouped by", "group", "exams", "positives", "AUROC", "95 % interval (DeLong)"),
        tuple(
            (
                each.stratum,
                each.level,
                each.exams,
                each.positives,
                "too few" if each.auroc is None else each.auroc,
                each.interval,
            )
            for each in evaluation.subgroups
        ),
        grouped=True,
    )


def unprinted(evaluation: Evaluation) -> Iterator[Sheet]:
    """Tables too long for the page: what its figures are drawn from."""
    yield _predictions(evaluation)
    yield _roc_points(evaluation)
    yield Sheet("predictive_values_all", PREDICTIVE, _predictive_rows(evaluation))
    yield Sheet(
        "reliability",
        ("stage", "mean predicted", "observed", "95 %", "exams"),
        tuple(
            (stage.name, each.mean_predicted, each.observed, each.interval, each.count)
            for stage in evaluation.calibration
            for each in stage.bins
        ),
    )
    if evaluation.learning:
        yield _epochs(evaluation)


def _roc_points(evaluation: Evaluation) -> Sheet:
    curves = {"all exams": evaluation.discrimination.curve}
    curves |= {each.name: each.curve for each in evaluation.members}
    return Sheet(
        "roc",
        ("curve", "false positive rate", "sensitivity", "threshold"),
        tuple(
            (name, *point)
            for name, curve in curves.items()
            for point in zip(
                curve.false_positive_rate.tolist(),
                curve.sensitivity.tolist(),
                curve.thresholds.tolist(),
                strict=True,
            )
        ),
    )


def _epochs(evaluation: Evaluation) -> Sheet:
    columns = tuple(evaluation.learning[0].epochs[0])
    rows = tuple(
        (fold.name, *(epoch.get(column) for column in columns))
        for fold in evaluation.learning
        for epoch in fold.epochs
    )
    return Sheet("learning_curves", ("fold", *columns), rows)


def _predictions(evaluation: Evaluation) -> Sheet:
    """Every exam by its hash: what it takes to compute all of this again."""
    scores = evaluation.scores
    folds = [None] * len(evaluation.cohort) if scores.fold_of is None else scores.fold_of.tolist()
    return Sheet(
        "predictions",
        (
            "exam",
            "label",
            "fold",
            "log odds",
            "probability before",
            "probability",
            "probability, patient left out",
        ),
        tuple(
            (exam.exam, exam.label, fold, *values)
            for exam, fold, *values in zip(
                evaluation.cohort.exams,
                folds,
                scores.log_odds.tolist(),
                scores.before.tolist(),
                scores.after.tolist(),
                scores.tested.tolist(),
                strict=True,
            )
        ),
    )


# --- figures ---


def pictures(e: Evaluation) -> Iterator[Picture]:
    """Figures of the page."""
    if e.example is not None:
        yield _pipeline(e, e.example)
    if e.cohort.flow.steps:
        yield Picture("flow", figures.flow(e.cohort.flow.steps), "Flow of exams into the cohort")
    curves = [Curve(f"{m.name}, AUROC {m.auroc:.3f}", m.curve) for m in e.members]
    yield Picture("roc_folds", figures.roc_folds(curves, ""), "ROC of each member")
    yield _roc_pooled(e)
    if e.bern is not None:
        yield _roc_bern(e)
    yield Picture("reliability", figures.reliability(list(_reliabilities(e))), "Reliability plots")
    at = [each.threshold for each in e.thresholds]
    yield Picture(
        "probabilities",
        figures.separation(e.cohort.labels, e.scores.after, at),
        "Probability of every exam, by label",
    )
    yield _predictive_values(e)
    yield _decision_curve(e)
    shares = {name: _set_shares(each) for name, each in _classes(e).items()}
    yield Picture("conformal", figures.conformal(shares), "What conformal sets hold, by class")
    if e.subgroups:
        yield _forest(e)
    if e.learning:
        yield _learning(e)
    yield from _map_pictures(e)


def _pipeline(e: Evaluation, example: Example) -> Picture:
    content = figures.pipeline(
        example.voxels, e.variants, e.network, len(e.members), example.spacing_mm
    )
    return Picture("pipeline", content, "From the volume to the prediction")


def _roc_pooled(e: Evaluation) -> Picture:
    whole = e.discrimination
    name = f"all exams, AUROC {whole.auroc:.3f}"
    marks = {each.name: (each.sensitivity, each.specificity) for each in e.thresholds}
    band = Band(BAND_GRID, *whole.band)
    content = figures.roc_pooled(Curve(name, whole.curve), band, marks)
    return Picture("roc_pooled", content, "ROC of all exams with its bootstrap band")


def _roc_bern(e: Evaluation) -> Picture:
    assert e.bern is not None
    curves = [Curve(f"model, AUROC {e.bern.rows[0].comparison.auroc_one:.3f}", e.bern.model)]
    for row in e.bern.rows:
        name = f"Bern score, {row.reading}, {row.comparison.auroc_other:.3f}"
        curves.append(Curve(name, row.curve))
    content = figures.roc_comparison(curves)
    return Picture("roc_bern", content, "ROC of model and Bern score on the same exams")


def _reliabilities(e: Evaluation) -> Iterator[Reliability]:
    for stage in e.calibration:
        yield Reliability(
            name=stage.name,
            predicted=np.array([each.mean_predicted for each in stage.bins]),
            observed=np.array([each.observed for each in stage.bins]),
            low=np.array([each.interval.low for each in stage.bins]),
            high=np.array([each.interval.high for each in stage.bins]),
            probabilities=stage.probabilities,
        )


def _predictive_values(e: Evaluation) -> Picture:
    curves = {
        each.name: (
            np.array([at.ppv for at in each.by_prevalence], dtype=np.float64),
            np.array([at.npv for at in each.by_prevalence], dtype=np.float64),
        )
        for each in e.thresholds
    }
    here = float(e.cohort.labels.mean())
    content = figures.predictive_values(np.array(PREVALENCES), curves, here)
    return Picture("predictive_values", content, "PPV and NPV by prevalence")


def _decision_curve(e: Evaluation) -> Picture:
    benefits = {
        "by the model": np.array([each.model for each in e.decisions]),
        "everybody": np.array([each.treat_all for each in e.decisions]),
        "nobody": np.array([each.treat_none for each in e.decisions]),
    }
    thresholds = np.array([each.threshold for each in e.decisions])
    content = figures.decision_curve(thresholds, benefits)
    return Picture("decision_curve", content, "Net benefit by threshold probability")


def _set_shares(coverage: ClassCoverage) -> dict[str, float]:
    """Sets of one label that is right or wrong, of both, of none."""
    right = coverage.covered - coverage.both
    return {
        "the right label": right,
        "the wrong label": coverage.single - right,
        "both: undetermined": coverage.both,
        "none: unlike either": coverage.empty,
    }


def _forest(e: Evaluation) -> Picture:
    bars = [
        Bar(
            each.stratum,
            each.level,
            each.auroc,
            each.interval.low if each.interval else each.auroc or 0.0,
            each.interval.high if each.interval else each.auroc or 0.0,
            f"{each.positives} of {each.exams}"
            + ("" if each.auroc is None else f", {each.auroc:.2f}"),
        )
        for each in e.subgroups
    ]
    return Picture("subgroups", figures.forest(bars, e.discrimination.auroc), "AUROC by subgroup")


def _learning(e: Evaluation) -> Picture:
    content = figures.learning_curves(
        {each.name: each.epochs for each in e.learning},
        {each.name: each.best_epoch for each in e.learning},
    )
    return Picture("learning_curves", content, "Loss and AUROC by epoch, one column per fold")


def _map_pictures(e: Evaluation) -> Iterator[Picture]:
    if e.maps.mean is not None:
        yield Picture("mean_map", figures.mean_map(e.maps.mean), "Mean effect of occlusion")
    if e.maps.example is not None and e.maps.example.shown is not None:
        content = figures.three_part(e.maps.example.shown)
        yield Picture("three_part", content, "Sagittal image, occlusion overlay, mask alone")
    for number, case in enumerate(e.maps.worst, start=1):
        if case.shown is None:
            continue
        content = figures.planes(case.shown)
        yield Picture(f"case_{number}", content, f"Three planes of exam {case.exam}")
