"""A shadow beside the bundle in service: what both said of the same studies, and who was right.

Pairs are of the same input, byte for byte. What is told of right and wrong rests on labels that
people brought (labels.py); these are rarely of all studies, and rarely of chance ones.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, FromClause, Select, and_, case, func, or_, select

from listener.entries import Edition
from listener.ledger import Ledger
from listener.series import SELFTEST_STATION
from listener.tables import jobs, labels, studies

TENTHS = 10

SAID = "probability", "band", "refusal"
"""Columns of a job that say what it concluded."""

FEWEST_SPARE = 100
"""Jobs of shadows that are read beyond the pairs that are wanted."""

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
        studies: that both judged from the same input, and that the figures are of.
        is_cut: whether both judged older ones as well, which no figure is of.
        same_statement: share of them with the same band or refusal.
        kappa: Cohen's, of these statements; None where all are the same one.
        mean_difference: shadow less active, of pairs with two probabilities.
        limits: of agreement; None with fewer than three such pairs.
        active: None where no pair has a label.
        shadow: of the same studies.
        pairs: the latest, newest first.
        disagreeing: how many pairs somebody should look at.
        disagreements: these pairs, the furthest apart first.
    """

    studies: int
    is_cut: bool
    same_statement: float | None
    kappa: float | None
    mean_difference: float | None
    limits: tuple[float, float] | None
    active: Rightness | None
    shadow: Rightness | None
    pairs: tuple[Pair, ...]
    disagreeing: int
    disagreements: tuple[Pair, ...]


class _Both(NamedTuple):
    """A row of the ledger: what both said. Only rows that are shown become a `Pair`."""

    study_uid: str
    finished_at: float
    scanner: str | None
    positive: bool | None
    active_job: str
    active: float | None
    active_band: str | None
    active_refusal: str | None
    shadow_job: str
    shadow: float | None
    shadow_band: str | None
    shadow_refusal: str | None

    @property
    def difference(self) -> float | None:
        """How much higher the shadow's probability is."""
        if self.active is None or self.shadow is None:
            return None
        return self.shadow - self.active

    @property
    def statements(self) -> tuple[str, str]:
        """What each concluded, or why it could not judge."""
        active = self.active_refusal or self.active_band or ""
        return active, self.shadow_refusal or self.shadow_band or ""

    @property
    def disagrees(self) -> bool:
        """Whether the statements differ, or the probabilities notably."""
        active, shadow = self.statements
        return active != shadow or abs(self.difference or 0.0) >= NOTABLE


