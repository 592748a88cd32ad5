"""What all jobs that answered amount to, added up job by job as they finish.

Only answers that stay are counted: reports, and refusals that no operator can have tried again. So
after a restart the sums are what they were, read from the ledger anew, and no counter ever goes
back; Prometheus would take that for a restart from zero, and for a sudden rise.
"""

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import and_, func, or_, select

from listener.ledger import Ledger
from listener.monitoring.drift import LAST_STUDIES
from listener.selection import ANALYSES
from listener.series import SELFTEST_STATION
from listener.tables import jobs, studies
from listener.workforce import STAGE_BOUNDS

ROLES: Final = ("active", "shadow")

MOST_SCANNERS: Final = 50
"""That have figures of their own, those with most studies lately; all others share one, or a
station name that changes with every study would fill Prometheus' memory."""

USUAL_SECONDS: Final = 30 * 24 * 3600.0
"""In which a scanner's studies are looked at; one silent for longer is no scanner any more."""

ALL_SCANNERS: Final = "(all)"
OTHER_SCANNERS: Final = "(other)"
UNKNOWN_SCANNER: Final = "(unknown)"

SCORE_BOUNDS: Final = tuple(round(0.1 * n, 1) for n in range(1, 11))
PERCENTILE_BOUNDS: Final = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 100.0)

OVERLAP_SECONDS: Final = 600.0
"""Jobs are read again that finished so long before the last one: they are written down by several
hosts, whose clocks differ, and in no order."""

AT_ONCE: Final = 1000


class Histogram:
    """How many values there were up to each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds and how many values were not above them, as Prometheus has it."""
        found, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Kind(NamedTuple):
    """Whose answers are compared with each other."""

    analysis: str
    role: str
    weights_sha256: str
    version: str
    scanner: str


@dataclass(frozen=True)
class Scored:
    """What one judged study was like."""

    score: float
    ood_percentile: float | None
    inputs: Mapping[str, float]

    def value(self, what: str) -> float | None:
        """The value that a reference of drift.py is about."""
        if what == "score":
            return self.score
        if what == "ood_percentile":
            return self.ood_percentile
        return self.inputs.get(what.removeprefix("input "))


@dataclass
class Tallies:
    """The sums.

    Attributes:
        answers: by analysis, role and what was answered.
        conclusions: of reports, by analysis, role and band.
        refusals: by analysis, role and reason.
        stages: seconds, by analysis, role and stage.
        scores: probabilities.
        percentiles: of how far out of distribution.
        latest: the studies judged last.
    """

    answers: Counter[tuple[str, ...]] = field(default_factory=Counter)
    conclusions: Counter[tuple[str, ...]] = field(default_factory=Counter)
    refusals: Counter[tuple[str, ...]] = field(default_factory=Counter)
    stages: defaultdict[tuple[str, ...], Histogram] = field(
        default_factory=lambda: defaultdict(partial(Histogram, STAGE_BOUNDS))
    )
    scores: defaultdict[Kind, Histogram] = field(
        default_factory=lambda: defaultdict(partial(Histogram, SCORE_BOUNDS))
    )
    percentiles: defaultdict[Kind, Histogram] = field(
        default_factory=lambda: defaultdict(partial(Histogram, PERCENTILE_BOUNDS))
    )
    latest: defaultdict[Kind, deque[Scored]] = field(
        default_factory=lambda: defaultdict(partial(deque, maxlen=LAST_STUDIES))
    )

    def add(self, row: Any, scanner: str) -> None:
        """Add one job that answered."""
        which = row.analysis, row.role
        self.answers[*which, row.answered or "report"] += 1
        for stage, seconds in (row.seconds or {}).items():
            self.stages[*which, stage].add(seconds)
        if row.refusal is not None:
            self.refusals[*which, row.refusal] += 1
        if row.band is not None:
            self.conclusions[*which, row.band] += 1
        if row.probability is not None:
            self._add_scored(row, scanner)

    def forget(self, scanner: str) -> None:
        """Drop what is kept by scanner of one of them; sums over all of them stay."""
        for kept in (self.scores, self.percentiles, self.latest):
            for kind in [each for each in kept if each.scanner == scanner]:
                del kept[kind]

    def _add_scored(self, row: Any, scanner: str) -> None:
        kind = Kind(row.analysis, row.role, row.weights_sha256, row.bundle_version, scanner)
        self.scores[kind].add(row.probability)
        if row.ood_percentile is not None:
            self.percentiles[kind].add(row.ood_percentile)
        scored = Scored(row.probability, row.ood_percentile, _numbers(row.input))
        self.latest[kind].append(scored)
        if not scanner.endswith(SELFTEST_STATION):
            self.latest[kind._replace(scanner=ALL_SCANNERS)].append(scored)


