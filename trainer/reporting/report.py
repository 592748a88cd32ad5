"""An evaluation as a report: one self-contained page, and every figure and number beside it.

report.html       needs nothing else: pictures are inside
metrics.json      every number
figures/*.png     as in the page
tables/*.csv      as in the page, in full precision; predictions.csv has every exam
"""

import base64
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeAlias

import jinja2
import numpy as np

from trainer.cohort import Cohort
from trainer.reporting import figures
from trainer.reporting.characteristics import Share, Spread
from trainer.reporting.evaluate import (
    BAND_GRID,
    FEWEST,
    HONEST_WORDS,
    PREVALENCES,
    Evaluation,
    Scores,
    Weights,
)
from trainer.reporting.figures import Band, Bar, Curve, Reliability
from trainer.reporting.maps import Maps
from trainer.reporting.tripod import answered
from trainer.statistics import ClassCoverage, Interval, Roc

Cell: TypeAlias = str | int | float | Interval | Spread | Share | None

REPORT: Final = "report.html"
METRICS: Final = "metrics.json"
# Rows of the table of predictive values; the figure has all.
SHOWN_PREVALENCES: Final = (0.1, 0.2, 0.3, 0.5, 0.7)
PREDICTIVE: Final = ("threshold", "prevalence", "PPV", "NPV")
# Faghani et al. 2024, tables 1 and 2: another cohort, for orientation only.
PAPER_AUROCS: Final = (0.8988, 0.8284, 0.8580, 0.8580, 0.8910)
# What would make the JSON unreadable and is in the figures anyway.
NOT_NUMBERS: Final = (Cohort, Maps, Roc, Scores)
ARRAYS: Final = frozenset({"variants", "probabilities"})


@dataclass(frozen=True)
class Sheet:
    """A table of the report.

    Attributes:
        name: of its CSV file.
        columns: headings.
        rows: as many cells each.
        emphasised: numbers of the rows that sum others up.
        grouped: the first column is shown where it changes only.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    emphasised: frozenset[int] = frozenset()
    grouped: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure of the report.

    Attributes:
        name: of its PNG file.
        content: the PNG.
        alt: what it shows, for those who cannot see it.
    """

    name: str
    content: bytes
    alt: str

    @property
    def width(self) -> str:
        """Its natural width in inches, so that letters are of one size in all figures."""
        pixels = int.from_bytes(self.content[16:20], "big")  # PNG, IHDR
        return f"{pixels / figures.DPI:.2f}in"

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return "data:image/png;base64," + base64.b64encode(self.content).decode()


