"""The short form of `make fuzz` against a real listener, and inputs that hypothesis shrinks."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import wire
from tests.fuzz.attack import Attack, Verdict, speak
from tests.fuzz.datasets import header
from tests.fuzz.sessions import FAMILIES, Session, messages, stored
from tests.fuzz.target import Target, attacked

INPUTS = 80


@pytest.fixture(scope="module", params=[True, False], ids=["quick", "usual"])
def target(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Target]:
    with attacked(tmp_path_factory.mktemp("fuzz") / "listener", quick=request.param) as listener:
        yield listener


def test_a_listener_answers_or_aborts_and_stays_as_it_was(target: Target) -> None:
    verdict = Verdict()
    Attack(target, 0, verdict).run(range(INPUTS), INPUTS)

    assert verdict.faults == []
    assert verdict.inputs == INPUTS
    assert verdict.answers["status 0x0000"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_answered(target: Target, family: str) -> None:
    born = set(target.processes)
    _weight, make = FAMILIES[family]
    answer = speak(make(random.Random(family), family), target.port)

    assert answer.ending == "closed"
    assert set(target.processes) == born


uids = st.one_of(
    st.from_regex(r"[0-9.]{0,70}", fullmatch=True),
    st.text(max_size=70),
    st.sampled_from(["../../etc/passwd", "1.2.3\0", "1.2.*", "1.2.3\n"]),
)
element = st.tuples(
    st.sampled_from([0x0002, 0x0100, 0x0110, 0x0700, 0x0800, 0x1000, 0x1008, 0x0000, 0xFFFF]),
    st.one_of(st.binary(max_size=4), st.integers(0, 65535).map(lambda n: n.to_bytes(2, "little"))),
)
pieces = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40)), max_size=6
)
unhurried = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@unhurried
@given(study=uids, series=uids, sop=uids, told=uids)
def test_whatever_the_uids_are_nothing_is_written_elsewhere(
    target: Target, study: str, series: str, sop: str, told: str
) -> None:
    parts = header(*(each.encode("utf-8")[:64] for each in (study, series, sop)))
    answer = speak(
        Session("uids", wire.proposal(), tuple(stored(told, b"".join(parts)))), target.port
    )

    assert answer.ending == "closed"
    assert target.written_elsewhere() == []


@unhurried
@given(fields=st.lists(element, max_size=8), context=st.integers(0, 16))
def test_whatever_a_command_holds_its_association_ends(
    target: Target, fields: list[tuple[int, bytes]], context: int
) -> None:
    sent = messages(context, wire.command(fields), b"\0" * 10)
    answer = speak(Session("command", wire.proposal(), tuple(sent), statuses=0), target.port)

    assert answer.ending == "closed"


@unhurried
@given(values=pieces, length=st.one_of(st.none(), st.integers(0, 2**32 - 1)))
def test_whatever_a_pdu_holds_its_association_ends(
    target: Target, values: list[tuple[int, int, bytes]], length: int | None
) -> None:
    body = b"".join(wire.fragment(*each) for each in values)
    sent = wire.pdu(wire.P_DATA, body, length)
    answer = speak(Session("pdu", wire.proposal(), (sent,), statuses=0), target.port)

    assert answer.ending == "closed"


def test_after_all_that_the_listener_is_as_it_was(target: Target) -> None:
    assert target.faults(set(target.processes)) == []
