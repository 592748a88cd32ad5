"""The ledger: what may become of what, and who may say so."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select, update
from sqlalchemy.exc import DBAPIError

from listener.entries import (
    Answer,
    BundleRow,
    Early,
    Gathering,
    Instance,
    Plan,
    Predecessor,
    Received,
    Result,
    Retried,
    digest_of,
)
from listener.errors import IllegalTransition, LeaseLost, SpoolFull, WrongLedger
from listener.ledger import HOPELESS_ATTEMPTS, OUTDATED, OWN_RESULT, Lease, Ledger
from listener.ledger.database import IN_TURN
from listener.rollout import promote
from listener.series import InstanceKey
from listener.spool import Arrival, Held
from listener.tables import SCHEMA_VERSION, TRANSITIONS, jobs, metadata, schema
from tests.postgresql import postgresql_server

BUNDLE = BundleRow("fistula", "demo", "1.0.0", "a" * 64)
ABLE = {BUNDLE.edition}


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real PostgreSQL server on loopback."""
    with postgresql_server(tmp_path_factory.mktemp("postgresql")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    else:
        url = request.getfixturevalue("postgresql")
    book = Ledger(url, clock=clock)
    book.set_destinations(["pacs"])
    yield book
    metadata.drop_all(book._engine)
    book.close()


def received(
    sop: str = "1.1.1",
    series: str = "1.1",
    study: str = "1",
    at: float = 1000.0,
    sha256: str = "f" * 64,
    association: str | None = None,
    arrival: Arrival = Arrival.NEW,
) -> Received:
    key = InstanceKey(study, series, sop)
    return Received(Held(key, Path("/spool") / sop, sha256, 10, arrival, at), association, at)


def only(ledger: Ledger) -> Gathering:
    (study,) = ledger.gathering()
    return study


def queue_a_job(ledger: Ledger, sop: str = "1.1.1") -> str:
    """Take a study of one instance as far as a queued job."""
    ledger.record([received(sop)])
    ledger.complete(only(ledger), "quiet")
    return plan_everything(ledger)


def job_states(ledger: Ledger) -> dict[str, str]:
    known = ledger.study("1")
    assert known is not None
    return {job["job_id"]: job["state"] for job in known["jobs"]}


def plan_only(ledger: Ledger, *sops: str, revision: int) -> list[str]:
    """Plan a revision whose chosen series holds just these instances."""
    inputs = tuple(each for each in ledger.instances_of("1") if each.sop_uid in sops)
    return ledger.plan("1", revision, [(Plan("fistula", "1.1", inputs), BUNDLE)], {})


def refuse(ledger: Ledger, job_id: str, reason: str = "the software failed") -> None:
    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        ledger.keep(lease.job, Answer("REFUSED", reason, retriable=True))


def predecessor_of(ledger: Ledger, job_id: str) -> str | None:
    """The job that a job would name if it were lent now."""
    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        before = lease.job.predecessor
    return before and before.job_id


def plan_everything(ledger: Ledger) -> str:
    ((study_uid, revision),) = ledger.unplanned()
    inputs = tuple(ledger.instances_of(study_uid))
    plan = Plan("fistula", inputs[0].series_uid, inputs)
    (job_id,) = ledger.plan(study_uid, revision, [(plan, BUNDLE)], {})
    return job_id


def a_report(job_id: str, sop: str = "2.25.1", phase: int = 1, **changes: Any) -> Result:
    values: dict[str, Any] = {
        "sop_uid": sop,
        "series_uid": "2.25.9",
        "sop_class": "1.2.840.10008.5.1.4.1.1.88.34",
        "kind": "report",
        "number": 1,
        "phase": phase,
        "path": Path("/spool/results") / job_id / sop,
    }
    return Result(**(values | changes))


def report(ledger: Ledger, job_id: str, *found: Result) -> None:
    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        ledger.keep(lease.job, Answer("REPORTED", found=found or [a_report(job_id)]))


def test_every_state_that_can_be_reached_is_in_the_table() -> None:
    for moves in TRANSITIONS.values():
        assert {state for nexts in moves.values() for state in nexts} <= moves.keys()


def test_a_late_instance_reopens_the_study_and_makes_a_new_revision(
    ledger: Ledger, clock: Clock
) -> None:
    ledger.record([received()])
    ledger.complete(only(ledger), "quiet")
    ledger.record([received("1.1.2", at=1100.0)])

    study = only(ledger)
    assert study.last_at == 1100.0
    assert ledger.complete(study, "quiet again")
    found = ledger.study("1")
    assert found is not None
    assert (found["revision"], found["reason"]) == (2, "quiet again")


def test_a_resent_instance_does_not_reopen_the_study(ledger: Ledger) -> None:
    ledger.record([received()])
    ledger.complete(only(ledger), "quiet")
    ledger.record([received(at=1100.0)])

    assert ledger.gathering() == []


def test_an_instance_that_comes_while_we_decide_keeps_the_study_open(ledger: Ledger) -> None:
    ledger.record([received()])
    seen = only(ledger)
    ledger.record([received("1.1.2", at=1001.0)])

    assert not ledger.complete(seen, "quiet")
    assert len(ledger.gathering()) == 1


def test_a_job_is_queued_once_for_the_same_input_and_bundle(ledger: Ledger) -> None:
    job_id = queue_a_job(ledger)
    ledger.record([received("1.2.1", series="1.2", at=1100.0)])
    ledger.complete(only(ledger), "quiet")
    ((study, revision),) = ledger.unplanned()
    same = Plan(
        "fistula", "1.1", tuple(i for i in ledger.instances_of("1") if i.series_uid == "1.1")
    )

    assert ledger.plan(study, revision, [(same, BUNDLE)], {"1.2": "not T1"}) == []
    assert [job.job_id for job in ledger.queued()] == [job_id]
    assert ledger.unplanned() == []


def test_a_queued_job_is_superseded_when_its_input_changes(ledger: Ledger) -> None:
    first = queue_a_job(ledger)
    second = queue_a_job(ledger, "1.1.2")

    found = ledger.study("1")
    assert found is not None
    assert {job["job_id"]: job["state"] for job in found["jobs"]} == {
        first: "SUPERSEDED",
        second: "QUEUED",
    }


def test_a_new_revision_names_the_answer_that_it_replaces(ledger: Ledger) -> None:
    first = queue_a_job(ledger)
    report(ledger, first)
    second = queue_a_job(ledger, "1.1.2")

    with ledger.lease(second, "worker", 60, ABLE) as lease:
        assert lease is not None
        assert lease.job.predecessor is not None
        assert lease.job.predecessor.job_id == first
        assert lease.job.predecessor.answered == "report"


def test_a_new_revision_waits_for_the_answer_that_it_must_name(ledger: Ledger) -> None:
    first = queue_a_job(ledger)
    with ledger.lease(first, "worker", 60, ABLE) as running:
        assert running is not None
        second = queue_a_job(ledger, "1.1.2")
        with ledger.lease(second, "other worker", 60, ABLE) as lease:
            assert lease is None
        ledger.keep(running.job, Answer("REFUSED", "too few slices", lineage={"digest": "d"}))

    with ledger.lease(second, "other worker", 60, ABLE) as lease:
        assert lease is not None
        assert lease.job.predecessor is not None
        assert lease.job.predecessor.answered == "refusal"
        assert lease.job.predecessor.lineage == {"digest": "d"}


def test_an_outdated_job_whose_worker_died_is_not_run_again(ledger: Ledger, clock: Clock) -> None:
    answered = queue_a_job(ledger)
    report(ledger, answered)
    first = queue_a_job(ledger, "1.1.2")
    assert ledger._lend(first, "dead", 60, ABLE) is not None
    second = queue_a_job(ledger, "1.1.3")
    clock.now += 61
    ledger.reclaim()

    assert job_states(ledger) == {answered: "REPORTED", first: "SUPERSEDED", second: "QUEUED"}
    assert ledger._lend(first, "late", 60, ABLE) is None
    assert predecessor_of(ledger, second) == answered


def test_an_outdated_job_that_its_worker_gives_back_is_superseded_with_the_reason(
    ledger: Ledger,
) -> None:
    first = queue_a_job(ledger)
    with pytest.raises(ZeroDivisionError), ledger.lease(first, "worker", 60, ABLE):
        second = queue_a_job(ledger, "1.1.2")
        raise ZeroDivisionError

    known = ledger.study("1")
    assert known is not None
    assert job_states(ledger) == {first: "SUPERSEDED", second: "QUEUED"}
    assert known["jobs"][0]["reason"] == f"ZeroDivisionError in attempt 1; {OUTDATED}"


def test_an_outdated_job_that_is_queued_all_the_same_is_not_lent(
    ledger: Ledger, clock: Clock
) -> None:
    first = queue_a_job(ledger)
    assert ledger._lend(first, "dead", 60, ABLE) is not None
    second = queue_a_job(ledger, "1.1.2")
    with ledger._engine.begin() as connection:  # as another listener may that plans just now
        connection.execute(update(jobs).where(jobs.c.job_id == first).values(state="QUEUED"))

    assert ledger._lend(first, "late", 60, ABLE) is None
    assert job_states(ledger) == {first: "SUPERSEDED", second: "QUEUED"}


def test_retry_leaves_outdated_jobs_as_they_are(ledger: Ledger) -> None:
    refused = queue_a_job(ledger)
    refuse(ledger, refused)
    failed = queue_a_job(ledger, "1.1.2")
    with ledger.lease(failed, "worker", 60, ABLE) as lease:
        assert lease is not None
        ledger.keep(lease.job, Answer("FAILED", "no header could be read"))
    last = queue_a_job(ledger, "1.1.3")
    refuse(ledger, last)

    assert ledger.retry("1") == (1, 0, 0)
    assert job_states(ledger) == {refused: "REFUSED", failed: "FAILED", last: "QUEUED"}


def test_a_job_that_runs_for_a_replaced_bundle_is_not_run_again_after_the_new_one(
    ledger: Ledger,
) -> None:
    first = queue_a_job(ledger)
    newer = BundleRow("fistula", "demo", "1.1.0", "b" * 64)
    inputs = tuple(ledger.instances_of("1"))
    with pytest.raises(ZeroDivisionError), ledger.lease(first, "worker", 60, ABLE):
        (second,) = ledger.plan("1", 1, [(Plan("fistula", "1.1", inputs), newer)], {})
        raise ZeroDivisionError

    assert job_states(ledger) == {first: "SUPERSEDED", second: "QUEUED"}


def test_a_job_that_a_later_revision_asks_for_again_is_no_longer_outdated(
    ledger: Ledger, clock: Clock
) -> None:
    answered = queue_a_job(ledger)
    report(ledger, answered)
    first = queue_a_job(ledger, "1.1.2")
    assert ledger._lend(first, "dead", 60, ABLE) is not None
    second = queue_a_job(ledger, "1.1.3")
    clock.now += 61
    ledger.reclaim()
    assert ledger._lend(second, "dead too", 60, ABLE) is not None
    assert plan_only(ledger, "1.1.1", "1.1.2", revision=4) == [first]
    assert ledger._lend(first, "waits for its predecessor", 60, ABLE) is None
    clock.now += 61
    ledger.reclaim()

    assert job_states(ledger) == {answered: "REPORTED", first: "QUEUED", second: "SUPERSEDED"}
    assert predecessor_of(ledger, first) == answered


def test_a_refusal_that_was_to_be_run_again_is_still_named_by_what_replaces_it(
    ledger: Ledger,
) -> None:
    refused = queue_a_job(ledger)
    refuse(ledger, refused)
    ledger.retry("1")
    second = queue_a_job(ledger, "1.1.2")

    assert job_states(ledger) == {refused: "SUPERSEDED", second: "QUEUED"}
    assert predecessor_of(ledger, second) == refused


def test_jobs_that_follow_upon_one_another_in_a_circle_name_the_refusal_among_them(
    ledger: Ledger, clock: Clock
) -> None:
    refused = queue_a_job(ledger)
    refuse(ledger, refused)
    ledger.retry("1")
    second = queue_a_job(ledger, "1.1.2")
    assert ledger._lend(second, "dead", 60, ABLE) is not None
    assert plan_only(ledger, "1.1.1", revision=3) == [refused]
    clock.now += 61
    ledger.reclaim()

    assert predecessor_of(ledger, refused) == refused


EARLY = Result("9.6", "9.6.0", "1.2.3", "early", 0, 2, Path("/early.dcm"))


def foretell(ledger: Ledger, lease: Lease) -> None:
    """Keep an early report."""
    ledger.keep_early(lease.job, Early({"probability": 0.5}, [EARLY], {"digest": "early"}))


def test_a_score_is_known_and_an_early_report_is_due_while_the_job_still_runs(
    ledger: Ledger,
) -> None:
    job_id = queue_a_job(ledger)
    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        foretell(ledger, lease)

        known = ledger.study("1")
        assert known is not None
        assert known["jobs"][0]["state"] == "RUNNING"
        assert known["jobs"][0]["summary"] == {"probability": 0.5}
        assert [each.encodings[0].sop_uid for each in ledger.due("pacs")] == ["9.6"]


def test_a_score_that_is_only_for_the_ledger_sends_nothing(ledger: Ledger) -> None:
    job_id = queue_a_job(ledger)
    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        ledger.keep_early(lease.job, Early({"probability": 0.5}))

        assert ledger.due("pacs") == []
        assert ledger.study("1")["jobs"][0]["answered"] is None  # type: ignore[index]


def test_the_next_attempt_knows_of_the_early_report(ledger: Ledger, clock: Clock) -> None:
    job_id = queue_a_job(ledger)
    job = ledger._lend(job_id, "dead", 60, ABLE)
    assert job is not None
    assert job.early is None
    ledger.keep_early(job, Early({}, [EARLY], {"digest": "early"}))
    clock.now += 61

    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        assert lease.job.early == Predecessor(job_id, {"digest": "early"}, "early")
        assert lease.job.predecessor is None
        ledger.keep(lease.job, Answer("REPORTED"))
    assert ledger.study("1")["jobs"][0]["answered"] == "report"  # type: ignore[index]


def test_an_early_report_is_named_by_what_replaces_its_job(ledger: Ledger, clock: Clock) -> None:
    first = queue_a_job(ledger)
    job = ledger._lend(first, "dead", 60, ABLE)
    assert job is not None
    ledger.keep_early(job, Early({}, [EARLY], {"digest": "early"}))
    second = queue_a_job(ledger, "1.1.2")
    clock.now += 61
    ledger.reclaim()

    assert job_states(ledger) == {first: "SUPERSEDED", second: "QUEUED"}
    with ledger.lease(second, "worker", 60, ABLE) as lease:
        assert lease is not None
        assert lease.job.predecessor == Predecessor(first, {"digest": "early"}, "early")


def test_nothing_early_is_kept_of_a_job_that_was_lost(ledger: Ledger, clock: Clock) -> None:
    job_id = queue_a_job(ledger)
    job = ledger._lend(job_id, "slow", 60, ABLE)
    assert job is not None
    clock.now += 61
    ledger.reclaim()

    with pytest.raises(LeaseLost):
        ledger.keep_early(job, Early({}, [EARLY]))
    assert ledger.due("pacs") == []


def test_single_instances_are_left_aside_and_a_later_revision_may_say_why_anew(
    ledger: Ledger,
) -> None:
    ledger.record([received("1.1.1"), received("1.2.1", "1.2"), received("1.2.2", "1.2")])
    ledger.complete(only(ledger), "quiet")
    image, first, second = ledger.instances_of("1")
    plan = Plan("fistula", "1.1", (image, first))
    (job_id,) = ledger.plan("1", 1, [(plan, BUNDLE)], {}, {second.sop_uid: "too early"})
    known = ledger.study("1")
    assert known is not None
    assert f"{job_id} with segmentation {first.sop_uid}" in str(known["events"])

    swapped = Plan("fistula", "1.1", (image, second))
    ledger.plan("1", 1, [(swapped, BUNDLE)], {}, {first.sop_uid: "replaced"})
    states = {each.sop_uid: each.state for each in ledger.instances_of("1")}
    assert states == {"1.1.1": "waiting", "1.2.1": "not wanted", "1.2.2": "waiting"}

    ledger.plan("1", 1, [(swapped, BUNDLE)], {}, {first.sop_uid: "replaced again"})
    reasons = {(row["state"], row["reason"]) for row in ledger.study("1")["instances"]}  # type: ignore[index]
    assert reasons == {("waiting", None), ("not wanted", "replaced again")}


def test_a_cancelled_job_is_neither_run_nor_kept_until_it_is_retried(ledger: Ledger) -> None:
    job_id = queue_a_job(ledger)
    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        assert ledger.cancel("1") == 1
        assert not ledger.extend(lease.job, 60)
        with pytest.raises(LeaseLost):
            ledger.keep(lease.job, Answer("REPORTED"))

    assert job_states(ledger) == {job_id: "CANCELLED"}
    assert ledger.counts()["instances"] == {"not wanted": 1}
    assert ledger._lend(job_id, "other", 60, ABLE) is None
    assert ledger.cancel("1") == 0

    assert ledger.retry("1") == (1, 0, 0)
    assert ledger.counts()["instances"] == {"waiting": 1}
    report(ledger, job_id)
    assert ledger.counts()["instances"] == {"used": 1}


def test_a_waiting_job_can_be_cancelled_and_late_slices_ask_again(ledger: Ledger) -> None:
    first = queue_a_job(ledger)
    assert ledger.cancel("1") == 1
    second = queue_a_job(ledger, "1.1.2")

    assert job_states(ledger) == {first: "CANCELLED", second: "QUEUED"}


def test_a_job_is_lent_to_one_worker_at_a_time(ledger: Ledger) -> None:
    job_id = queue_a_job(ledger)
    with (
        ledger.lease(job_id, "a", 60, ABLE) as first,
        ledger.lease(job_id, "b", 60, ABLE) as second,
    ):
        assert first is not None
        assert second is None


@pytest.mark.parametrize(
    "able",
    [
        set(),
        {("b" * 64, "1.0.0")},
        {("a" * 64, "2.0.0")},
        {("a" * 64, "2.0.0"), ("b" * 64, "1.0.0")},
    ],
)
def test_a_job_is_not_lent_to_a_worker_that_lacks_its_edition_of_the_bundle(
    ledger: Ledger, able: set[tuple[str, str]]
) -> None:
    job_id = queue_a_job(ledger)
    with ledger.lease(job_id, "worker", 60, able) as lease:
        assert lease is None


def test_a_job_whose_worker_died_is_queued_again_and_may_be_lent_anew(
    ledger: Ledger, clock: Clock
) -> None:
    job_id = queue_a_job(ledger)
    dead = ledger._lend(job_id, "dead", 60, ABLE)
    assert dead is not None
    assert ledger.reclaim() == []

    clock.now += 61
    assert ledger.reclaim() == [job_id]
    with ledger.lease(job_id, "alive", 60, ABLE) as lease:
        assert lease is not None
        assert lease.job.attempts == 2
        with pytest.raises(LeaseLost):
            ledger.keep(dead, Answer("REPORTED", found=[a_report(job_id)]))
    assert ledger.results_of(job_id) == []


def test_a_lease_that_was_lost_says_so_before_anything_is_kept(
    ledger: Ledger, clock: Clock
) -> None:
    job_id = queue_a_job(ledger)
    with ledger.lease(job_id, "slow", 0.2, ABLE) as lease:
        assert lease is not None
        lease.check()
        clock.now += 1
        ledger.reclaim()
        with pytest.raises(LeaseLost):
            for _ in range(100):
                lease.check()
                time.sleep(0.02)


def test_a_heart_that_beats_keeps_the_job(ledger: Ledger, clock: Clock) -> None:
    job_id = queue_a_job(ledger)
    with ledger.lease(job_id, "steady", 0.2, ABLE) as lease:
        assert lease is not None
        for _ in range(5):
            clock.now += 0.15
            time.sleep(0.15)
            assert ledger.reclaim() == []


def test_how_far_a_job_is_can_be_seen_until_it_is_done(ledger: Ledger) -> None:
    def progress() -> str | None:
        found = ledger.study("1")
        assert found is not None
        return str(found["jobs"][0]["progress"])

    job_id = queue_a_job(ledger)
    with ledger.lease(job_id, "slow", 0.2, ABLE) as lease:
        assert lease is not None
        lease.tell("map 3 of 8")
        deadline = time.monotonic() + 5
        while progress() != "map 3 of 8" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert progress() == "map 3 of 8"
        ledger.keep(lease.job, Answer("FAILED", "a test"))
    assert progress() == "None"


def test_a_worker_that_fails_gives_the_job_back(ledger: Ledger) -> None:
    job_id = queue_a_job(ledger)
    with pytest.raises(ZeroDivisionError), ledger.lease(job_id, "worker", 60, ABLE):
        raise ZeroDivisionError

    assert [job.job_id for job in ledger.queued()] == [job_id]
    found = ledger.study("1")
    assert found is not None
    assert found["jobs"][0]["reason"] == "ZeroDivisionError in attempt 1"


def test_a_job_that_kills_every_worker_fails_until_an_operator_retries_it(
    ledger: Ledger, clock: Clock
) -> None:
    job_id = queue_a_job(ledger)
    for _ in range(HOPELESS_ATTEMPTS):
        assert ledger._lend(job_id, "doomed", 60, ABLE) is not None
        clock.now += 61
        ledger.reclaim()

    assert ledger.counts()["jobs"] == {"FAILED": 1}
    assert ledger.retry("1") == (1, 0, 0)
    assert ledger.counts()["jobs"] == {"QUEUED": 1}


def test_the_inputs_of_a_reported_job_were_used_and_of_a_refused_one_refused(
    ledger: Ledger,
) -> None:
    first = queue_a_job(ledger)
    report(ledger, first)
    assert ledger.counts()["instances"] == {"used": 1}

    second = queue_a_job(ledger, "1.1.2")
    with ledger.lease(second, "worker", 60, ABLE) as lease:
        assert lease is not None
        ledger.keep(lease.job, Answer("REFUSED", "uneven slices"))
    assert ledger.counts()["instances"] == {"used": 1, "refused": 1}


def test_our_own_results_coming_back_are_no_input_and_reopen_nothing(ledger: Ledger) -> None:
    job_id = queue_a_job(ledger)
    report(ledger, job_id)
    ledger.record([received("2.25.1", series="2.25.9", at=2000.0)])

    assert ledger.gathering() == []
    assert [instance.sop_uid for instance in ledger.instances_of("1")] == ["1.1.1"]
    found = ledger.study("1")
    assert found is not None
    assert {row["reason"] for row in found["instances"]} >= {OWN_RESULT}


def test_a_report_waits_until_the_overlays_it_refers_to_were_acknowledged(ledger: Ledger) -> None:
    job_id = queue_a_job(ledger)
    overlay = a_report(job_id, "2.25.2", phase=0, kind="overlay")
    report(ledger, job_id, overlay, a_report(job_id))

    (pending,) = ledger.due("pacs")
    assert pending.encodings == (overlay,)
    ledger.note_delivery(pending, "pacs", "PARKED", "rejected")
    assert ledger.due("pacs") == []
    assert ledger.retry("1") == Retried(jobs=0, parked=1, hurried=1)
    (pending,) = ledger.due("pacs")
    ledger.note_delivery(pending, "pacs", "SENT", "Success", sent_as=overlay.sop_uid)
    (pending,) = ledger.due("pacs")
    assert pending.encodings[0].sop_uid == "2.25.1"


def test_what_was_sent_cannot_be_parked(ledger: Ledger) -> None:
    job_id = queue_a_job(ledger)
    report(ledger, job_id)
    (pending,) = ledger.due("pacs")
    ledger.note_delivery(pending, "pacs", "SENT", "Success")

    with pytest.raises(IllegalTransition):
        ledger.note_delivery(pending, "pacs", "PARKED", "too late")


def test_a_postponed_result_is_due_again_when_its_pause_is_over(
    ledger: Ledger, clock: Clock
) -> None:
    job_id = queue_a_job(ledger)
    report(ledger, job_id)
    ledger.postpone(ledger.due("pacs"), "pacs", "no answer", next_at=clock.now + 5)

    assert ledger.due("pacs") == []
    clock.now += 5
    assert [pending.attempts for pending in ledger.due("pacs")] == [1]


def test_an_alternative_encoding_travels_with_the_preferred_one(ledger: Ledger) -> None:
    ledger.set_destinations(["pacs", "research"])
    job_id = queue_a_job(ledger)
    preferred = a_report(job_id)
    other = a_report(job_id, "2.25.3", alternative_of="2.25.1")
    report(ledger, job_id, preferred, other)

    assert ledger.counts()["deliveries"] == {"PENDING": 2}
    (pending,) = ledger.due("research")
    assert pending.encodings == (preferred, other)


def test_jobs_queued_for_a_replaced_bundle_are_planned_again(ledger: Ledger) -> None:
    ledger.register_bundle(BUNDLE)
    queue_a_job(ledger)
    newer = BundleRow("fistula", "demo", "1.1.0", "b" * 64)
    ledger.register_bundle(newer)
    promote(ledger, "fistula", newer.edition, "ann")
    ledger.supersede_unwanted()

    assert ledger.active_bundle("fistula") == newer
    assert ledger.counts()["jobs"] == {"SUPERSEDED": 1}
    assert ledger.unplanned() == [("1", 1)]


def test_a_job_that_was_running_for_a_replaced_bundle_is_planned_again_when_its_worker_died(
    ledger: Ledger, clock: Clock
) -> None:
    ledger.register_bundle(BUNDLE)
    job_id = queue_a_job(ledger)
    assert ledger._lend(job_id, "dead", 60, ABLE) is not None
    newer = BundleRow("fistula", "demo", "1.1.0", "b" * 64)
    ledger.register_bundle(newer)
    promote(ledger, "fistula", newer.edition, "ann")
    clock.now += 61
    ledger.reclaim()

    assert ledger.supersede_unwanted() == 1
    assert ledger.unplanned() == [("1", 1)]


def test_one_uid_in_two_series_is_quarantined(ledger: Ledger) -> None:
    ledger.record([received("1.1.1"), received("1.1.1", series="1.2", sha256="e" * 64)])

    assert ledger.counts()["instances"] == {"quarantined": 1, "waiting": 1}


def test_a_refusal_that_is_retried_and_then_reported_counts_its_input_as_used(
    ledger: Ledger,
) -> None:
    job_id = queue_a_job(ledger)
    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        ledger.keep(lease.job, Answer("REFUSED", "the software failed", retriable=True))
    ledger.retry("1")
    assert ledger.counts()["instances"] == {"waiting": 1}
    report(ledger, job_id)

    assert ledger.counts()["instances"] == {"used": 1}


def test_a_full_disk_is_no_fault_of_the_job(ledger: Ledger) -> None:
    job_id = queue_a_job(ledger)
    with pytest.raises(SpoolFull), ledger.lease(job_id, "worker", 60, ABLE):
        raise SpoolFull("/spool", 0, 1, 1)

    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        assert lease.job.attempts == 1


def test_a_new_destination_is_not_sent_what_was_kept_before(ledger: Ledger) -> None:
    job_id = queue_a_job(ledger)
    report(ledger, job_id)
    ledger.set_destinations(["pacs", "research"])

    assert ledger.due("research") == []
    assert len(ledger.due("pacs")) == 1


def test_what_was_kept_while_there_was_no_destination_goes_to_the_first_ones(
    ledger: Ledger,
) -> None:
    ledger.set_destinations([])
    job_id = queue_a_job(ledger)
    report(ledger, job_id, a_report(job_id), a_report(job_id, "2.25.3", alternative_of="2.25.1"))
    assert ledger.counts()["deliveries"] == {}
    ledger.set_destinations(["research", "archive"])
    ledger.set_destinations(["research", "archive", "pacs"])

    assert ledger.counts()["deliveries"] == {"PENDING": 2}
    assert [each.encodings[0].sop_uid for each in ledger.due("research")] == ["2.25.1"]
    assert ledger.due("pacs") == []


def test_a_rebuilt_ledger_dates_a_job_as_the_lost_one_did(ledger: Ledger, clock: Clock) -> None:
    clock.now = 5000.0
    job_id = queue_a_job(ledger)
    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        assert lease.job.created_at == 1000.0  # when the last of its input was written down


def test_what_a_study_waits_for_is_said_once(ledger: Ledger) -> None:
    ledger.record([received()])
    ledger.complete(only(ledger), "quiet")
    for _ in range(3):
        ledger.note_waiting("1", "waits for a bundle")

    known = ledger.study("1")
    assert known is not None
    assert known["reason"] == "waits for a bundle"
    assert [event["what"] for event in known["events"]].count("study waits") == 1


def test_the_digest_depends_on_what_came_and_not_on_the_order() -> None:
    a = Instance("1.1", "a" * 64, "1", Path("a"), "waiting", 1.0)
    b = Instance("1.2", "b" * 64, "1", Path("b"), "waiting", 1.0)

    assert digest_of([a, b]) == digest_of([b, a])
    assert digest_of([a, b]) != digest_of([a])


def test_a_ledger_of_another_version_stops_the_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    Ledger(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(update(schema).values(version=99))
    engine.dispose()

    with pytest.raises(WrongLedger, match="99"):
        Ledger(url)


def test_open_associations_of_a_process_that_died_are_forgotten(ledger: Ledger) -> None:
    ledger.record([received(association="a")])
    assert only(ledger).open_associations == 1

    is_gone: Callable[[str], bool] = lambda _process: True  # noqa: E731
    ledger.forget_associations_of(is_gone)
    assert only(ledger).open_associations == 0


def test_every_study_that_was_received_is_listed(ledger: Ledger) -> None:
    ledger.record([received("2.1.1", study="2"), received(), received("1.1.2")])

    assert ledger.study_uids() == ["1", "2"]


def test_of_what_several_write_at_once_nothing_is_counted_or_chosen_twice(ledger: Ledger) -> None:
    url = ledger._engine.url.render_as_string(hide_password=False)
    metadata.drop_all(ledger._engine)
    books: list[Ledger] = []
    at_once(lambda: books.append(Ledger(url)) for _ in range(4))
    at_once(partial(book.record, received_batch(50)) for book in books)
    bundles = [replace(BUNDLE, version=f"{number}.0.0") for number in range(4)]
    at_once(
        partial(book.register_bundle, bundle) for book, bundle in zip(books, bundles, strict=True)
    )

    with ledger.reading() as connection:
        assert connection.scalars(select(schema.c.version)).all() == [SCHEMA_VERSION]
    assert [row["received"] for row in ledger.recent_studies(9)] == [50]
    assert ledger.counts()["instances"] == {"waiting": 50}
    assert sorted(each.role for each in ledger.wanted_bundles("fistula")) == [
        "active", "shadow", "shadow", "shadow",
    ]  # fmt: skip
    for book in books:
        book.close()


def test_a_writer_that_is_cut_off_does_not_keep_others_waiting_for_ever(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = "idle_in_transaction_session_timeout = "
    shorter = IN_TURN.replace(f"{pause}'60s'", f"{pause}'1s'")
    monkeypatch.setattr("listener.ledger.database.IN_TURN", shorter)
    stuck, other = Ledger(postgresql), Ledger(postgresql)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(DBAPIError), stuck.writing() as connection:
            waiting = pool.submit(other.set_destinations, ["pacs"])
            time.sleep(2)
            stuck.note(connection, "1.2", "late", "")
        waiting.result(timeout=10)
    stuck.close()
    metadata.drop_all(other._engine)
    other.close()


def received_batch(count: int) -> list[Received]:
    """Instances of one study."""
    keys = [InstanceKey("1", "1.1", f"1.1.{number}") for number in range(count)]
    return [
        Received(Held(key, Path(f"/{key.sop_uid}"), "d" * 64, 1, Arrival.NEW, 1.0), None, 1.0)
        for key in keys
    ]


def at_once(actions: Iterator[Callable[[], object]]) -> None:
    """Run all of them, each in a thread of its own; raise what one of them raised."""
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(action) for action in actions]:
            done.result()


def test_what_was_committed_survives_a_power_cut(ledger: Ledger) -> None:
    if not str(ledger._engine.url).startswith("sqlite"):
        pytest.skip("PostgreSQL waits for the disk unless its operator says otherwise")
    full = 2  # https://www.sqlite.org/pragma.html#pragma_synchronous
    for way in (ledger.writing, ledger.reading):
        with way() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == full