def write_report(folder: Path, evaluation: Evaluation) -> Path:
    """Write report, figures, tables and numbers into a folder; what is there is replaced.

    Returns:
        The page.
    """
    pictures = {each.name: each for each in _pictures(evaluation)}
    sheets = {each.name: each for each in _sheets(evaluation)}
    for part in ("figures", "tables"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for picture in pictures.values():
        (folder / "figures" / f"{picture.name}.png").write_bytes(picture.content)
    for sheet in (*sheets.values(), *_unprinted(evaluation)):
        (folder / "tables" / f"{sheet.name}.csv").write_text(as_csv(sheet))
    (folder / METRICS).write_text(json.dumps(metrics(evaluation), indent=2) + "\n")
    page = folder / REPORT
    page.write_text(_page(evaluation, pictures, sheets))
    return page


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


def plain(value: Any) -> Any:
    """Dataclasses, arrays and numbers as what JSON knows."""
    if is_dataclass(value):
        return {
            each.name: plain(getattr(value, each.name))
            for each in fields(value)
            if each.name not in ARRAYS and not isinstance(getattr(value, each.name), NOT_NUMBERS)
        }
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def as_csv(sheet: Sheet) -> str:
    """A sheet in full precision; an interval takes two columns, a spread five, a share two."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    widths = [_parts([row[place] for row in sheet.rows]) for place in range(len(sheet.columns))]
    writer.writerow(
        f"{column} {part}".strip()
        for column, parts in zip(sheet.columns, widths, strict=True)
        for part in parts
    )
    for row in sheet.rows:
        writer.writerow(
            _part(cell, part) for cell, parts in zip(row, widths, strict=True) for part in parts
        )
    return stream.getvalue()


def _parts(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The columns that a column of composite cells needs."""
    kinds = {type(cell) for cell in cells if is_dataclass(cell)}
    named = [
        each.name for kind in (Share, Spread, Interval) if kind in kinds for each in fields(kind)
    ]
    return tuple(dict.fromkeys(named)) or ("",)


def _part(cell: Cell, part: str) -> Any:
    found = getattr(cell, part, None) if is_dataclass(cell) else cell
    return "" if found is None else found


# --- the page ---


def _page(
    evaluation: Evaluation, pictures: Mapping[str, Picture], sheets: Mapping[str, Sheet]
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": shown, "figure": _number}
    environment.tests["words"] = is_words
    source = (
        resources.files("trainer.reporting").joinpath("report.html").read_text(encoding="utf-8")
    )
    return environment.from_string(source).render(
        e=evaluation,
        pictures=pictures,
        sheets=sheets,
        external=evaluation.design == "external validation",
        honest_words=HONEST_WORDS,
        repeated=len(set(evaluation.cohort.groups.tolist())) < len(evaluation.cohort),
        paper=_paper(),
        fewest=FEWEST,
    )


def _paper() -> str:
    mean = float(np.mean(PAPER_AUROCS))
    spread = float(np.std(PAPER_AUROCS)), float(np.std(PAPER_AUROCS, ddof=1))
    return (
        f"mean {mean:.4f}, sd {spread[0]:.4f} with ddof 0 (printed as 0.0254) and "
        f"{spread[1]:.4f} with ddof 1"
    )


def shown(cell: Cell) -> str:
    """A cell as a reader sees it.

    >>> shown(0.12345), shown(Interval(0.5, 0.75)), shown(None), shown(Share(3, 12))
    ('0.123', '0.500 to 0.750', '-', '3 (25.0 %)')
    """
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "-"
    if isinstance(cell, Interval):
        return f"{_number(cell.low)} to {_number(cell.high)}"
    if isinstance(cell, Share):
        return _share_words(cell)
    if isinstance(cell, Spread):
        return _spread_words(cell)
    return _number(cell) if isinstance(cell, float) else str(cell)


def is_words(cell: Cell) -> bool:
    """Whether a cell may be broken into lines."""
    return isinstance(cell, str | Spread)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share_words(share: Share) -> str:
    return f"{share.count} ({share.count / share.of:.1%})".replace("%", " %") if share.of else "0"


def _spread_words(spread: Spread) -> str:
    if spread.median is None:
        return "unknown"
    words = (
        f"{spread.median:g} ({spread.lower_quartile:g} to {spread.upper_quartile:g}), "
        f"{spread.lowest:g} to {spread.highest:g}"
    )
    return words if spread.known == spread.of else f"{words}; known of {spread.known}"


# --- tables ---


def _sheets(evaluation: Evaluation) -> Iterator[Sheet]:
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
            for each in answered(evaluation.design == "external validation")
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
            evaluation.learning[number].best_epoch,
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


def _unprinted(evaluation: Evaluation) -> Iterator[Sheet]:
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


def _pictures(e: Evaluation) -> Iterator[Picture]:
    yield _pipeline(e)
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


def _pipeline(e: Evaluation) -> Picture:
    first = int(np.flatnonzero(e.cohort.labels == 1)[0])
    content = figures.pipeline(
        e.cohort.voxels[first].astype(np.float32),
        e.variants,
        e.network,
        len(e.members),
        e.cohort.recipe.spacing_mm,
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
    if e.maps.example is not None:
        content = figures.three_part(e.maps.example.shown)
        yield Picture("three_part", content, "Sagittal image, occlusion overlay, mask alone")
    for number, case in enumerate(e.maps.worst, start=1):
        content = figures.planes(case.shown)
        yield Picture(f"case_{number}", content, f"Three planes of exam {case.exam}")
