"""The queue and the workers: what waits, what runs where, and which studies wait for a bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, func, select

from listener.ledger import Ledger
from listener.tables import deliveries, jobs, studies, workers
from listener.workforce import ALIVE_SECONDS

MOST_LISTED: Final = 100
MOST_COUNTED: Final = 20_000
"""Deliveries: an archive that was down for a month leaves more, and they need not be told apart."""


@dataclass(frozen=True)
class Waiting:
    """A job in the queue or at a worker."""

    job_id: str
    study_uid: str
    analysis: str
    role: str
    state: str
    created_at: float
    sent_at: float | None
    started_at: float | None
    lease_until: float | None
    holder: str | None
    progress: str | None
    attempts: int
    reason: str | None


@dataclass(frozen=True)
class Load:
    """Jobs of one analysis in one state."""

    analysis: str
    role: str
    state: str
    count: int
    oldest_at: float


@dataclass(frozen=True)
class Worker:
    """A worker process by its heart's last beat; `memory` of its device in bytes."""

    name: str
    started_at: float
    seen_at: float
    is_alive: bool
    device: str
    editions: tuple[tuple[str, str, str], ...]
    memory: Mapping[str, float] | None
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Held:
    """A complete study that is not planned yet, and why."""

    study_uid: str
    completed_at: float | None
    reason: str | None


@dataclass(frozen=True)
class Outgoing:
    """Result objects for one destination that are not confirmed.

    Attributes:
        is_cut: there are more than were counted.
    """

    destination: str
    state: str
    count: int
    attempts: int
    is_cut: bool


@dataclass(frozen=True)
class Queue:
    """All that waits or runs.

    Attributes:
        cut: names of the lists that end at 100 though there is more.
    """

    now: float
    load: tuple[Load, ...]
    running: tuple[Waiting, ...]
    queued: tuple[Waiting, ...]
    held: tuple[Held, ...]
    outgoing: tuple[Outgoing, ...]
    workers: tuple[Worker, ...]
    cut: tuple[str, ...]


def read_queue(ledger: Ledger) -> Queue:
    """What waits or runs now."""
    now = ledger.now
    with ledger.reading() as connection:
        running, queued = _jobs(connection, "RUNNING"), _jobs(connection, "QUEUED")
        held, seen = _held(connection), _workers(connection, now)
        lists = {"running": running, "queued": queued, "held": held, "workers": seen}
        return Queue(
            now=now,
            load=_load(connection),
            running=running[:MOST_LISTED],
            queued=queued[:MOST_LISTED],
            held=held[:MOST_LISTED],
            outgoing=_outgoing(connection),
            workers=seen[:MOST_LISTED],
            cut=tuple(name for name, each in lists.items() if len(each) > MOST_LISTED),
        )


def _load(connection: Connection) -> tuple[Load, ...]:
    query = (
        select(
            jobs.c.analysis,
            jobs.c.role,
            jobs.c.state,
            func.count(),
            func.min(jobs.c.created_at),
        )
        .where(jobs.c.state.in_(("QUEUED", "RUNNING", "FAILED")))
        .group_by(jobs.c.analysis, jobs.c.role, jobs.c.state)
        .order_by(jobs.c.analysis, jobs.c.role, jobs.c.state)
    )
    return tuple(Load(*row) for row in connection.execute(query))


def _jobs(connection: Connection, state: str) -> tuple[Waiting, ...]:
    columns = (
        jobs.c.job_id, jobs.c.study_uid, jobs.c.analysis, jobs.c.role, jobs.c.state,
        jobs.c.created_at, jobs.c.sent_at, jobs.c.started_at, jobs.c.lease_until, jobs.c.holder,
        jobs.c.progress, jobs.c.attempts, jobs.c.reason,
    )  # fmt: skip
    query = select(*columns).where(jobs.c.state == state).order_by(jobs.c.created_at)
    rows = connection.execute(query.limit(MOST_LISTED + 1)).mappings()
    return tuple(Waiting(**row) for row in rows)


def _held(connection: Connection) -> tuple[Held, ...]:
    unplanned = and_(studies.c.state == "COMPLETE", studies.c.planned_revision < studies.c.revision)
    query = select(studies.c.study_uid, studies.c.completed_at, studies.c.reason)
    query = query.where(unplanned).order_by(studies.c.completed_at).limit(MOST_LISTED + 1)
    return tuple(Held(*row) for row in connection.execute(query))


def _outgoing(connection: Connection) -> tuple[Outgoing, ...]:
    found = []
    for state in ("PENDING", "PARKED", "SENT"):
        some = (
            select(deliveries.c.destination, deliveries.c.attempts)
            .where(deliveries.c.state == state)
            .limit(MOST_COUNTED)
            .subquery()
        )
        query = select(some.c.destination, func.count(), func.max(some.c.attempts))
        rows = connection.execute(query.group_by(some.c.destination)).all()
        is_cut = sum(row[1] for row in rows) >= MOST_COUNTED
        found += [Outgoing(row[0], state, row[1], row[2], is_cut) for row in rows]
    return tuple(sorted(found, key=lambda each: (each.destination, each.state)))


def _workers(connection: Connection, now: float) -> tuple[Worker, ...]:
    rows: list[Any] = list(
        connection.execute(
            select(workers).order_by(workers.c.seen_at.desc()).limit(MOST_LISTED + 1)
        )
    )
    return tuple(
        Worker(
            name=row.name,
            started_at=row.started_at,
            seen_at=row.seen_at,
            is_alive=now - row.seen_at <= ALIVE_SECONDS,
            device=row.device,
            editions=tuple((each[0], each[1], each[2]) for each in row.editions),
            memory=row.memory,
            troubles=tuple(row.troubles),
        )
        for row in rows
    )
