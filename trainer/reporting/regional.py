"""A nested cross-validation of regions as a report: the paper's table, and what tells most."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.regional.claims import Told
from trainer.regional.cohort import RegionalCohort
from trainer.regional.findings import Findings, find, told
from trainer.regional.learner import WITHIN
from trainer.regional.patientwise import STRATEGIES
from trainer.regional.proposed import Overlap, on_proposals, overlaps
from trainer.regional.run import RegionalRun
from trainer.regional.table import (
    HEADINGS,
    IN_SERVICE,
    METRICS,
    STRATEGY_WORDS,
    Row,
    best_model,
    paper_table,
)
from trainer.reporting import figures, report
from trainer.reporting.page import Picture, Sheet, plain, write_page
from trainer.reporting.pooled import Judged, judged
from trainer.statistics import FoldSummary
from trainer.subject import NotComparable


@dataclass(frozen=True, eq=False)
class RegionalEvaluation:
    """What a finished run is worth.

    Attributes:
        rows: of the paper's table, by every strategy.
        findings: which features and which region tell most.
        proposed: the same rows with regions as proposed; empty where no reader drew any.
        overlaps: of proposed and drawn regions.
        judged: one model in the region that decides.
    """

    run: RegionalRun
    cohort: RegionalCohort
    rows: tuple[Row, ...]
    findings: Findings
    proposed: tuple[Row, ...]
    overlaps: tuple[Overlap, ...]
    judged: Judged

    @property
    def words(self) -> tuple[Told, ...]:
        """The paper's findings, and whether they hold."""
        return told(self.findings, self.run.config.bundle.decisive)


def evaluate_regions(
    run: RegionalRun, cohort: RegionalCohort, model: str = ""
) -> RegionalEvaluation:
    """Judge every member by the exams it has not seen.

    Args:
        run: finished.
        cohort: that it was trained on.
        model: row of the table that is looked at closely; without, the one that `export` takes.

    Raises:
        NotComparable: the run has no such model.
    """
    rows = paper_table(run)
    if model and model not in run.config.models:
        known = ", ".join(run.config.models)
        raise NotComparable(f"run {run.folder}", f"no model {model!r}", f"name one of {known}")
    again = on_proposals(run, cohort)
    return RegionalEvaluation(
        run,
        cohort,
        rows,
        find(run, cohort, rows),
        () if again is None else paper_table(again),
        overlaps(cohort),
        judged(run, again, cohort, model or best_model(run, rows)),
    )


def write_regional_report(folder: Path, evaluation: RegionalEvaluation) -> Path:
    """Write report, figures, tables and numbers into a folder; what is there is replaced.

    Returns:
        The page.
    """
    close = evaluation.judged.evaluation
    return write_page(
        folder,
        "regional.html",
        [*report.pictures(close), *_cases(evaluation)],
        [*_sheets(evaluation), *report.sheets(close)],
        [_members(evaluation), *report.unprinted(close)],
        _numbers(evaluation),
        r=evaluation,
        e=close,
        config=evaluation.run.config,
        **report.words_of(close),
    )


def _numbers(e: RegionalEvaluation) -> dict[str, Any]:
    """Every number as plain values."""
    return {
        "table": plain(e.rows),
        "table_proposed": plain(e.proposed),
        "overlaps": plain(e.overlaps),
        "findings": plain(e.findings),
        "words": plain(e.words),
        "model": e.judged.model,
        "thresholds_kept": plain(e.judged.kept),
        **report.metrics(e.judged.evaluation),
    }


def _cases(e: RegionalEvaluation) -> Iterator[Picture]:
    """The crops of the worst errors."""
    views = e.cohort.views[e.judged.region]
    index = {exam.exam: place for place, exam in enumerate(e.cohort.exams)}
    for number, case in enumerate(e.judged.evaluation.maps.worst, start=1):
        found = views.crops[views.exam_of == index[case.exam]].astype(np.float64)
        content = figures.crops(found[:, 0], found[:, WITHIN] != 0)
        yield Picture(f"case_{number}", content, f"Crops of exam {case.exam}, region outlined")


