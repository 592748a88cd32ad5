"""What people and programs may look at."""

from typing import Any

from sqlalchemy import Connection, Row, Table, func, select

from listener.entries import Result
from listener.ledger.database import Database
from listener.ledger.rows import result_of_row
from listener.tables import counts, deliveries, events, instances, jobs, promises, results, studies


class Overview(Database):
    """What is known, as plain values."""

    def counts(self) -> dict[str, dict[str, int]]:
        """How many instances, studies, jobs and deliveries are in each state."""
        tables = {
            "instances": instances,
            "studies": studies,
            "jobs": jobs,
            "deliveries": deliveries,
            "promises": promises,
        }
        with self.reading() as connection:
            return {name: _count_states(connection, table) for name, table in tables.items()}

    def study(self, study_uid: str) -> dict[str, Any] | None:
        """All that is known of a study, as plain values; None when nothing is."""
        here = studies.c.study_uid == study_uid
        with self.reading() as connection:
            row = connection.execute(select(studies).where(here)).first()
            if row is None:
                return None
            per_series = (
                select(
                    instances.c.series_uid,
                    instances.c.state,
                    instances.c.reason,
                    func.count().label("count"),
                )
                .where(instances.c.study_uid == study_uid)
                .group_by(instances.c.series_uid, instances.c.state, instances.c.reason)
                .order_by(instances.c.series_uid, instances.c.state)
            )
            sent = (
                select(
                    results.c.job_id,
                    results.c.kind,
                    deliveries.c.destination,
                    deliveries.c.state,
                    func.count().label("count"),
                    func.max(deliveries.c.attempts).label("attempts"),
                    func.max(deliveries.c.at).label("at"),
                    deliveries.c.message,
                )
                .join(results, results.c.sop_uid == deliveries.c.sop_uid)
                .join(jobs, jobs.c.job_id == results.c.job_id)
                .where(jobs.c.study_uid == study_uid)
                .group_by(
                    results.c.job_id,
                    results.c.phase,
                    results.c.kind,
                    deliveries.c.destination,
                    deliveries.c.state,
                    deliveries.c.message,
                )
                .order_by(results.c.job_id, results.c.phase)
            )
            of_study = jobs.c.study_uid == study_uid
            return {
                **_plain(row),
                "instances": _rows(connection, per_series),
                "sources": _rows(
                    connection,
                    select(counts.c.source, counts.c.asked_at, counts.c.missing, counts.c.message)
                    .where(counts.c.study_uid == study_uid)
                    .order_by(counts.c.source),
                ),
                "jobs": _rows(connection, select(jobs).where(of_study).order_by(jobs.c.revision)),
                "deliveries": _rows(connection, sent),
                "events": _rows(
                    connection,
                    select(events.c.at, events.c.what, events.c.detail)
                    .where(events.c.study_uid == study_uid)
                    .order_by(events.c.number),
                ),
            }

    def study_uids(self) -> list[str]:
        """Every study that something was received of, by UID."""
        with self.reading() as connection:
            return list(connection.scalars(select(studies.c.study_uid).order_by("study_uid")))

    def recent_studies(self, limit: int) -> list[dict[str, Any]]:
        """The studies heard of last, newest first, with how many instances each has."""
        query = select(studies).order_by(studies.c.last_at.desc()).limit(limit)
        with self.reading() as connection:
            return _rows(connection, query)

    def results_of(self, job_id: str) -> list[Result]:
        """The result objects of a job, in delivery order."""
        query = (
            select(results)
            .where(results.c.job_id == job_id)
            .order_by(results.c.phase, results.c.number, results.c.alternative_of)
        )
        with self.reading() as connection:
            return [result_of_row(row) for row in connection.execute(query)]


def _count_states(connection: Connection, table: Table) -> dict[str, int]:
    query = select(table.c.state, func.count()).group_by(table.c.state).order_by(table.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def _plain(row: Row[Any]) -> dict[str, Any]:
    return dict(row._mapping)


def _rows(connection: Connection, query: Any) -> list[dict[str, Any]]:
    return [_plain(row) for row in connection.execute(query)]
