"""Who sends slowly has time, and who hardly sends has little."""

import pytest

from listener import pace
from listener.pace import Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(pace, "monotonic", found)
    return found


def test_a_drop_now_and_then_comes_to_an_end(clock: Clock) -> None:
    found = Pace(600, 1024)
    drops = 0
    while found.seconds_left > 0:
        found.note(1)
        clock.now += 59
        drops += 1
    assert drops == 11


def test_what_keeps_the_pace_goes_on_for_ever(clock: Clock) -> None:
    found = Pace(600, 1024)
    for _ in range(10_000):
        found.note(1024)
        clock.now += 1
    assert found.seconds_left == 600


def test_what_came_quickly_pays_for_a_pause(clock: Clock) -> None:
    found = Pace(10, 1000)
    found.note(50_000)
    clock.now += 59
    assert found.seconds_left == 1
