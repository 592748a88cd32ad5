"""The paper's table: models by regions, mean and deviation over the outer folds."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.table import Table

from trainer.regional.patientwise import STRATEGIES, Figures, Strategy, figures
from trainer.regional.run import RegionalRun
from trainer.statistics import FoldSummary, fold_summary

IN_SERVICE: Final[Strategy] = "mean_logit"
HEADINGS: Final[Mapping[str, str]] = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auroc": "AUROC",
}
METRICS: Final = tuple(HEADINGS)
STRATEGY_WORDS: Final[Mapping[str, str]] = {
    "slice": "slices",
    "strict": "patients, all slices right",
    "majority": "patients, most slices",
    "mean_logit": "patients, mean log odds",
}


@dataclass(frozen=True)
class Row:
    """One model on one region, judged in one way.

    Attributes:
        figures: metric to its summary over the outer folds; None where it does not exist.
        silent: outer folds in which nobody is called positive, so that accuracy is the share of
            negatives and precision 0.
    """

    region: str
    model: str
    strategy: Strategy
    figures: Mapping[str, FoldSummary | None]
    silent: int = 0


def paper_table(run: RegionalRun) -> tuple[Row, ...]:
    """Every model on every region by every strategy, in the order of the configuration."""
    return tuple(_rows(run))


def best_model(run: RegionalRun, rows: tuple[Row, ...]) -> str:
    """The model to ship: of the highest mean AUROC of patients in the decisive region.

    Models that take handcrafted features go before those that do not. Which model was shipped was
    thus settled by the figures that are reported of it: with two to choose from they flatter a
    little.
    """
    place = (run.config.bundle.decisive, IN_SERVICE)
    found = {row.model: row for row in rows if (row.region, row.strategy) == place}
    fused = [
        model
        for model in run.config.models
        if run.members[run.config.bundle.decisive, model][0].selected is not None
    ]
    return max(fused or found, key=lambda model: _mean(found[model].figures["auroc"]))


def rich_tables(rows: tuple[Row, ...], regions: str) -> tuple[Table, Table]:
    """The table as the service decides, and the accuracy by every strategy.

    Args:
        rows: of the table; "none called" is how many folds call nobody positive.
        regions: whose they are, as in "regions as drawn".
    """
    cells = {(row.region, row.model, row.strategy): row.figures for row in rows}
    said = f"{regions}: %, mean ± sd of folds"
    silent = {(row.region, row.model): row.silent for row in rows if row.strategy == IN_SERVICE}
    first = _table(f"Patients, by mean log odds, {said}", (*HEADINGS.values(), "none called"))
    second = _table(f"Accuracy, {said}", STRATEGY_WORDS.values())
    before = ""
    for region, model in dict.fromkeys((row.region, row.model) for row in rows):
        figures_of = {each: cells[region, model, each] for each in STRATEGIES}
        for table in (first, second):
            if region != before:
                table.add_row(region, style="bold")
        in_service = figures_of[IN_SERVICE]
        shown = (percent(in_service[metric]) for metric in METRICS)
        first.add_row(f"  {model}", *shown, str(silent[region, model]))
        accuracies = (percent(figures_of[each]["accuracy"]) for each in STRATEGIES)
        second.add_row(f"  {model}", *accuracies)
        before = region
    return first, second


def _table(title: str, headings: Iterable[str]) -> Table:
    table = Table("", *headings, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify, column.min_width = "right", len("precision")
    return table


def headline_figures(rows: tuple[Row, ...], model: str, how: str = "") -> dict[str, float]:
    """The few figures of a model that go onto its card: patients, by mean log odds.

    Args:
        rows: of the table.
        model: row of the table.
        how: regions came about, where it is not told elsewhere; such as "proposed_".
    """
    return {
        f"{row.region}_{how}{metric}{part}": round(value, 3)
        for row in rows
        if (row.model, row.strategy) == (model, IN_SERVICE)
        for metric, summary in row.figures.items()
        if summary is not None
        for part, value in (("", summary.mean), ("_sd", summary.sd))
    }


def percent(summary: FoldSummary | None) -> str:
    """A figure as the paper prints it.

    >>> percent(fold_summary([0.75, 0.80, 0.85])), percent(None)
    ('80.0±5.0', '-')
    """
    return "-" if summary is None else f"{100 * summary.mean:.1f}±{100 * summary.sd:.1f}"


def _rows(run: RegionalRun) -> Iterator[Row]:
    for (region, model), members in run.members.items():
        if any(len(set(member.slices.labels.tolist())) < 2 for member in members):
            # A fold of one label, where regions cannot be proposed: no figure is a mean over folds.
            yield from (Row(region, model, each, dict.fromkeys(METRICS)) for each in STRATEGIES)
            continue
        judged = [figures(member.slices, member.at) for member in members]
        for strategy in STRATEGIES:
            found = [each[strategy] for each in judged]
            summaries = {name: _summary(found, name) for name in METRICS}
            silent = sum(each.called == 0 for each in found)
            yield Row(region, model, strategy, summaries, silent)


def _summary(found: list[Figures], metric: str) -> FoldSummary | None:
    values = [getattr(each, metric) for each in found]
    return None if None in values else fold_summary(values)


def _mean(summary: FoldSummary | None) -> float:
    return 0.0 if summary is None else summary.mean
