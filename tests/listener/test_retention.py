"""What is over and delivered may go; nothing else ever does."""

import errno
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update
from sqlalchemy.exc import OperationalError

from listener import retention
from listener.accounting import account
from listener.completion import PURGED, plan_studies
from listener.entries import Answer, BundleRow, Plan, Received, Result
from listener.ledger import Ledger
from listener.retention import DAY_SECONDS, purge
from listener.series import InstanceKey
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import deliveries, jobs, studies

HEAD = b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\x04\x00\x00\x00" + b"meta"
BUNDLE = BundleRow("fistula", "demo", "1.0.0", "a" * 64)
LONG_AGO = time.time() - 31 * DAY_SECONDS


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def settings(settings_for: Callable[..., ListenerSettings]) -> ListenerSettings:
    return settings_for(keep_days=30)


@pytest.fixture
def delivered(spool: Spool, ledger: Ledger) -> str:
    """A study of two slices, reported long ago, its one result confirmed."""
    ledger.set_destinations(["pacs"])
    for number in range(2):
        receive(spool, ledger, number)
    (study,) = ledger.gathering()
    ledger.complete(study, "quiet")
    plan = Plan("fistula", "1.1", tuple(ledger.instances_of("1")))
    (job_id,) = ledger.plan("1", 1, [(plan, BUNDLE)], {})
    with ledger.lease(job_id, "worker", 60, {BUNDLE.edition}) as lease:
        assert lease is not None
        path = spool.keep_result("1", job_id, lease.job.lease, "report.dcm", b"report")
        result = Result("9.1", "9", "1.2.3", "report", 0, 1, path)
        ledger.keep(lease.job, Answer("REPORTED", found=[result]))
    deliver(ledger, "CONFIRMED")
    return "1"


def receive(spool: Spool, ledger: Ledger, number: int) -> None:
    held = spool.write(InstanceKey("1", "1.1", f"1.1.{number}"), HEAD, b"dataset %d" % number)
    ledger.record([Received(replace(held, written_at=LONG_AGO), None, LONG_AGO)])


def deliver(ledger: Ledger, state: str) -> None:
    with ledger.writing() as connection:
        connection.execute(update(deliveries).values(state=state))


def set_job(ledger: Ledger, state: str) -> None:
    with ledger.writing() as connection:
        connection.execute(update(jobs).values(state=state))


def files(spool: Spool) -> list[Path]:
    return [*(path for _, path in spool.received()), *(spool.root / "results").rglob("*.dcm")]


def test_a_delivered_study_goes_after_its_time_and_is_accounted_for(
    spool: Spool, ledger: Ledger, settings: ListenerSettings, delivered: str
) -> None:
    assert purge(spool, ledger, settings) == [delivered]

    assert files(spool) == []
    assert list((spool.root / "studies").iterdir()) == []
    (found,) = account(spool, ledger)
    assert found.agrees
    assert (found.received, found.purged) == (0, 2)
    assert purge(spool, ledger, settings) == []


@pytest.mark.parametrize("state", ["PENDING", "PARKED", "SENT"])
def test_nothing_undelivered_is_ever_removed(
    spool: Spool, ledger: Ledger, settings: ListenerSettings, delivered: str, state: str
) -> None:
    deliver(ledger, state)

    assert purge(spool, ledger, settings) == []
    assert len(files(spool)) == 3


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING", "FAILED"])
def test_nothing_unfinished_is_ever_removed(
    spool: Spool, ledger: Ledger, settings: ListenerSettings, delivered: str, state: str
) -> None:
    set_job(ledger, state)

    assert purge(spool, ledger, settings) == []


def test_a_shadow_that_waits_for_a_worker_keeps_no_study_and_does_not_begin_any_more(
    spool: Spool, ledger: Ledger, settings: ListenerSettings, delivered: str
) -> None:
    plan = Plan("fistula", "1.1", tuple(ledger.instances_of("1")))
    shadow = replace(BUNDLE, version="2.0.0", role="shadow")
    (job_id,) = ledger.plan("1", 1, [(plan, shadow)], {})

    with ledger.lease(job_id, "worker", 60, {shadow.edition}) as lease:
        assert lease is not None
        assert purge(spool, ledger, settings) == []
    assert [job.job_id for job in ledger.queued()] == [job_id]
    assert purge(spool, ledger, settings) == [delivered]

    assert ledger.queued() == []
    with ledger.lease(job_id, "worker", 60, {shadow.edition}) as lease:
        assert lease is None


def test_a_study_that_is_incomplete_or_young_stays(
    spool: Spool, ledger: Ledger, settings: ListenerSettings, delivered: str, settings_for: Any
) -> None:
    assert purge(spool, ledger, settings_for(keep_days=32)) == []
    receive(spool, ledger, 2)  # a late slice reopens the study
    assert purge(spool, ledger, settings) == []
    with ledger.writing() as connection:
        connection.execute(update(studies).values(state="COMPLETE"))  # not planned anew yet
    with ledger.writing() as connection:
        connection.execute(update(studies).values(revision=2))
    assert purge(spool, ledger, settings) == []


def test_unless_asked_nothing_goes(
    spool: Spool, ledger: Ledger, settings_for: Any, delivered: str
) -> None:
    assert purge(spool, ledger, settings_for()) == []


