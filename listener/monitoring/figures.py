"""What the ledger says of the present, for monitoring: no table is read that grows by instances.

A study has hundreds of instances and results, so those are summed up in `studies.received`, and
deliveries are counted along an index and up to MOST_COUNTED.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from listener.ledger import Ledger
from listener.monitoring.tallies import MOST_SCANNERS, USUAL_SECONDS
from listener.tables import associations, bundles, deliveries, jobs, results, studies
from listener.workforce import Worker, Workforce, without_a_worker

MOST_COUNTED: Final = 50_000
"""Deliveries of one state; more are told as so many."""

DAY_SECONDS: Final = 24 * 3600.0
RECENT_SECONDS: Final = DAY_SECONDS
"""Deliveries that are over are counted for so long."""

FEWEST_STUDIES: Final = 10
"""Of a scanner in that time: what is usual of one that sends less is not known."""

LIVE: Final = ("QUEUED", "RUNNING", "FAILED", "CANCELLED")
"""States of jobs without an answer."""

OVER: Final = ("SENT", "CONFIRMED")
"""States of deliveries that pile up over the years."""


@dataclass(frozen=True)
class Sender:
    """When a scanner's studies came.

    Attributes:
        scanner: its label.
        last_at: when something of the last one came.
        longest_pause: between two of them in the last 30 days; None: there were too few.
    """

    scanner: str
    last_at: float
    longest_pause: float | None


@dataclass(frozen=True)
class Figures:
    """One look at the ledger.

    Attributes:
        at: when, by the ledger's clock.
        took_seconds: to look.
        instances: received, each once.
        studies: by state.
        jobs: without an answer that stays, by analysis, role and state.
        oldest_queued_at: when the input of the oldest queued job was all here, by analysis and
            role.
        deliveries: by destination and state; SENT and CONFIRMED those of the last day.
        oldest_pending_at: when the job of the oldest pending delivery finished, by destination.
        associations: open, that brought something.
        workers: that are not forgotten.
        lacking: analyses asked for whose active bundle no living worker holds.
        bundles: active and shadow ones: analysis, role, digest of weights, version, card.
        senders: scanners heard of lately, those with most studies first.
    """

    at: float
    took_seconds: float
    instances: int
    studies: Mapping[str, int]
    jobs: Mapping[tuple[str, ...], int]
    oldest_queued_at: Mapping[tuple[str, ...], float]
    deliveries: Mapping[tuple[str, ...], int]
    oldest_pending_at: Mapping[str, float]
    associations: int
    workers: Sequence[Worker]
    lacking: Collection[str]
    bundles: Sequence[Any]
    senders: Sequence[Sender]


def look(ledger: Ledger, analyses: Sequence[str]) -> Figures:
    """Look at the ledger now.

    Args:
        ledger: to look at.
        analyses: that are asked for.
    """
    begun, now = time.monotonic(), ledger.now
    workers, lacking = Workforce(ledger).known(), without_a_worker(ledger, analyses)
    with ledger.reading() as connection:
        return Figures(
            at=now,
            instances=int(connection.scalar(select(func.sum(studies.c.received))) or 0),
            studies=_studies(connection),
            jobs=_jobs(connection),
            oldest_queued_at=_oldest_queued(connection),
            deliveries=_deliveries(connection, now - RECENT_SECONDS),
            oldest_pending_at=_oldest_pending(connection),
            associations=int(
                connection.scalar(select(func.count(func.distinct(associations.c.association))))
                or 0
            ),
            workers=workers,
            lacking=lacking,
            bundles=_bundles(connection),
            senders=_senders(connection, now - USUAL_SECONDS),
            took_seconds=time.monotonic() - begun,
        )


def _studies(connection: Connection) -> dict[str, int]:
    query = select(studies.c.state, func.count()).group_by(studies.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def _jobs(connection: Connection) -> dict[tuple[str, ...], int]:
    """Those that wait, run, or ended without an answer that stays."""
    to_mend = and_(jobs.c.state == "REFUSED", jobs.c.retriable)
    which = jobs.c.analysis, jobs.c.role, jobs.c.state
    query = select(*which, func.count()).where(or_(jobs.c.state.in_(LIVE), to_mend))
    found = connection.execute(query.group_by(*which))
    return {(row[0], row[1], row[2]): row[3] for row in found}


def _oldest_queued(connection: Connection) -> dict[tuple[str, ...], float]:
    which = jobs.c.analysis, jobs.c.role
    query = select(*which, func.min(jobs.c.created_at)).where(jobs.c.state == "QUEUED")
    return {(row[0], row[1]): row[2] for row in connection.execute(query.group_by(*which))}


def _deliveries(connection: Connection, recent: float) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = {}
    for state in ("PENDING", "PARKED", *OVER):
        here: ColumnElement[bool] = deliveries.c.state == state
        if state in OVER:
            here = and_(here, deliveries.c.next_at >= recent)
        some = select(deliveries.c.destination).where(here).limit(MOST_COUNTED).subquery()
        query = select(some.c.destination, func.count()).group_by(some.c.destination)
        for destination, count in connection.execute(query):
            found[destination, state] = count
    return found


def _oldest_pending(connection: Connection) -> dict[str, float]:
    """When results could have been sent at the earliest; an early report's job is not over yet."""
    some = (
        select(deliveries.c.sop_uid, deliveries.c.destination)
        .where(deliveries.c.state == "PENDING")
        .limit(MOST_COUNTED)
        .subquery()
    )
    kept = func.coalesce(jobs.c.finished_at, jobs.c.started_at)
    query = (
        select(some.c.destination, func.min(kept))
        .join(results, results.c.sop_uid == some.c.sop_uid)
        .join(jobs, jobs.c.job_id == results.c.job_id)
        .group_by(some.c.destination)
    )
    return {name: at for name, at in connection.execute(query) if at is not None}


def _bundles(connection: Connection) -> Sequence[Any]:
    query = (
        select(
            bundles.c.analysis,
            bundles.c.role,
            bundles.c.weights_sha256,
            bundles.c.version,
            bundles.c.card,
        )
        .where(bundles.c.role != "retired")
        .order_by(bundles.c.analysis, bundles.c.role)
    )
    return connection.execute(query).all()


def _senders(connection: Connection, since: float) -> list[Sender]:
    before = func.lag(studies.c.last_at).over(
        partition_by=studies.c.scanner, order_by=studies.c.last_at
    )
    pauses = (
        select(studies.c.scanner, studies.c.last_at, (studies.c.last_at - before).label("pause"))
        .where(studies.c.scanner.is_not(None), studies.c.last_at >= since)
        .subquery()
    )
    query = (
        select(
            pauses.c.scanner,
            func.count(),
            func.max(pauses.c.last_at),
            func.max(pauses.c.pause),
        )
        .group_by(pauses.c.scanner)
        .order_by(func.count().desc(), pauses.c.scanner)
        .limit(MOST_SCANNERS)
    )
    return [
        Sender(scanner, last_at, pause if count >= FEWEST_STUDIES else None)
        for scanner, count, last_at, pause in connection.execute(query)
    ]
