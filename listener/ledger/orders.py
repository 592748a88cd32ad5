"""What an operator may order: to try again, or to stop."""

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select, true, update

from listener.entries import Retried
from listener.ledger.database import Database
from listener.ledger.inputs import set_inputs
from listener.ledger.succession import is_outdated
from listener.tables import deliveries, instances, job_inputs, jobs, move, results

CANCELLED = "cancelled by the operator"


class Orders(Database):
    """What people change by hand."""

    def retry(self, study_uid: str, destination: str | None = None) -> Retried:
        """Try again what failed, was cancelled or parked for a study, and what waits at once.

        A job that a later one answers for stays as it is: its result would come too late. So does
        one whose input was purged: it must be sent again first.

        Args:
            study_uid: the study.
            destination: send to this one only, and run no job; None for everything.
        """
        of_study = select(results.c.sop_uid).join(jobs).where(jobs.c.study_uid == study_uid)
        anywhere = destination is None
        mine = and_(
            deliveries.c.sop_uid.in_(of_study),
            true() if anywhere else deliveries.c.destination == destination,
        )
        with self.writing() as connection:
            failed = _run_again(connection, study_uid) if anywhere else 0
            parked = move(
                connection,
                deliveries,
                and_(mine, deliveries.c.state == "PARKED"),
                "PENDING",
                next_at=0.0,
            )
            pending = connection.execute(
                update(deliveries).where(mine, deliveries.c.state == "PENDING").values(next_at=0.0)
            )
            where_to = "" if anywhere else f" to {destination}"
            self.note(
                connection,
                study_uid,
                "retry by operator",
                f"{failed} job(s), {pending.rowcount} deliveries{where_to}",
            )
        return Retried(failed, parked, pending.rowcount - parked)

    def cancel(self, study_uid: str) -> int:
        """Stop the jobs of a study that wait or run; returns how many there were.

        Who works at one loses its lease, and hears of it with the next heartbeat. What was sent
        early stays sent.
        """
        live = and_(jobs.c.study_uid == study_uid, jobs.c.state.in_(("QUEUED", "RUNNING")))
        with self.writing() as connection:
            stopped = connection.scalars(select(jobs.c.job_id).where(live)).all()
            for job_id in stopped:
                set_inputs(connection, job_id, "not wanted", CANCELLED)
            nobody = {"lease": None, "lease_until": None, "progress": None}
            move(connection, jobs, live, "CANCELLED", reason=CANCELLED, **nobody)
            if stopped:
                self.note(connection, study_uid, CANCELLED, f"{len(stopped)} job(s)")
        return len(stopped)


def _run_again(connection: Connection, study_uid: str) -> int:
    """Queue the jobs of a study that failed or were cancelled; returns how many."""
    here = and_(jobs.c.study_uid == study_uid, ~is_outdated(), ~_lacks_input())
    refused = and_(here, jobs.c.state == "REFUSED", jobs.c.retriable)
    again = {"attempts": 0, "sent_at": None}
    stopped = and_(here, jobs.c.state.in_(("FAILED", "CANCELLED")))
    over = select(jobs.c.job_id).where(or_(refused, stopped))
    for job_id in connection.scalars(over).all():
        set_inputs(connection, job_id, "waiting", None)
    queued = move(connection, jobs, refused, "QUEUED", predecessor=jobs.c.job_id, **again)
    return queued + move(connection, jobs, stopped, "QUEUED", **again)


def _lacks_input() -> ColumnElement[bool]:
    """Files that a job is about were removed by policy."""
    return exists().where(
        job_inputs.c.job_id == jobs.c.job_id,
        job_inputs.c.sop_uid == instances.c.sop_uid,
        job_inputs.c.sha256 == instances.c.sha256,
        instances.c.purged_at.is_not(None),
    )
