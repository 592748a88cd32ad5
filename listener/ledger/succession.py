"""Which job answers for a study, and which one it follows upon."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, case, exists, func, or_, select

from listener.entries import Edition, Predecessor
from listener.tables import bundles, jobs

OUTDATED = "a later job of the study answers in its place"


def is_edition(table: Table, edition: Edition) -> ColumnElement[bool]:
    """Bundles, or jobs for them, of one edition."""
    version = table.c.version if table is bundles else table.c.bundle_version
    return and_(table.c.weights_sha256 == edition[0], version == edition[1])


def latest_answer(connection: Connection, study_uid: str, analysis: str) -> str | None:
    """The job whose result a new one replaces: the one that runs, or the last that answered."""
    answers = or_(jobs.c.state == "RUNNING", jobs.c.answered.is_not(None))
    query = (
        select(jobs.c.job_id)
        .where(
            jobs.c.study_uid == study_uid,
            jobs.c.analysis == analysis,
            jobs.c.role == "active",
            answers,
        )
        .order_by(
            case((jobs.c.state == "RUNNING", 0), else_=1),
            func.coalesce(jobs.c.finished_at, jobs.c.started_at, 0.0).desc(),
            jobs.c.revision.desc(),
        )
        .limit(1)
    )
    return connection.scalar(query)


def is_outdated() -> ColumnElement[bool]:
    """A later revision, or a new bundle for the same one, made a job that answers instead."""
    newer = jobs.alias()
    replaces = and_(newer.c.revision == jobs.c.revision, newer.c.predecessor == jobs.c.job_id)
    same_bundle = and_(
        newer.c.weights_sha256 == jobs.c.weights_sha256,
        newer.c.bundle_version == jobs.c.bundle_version,
    )
    return exists().where(
        newer.c.study_uid == jobs.c.study_uid,
        newer.c.analysis == jobs.c.analysis,
        newer.c.role == jobs.c.role,
        or_(jobs.c.role == "active", same_bundle),
        newer.c.job_id != jobs.c.job_id,
        newer.c.state != "SUPERSEDED",
        or_(newer.c.revision > jobs.c.revision, replaces),
    )


def predecessor_is_running() -> ColumnElement[bool]:
    """A newer revision waits for the older one's answer, which it must name."""
    before = jobs.alias()
    return exists().where(
        before.c.job_id == jobs.c.predecessor,
        before.c.job_id != jobs.c.job_id,
        before.c.state == "RUNNING",
    )


def predecessor_of(connection: Connection, job: Row[Any]) -> Predecessor | None:
    """The latest earlier job that answered; a refusal run again follows upon itself."""
    passed: set[str] = set()
    while before := connection.execute(
        select(jobs).where(jobs.c.job_id == job.predecessor, jobs.c.job_id.not_in(passed))
    ).first():
        if before.answered is not None:
            return Predecessor(before.job_id, before.lineage, before.answered)
        passed.add(before.job_id)
        job = before
    return None
