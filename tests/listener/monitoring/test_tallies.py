"""What counts up never goes back, whatever is retried, restarted or written late."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from listener.ledger import Ledger
from listener.monitoring.tallies import (
    ALL_SCANNERS,
    MOST_SCANNERS,
    OTHER_SCANNERS,
    UNKNOWN_SCANNER,
    FinishedJobs,
    Histogram,
)
from listener.series import SELFTEST_STATION
from listener.tables import jobs, metadata, studies
from tests.listener.monitoring.conftest import SCANNER, Clinic, refused, reported
from tests.listener.test_ledger import postgresql  # noqa: F401 - a fixture

REPORT = ("fistula", "active", "report")
REFUSAL = ("fistula", "active", "refusal")


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")
    book = Ledger(url)
    yield book
    metadata.drop_all(book._engine)
    book.close()


def test_each_job_is_counted_once_and_a_restart_counts_the_same(clinic: Clinic) -> None:
    running = FinishedJobs(clinic.ledger)
    for probability in (0.1, 0.2, 0.9):
        clinic.study(reported(probability))
        running.read()
    clinic.study(refused("REASON-NO-CONTRAST"))
    running.read()
    running.read()
    restarted = FinishedJobs(clinic.ledger)
    restarted.read()

    for finished in (running, restarted):
        tallies = finished.tallies
        assert tallies.answers == {REPORT: 3, REFUSAL: 1}
        assert tallies.refusals == {("fistula", "active", "REASON-NO-CONTRAST"): 1}
        assert tallies.conclusions == {("fistula", "active", "high"): 3}
        assert tallies.stages["fistula", "active", "infer"].sum == 6.0
        scores = {kind.scanner: each for kind, each in tallies.scores.items()}
        assert scores[SCANNER].buckets[0] == ("0.1", 1.0)
        assert scores[SCANNER].buckets[-1] == ("+Inf", 3.0)


def test_a_refusal_that_may_be_retried_is_not_counted_until_it_is_answered(clinic: Clinic) -> None:
    running = FinishedJobs(clinic.ledger)
    job_id = clinic.study(refused("REASON-INTERNAL", retriable=True))
    running.read()
    assert running.tallies.answers == {}
    clinic.ledger.retry("1.2.1")
    clinic.answer(job_id, reported())
    running.read()

    assert running.tallies.answers == {REPORT: 1}


def test_a_job_that_is_written_down_late_is_counted(clinic: Clinic) -> None:
    """Another host's clock is behind, or its transaction took its time."""
    running = FinishedJobs(clinic.ledger)
    late = clinic.study(reported())
    with clinic.ledger.writing() as connection:
        connection.execute(update(jobs).values(finished_at=None))
    clinic.study(reported())
    running.read()
    with clinic.ledger.writing() as connection:
        this = update(jobs).where(jobs.c.job_id == late)
        connection.execute(this.values(finished_at=time.time() - 60))
    running.read()
    running.read()

    assert running.tallies.answers == {REPORT: 2}


def test_shadows_are_never_mixed_with_what_is_sent(clinic: Clinic) -> None:
    clinic.study(reported(0.1))
    shadow = clinic.study(reported(0.9))
    with clinic.ledger.writing() as connection:
        this = update(jobs).where(jobs.c.job_id == shadow)
        connection.execute(this.values(role="shadow"))
    finished = FinishedJobs(clinic.ledger)
    finished.read()

    assert finished.tallies.answers == {REPORT: 1, ("fistula", "shadow", "report"): 1}
    latest = {
        kind.role: [each.score for each in scored]
        for kind, scored in finished.tallies.latest.items()
        if kind.scanner == ALL_SCANNERS
    }
    assert latest == {"active": [0.1], "shadow": [0.9]}


