"""A shadow beside the bundle in service: what both said of the same studies, and who was right.

Pairs are of the same input, byte for byte. What is told of right and wrong rests on labels that
people brought (labels.py); these are rarely of all studies, and rarely of chance ones.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, stdev

from sqlalchemy import FromClause, RowMapping, and_, func, or_, select

from listener.entries import Edition
from listener.ledger import Ledger
from listener.series import SELFTEST_STATION
from listener.tables import jobs, labels, studies

TENTHS = 10

NOTABLE = 0.2
"""A difference of probabilities from which on a pair is shown as a disagreement."""

LIMITS_OF_AGREEMENT = 1.96
"""Standard deviations to either side of the mean difference (Bland, Altman, Lancet 1986;1:307)."""


@dataclass(frozen=True)
class Side:
    """What one bundle said of a study; `refusal` where it could not judge it."""

    job_id: str
    probability: float | None
    band: str | None
    refusal: str | None


@dataclass(frozen=True)
class Pair:
    """What both said of the same input, and what turned out to be true, where that is known."""

    study_uid: str
    finished_at: float
    scanner: str | None
    active: Side
    shadow: Side
    positive: bool | None

    @property
    def difference(self) -> float | None:
        """How much higher the shadow's probability is."""
        if self.active.probability is None or self.shadow.probability is None:
            return None
        return self.shadow.probability - self.active.probability

    @property
    def disagrees(self) -> bool:
        """Whether the statements differ, or the probabilities notably."""
        statements = {(each.band, each.refusal) for each in (self.active, self.shadow)}
        return len(statements) > 1 or abs(self.difference or 0.0) >= NOTABLE


@dataclass(frozen=True)
class Tenth:
    """Studies with a probability in one tenth, and how many of them were positive."""

    low: float
    high: float
    studies: int
    positives: int
    mean_probability: float


@dataclass(frozen=True)
class Rightness:
    """How a bundle did on labelled studies.

    Attributes:
        brier: mean squared error of its probabilities.
        auroc: None where the studies are of one class.
        tenths: those with studies in them.
    """

    studies: int
    positives: int
    brier: float
    auroc: float | None
    tenths: tuple[Tenth, ...]


@dataclass(frozen=True)
class Comparison:
    """A shadow beside the bundle in service.

    Attributes:
        pairs: newest first.
        same_statement: share of the pairs with the same band or refusal.
        kappa: Cohen's, of these statements; None where all are the same one.
        mean_difference: shadow less active, of pairs with two probabilities.
        limits: of agreement; None with fewer than three such pairs.
        active: None where no pair has a label.
        shadow: of the same studies.
    """

    pairs: tuple[Pair, ...]
    same_statement: float | None
    kappa: float | None
    mean_difference: float | None
    limits: tuple[float, float] | None
    active: Rightness | None
    shadow: Rightness | None

    @property
    def disagreements(self) -> tuple[Pair, ...]:
        """Pairs that somebody should look at, the furthest apart first."""
        found = (each for each in self.pairs if each.disagrees)
        return tuple(sorted(found, key=lambda each: -abs(each.difference or 1.0)))


def compare(
    ledger: Ledger, analysis: str, active: Edition, shadow: Edition, limit: int = 10_000
) -> Comparison:
    """Put what two bundles said side by side, of studies where one of them was the other's shadow.

    Args:
        ledger: that has it.
        analysis: of both.
        active: the bundle whose results are sent now.
        shadow: the other one; it may have been the active one until it was replaced.
        limit: so many pairs at most, the latest.
    """
    pairs = _pairs(ledger, analysis, active, shadow, limit)
    said = [(_statement(each.active), _statement(each.shadow)) for each in pairs]
    differences = [each.difference for each in pairs if each.difference is not None]
    labelled = [each for each in pairs if each.positive is not None and each.difference is not None]
    return Comparison(
        pairs=pairs,
        same_statement=fmean(one == other for one, other in said) if said else None,
        kappa=_kappa(said),
        mean_difference=fmean(differences) if differences else None,
        limits=_limits(differences),
        active=_rightness([(each.active, each.positive) for each in labelled]),
        shadow=_rightness([(each.shadow, each.positive) for each in labelled]),
    )