class FinishedJobs:
    """Reads from the ledger which jobs finished since it was read last.

    Attributes:
        tallies: what they amount to.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.tallies = Tallies()
        self._names: dict[str, None] = {}
        self._read_up_to: dict[tuple[str, str], float] = defaultdict(float)
        self._seen: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)

    def read(self) -> None:
        """Add what is new."""
        self._give_places()
        for analysis in ANALYSES:
            for role in ROLES:
                for row in self._new(analysis, role):
                    self.tallies.add(row, self.name_of(row.scanner))
                which = analysis, role
                since = self._read_up_to[which] - OVERLAP_SECONDS
                self._seen[which] = {uid: at for uid, at in self._seen[which].items() if at > since}

    def name_of(self, scanner: str | None) -> str:
        """What a scanner is called in figures; there are at most MOST_SCANNERS and a few."""
        if scanner is None:
            return UNKNOWN_SCANNER
        if scanner not in self._names and len(self._names) >= MOST_SCANNERS:
            return OTHER_SCANNERS
        self._names[scanner] = None
        return scanner

    def _give_places(self) -> None:
        """Let the scanners of these days have figures of their own.

        Where there is no room, some that are silent give up theirs, and what
        they sent is no longer told by scanner. It joins no other sum: that would rise as if
        studies came.
        """
        lately = self._heard_lately()
        new = [each for each in lately if each not in self._names]
        silent = [each for each in self._names if each not in lately]
        for scanner in silent[: max(0, len(self._names) + len(new) - MOST_SCANNERS)]:
            del self._names[scanner]
            self.tallies.forget(scanner)
        self._names.update(dict.fromkeys(new))

    def _heard_lately(self) -> dict[str, None]:
        """Scanners with studies in the last 30 days, those with most first."""
        query = (
            select(studies.c.scanner)
            .where(
                studies.c.scanner.is_not(None),
                studies.c.last_at >= self._ledger.now - USUAL_SECONDS,
            )
            .group_by(studies.c.scanner)
            .order_by(func.count().desc(), studies.c.scanner)
            .limit(MOST_SCANNERS)
        )
        with self._ledger.reading() as connection:
            return dict.fromkeys(connection.scalars(query))

    def _new(self, analysis: str, role: str) -> Iterator[Any]:
        which = analysis, role
        seen = self._seen[which]
        query = (
            select(
                jobs.c.job_id,
                jobs.c.finished_at,
                jobs.c.analysis,
                jobs.c.role,
                jobs.c.weights_sha256,
                jobs.c.bundle_version,
                jobs.c.answered,
                jobs.c.probability,
                jobs.c.band,
                jobs.c.refusal,
                jobs.c.ood_percentile,
                jobs.c.seconds,
                jobs.c.summary["input"].label("input"),
                studies.c.scanner,
            )
            .join(studies, studies.c.study_uid == jobs.c.study_uid)
            .where(
                jobs.c.analysis == analysis,
                jobs.c.role == role,
                jobs.c.finished_at > self._read_up_to[which] - OVERLAP_SECONDS,
                _stays(),
            )
            .order_by(jobs.c.finished_at)
        )
        with self._ledger.reading() as connection:
            for row in connection.execute(query, execution_options={"yield_per": AT_ONCE}):
                if row.job_id not in seen:
                    seen[row.job_id] = row.finished_at
                    self._read_up_to[which] = max(self._read_up_to[which], row.finished_at)
                    yield row


def _stays() -> Any:
    """A job has an answer that cannot become another one."""
    refused = and_(jobs.c.state == "REFUSED", ~jobs.c.retriable)
    return or_(jobs.c.state == "REPORTED", refused)


def _numbers(values: Any) -> dict[str, float]:
    pairs: Iterable[tuple[str, Any]] = values.items() if isinstance(values, dict) else ()
    return {name: float(each) for name, each in pairs if isinstance(each, int | float)}