def test_there_are_only_so_many_scanners_whatever_stations_call_themselves(clinic: Clinic) -> None:
    for number in range(MOST_SCANNERS + 2):
        clinic.study(reported(), scanner=f"station {number}")
    clinic.study(reported(), scanner=None)
    finished = FinishedJobs(clinic.ledger)
    finished.read()

    names = {kind.scanner for kind in finished.tallies.scores}
    assert {OTHER_SCANNERS, UNKNOWN_SCANNER} < names
    assert len(names) == MOST_SCANNERS + 2
    assert finished.tallies.answers[REPORT] == MOST_SCANNERS + 3


def silent(ledger: Ledger, days: float) -> None:
    """As if all studies so far had come so long ago."""
    with ledger.writing() as connection:
        connection.execute(update(studies).values(last_at=studies.c.last_at - 86400 * days))


def test_a_new_scanner_gets_the_place_of_one_that_is_silent(clinic: Clinic) -> None:
    finished = FinishedJobs(clinic.ledger)
    for number in range(MOST_SCANNERS):
        clinic.study(reported(0.3), scanner=f"old {number}")
    finished.read()
    silent(clinic.ledger, 31)
    for _ in range(2):
        clinic.study(reported(0.7), scanner="new")
        finished.read()

    scores = {kind.scanner: each for kind, each in finished.tallies.scores.items()}
    assert scores["new"].buckets[-1] == ("+Inf", 2.0)
    assert len(scores) == MOST_SCANNERS, "more scanners than have places"
    assert OTHER_SCANNERS not in scores, "a sum rose although no study came"
    assert finished.tallies.answers[REPORT] == MOST_SCANNERS + 2


def test_scanners_with_most_studies_have_places_whoever_came_first(clinic: Clinic) -> None:
    for number in range(MOST_SCANNERS):
        clinic.study(reported(), scanner=f"station {number}")
    for _ in range(2):
        clinic.study(reported(), scanner="the busiest")
    finished = FinishedJobs(clinic.ledger)
    finished.read()

    scores = {kind.scanner: each for kind, each in finished.tallies.scores.items()}
    assert scores["the busiest"].buckets[-1] == ("+Inf", 2.0)
    assert scores[OTHER_SCANNERS].buckets[-1] == ("+Inf", 1.0)


def test_a_scanner_that_is_silent_keeps_its_place_while_there_is_room(clinic: Clinic) -> None:
    finished = FinishedJobs(clinic.ledger)
    clinic.study(reported(), scanner="rare")
    finished.read()
    silent(clinic.ledger, 31)
    clinic.study(reported(), scanner="usual")
    finished.read()

    assert {kind.scanner for kind in finished.tallies.scores} == {"rare", "usual"}


def test_what_a_self_test_sends_is_not_taken_for_what_scanners_do(clinic: Clinic) -> None:
    clinic.study(reported(0.1))
    clinic.study(reported(0.9), scanner=f"MONRO {SELFTEST_STATION}")
    finished = FinishedJobs(clinic.ledger)
    finished.read()

    (of_all,) = (
        scored for kind, scored in finished.tallies.latest.items() if kind.scanner == ALL_SCANNERS
    )
    assert [each.score for each in of_all] == [0.1]


def test_what_the_input_was_like_is_read_from_a_job_s_summary(clinic: Clinic) -> None:
    clinic.study(reported(input={"noise": 0.25, "note": "none"}))
    clinic.study(reported())
    finished = FinishedJobs(clinic.ledger)
    finished.read()

    (latest,) = (
        scored for kind, scored in finished.tallies.latest.items() if kind.scanner == SCANNER
    )
    assert [each.value("input noise") for each in latest] == [0.25, None]
    assert latest[0].value("input note") is None


def test_a_value_on_a_bound_counts_below_it() -> None:
    histogram = Histogram([1.0, 2.0])
    for value in (1.0, 1.5, 3.0):
        histogram.add(value)

    assert histogram.buckets == [("1.0", 1.0), ("2.0", 2.0), ("+Inf", 3.0)]
