"""Somebody sets the clock, back or forth: nothing waits for long, and nobody is called dead."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from listener.backoff import Backoff
from listener.clock import Jumps
from listener.completion import Patience, complete_studies
from listener.confirmation import Confirmations
from listener.ledger import Ledger
from listener.watch import Watch
from tests.listener.test_ledger import (
    ABLE,
    Clock,
    a_report,
    job_states,
    only,
    queue_a_job,
    received,
    report,
)

HOUR, DAY = 3600.0, 24 * 3600.0
PATIENCE = Patience(quiet_seconds=60, released_seconds=10, stalled_seconds=600)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def steady() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock, steady: Clock) -> Iterator[Ledger]:
    book = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", clock=clock, steady=steady)
    book.set_destinations(["pacs"])
    yield book
    book.close()


@pytest.fixture
def later(clock: Clock, steady: Clock) -> Callable[[float], None]:
    """Time goes by, by both clocks; a test that changes only one of them has set it."""

    def go_by(seconds: float) -> None:
        clock.now += seconds
        steady.now += seconds

    return go_by


def test_a_jump_is_told_from_time_that_goes_by(
    clock: Clock, steady: Clock, later: Callable[[float], None]
) -> None:
    jumps = Jumps(clock, steady)
    later(HOUR)
    clock.now += 2  # adjusted, not set
    assert not jumps.within(60)
    clock.now -= HOUR
    assert jumps.within(60)
    later(59)
    assert jumps.within(60)
    later(2)
    assert not jumps.within(60)
    clock.now += HOUR
    assert jumps.within(60)


def test_a_study_does_not_wait_for_the_time_that_the_clock_was_set_back_by(
    ledger: Ledger, clock: Clock
) -> None:
    clock.now += DAY
    ledger.record([received(at=clock.now)])
    clock.now -= HOUR

    complete_studies(ledger, PATIENCE, clock.now)
    assert ledger.gathering() == []


def test_a_study_that_goes_on_coming_after_the_clock_was_set_back_stays_open(
    ledger: Ledger, clock: Clock, later: Callable[[float], None]
) -> None:
    clock.now += DAY
    ledger.record([received(at=clock.now)])
    clock.now -= HOUR
    ledger.record([received("1.1.2", at=clock.now)])
    assert only(ledger).last_at == clock.now

    later(59)
    complete_studies(ledger, PATIENCE, clock.now)
    assert len(ledger.gathering()) == 1
    later(2)
    complete_studies(ledger, PATIENCE, clock.now)
    assert ledger.gathering() == []


def test_an_old_file_that_is_found_does_not_make_a_study_seem_quiet(
    ledger: Ledger, clock: Clock
) -> None:
    clock.now += DAY
    ledger.record([received(at=clock.now)])
    ledger.record([received("1.1.2", at=1000.0)])

    assert only(ledger).last_at == clock.now


def test_what_waits_to_be_sent_or_confirmed_does_not_wait_for_a_clock_that_was_set_back(
    ledger: Ledger, clock: Clock
) -> None:
    job_id = queue_a_job(ledger)
    report(ledger, job_id, a_report(job_id))
    clock.now += 30 * DAY
    ledger.postpone(ledger.due("pacs"), "pacs", "no answer", next_at=clock.now + 600)
    assert ledger.due("pacs", 600) == []
    clock.now -= HOUR
    (pending,) = ledger.due("pacs", 600)

    confirmations = Confirmations(ledger, Backoff(5, 600))
    uid = pending.encodings[0].sop_uid
    ledger.note_delivery(pending, "pacs", "SENT", "", sent_as=uid, next_at=clock.now + 600)
    assert confirmations.due("pacs") == []
    clock.now -= 7 * DAY
    assert [each.sop_uid for each in confirmations.due("pacs")] == [uid]


def test_a_dead_worker_s_lease_does_not_live_on_after_the_clock_was_set_back(
    ledger: Ledger, clock: Clock, later: Callable[[float], None]
) -> None:
    clock.now += DAY
    job_id = queue_a_job(ledger)
    assert ledger._lend(job_id, "worker", 60, ABLE) is not None
    clock.now -= HOUR
    assert ledger.reclaim(60) == [], "a worker that lives has had no time to say so"
    later(61)
    assert ledger.reclaim(60) == [job_id]


def test_a_worker_that_lives_keeps_its_job_when_the_clock_is_set(
    ledger: Ledger, clock: Clock, later: Callable[[float], None]
) -> None:
    job_id = queue_a_job(ledger)
    job = ledger._lend(job_id, "worker", 60, ABLE)
    assert job is not None
    for jump in (HOUR, -2 * HOUR):
        clock.now += jump
        assert ledger.reclaim(60) == []
        later(15)
        assert ledger.extend(job, 60)
        later(50)
        assert ledger.reclaim(60) == []
        assert ledger.extend(job, 60)
    assert job_states(ledger) == {job_id: "RUNNING"}


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_no_listener_is_called_silent_because_the_clock_was_set(
    ledger: Ledger, clock: Clock, later: Callable[[float], None], jump: float
) -> None:
    first, second = Watch(ledger, 60, "ward-a:100"), Watch(ledger, 60, "ward-b:100")
    first.beat()
    second.beat()
    clock.now += jump
    assert second.silent() == set()
    assert not second.is_alone()
    second.beat()
    assert not second.is_ours()
    later(15)
    first.beat()
    later(46)
    second.beat()
    assert second.silent() == set()
    assert not second.is_ours()


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_listener_that_died_before_the_clock_was_set_is_silent_a_little_later(
    ledger: Ledger, clock: Clock, later: Callable[[float], None], jump: float
) -> None:
    first, second = Watch(ledger, 60, "ward-a:100"), Watch(ledger, 60, "ward-b:100")
    first.beat()
    second.beat()
    clock.now += jump
    second.beat()
    later(61)
    second.beat()
    assert second.silent() == {"ward-a:100"}
    assert second.is_ours()
