"""Several listeners, one ledger: one has the watch, and another takes it over."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from listener.ledger import Ledger, process_name
from listener.tables import metadata
from listener.watch import Watch
from tests.listener.test_ledger import Clock, at_once, postgresql

__all__ = ["postgresql"]

FIRST, SECOND = "ward-a:100", "ward-b:100"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    url = (
        f"sqlite:///{tmp_path / 'ledger.sqlite'}"
        if request.param == "sqlite"
        else request.getfixturevalue("postgresql")
    )
    book = Ledger(url, clock=clock)
    yield book
    metadata.drop_all(book._engine)
    book.close()


def test_the_first_has_the_watch_and_keeps_it(shared: Ledger, clock: Clock) -> None:
    first, second = Watch(shared, 60, FIRST), Watch(shared, 60, SECOND)
    for _ in range(3):
        first.beat()
        second.beat()
        clock.now += 30
        assert (first.is_ours(), second.is_ours()) == (True, False)


def test_another_takes_over_once_the_time_of_a_silent_one_is_out(
    shared: Ledger, clock: Clock
) -> None:
    first, second = Watch(shared, 60, FIRST), Watch(shared, 60, SECOND)
    first.beat()
    clock.now += 59
    second.beat()
    assert not second.is_ours()
    clock.now += 2
    second.beat()
    assert second.is_ours()

    first.beat()
    assert (first.is_ours(), second.is_ours()) == (False, True)
    assert (first.was_ours(), second.was_ours()) == (False, True)


def test_who_leaves_hands_the_watch_over_at_once(shared: Ledger) -> None:
    first, second = Watch(shared, 60, FIRST), Watch(shared, 60, SECOND)
    first.start()
    second.beat()
    assert not second.is_alone()
    first.stop()
    second.beat()

    assert not first.is_ours()
    assert second.is_ours()
    assert second.is_alone()
    assert second.silent() == set()


def test_who_cannot_reach_the_ledger_loses_the_watch_before_another_may_have_it(
    tmp_path: Path,
) -> None:
    book = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    watch = Watch(book, 0.2, FIRST)
    watch.beat()
    assert watch.is_ours()
    time.sleep(0.25)
    assert not watch.is_ours()
    assert watch.was_ours()
    book.close()


def test_a_killed_listener_of_this_host_is_not_waited_for(shared: Ledger) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    first, second = Watch(shared, 60, process_name(dead.pid)), Watch(shared, 60, SECOND)
    first.beat()
    second.beat()

    assert second.is_ours()
    assert second.silent() == {process_name(dead.pid)}


def test_processes_are_gone_with_the_last_listener_of_their_host(
    shared: Ledger, clock: Clock
) -> None:
    here, there, also_there = (
        Watch(shared, 60, name) for name in (FIRST, "ward-b:100", "ward-b:200")
    )
    for each in (here, there, also_there):
        each.beat()
    clock.now += 61
    here.beat()
    also_there.beat()
    assert here.silent() == {"ward-b:100"}
    assert not here.is_gone_with(here.silent())("ward-b:101")

    clock.now += 61
    here.beat()
    is_gone = here.is_gone_with(here.silent())
    assert is_gone("ward-b:101")
    assert not is_gone("ward-a:101")
    assert not is_gone("ward-c:101")
    here.forget(here.silent())
    assert here.silent() == set()


def test_of_many_that_start_at_once_one_has_the_watch(shared: Ledger) -> None:
    watches = [Watch(shared, 60, f"ward-{number}:1") for number in range(8)]
    at_once(watch.beat for watch in watches)

    assert sum(watch.is_ours() for watch in watches) == 1
