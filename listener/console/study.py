"""One study: what came in, what was made of it, where that went, and what happened meanwhile."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, func, select

from listener.accounting import STATES
from listener.console.job import JobView, answering, read_jobs
from listener.ledger import Ledger
from listener.tables import (
    counts,
    deliveries,
    events,
    instances,
    jobs,
    results,
    studies,
)

MOST_EVENTS: Final = 500

CANCELLABLE: Final = frozenset({"QUEUED", "RUNNING"})


@dataclass(frozen=True)
class SeriesReceived:
    """Instances of one series, by what became of them."""

    series_uid: str
    received: int
    size_bytes: int
    states: Mapping[str, int]
    reasons: tuple[str, ...]
    purged: int
    last_at: float


@dataclass(frozen=True)
class SourceSaid:
    """What a source said of the study when it was asked last."""

    source: str
    asked_at: float
    missing: int | None
    message: str


@dataclass(frozen=True)
class DeliveryRow:
    """Result objects of one kind for one destination, as far as they are together."""

    job_id: str
    analysis: str
    kind: str
    destination: str
    state: str
    count: int
    attempts: int
    at: float | None
    next_at: float | None
    looks: int
    status: int | None
    message: str | None


@dataclass(frozen=True)
class Event:
    """Something that happened to the study."""

    at: float
    what: str
    detail: str


@dataclass(frozen=True)
class StudyView:
    """All that the ledger knows of a study."""

    study_uid: str
    state: str
    reason: str | None
    revision: int
    is_planned: bool
    first_at: float
    last_at: float
    released_at: float | None
    completed_at: float | None
    scanner: str | None
    received: int
    account: Mapping[str, int]
    purged: int
    series: tuple[SeriesReceived, ...]
    sources: tuple[SourceSaid, ...]
    jobs: tuple[JobView, ...]
    deliveries: tuple[DeliveryRow, ...]
    events: tuple[Event, ...]
    has_more_events: bool

    @property
    def answers(self) -> tuple[JobView, ...]:
        """The last active job of each analysis, of those that nothing superseded."""
        return tuple(answering(self.jobs).values())

    def job(self, job_id: str) -> JobView | None:
        """One of its jobs; None where there is none of that name."""
        return next((each for each in self.jobs if each.job_id == job_id), None)

    @property
    def is_live(self) -> bool:
        """Whether more is to come by itself."""
        return (
            self.state == "RECEIVING"
            or not self.is_planned
            or any(each.state in CANCELLABLE for each in self.jobs)
            or any(each.state not in {"CONFIRMED", "PARKED"} for each in self.deliveries)
        )

    @property
    def can_cancel(self) -> bool:
        """Whether a job waits or runs."""
        return any(each.state in CANCELLABLE for each in self.jobs)


def read_study(ledger: Ledger, study_uid: str) -> StudyView | None:
    """All that is known of a study; None when nothing is."""
    with ledger.reading() as connection:
        row = connection.execute(select(studies).where(studies.c.study_uid == study_uid)).first()
        if row is None:
            return None
        series = _series(connection, study_uid)
        account: Counter[str] = Counter(dict.fromkeys(STATES, 0))
        for each in series:
            account.update(each.states)
        happened = _events(connection, study_uid)
        return StudyView(
            study_uid=row.study_uid,
            state=row.state,
            reason=row.reason,
            revision=row.revision,
            is_planned=row.planned_revision >= row.revision,
            first_at=row.first_at,
            last_at=row.last_at,
            released_at=row.released_at,
            completed_at=row.completed_at,
            scanner=row.scanner,
            received=row.received,
            account=dict(account),
            purged=sum(each.purged for each in series),
            series=series,
            sources=_sources(connection, study_uid),
            jobs=read_jobs(connection, study_uid),
            deliveries=_deliveries(connection, study_uid),
            events=happened[:MOST_EVENTS],
            has_more_events=len(happened) > MOST_EVENTS,
        )


def _series(connection: Connection, study_uid: str) -> tuple[SeriesReceived, ...]:
    query = (
        select(
            instances.c.series_uid,
            instances.c.state,
            instances.c.reason,
            func.count().label("count"),
            func.count(instances.c.purged_at).label("purged"),
            func.sum(instances.c.size).label("size"),
            func.max(instances.c.received_at).label("last_at"),
        )
        .where(instances.c.study_uid == study_uid)
        .group_by(instances.c.series_uid, instances.c.state, instances.c.reason)
        .order_by(instances.c.series_uid, instances.c.state)
    )
    found: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.series_uid].append(row)
    return tuple(_one_series(series_uid, rows) for series_uid, rows in found.items())


def _one_series(series_uid: str, rows: Sequence[Any]) -> SeriesReceived:
    states: Counter[str] = Counter()
    for row in rows:
        states[row.state] += row.count
    return SeriesReceived(
        series_uid=series_uid,
        received=states.total(),
        size_bytes=int(sum(row.size for row in rows)),
        states=dict(states),
        reasons=tuple(dict.fromkeys(row.reason for row in rows if row.reason)),
        purged=sum(row.purged for row in rows),
        last_at=max(row.last_at for row in rows),
    )


def _sources(connection: Connection, study_uid: str) -> tuple[SourceSaid, ...]:
    query = (
        select(counts.c.source, counts.c.asked_at, counts.c.missing, counts.c.message)
        .where(counts.c.study_uid == study_uid)
        .order_by(counts.c.source)
    )
    return tuple(SourceSaid(*row) for row in connection.execute(query))


def _deliveries(connection: Connection, study_uid: str) -> tuple[DeliveryRow, ...]:
    of_job = (jobs.c.revision, results.c.job_id, jobs.c.analysis, results.c.phase, results.c.kind)
    alike = (
        deliveries.c.destination,
        deliveries.c.state,
        deliveries.c.status,
        deliveries.c.message,
    )
    query = (
        select(
            results.c.job_id,
            jobs.c.analysis,
            results.c.kind,
            *alike,
            func.count().label("count"),
            func.max(deliveries.c.attempts).label("attempts"),
            func.max(deliveries.c.at).label("at"),
            func.min(deliveries.c.next_at).label("next_at"),
            func.max(deliveries.c.looks).label("looks"),
        )
        .join(results, results.c.sop_uid == deliveries.c.sop_uid)
        .join(jobs, jobs.c.job_id == results.c.job_id)
        .where(jobs.c.study_uid == study_uid)
        .group_by(*of_job, *alike)
        .order_by(*of_job, deliveries.c.destination, deliveries.c.state)
    )
    return tuple(_delivery(row) for row in connection.execute(query).mappings())


def _delivery(row: RowMapping) -> DeliveryRow:
    is_due = row["next_at"] and row["state"] in {"PENDING", "SENT"}
    return DeliveryRow(**{**row, "next_at": row["next_at"] if is_due else None})


def _events(connection: Connection, study_uid: str) -> tuple[Event, ...]:
    query = (
        select(events.c.at, events.c.what, events.c.detail)
        .where(events.c.study_uid == study_uid)
        .order_by(events.c.number.desc())
        .limit(MOST_EVENTS + 1)
    )
    return tuple(Event(*row) for row in connection.execute(query))
