"""What becomes of instances that are, or might have been, a job's input."""

from collections.abc import Collection

from sqlalchemy import Connection, and_, exists, update

from listener.entries import Answer, Job
from listener.tables import instances, job_inputs, move


def set_series(
    connection: Connection, study_uid: str, series_uid: str, state: str, reason: str
) -> None:
    """Say what becomes of a series."""
    here = and_(instances.c.study_uid == study_uid, instances.c.series_uid == series_uid)
    move(connection, instances, here, state, reason=reason)


def set_inputs(
    connection: Connection,
    job_id: str,
    state: str,
    reason: str | None,
    but: Collection[str] = (),
) -> None:
    """Say what becomes of a job's input, `but` some of it."""
    is_input = exists().where(
        job_inputs.c.job_id == job_id,
        job_inputs.c.sop_uid == instances.c.sop_uid,
        job_inputs.c.sha256 == instances.c.sha256,
    )
    these = and_(is_input, instances.c.sop_uid.not_in(list(but)))
    move(connection, instances, these, state, reason=reason)


def leave_aside(connection: Connection, study_uid: str, sop_uid: str, reason: str) -> None:
    """Say why one instance is not wanted, which a later revision may say otherwise."""
    here = and_(instances.c.study_uid == study_uid, instances.c.sop_uid == sop_uid)
    move(connection, instances, here, "not wanted", reason=reason)
    unwanted = and_(here, instances.c.state == "not wanted")
    connection.execute(update(instances).where(unwanted).values(reason=reason))


def settle_inputs(connection: Connection, job: Job, answer: Answer) -> None:
    """Say what became of a job's input."""
    if answer.state not in ("REPORTED", "REFUSED"):
        return
    for sop_uid, reason in answer.unused.items():
        leave_aside(connection, job.study_uid, sop_uid, f"{job.analysis}: {reason}")
    if answer.state == "REPORTED":
        told = f"{job.analysis} job {job.job_id}"
        set_inputs(connection, job.job_id, "used", told, answer.unused)
    else:
        set_inputs(connection, job.job_id, "refused", answer.reason, answer.unused)
