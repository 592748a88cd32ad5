"""Rows of the ledger as the values of entries.py."""

from pathlib import Path
from typing import Any

from sqlalchemy import Row

from listener.entries import Instance, Job, Result


def instance_of_row(row: Row[Any]) -> Instance:
    """An instance, as jobs are given it."""
    return Instance(
        row.sop_uid, row.sha256, row.series_uid, Path(row.path), row.state, row.received_at
    )


def result_of_row(row: Row[Any]) -> Result:
    """A result object."""
    return Result(
        sop_uid=row.sop_uid,
        series_uid=row.series_uid,
        sop_class=row.sop_class,
        kind=row.kind,
        number=row.number,
        phase=row.phase,
        path=Path(row.path),
        alternative_of=row.alternative_of,
    )


def row_of_result(job: Job, result: Result) -> dict[str, Any]:
    """A result object as the table of results has it."""
    return {
        "sop_uid": result.sop_uid,
        "job_id": job.job_id,
        "kind": result.kind,
        "number": result.number,
        "phase": result.phase,
        "alternative_of": result.alternative_of,
        "series_uid": result.series_uid,
        "sop_class": result.sop_class,
        "path": str(result.path),
    }
