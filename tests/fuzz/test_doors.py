"""The short form of `make fuzz` at the other doors: STOW-RS, TLS, and sources that are asked."""

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import archives, handshakes, requests, services, sources, tls, web
from tests.fuzz.attack import Attack, Door, Input, Verdict
from tests.fuzz.target import Target

Opening = Callable[[Path], AbstractContextManager[Target]]
Families = Mapping[str, tuple[float, Callable[[random.Random, str], Input]]]

HASTY_SECONDS = 1.5

DOORS = {
    "STOW-RS": (web.attacked_by_web, web.DOOR, [requests.FAMILIES], 40),
    "TLS": (tls.attacked_by_tls, tls.DOOR, [handshakes.FAMILIES], 40),
    "sources": (
        partial(sources.attacked_by_sources, timeout_seconds=HASTY_SECONDS),
        sources.DOOR,
        [services.FAMILIES, archives.FAMILIES],
        8,
    ),
}


def one_of_each(families: list[Families]) -> Callable[[random.Random], Input]:
    """Draws every family once."""
    left = [(name, make) for each in families for name, (_weight, make) in each.items()]

    def draw(dice: random.Random) -> Input:
        name, make = left.pop()
        return make(dice, name)

    return draw


@pytest.mark.parametrize("name", DOORS)
def test_a_listener_answers_or_aborts_and_stays_as_it_was(name: str, tmp_path: Path) -> None:
    opening: Any
    opening, door, families, inputs = DOORS[name]
    number = sum(map(len, families))
    verdict = Verdict()
    with opening(tmp_path / "listener") as target:
        each = replace(door, draw=one_of_each(families))
        Attack(target, 0, verdict, each).run(range(number), number)
        Attack(target, 1, verdict, door).run(range(inputs), inputs)

    assert verdict.faults == []
    assert verdict.inputs == number + inputs
    assert set(verdict.families) == {family for each in families for family in each}
    assert verdict.answers[door.kept] > 0


def test_a_door_that_answers_what_it_never_should_is_a_fault(tmp_path: Path) -> None:
    strict = replace(web.DOOR, draw=requests.sound, kept="200", never="200")
    deaf = Door(requests.sound, web.DOOR.speak, kept="299")
    verdict = Verdict()
    with web.attacked_by_web(tmp_path / "listener") as target:
        (tmp_path / "listener" / "home" / "planted").write_text("")
        Attack(target, 0, verdict, deaf).run(range(1), 1)
        Attack(target, 0, verdict, replace(strict, draw=_unsound)).run(range(1), 1)

    assert [each.partition(":")[2] for each in verdict.faults] == [
        " a sound instance got 200",
        " home/planted was written",
        " 200",
        " home/planted was written",
    ]
    assert verdict.written_elsewhere == 2


def _unsound(dice: random.Random) -> requests.Request:
    return replace(requests.sound(dice), family="noise")
