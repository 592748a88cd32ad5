"""What may go from the spool, by policy: studies that are over and delivered, and old enough.

A study goes only when no job of it waits, runs or failed, and every result was confirmed by every
destination that it was for (or sent to one that a site chose to take at its word). Rows stay in
the ledger; what was purged is told apart there from what was lost.
"""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from sqlalchemy import Connection, and_, exists, or_, select, update

from listener.ledger import Ledger
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import deliveries, instances, jobs, results, studies

log = logging.getLogger(__name__)

DAY_SECONDS = 24 * 3600.0


def purge(spool: Spool, ledger: Ledger, settings: ListenerSettings) -> list[str]:
    """Remove the files of every study that may go; returns their UIDs."""
    if settings.keep_days is None:
        return []
    trusted = [each.name for each in settings.destinations if each.confirm == "none"]
    gone = _finished(ledger, ledger.now - settings.keep_days * DAY_SECONDS, trusted)
    for study_uid in gone:
        _purge_study(spool, ledger, study_uid)
        log.info("study %s was purged: delivered, and %g days old", study_uid, settings.keep_days)
    return gone


def _finished(ledger: Ledger, before: float, trusted: Collection[str]) -> list[str]:
    of_study = jobs.c.study_uid == studies.c.study_uid
    unfinished = exists().where(of_study, jobs.c.state.in_(("QUEUED", "RUNNING", "FAILED")))
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
        of_study, results.c.job_id == jobs.c.job_id, results.c.alternative_of.is_(None), ~addressed
    )
    present = exists().where(
        instances.c.study_uid == studies.c.study_uid, instances.c.purged_at.is_(None)
    )
    query = select(studies.c.study_uid).where(
        studies.c.state == "COMPLETE",
        studies.c.planned_revision == studies.c.revision,
        studies.c.last_at < before,
        present,
        ~unfinished,
        ~undelivered,
        ~unaddressed,
    )
    with ledger.reading() as connection:
        return list(connection.scalars(query))


def _purge_study(spool: Spool, ledger: Ledger, study_uid: str) -> None:
    """Remove files, then say so: whoever dies in between leaves a study that is purged again."""
    paths = sorted(ledger.known(study_uid))
    spool.remove(paths)
    spool.drop_study_results(study_uid)
    with ledger.writing() as connection:
        _mark(connection, paths, ledger.now)
        # Sent again meanwhile: it is here after all.
        _mark(connection, [path for path in paths if path.exists()], None)
        ledger.note(connection, study_uid, "purged", f"{len(paths)} instance(s)")


def _mark(connection: Connection, paths: Sequence[Path], at: float | None) -> None:
    for path in paths:
        connection.execute(
            update(instances).where(instances.c.path == str(path)).values(purged_at=at)
        )
