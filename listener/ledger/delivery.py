"""Results on their way to destinations."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, Select, and_, exists, select, update

from listener.clock import LONGEST_PAUSE_SECONDS, is_due
from listener.entries import Pending, Result
from listener.errors import IllegalTransition
from listener.ledger.database import Database
from listener.ledger.rows import result_of_row
from listener.tables import deliveries, destinations, jobs, move, results


class Delivery(Database):
    """What is sent, where to, and what was answered."""

    def set_destinations(self, names: Collection[str]) -> None:
        """Say where results go from now on.

        What was addressed to somebody is sent to nobody else. What was kept while there was
        no destination at all is addressed now, or it would never leave.
        """
        with self.writing() as connection:
            connection.execute(update(destinations).values(active=False))
            for name in names:
                connection.execute(
                    self.insert_or_ignore(destinations).values(name=name, active=True)
                )
            connection.execute(
                update(destinations).where(destinations.c.name.in_(names)).values(active=True)
            )
            address(self, connection, connection.scalars(_unaddressed()).all())

    def due(
        self, destination: str, longest_seconds: float = LONGEST_PAUSE_SECONDS
    ) -> list[Pending]:
        """What may be sent to a destination now, oldest job first and phases in order.

        A result waits until everything of a lower phase of its job was acknowledged.

        Args:
            destination: by name.
            longest_seconds: that a result waits for its next attempt.
        """
        earlier, earlier_delivery = results.alias(), deliveries.alias()
        held_up = exists().where(
            earlier.c.job_id == results.c.job_id,
            earlier.c.phase < results.c.phase,
            earlier_delivery.c.sop_uid == earlier.c.sop_uid,
            earlier_delivery.c.destination == destination,
            earlier_delivery.c.state.in_(("PENDING", "PARKED")),
        )
        query = (
            select(results, deliveries.c.attempts, jobs.c.study_uid)
            .join(deliveries, deliveries.c.sop_uid == results.c.sop_uid)
            .join(jobs, jobs.c.job_id == results.c.job_id)
            .where(
                deliveries.c.destination == destination,
                deliveries.c.state == "PENDING",
                is_due(deliveries.c.next_at, self._clock(), longest_seconds),
                ~held_up,
            )
            .order_by(jobs.c.finished_at, results.c.job_id, results.c.phase, results.c.number)
        )
        with self.reading() as connection:
            rows = connection.execute(query).all()
            return [
                Pending(
                    row.job_id,
                    row.study_uid,
                    row.phase,
                    row.attempts,
                    (result_of_row(row), *_alternatives(connection, row.sop_uid)),
                )
                for row in rows
            ]

    def note_delivery(
        self,
        pending: Pending,
        destination: str,
        state: str,
        message: str,
        status: int | None = None,
        sent_as: str | None = None,
        next_at: float = 0.0,
    ) -> None:
        """Note what a destination answered.

        `state` PENDING leaves it to be sent at `next_at`, SENT to be confirmed from then on.
        """
        this = and_(
            deliveries.c.sop_uid == pending.encodings[0].sop_uid,
            deliveries.c.destination == destination,
        )
        values = {
            "attempts": deliveries.c.attempts + 1,
            "next_at": next_at,
            "status": status,
            "message": message,
            "sent_as": sent_as,
            "at": self._clock(),
            "looks": 0,
            "transaction_uid": None,
        }
        with self.writing() as connection:
            if state != "SENT":
                what = f"delivery to {destination} {state.lower()}"
                uid = pending.encodings[0].sop_uid
                self.note(connection, pending.study_uid, what, f"{uid}: {message}")
            if state == "PENDING":
                connection.execute(update(deliveries).where(this).values(**values))
            elif not move(connection, deliveries, this, state, **values):
                raise IllegalTransition("delivery", pending.encodings[0].sop_uid, state)

    def postpone(
        self, rest: Sequence[Pending], destination: str, message: str, next_at: float
    ) -> None:
        """Note that a destination could not be reached for any of these."""
        uids = [pending.encodings[0].sop_uid for pending in rest]
        with self.writing() as connection:
            connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.sop_uid.in_(uids),
                    deliveries.c.destination == destination,
                    deliveries.c.state == "PENDING",
                )
                .values(
                    attempts=deliveries.c.attempts + 1,
                    next_at=next_at,
                    message=message,
                    at=self._clock(),
                )
            )


def address(database: Database, connection: Connection, uids: Sequence[str]) -> None:
    """Put results on their way to every destination; `uids` of preferred encodings."""
    active = select(destinations.c.name).where(destinations.c.active)
    rows = [
        {
            "sop_uid": sop_uid,
            "destination": name,
            "state": "PENDING",
            "attempts": 0,
            "next_at": 0.0,
        }
        for name in connection.scalars(active)
        for sop_uid in uids
    ]
    if rows:
        connection.execute(database.insert_or_ignore(deliveries), rows)


def _unaddressed() -> Select[str]:
    """Results that are to be sent and were never for anybody, preferred encodings only."""
    addressed = exists().where(deliveries.c.sop_uid == results.c.sop_uid)
    return (
        select(results.c.sop_uid)
        .join(jobs, jobs.c.job_id == results.c.job_id)
        .where(jobs.c.role == "active", results.c.alternative_of.is_(None), ~addressed)
    )


def _alternatives(connection: Connection, sop_uid: str) -> tuple[Result, ...]:
    query = select(results).where(results.c.alternative_of == sop_uid).order_by(results.c.sop_uid)
    return tuple(result_of_row(row) for row in connection.execute(query))