def auroc(cases: Iterable[tuple[float, bool]]) -> float | None:
    """Area under the receiver operating characteristic, by ranks; None without both classes.

    >>> auroc([(0.1, False), (0.4, True), (0.4, False), (0.9, True)])
    0.875
    """
    below = wins = 0.0
    positives = negatives = 0
    for _, tied in groupby(sorted(cases), key=lambda case: case[0]):
        group = [positive for _, positive in tied]
        yes = sum(group)
        wins += yes * (below + (len(group) - yes) / 2)
        below += len(group) - yes
        positives, negatives = positives + yes, negatives + len(group) - yes
    return wins / (positives * negatives) if positives and negatives else None


def _pairs(
    ledger: Ledger, analysis: str, active: Edition, shadow: Edition, limit: int
) -> tuple[Pair, ...]:
    one, other = jobs.alias(), jobs.alias()
    same_input = and_(
        other.c.study_uid == one.c.study_uid,
        other.c.analysis == one.c.analysis,
        other.c.digest == one.c.digest,
        # Which of the two was the shadow may have changed since.
        other.c.role != one.c.role,
        other.c.weights_sha256 == active[0],
        other.c.bundle_version == active[1],
        or_(other.c.probability.is_not(None), other.c.refusal.is_not(None)),
    )
    its_label = and_(labels.c.study_uid == one.c.study_uid, labels.c.analysis == analysis)
    query = (
        select(one, other, studies.c.scanner, labels.c.positive)
        .join(other, same_input)
        .join(studies, studies.c.study_uid == one.c.study_uid)
        .outerjoin(labels, its_label)
        .where(
            one.c.analysis == analysis,
            ~func.coalesce(studies.c.scanner, "").endswith(SELFTEST_STATION),
            one.c.weights_sha256 == shadow[0],
            one.c.bundle_version == shadow[1],
            one.c.state.in_(("REPORTED", "REFUSED")),
            other.c.state.in_(("REPORTED", "REFUSED")),
        )
        .order_by(one.c.finished_at.desc())
        .limit(limit)
    )

    with ledger.reading() as connection:
        return tuple(
            Pair(
                row[one.c.study_uid],
                row[one.c.finished_at],
                row[studies.c.scanner],
                _side(row, other),
                _side(row, one),
                row[labels.c.positive],
            )
            for row in connection.execute(query).mappings()
        )


def _side(row: RowMapping, job: FromClause) -> Side:
    return Side(row[job.c.job_id], row[job.c.probability], row[job.c.band], row[job.c.refusal])


def _statement(side: Side) -> str:
    return side.refusal or side.band or ""


def _kappa(said: Sequence[tuple[str, str]]) -> float | None:
    """Agreement beyond chance (Cohen, Educ Psychol Meas 1960;20:37).

    >>> _kappa([("a", "a"), ("b", "b"), ("a", "b"), ("b", "a")])
    0.0
    """
    if not said:
        return None
    observed = fmean(one == other for one, other in said)
    expected = sum(
        fmean(one == word for one, _ in said) * fmean(other == word for _, other in said)
        for word in {word for pair in said for word in pair}
    )
    return None if math.isclose(expected, 1.0) else (observed - expected) / (1 - expected)


def _limits(differences: Sequence[float]) -> tuple[float, float] | None:
    if len(differences) < 3:
        return None
    centre, reach = fmean(differences), LIMITS_OF_AGREEMENT * stdev(differences)
    return centre - reach, centre + reach


def _rightness(cases: Sequence[tuple[Side, bool | None]]) -> Rightness | None:
    known = [
        (side.probability, positive)
        for side, positive in cases
        if side.probability is not None and positive is not None
    ]
    if not known:
        return None
    return Rightness(
        studies=len(known),
        positives=sum(positive for _, positive in known),
        brier=fmean((probability - positive) ** 2 for probability, positive in known),
        auroc=auroc(known),
        tenths=tuple(_tenths(known)),
    )


def _tenths(known: Sequence[tuple[float, bool]]) -> Iterable[Tenth]:
    for number in range(TENTHS):
        within = [each for each in known if min(int(each[0] * TENTHS), TENTHS - 1) == number]
        if within:
            yield Tenth(
                low=number / TENTHS,
                high=(number + 1) / TENTHS,
                studies=len(within),
                positives=sum(positive for _, positive in within),
                mean_probability=fmean(probability for probability, _ in within),
            )
