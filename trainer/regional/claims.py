"""What the paper says of models and regions, asked of a finished run: paired by outer fold.

Cüce et al. report that fused models beat their base, that the parenchyma below the lentiform
nucleus is clearly ahead of the ventricles, and that the strict way of counting patients confirms
it. Each is a difference of two rows of the table. Training parts of folds overlap, so its interval
is that of Nadeau and Bengio. The rules were settled before a run was judged by them, but for what
CLEARLY means, which is older.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from trainer.regional.patientwise import STRATEGIES, Strategy
from trainer.regional.settings import RegionalConfig
from trainer.regional.table import IN_SERVICE, Row
from trainer.statistics import FoldSummary, Interval, corrected_interval, fold_summary

Verdict: TypeAlias = Literal["holds", "does not hold", "open"]
Metric: TypeAlias = Literal["accuracy", "auroc"]
Cells: TypeAlias = Mapping[tuple[str, str, Strategy], Mapping[str, FoldSummary | None]]

FUSED: Final = "-aspp-radfusion"
COMPARED: Final[tuple[Metric, ...]] = ("accuracy", "auroc")
# Of AUROC: half of what lies between a coin and the paper's accuracy.
CLEARLY: Final = 0.1


@dataclass(frozen=True)
class Difference:
    """How far one row of the table is ahead of another, fold by fold.

    Attributes:
        summary: over the outer folds.
        interval: of its mean, as training parts overlap.
    """

    summary: FoldSummary
    interval: Interval

    def verdict(self, by: float = 0.0) -> Verdict:
        """Whether the first is ahead.

        Args:
            by: how much the mean is to be more than; it cannot be told whether a margin is reached
                that the interval still holds.
        """
        if self.interval.low > 0 and self.summary.mean > by:
            return "holds"
        return "does not hold" if self.interval.high <= by else "open"

    def __str__(self) -> str:
        low, high = self.interval.low, self.interval.high
        return (
            f"{self.summary.mean:+.3f} ± {self.summary.sd:.3f}, 95 % interval {low:+.3f} to "
            f"{high:+.3f}"
        )


@dataclass(frozen=True)
class FusedAhead:
    """A fused model against the base that it was made of."""

    region: str
    fused: str
    base: str
    strategy: Strategy
    metric: Metric
    difference: Difference

    @property
    def verdict(self) -> Verdict:
        """Whether the fused one is ahead."""
        return self.difference.verdict()


@dataclass(frozen=True)
class Told:
    """A finding of the paper in words.

    Attributes:
        claim: what the paper says.
        verdict: whether it is so here.
        figures: what that rests on.
    """

    claim: str
    verdict: str
    figures: str

    def __str__(self) -> str:
        return f"{self.claim}: {self.verdict} ({self.figures})"


@dataclass(frozen=True)
class Claims:
    """All comparisons of a run.

    Attributes:
        fused: by region, model, strategy and metric.
        decisive_ahead: AUROC of patients in the decisive region less that in the other, mean over
            the models.
        strict_ahead: accuracy of patients all of whose slices are right, the same.
        strict_by_model: the same, model by model.
    """

    fused: tuple[FusedAhead, ...]
    decisive_ahead: Difference
    strict_ahead: Difference
    strict_by_model: Mapping[str, Difference]

    @property
    def decisive_clearly_better(self) -> Verdict:
        """Whether the decisive region is ahead by more than CLEARLY."""
        return self.decisive_ahead.verdict(CLEARLY)

    @property
    def strict_confirms(self) -> Verdict:
        """Whether it is ahead by the strict way as well."""
        return self.strict_ahead.verdict()


def pairs(config: RegionalConfig) -> dict[str, str]:
    """Fused models, each with the base of the same backbone where there is one."""
    bases = {each.name: model for model, each in config.models.items()}
    found = {
        model: bases.get(each.name.removesuffix(FUSED))
        for model, each in config.models.items()
        if each.name.endswith(FUSED)
    }
    return {fused: base for fused, base in found.items() if base is not None}


def compared(config: RegionalConfig, rows: tuple[Row, ...], exams: int) -> Claims:
    """Compare the rows of a table.

    Args:
        config: of the run.
        rows: of its table.
        exams: of the cohort.
    """
    cells = {(row.region, row.model, row.strategy): row.figures for row in rows}
    decisive = config.bundle.decisive
    (other,) = {row.region for row in rows} - {decisive}
    strict = {
        model: _less(cells, (decisive, model), (other, model), "strict", "accuracy")
        for model in config.models
    }
    ahead = [
        _less(cells, (decisive, model), (other, model), IN_SERVICE, "auroc")
        for model in config.models
    ]
    return Claims(
        fused=tuple(_fused(config, cells, (decisive, other), exams)),
        decisive_ahead=difference(np.mean(ahead, axis=0), exams),
        strict_ahead=difference(np.mean(list(strict.values()), axis=0), exams),
        strict_by_model={model: difference(each, exams) for model, each in strict.items()},
    )


def difference(by_fold: np.ndarray, exams: int) -> Difference:
    """Of one figure per outer fold, and the exams of all folds."""
    values = [float(each) for each in by_fold]
    tested = round(exams / len(values))
    return Difference(fold_summary(values), corrected_interval(values, exams - tested, tested))


def told(claims: Claims, decisive: str) -> tuple[Told, ...]:
    """Every claim of the paper, whether it holds, and by how much."""
    models = ", ".join(
        f"{model} {each.summary.mean:+.3f}" for model, each in claims.strict_by_model.items()
    )
    return (
        *_fused_told(claims, decisive),
        Told(
            f"{decisive} clearly better",
            claims.decisive_clearly_better,
            f"AUROC of patients, mean of all models: {claims.decisive_ahead}; clearly is more than "
            f"{CLEARLY}",
        ),
        Told(
            f"the strict way confirms {decisive}",
            claims.strict_confirms,
            f"accuracy where all slices must be right, mean of all models: {claims.strict_ahead}; "
            f"{models}",
        ),
    )


def _fused_told(claims: Claims, decisive: str) -> Iterator[Told]:
    for each in claims.fused:
        if (each.region, each.strategy, each.metric) == (decisive, IN_SERVICE, "accuracy"):
            yield Told(
                f"{each.fused} beats {each.base} on {each.region}",
                each.verdict,
                f"accuracy of patients: {each.difference}; {_others(claims, each)}",
            )


def _others(claims: Claims, shown: FusedAhead) -> str:
    """What other strategies and AUROC say of the same pair and region."""
    same = [
        each
        for each in claims.fused
        if (each.region, each.fused) == (shown.region, shown.fused) and each is not shown
    ]
    return ", ".join(
        f"{each.metric} {each.strategy} {each.difference.summary.mean:+.3f} {each.verdict}"
        for each in same
    )


def _fused(
    config: RegionalConfig, cells: Cells, regions: tuple[str, str], exams: int
) -> Iterator[FusedAhead]:
    for region in regions:
        for fused, base in pairs(config).items():
            for strategy in STRATEGIES:
                for metric in COMPARED:
                    if cells[region, fused, strategy][metric] is None:
                        continue  # a strict figure ranks nobody
                    less = _less(cells, (region, fused), (region, base), strategy, metric)
                    yield FusedAhead(region, fused, base, strategy, metric, difference(less, exams))


def _less(
    cells: Cells, one: tuple[str, str], other: tuple[str, str], strategy: Strategy, metric: Metric
) -> np.ndarray:
    """(folds,) figure of one region and model less that of another."""
    first, second = cells[*one, strategy][metric], cells[*other, strategy][metric]
    assert first is not None
    assert second is not None
    return np.subtract(first.values, second.values)