def _sheets(e: RegionalEvaluation) -> Iterator[Sheet]:
    yield Sheet(
        "findings",
        ("what the paper says", "here", "which rests on"),
        tuple((each.claim, each.verdict, each.figures) for each in e.words),
    )
    yield _fused(e)
    yield _kept(e)
    for strategy in STRATEGIES:
        yield _table(f"table_{strategy}", [row for row in e.rows if row.strategy == strategy])
    if e.proposed:
        yield _table("table_proposed", [row for row in e.proposed if row.strategy == IN_SERVICE])
        yield _overlaps(e)
    yield Sheet(
        "images",
        ("region", "image", "mean AUROC of a feature by itself", "95 % interval", "selections"),
        tuple((i.region, i.image, i.auroc, i.interval, i.selected) for i in e.findings.images),
        grouped=True,
    )
    yield Sheet(
        "features",
        ("region", "feature", "outer folds that selected it"),
        tuple((f.region, f.feature, f.folds) for f in e.findings.features),
        grouped=True,
    )


def _table(name: str, rows: list[Row]) -> Sheet:
    columns = [f"{HEADINGS[each]}{part}" for each in METRICS for part in ("", " sd")]
    columns.append("folds that call nobody positive")
    return Sheet(
        name,
        ("region", "model", *columns),
        tuple(
            (
                row.region,
                row.model,
                *(number for each in METRICS for number in _two(row, each)),
                row.silent,
            )
            for row in rows
        ),
        grouped=True,
    )


def _kept(e: RegionalEvaluation) -> Sheet:
    return Sheet(
        "thresholds_kept",
        (
            "regions",
            "thresholds",
            "sensitivity of the lower",
            "95 % of the sensitivity",
            "specificity of the upper",
            "95 % of the specificity",
            "positives suggested",
            "negatives not suggested",
        ),
        tuple(
            (
                each.regions,
                each.thresholds,
                each.sensitivity,
                each.sensitivity_interval,
                each.specificity,
                each.specificity_interval,
                each.called,
                each.excluded,
            )
            for each in e.judged.kept
        ),
        grouped=True,
    )


def _fused(e: RegionalEvaluation) -> Sheet:
    return Sheet(
        "fused",
        ("region", "fused", "base", "strategy", "figure", "ahead by", "sd", "95 %", "so it"),
        tuple(
            (
                each.region,
                each.fused,
                each.base,
                STRATEGY_WORDS[each.strategy],
                HEADINGS[each.metric],
                each.difference.summary.mean,
                each.difference.summary.sd,
                each.difference.interval,
                each.verdict,
            )
            for each in e.findings.claims.fused
        ),
        grouped=True,
    )


def _overlaps(e: RegionalEvaluation) -> Sheet:
    return Sheet(
        "overlaps",
        ("region", "exams drawn", "not proposed", "Dice", "Dice sd", "lowest"),
        tuple(
            (o.region, o.drawn, o.not_proposed, o.dice.mean, o.dice.sd, o.lowest)
            for o in e.overlaps
        ),
    )


def _two(row: Row, metric: str) -> tuple[float | None, float | None]:
    summary: FoldSummary | None = row.figures[metric]
    return (None, None) if summary is None else (summary.mean, summary.sd)


def _members(e: RegionalEvaluation) -> Sheet:
    """What inner folds chose for each member."""
    return Sheet(
        "members",
        (
            "region",
            "model",
            "fold",
            "features",
            "learning rate",
            "epochs",
            "threshold of slices",
            "threshold of patients",
        ),
        tuple(
            (
                region,
                model,
                number,
                0 if each.selected is None else len(each.selected.names),
                each.learning_rate,
                each.epochs,
                each.at.slice,
                each.at.patient,
            )
            for (region, model), members in e.run.members.items()
            for number, each in enumerate(members)
        ),
    )
