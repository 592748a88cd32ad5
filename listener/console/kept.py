"""The result objects of a job as files, for operators who want to see what was sent."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from listener.ledger import Ledger
from listener.spool import Spool
from listener.tables import jobs, results


@dataclass(frozen=True)
class KeptResult:
    """One result object; `phase` is the order of delivery."""

    sop_uid: str
    series_uid: str
    sop_class: str
    kind: str
    number: int
    phase: int
    alternative_of: str | None


def read_results(ledger: Ledger, study_uid: str, job_id: str) -> tuple[KeptResult, ...]:
    """What a job made, in the order of delivery."""
    columns = (
        results.c.sop_uid, results.c.series_uid, results.c.sop_class, results.c.kind,
        results.c.number, results.c.phase, results.c.alternative_of,
    )  # fmt: skip
    query = (
        select(*columns)
        .join(jobs, jobs.c.job_id == results.c.job_id)
        .where(jobs.c.study_uid == study_uid, results.c.job_id == job_id)
        .order_by(results.c.phase, results.c.kind, results.c.number)
    )
    with ledger.reading() as connection:
        return tuple(KeptResult(**row) for row in connection.execute(query).mappings())


def file_of(ledger: Ledger, spool: Spool, study_uid: str, job_id: str, sop_uid: str) -> Path | None:
    """Where a result object of a job lies; None where there is none, or it lies elsewhere."""
    query = (
        select(results.c.path)
        .join(jobs, jobs.c.job_id == results.c.job_id)
        .where(
            jobs.c.study_uid == study_uid,
            results.c.job_id == job_id,
            results.c.sop_uid == sop_uid,
        )
    )
    with ledger.reading() as connection:
        path = connection.scalar(query)
    if path is None:
        return None
    real = Path(path).resolve()
    folder = (spool.root / "results" / study_uid / job_id).resolve()
    return real if real.is_relative_to(folder) and real.is_file() else None
