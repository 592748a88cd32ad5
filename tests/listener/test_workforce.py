"""Who of the workers lives is told by their hearts' last beat."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from listener.ledger import Ledger
from listener.tables import metadata
from listener.workforce import (
    ALIVE_SECONDS,
    FORGOTTEN_SECONDS,
    Worker,
    Workforce,
    without_a_worker,
)
from tests.listener.conftest import BUNDLE
from tests.listener.test_ledger import Clock, postgresql  # noqa: F401 - a fixture

HELD = ("fistula", *BUNDLE.edition)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")
    book = Ledger(url, clock=clock)
    yield book
    metadata.drop_all(book._engine)
    book.close()


def beat(ledger: Ledger, name: str, started_at: float = 900.0) -> Worker:
    worker = Worker(name, started_at, ledger.now, "cuda:0", [HELD], {"used": 1, "total": 2})
    Workforce(ledger).beat(worker)
    return worker


def test_a_beat_is_read_as_it_was_written_and_a_later_one_takes_its_place(
    ledger: Ledger, clock: Clock
) -> None:
    beat(ledger, "host:1")
    clock.now += 15
    later = beat(ledger, "host:1")

    assert Workforce(ledger).known() == [later]


def test_who_was_not_heard_of_is_dead_after_a_minute_and_forgotten_after_a_day(
    ledger: Ledger, clock: Clock
) -> None:
    gone = beat(ledger, "host:1")
    clock.now += ALIVE_SECONDS + 1
    here = beat(ledger, "host:2")
    assert Workforce(ledger).known() == [gone, here]
    assert Workforce(ledger).alive() == [here]
    clock.now += FORGOTTEN_SECONDS - ALIVE_SECONDS
    here = beat(ledger, "host:2")

    assert Workforce(ledger).known() == [here]


def test_who_stops_in_order_is_gone_at_once(ledger: Ledger) -> None:
    beat(ledger, "host:1")
    Workforce(ledger).leave("host:1")
    Workforce(ledger).leave("host:1")

    assert Workforce(ledger).known() == []


def test_an_analysis_lacks_a_worker_until_one_lives_that_holds_its_active_bundle(
    ledger: Ledger, clock: Clock
) -> None:
    assert without_a_worker(ledger, ["fistula"]) == ["fistula"]
    ledger.register_bundle(BUNDLE)
    assert without_a_worker(ledger, ["fistula"]) == ["fistula"]
    beat(ledger, "host:1")
    assert without_a_worker(ledger, ["fistula", "infection"]) == ["infection"]
    clock.now += ALIVE_SECONDS + 1
    assert without_a_worker(ledger, ["fistula"]) == ["fistula"]