def compare(
    ledger: Ledger,
    analysis: str,
    active: Edition,
    shadow: Edition,
    limit: int | None = None,
    shown: int | None = None,
) -> Comparison:
    """Put what two bundles said side by side, of studies where one of them was the other's shadow.

    Args:
        ledger: that has it.
        analysis: of both.
        active: the bundle whose results are sent now.
        shadow: the other one; it may have been the active one until it was replaced.
        limit: so many studies at most, the latest; None: all.
        shown: so many pairs and disagreements are listed at most; None: all.
    """
    found = _rows(ledger, analysis, active, shadow, None if limit is None else limit + 1)
    rows = found[:limit]
    differences = [each for row in rows if (each := row.difference) is not None]
    labelled = [row for row in rows if row.positive is not None and row.difference is not None]
    apart = [row for row in rows if row.disagrees]
    apart.sort(key=lambda row: -abs(row.difference or 1.0))
    said = Counter(row.statements for row in rows)
    return Comparison(
        studies=len(rows),
        is_cut=len(found) > len(rows),
        same_statement=_agreement(said),
        kappa=_kappa(said),
        mean_difference=fmean(differences) if differences else None,
        limits=_limits(differences),
        active=_rightness([(row.active, row.positive) for row in labelled]),
        shadow=_rightness([(row.shadow, row.positive) for row in labelled]),
        pairs=tuple(map(_pair, rows[:shown])),
        disagreeing=len(apart),
        disagreements=tuple(map(_pair, apart[:shown])),
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


def _rows(
    ledger: Ledger, analysis: str, active: Edition, shadow: Edition, limit: int | None
) -> list[_Both]:
    """The latest pairs, newest first.

    Read from the latest jobs of shadows, a few more than pairs are wanted: all that there are would
    take long. Rarely more of these are no pairs, and more are read.
    """
    most = None if limit is None else limit + max(FEWEST_SPARE, limit // 10)
    with ledger.reading() as connection:
        while True:
            shadows = _shadows(analysis, active, shadow).limit(most).subquery()
            query = _pairs(shadows, active, shadow)
            # All of it as one row: Python lets other threads go first after each row of SQLite's,
            # and ten thousand such pauses take longer than the work.
            columns = query.subquery().c
            read = connection.scalar(select(_as_json(connection.dialect.name, columns)))
            rows = json.loads(read) if isinstance(read, str) else read or []
            if limit is None or most is None or len(rows) >= limit:
                break
            if (connection.scalar(select(func.count()).select_from(shadows)) or 0) < most:
                break
            most *= 4
    # No database promises that an aggregate keeps the order of what it is made from.
    found = sorted(map(_both, rows), key=lambda row: (-row.finished_at, row.study_uid))
    return found[:limit]


def _shadows(analysis: str, active: Edition, shadow: Edition) -> Select[Any]:
    """Jobs of the one or the other as a shadow, along jobs_by_finish from the latest on."""
    names = "study_uid", "analysis", "digest", "finished_at", "job_id"
    return (
        # A job's summary is long: nothing is read of it.
        select(*jobs.c[*names, *SAID, "weights_sha256", "bundle_version"])
        .where(
            jobs.c.analysis == analysis,
            jobs.c.role == "shadow",
            or_(_is_of(jobs, shadow), _is_of(jobs, active)),
            _has_answered(jobs),
        )
        .order_by(jobs.c.finished_at.desc())
    )


def _pairs(beside: FromClause, active: Edition, shadow: Edition) -> Select[Any]:
    """Shadows' jobs with what answered then; which of the two was the shadow may have changed
    since: jobs know what they were.
    """
    answer = jobs.alias()
    is_swapped = _is_of(beside, active)
    same_input = and_(
        answer.c.study_uid == beside.c.study_uid,
        answer.c.analysis == beside.c.analysis,
        answer.c.digest == beside.c.digest,
        answer.c.role == "active",
        # Not by `or_`: PostgreSQL would expect next to no pairs, and look labels up one by one.
        answer.c.weights_sha256 == case((is_swapped, shadow[0]), else_=active[0]),
        answer.c.bundle_version == case((is_swapped, shadow[1]), else_=active[1]),
        _has_answered(answer),
    )
    its_label = and_(
        labels.c.study_uid == beside.c.study_uid, labels.c.analysis == beside.c.analysis
    )
    study = beside.c.study_uid, beside.c.finished_at, studies.c.scanner, labels.c.positive
    job = "job_id", *SAID
    return (
        select(is_swapped, *study, *answer.c[*job], *beside.c[*job])
        .select_from(beside)
        .join(answer, same_input)
        .join(studies, studies.c.study_uid == beside.c.study_uid)
        .outerjoin(labels, its_label)
        .where(~func.coalesce(studies.c.scanner, "").endswith(SELFTEST_STATION))
    )


def _is_of(job: FromClause, edition: Edition) -> ColumnElement[bool]:
    weights_sha256, version = edition
    return and_(job.c.weights_sha256 == weights_sha256, job.c.bundle_version == version)


def _has_answered(job: FromClause) -> ColumnElement[bool]:
    return and_(
        job.c.state.in_(("REPORTED", "REFUSED")),
        or_(job.c.probability.is_not(None), job.c.refusal.is_not(None)),
    )


def _as_json(dialect: str, columns: Iterable[ColumnElement[Any]]) -> ColumnElement[Any]:
    """All rows as one JSON array of arrays."""
    if dialect == "postgresql":
        return func.json_agg(func.json_build_array(*columns))
    return func.json_group_array(func.json_array(*columns))


def _both(row: Sequence[Any]) -> _Both:
    is_swapped, study_uid, finished_at, scanner, positive, *said = row
    if is_swapped:  # what answered then is beside the other one now
        said = [*said[4:], *said[:4]]
    is_positive = None if positive is None else bool(positive)
    return _Both(study_uid, finished_at, scanner, is_positive, *said)


def _pair(row: _Both) -> Pair:
    active = Side(row.active_job, row.active, row.active_band, row.active_refusal)
    shadow = Side(row.shadow_job, row.shadow, row.shadow_band, row.shadow_refusal)
    return Pair(row.study_uid, row.finished_at, row.scanner, active, shadow, row.positive)


def _agreement(said: Counter[tuple[str, str]]) -> float | None:
    same = sum(count for (one, other), count in said.items() if one == other)
    return same / said.total() if said else None


def _kappa(said: Counter[tuple[str, str]]) -> float | None:
    """Agreement beyond chance (Cohen, Educ Psychol Meas 1960;20:37).

    >>> _kappa(Counter({("a", "a"): 1, ("b", "b"): 1, ("a", "b"): 1, ("b", "a"): 1}))
    0.0
    """
    observed, total = _agreement(said), said.total()
    if observed is None:
        return None
    ones, others = Counter[str](), Counter[str]()
    for (one, other), count in said.items():
        ones[one] += count
        others[other] += count
    expected = sum(count * others[word] for word, count in ones.items()) / total**2
    return None if math.isclose(expected, 1.0) else (observed - expected) / (1 - expected)


def _limits(differences: Sequence[float]) -> tuple[float, float] | None:
    if len(differences) < 3:
        return None
    centre = fmean(differences)
    # Of the squares, as statistics.stdev has it; but that works with fractions, for 100 ms.
    squares = math.fsum((each - centre) ** 2 for each in differences)
    reach = LIMITS_OF_AGREEMENT * math.sqrt(squares / (len(differences) - 1))
    return centre - reach, centre + reach


def _rightness(cases: Sequence[tuple[float | None, bool | None]]) -> Rightness | None:
    known = [
        (probability, positive)
        for probability, positive in cases
        if probability is not None and positive is not None
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
    found: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for each in known:
        found[min(int(each[0] * TENTHS), TENTHS - 1)].append(each)
    for number, within in sorted(found.items()):
        yield Tenth(
            low=number / TENTHS,
            high=(number + 1) / TENTHS,
            studies=len(within),
            positives=sum(positive for _, positive in within),
            mean_probability=fmean(probability for probability, _ in within),
        )
