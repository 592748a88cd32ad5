"""The judge of `make chaos` sees what is doubled, of every kind, and what never arrived."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from listener.ledger import Ledger
from tests.listener.test_ledger import a_report, queue_a_job, report
from tests.system.chaos import Verdict, judge_kinds

OVERLAYS = ("2.25.11", "2.25.12")


@pytest.fixture
def stack(tmp_path: Path) -> Any:
    """A ledger with an answer of two overlays and a report in two encodings."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    job_id = queue_a_job(ledger)
    overlays = [
        a_report(job_id, uid, phase=1, kind="overlay", number=number)
        for number, uid in enumerate(OVERLAYS)
    ]
    preferred = a_report(job_id, "2.25.1", phase=2)
    other = a_report(job_id, "2.25.2", phase=2, kind="report-enhanced", alternative_of="2.25.1")
    report(ledger, job_id, *overlays, preferred, other)
    return SimpleNamespace(ledger=ledger)


@pytest.mark.parametrize(
    ("archived", "doubled", "stuck"),
    [
        ([*OVERLAYS, "2.25.1"], 0, 0),
        ([*OVERLAYS, "2.25.2"], 0, 0),
        ([*OVERLAYS, "2.25.1", "2.25.2"], 1, 0),
        ([*OVERLAYS, OVERLAYS[0], "2.25.1"], 1, 0),
        ([*OVERLAYS, "2.25.1", "2.25.99"], 1, 0),
        ([OVERLAYS[1], "2.25.1"], 0, 1),
    ],
)
def test_every_kind_is_counted(stack: Any, archived: list[str], doubled: int, stuck: int) -> None:
    found = Verdict()
    judge_kinds(stack, "1", archived, found)
    assert (len(found.doubled), len(found.stuck)) == (doubled, stuck)
