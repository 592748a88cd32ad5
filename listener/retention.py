"""What may go from the spool, by policy: studies that are over and delivered, and old enough.

A study goes only when no job of it waits, runs or failed, and every result was confirmed by every
destination that it was for (or sent to one that a site chose to take at its word). Results of
shadows are for nobody: one that failed, or waits for a worker that may never come, keeps nothing.
Rows stay in the ledger; what was purged is told apart there from what was lost.
"""

import logging
from collections.abc import Callable, Collection
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select, update
from sqlalchemy.exc import OperationalError

from listener.audit.patient import read_patient
from listener.audit.trail import NO_AUDIT, Audit
from listener.errors import where
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import deliveries, instances, jobs, move, results, studies

log = logging.getLogger(__name__)

DAY_SECONDS = 24 * 3600.0


def purge(
    spool: Spool,
    ledger: Ledger,
    settings: ListenerSettings,
    audit: Audit = NO_AUDIT,
    on_study: Callable[[], None] = lambda: None,
) -> list[str]:
    """Remove the files of every study that may go.

    Args:
        spool: that they are removed from.
        ledger: of the studies.
        settings: say how old a study must be.
        audit: is told of each.
        on_study: is called before each study; there may be thousands.

    Returns:
        Study Instance UIDs. A study that cannot be removed now is logged, and keeps no other.
    """
    if settings.keep_days is None:
        return []
    trusted = [each.name for each in settings.destinations if each.confirm == "none"]
    may_go = _may_go(ledger.now - settings.keep_days * DAY_SECONDS, trusted)
    with ledger.reading() as connection:
        found = connection.scalars(select(studies.c.study_uid).where(may_go)).all()
    gone = []
    for study_uid in found:
        on_study()
        try:
            if _purge_study(spool, ledger, study_uid, may_go, audit):
                gone.append(study_uid)
        except Exception as error:  # noqa: BLE001 - the others must not wait for it
            log.error("study %s stays for another time: %s", study_uid, where(error))
    return gone


def _may_go(before: float, trusted: Collection[str]) -> ColumnElement[bool]:
    of_study = jobs.c.study_uid == studies.c.study_uid
    is_sent = jobs.c.role == "active"
    unfinished = exists().where(
        of_study,
        or_(jobs.c.state == "RUNNING", and_(is_sent, jobs.c.state.in_(("QUEUED", "FAILED")))),
    )
    settled = or_(
        deliveries.c.state == "CONFIRMED",
        and_(deliveries.c.state == "SENT", deliveries.c.destination.in_(trusted)),
    )
    undelivered = exists().where(
        of_study,
        results.c.job_id == jobs.c.job_id,
        deliveries.c.sop_uid == results.c.sop_uid,
        ~settled,
    )
    addressed = exists().where(deliveries.c.sop_uid == results.c.sop_uid)
    unaddressed = exists().where(
        of_study,
        is_sent,
        results.c.job_id == jobs.c.job_id,
        results.c.alternative_of.is_(None),
        ~addressed,
    )
    here = and_(instances.c.study_uid == studies.c.study_uid, instances.c.purged_at.is_(None))
    return and_(
        studies.c.state == "COMPLETE",
        studies.c.planned_revision == studies.c.revision,
        exists().where(here).correlate(studies),
        ~exists().where(here, instances.c.received_at >= before).correlate(studies),
        ~unfinished,
        ~undelivered,
        ~unaddressed,
    )


def _purge_study(
    spool: Spool,
    ledger: Ledger,
    study_uid: str,
    may_go: ColumnElement[bool],
    audit: Audit = NO_AUDIT,
) -> bool:
    """Remove files, then say so: whoever dies in between leaves a study that is purged again.

    What is removed is read together with the leave to remove it: an instance that came since the
    study was found is in neither.
    """
    try:
        _drop_waiting_shadows(ledger, study_uid, may_go)
    except OperationalError as error:  # of a disk that is full, where room must be made first
        log.warning("shadows of study %s are called off late: %s", study_uid, where(error))
    query = (
        select(instances.c.sop_uid, instances.c.sha256, instances.c.path)
        .join(studies, studies.c.study_uid == instances.c.study_uid)
        .where(studies.c.study_uid == study_uid, may_go, instances.c.purged_at.is_(None))
    )
    with ledger.reading() as connection:
        rows = connection.execute(query).all()
    if not rows:
        return False
    patient = read_patient(Path(rows[0].path))
    spool.remove([Path(row.path) for row in rows])
    spool.drop_study_results(study_uid)
    audit.deleted(study_uid, patient, len(rows))
    with ledger.writing() as connection:
        for row in rows:
            this = and_(instances.c.sop_uid == row.sop_uid, instances.c.sha256 == row.sha256)
            # Sent again meanwhile: it is here after all.
            at = None if Path(row.path).exists() else ledger.now
            connection.execute(update(instances).where(this).values(purged_at=at))
        _call_off(connection, jobs.c.study_uid == study_uid)
        ledger.note(connection, study_uid, "purged", f"{len(rows)} instance(s)")
    log.info("study %s was purged: delivered, and old enough", study_uid)
    return True


def _drop_waiting_shadows(ledger: Ledger, study_uid: str, may_go: ColumnElement[bool]) -> None:
    """No worker begins with what is about to be removed; one that has begun keeps the study."""
    goes = select(studies.c.study_uid).where(studies.c.study_uid == study_uid, may_go)
    with ledger.writing() as connection:
        _call_off(connection, jobs.c.study_uid.in_(goes))


def _call_off(connection: Connection, here: ColumnElement[bool]) -> None:
    waits = and_(here, jobs.c.role == "shadow", jobs.c.state == "QUEUED")
    move(connection, jobs, waits, "SUPERSEDED", reason="its study was purged")