def test_a_destination_that_is_taken_at_its_word_on_purpose_needs_no_confirmation(
    spool: Spool, ledger: Ledger, settings_for: Any, delivered: str
) -> None:
    deliver(ledger, "SENT")
    trusted = {"name": "pacs", "ae_title": "P", "host": "h", "port": 104, "confirm": "none"}

    assert purge(spool, ledger, settings_for(keep_days=30, destinations=[trusted])) == [delivered]


def test_what_comes_again_after_it_was_purged_is_here_again_and_not_judged_again(
    spool: Spool, ledger: Ledger, settings: ListenerSettings, delivered: str
) -> None:
    purge(spool, ledger, settings)
    receive(spool, ledger, 0)

    (found,) = account(spool, ledger)
    assert found.agrees
    assert (found.received, found.purged) == (1, 1)
    assert ledger.gathering() == []


def test_a_slice_that_comes_while_its_study_is_purged_is_not_lost(
    spool: Spool,
    ledger: Ledger,
    settings: ListenerSettings,
    delivered: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remove = spool.remove

    def late(paths: list[Path]) -> None:
        remove(paths)
        receive(spool, ledger, 1)  # the same again
        receive(spool, ledger, 7)  # and a new one

    monkeypatch.setattr(spool, "remove", late)
    purge(spool, ledger, settings)

    (found,) = account(spool, ledger)
    assert found.agrees
    assert (found.received, found.purged) == (2, 1)
    assert [study.study_uid for study in ledger.gathering()] == [delivered]


def test_an_instance_that_comes_after_its_study_was_chosen_is_not_lost(
    spool: Spool, ledger: Ledger, delivered: str
) -> None:
    may_go = retention._may_go(time.time(), [])
    receive(spool, ledger, 7)

    assert not retention._purge_study(spool, ledger, delivered, may_go)
    assert len(files(spool)) == 4


def test_what_was_quarantined_lately_keeps_its_study(
    spool: Spool, ledger: Ledger, settings: ListenerSettings, delivered: str
) -> None:
    held = spool.write(InstanceKey("1", "1.1", "1.1.0"), HEAD, b"other bytes")
    ledger.record([Received(held, None, time.time())])

    assert purge(spool, ledger, settings) == []


def test_a_slice_that_comes_after_the_purge_is_told_why_it_is_not_judged(
    spool: Spool, ledger: Ledger, settings: ListenerSettings, delivered: str
) -> None:
    ledger.register_bundle(BUNDLE)
    purge(spool, ledger, settings)
    receive(spool, ledger, 7)
    (study,) = ledger.gathering()
    ledger.complete(study, "quiet")

    assert plan_studies(ledger, ["fistula"]) == []
    assert ledger.unplanned() == []
    known = ledger.study(delivered)
    assert known is not None
    assert PURGED in {row["reason"] for row in known["instances"]}


def test_a_job_whose_input_was_purged_is_not_run_again(
    spool: Spool, ledger: Ledger, settings: ListenerSettings, delivered: str
) -> None:
    set_job(ledger, "CANCELLED")
    purge(spool, ledger, settings)

    assert ledger.retry(delivered) == (0, 0, 0)


def test_other_bytes_that_come_after_the_purge_are_found_where_they_are(
    spool: Spool, ledger: Ledger, settings: ListenerSettings, delivered: str
) -> None:
    held = spool.write(InstanceKey("1", "1.1", "1.1.0"), HEAD, b"other bytes")
    ledger.record([Received(replace(held, written_at=LONG_AGO), None, LONG_AGO)])
    purge(spool, ledger, settings)
    held = spool.write(InstanceKey("1", "1.1", "1.1.0"), HEAD, b"other bytes")
    ledger.record([Received(held, None, time.time())])

    (found,) = account(spool, ledger)
    assert found.agrees


def test_a_study_that_cannot_be_removed_keeps_no_other(
    spool: Spool,
    ledger: Ledger,
    settings: ListenerSettings,
    delivered: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = spool.write(InstanceKey("0", "0.1", "0.1.1"), HEAD, b"dataset")
    ledger.record([Received(replace(held, written_at=LONG_AGO), None, LONG_AGO)])
    (study,) = ledger.gathering()
    ledger.complete(study, "quiet")
    ledger.plan("0", 1, [], {})
    remove = spool.remove

    def refuse(paths: Iterable[Path]) -> None:
        if held.path in (paths := list(paths)):
            raise PermissionError(errno.EACCES, "Permission denied")
        remove(paths)

    with monkeypatch.context() as patch:
        patch.setattr(spool, "remove", refuse)
        assert purge(spool, ledger, settings) == [delivered]
    assert "study 0" in caplog.text
    assert purge(spool, ledger, settings) == ["0"]


def test_room_is_made_on_a_disk_that_takes_no_row_although_a_shadow_waits(
    spool: Spool,
    ledger: Ledger,
    settings: ListenerSettings,
    delivered: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = Plan("fistula", "1.1", tuple(ledger.instances_of("1")))
    shadow = replace(BUNDLE, version="2.0.0", role="shadow")
    (job_id,) = ledger.plan("1", 1, [(plan, shadow)], {})
    writing = ledger.writing

    @contextmanager
    def write_where_there_is_room() -> Iterator[Connection]:
        if files(spool):
            raise OperationalError("BEGIN", None, sqlite3.OperationalError("disk is full"))
        with writing() as connection:
            yield connection

    monkeypatch.setattr(ledger, "writing", write_where_there_is_room)
    assert purge(spool, ledger, settings) == [delivered]

    assert files(spool) == []
    assert job_id not in [job.job_id for job in ledger.queued()]
    (found,) = account(spool, ledger)
    assert found.agrees
