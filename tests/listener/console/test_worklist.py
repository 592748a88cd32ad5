"""The worklist's pages and filters, in SQLite and in PostgreSQL."""

from datetime import date, datetime, timedelta

import pytest
from sqlalchemy import insert, update

from listener.console import study as study_module
from listener.console import work
from listener.console import worklist as module
from listener.console.bundle_list import read_bundles
from listener.console.latest import Place
from listener.console.study import read_study
from listener.console.work import read_queue
from listener.console.worklist import (
    Turn,
    Wanted,
    refusals,
    scanners,
    these_studies,
    worklist,
)
from listener.entries import BundleRow
from listener.ledger import Ledger
from listener.tables import deliveries, jobs, results, studies
from tests.listener.test_ledger import clock, ledger, postgresql  # noqa: F401

DAY = datetime(2026, 3, 1, 12).astimezone().timestamp()


def add_study(book: Ledger, uid: str, at: float = DAY, **changes: object) -> None:
    row = {
        "study_uid": uid, "state": "COMPLETE", "revision": 1, "planned_revision": 1,
        "first_at": at, "last_at": at, "received": 3, "scanner": "Magneto",
    }  # fmt: skip
    with book.writing() as connection:
        connection.execute(insert(studies).values(row | changes))


def add_job(book: Ledger, uid: str, state: str, **changes: object) -> str:
    with book.writing() as connection:
        number = len(connection.execute(jobs.select()).all())
        job_id = f"job-{number}"
        row = {
            "job_id": job_id, "study_uid": uid, "analysis": "fistula", "role": "active",
            "digest": "d", "weights_sha256": "a", "bundle_version": "1", "revision": 1,
            "state": state, "created_at": DAY + number, "attempts": 1,
        }  # fmt: skip
        connection.execute(insert(jobs).values(row | changes))
        connection.execute(update(studies).where(studies.c.study_uid == uid).values(has_jobs=True))
    return job_id


def add_delivery(book: Ledger, job_id: str, state: str, attempts: int) -> None:
    sop_uid = f"{job_id}.{state}.{attempts}"
    with book.writing() as connection:
        connection.execute(
            insert(results).values(
                sop_uid=sop_uid, job_id=job_id, kind="report", number=0, phase=1,
                series_uid="1", sop_class="1", path="/nowhere",
            )
        )  # fmt: skip
        connection.execute(
            insert(deliveries).values(
                sop_uid=sop_uid, destination="pacs", state=state, attempts=attempts, next_at=0.0
            )
        )


def listed(book: Ledger, **wanted: object) -> list[str]:
    found = worklist(book, Wanted(**wanted), Turn())  # type: ignore[arg-type]
    return [each.study_uid for each in found.studies]


def test_pages_follow_each_other_and_lead_back_though_times_are_alike(
    ledger: Ledger,  # noqa: F811
) -> None:
    for number in range(7):
        add_study(ledger, f"1.{number}", DAY + number // 3)

    seen, places, before = [], [], None
    while True:
        page = worklist(ledger, Wanted(), Turn(before=before, limit=3))
        seen.append([each.study_uid for each in page.studies])
        places.append(page)
        if page.older is None:
            break
        before = Place.parse(page.older)

    assert seen == [["1.6", "1.5", "1.4"], ["1.3", "1.2", "1.1"], ["1.0"]]
    assert places[0].newer is None
    back = worklist(ledger, Wanted(), Turn(after=Place.parse(places[2].newer or ""), limit=3))
    assert [each.study_uid for each in back.studies] == seen[1]
    assert back.newer is not None
    first = worklist(ledger, Wanted(), Turn(after=Place.parse(back.newer), limit=3))
    assert [each.study_uid for each in first.studies] == seen[0]
    assert first.newer is None


@pytest.mark.parametrize("few", [0, 2_000])
def test_every_filter_finds_what_it_names_whichever_way_it_is_asked(
    ledger: Ledger,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    monkeypatch.setattr(module, "FEW", few)
    add_study(ledger, "1.1", DAY, state="RECEIVING", revision=0, planned_revision=0)
    add_study(ledger, "1.2", DAY - 1, planned_revision=0, scanner="Other")
    add_study(ledger, "1.3", DAY - 2)
    add_study(ledger, "1.40", DAY - 3)
    add_study(ledger, "1.41", DAY - 86_400)
    add_study(ledger, "1.42", DAY - 5)
    good = add_job(ledger, "1.40", "REPORTED", probability=0.9, band="suggested")
    add_job(ledger, "1.40", "REPORTED", role="shadow", band="undetermined")
    add_job(ledger, "1.41", "REFUSED", refusal="REASON-X", analysis="infection")
    bad = add_job(ledger, "1.42", "FAILED")
    add_delivery(ledger, good, "CONFIRMED", 1)
    add_delivery(ledger, good, "PENDING", 0)
    add_delivery(ledger, bad, "PENDING", 2)

    assert listed(ledger) == ["1.1", "1.2", "1.3", "1.40", "1.42", "1.41"]
    assert listed(ledger, state="receiving") == ["1.1"]
    assert listed(ledger, state="waiting") == ["1.2"]
    assert listed(ledger, state="aside") == ["1.3"]
    assert listed(ledger, state="reported") == ["1.40"]
    assert listed(ledger, state="refused", refusal="REASON-X") == ["1.41"]
    assert listed(ledger, state="failed") == ["1.42"]
    assert listed(ledger, analysis="infection") == ["1.41"]
    assert listed(ledger, band="suggested") == ["1.40"]
    assert listed(ledger, band="undetermined") == []
    assert listed(ledger, scanner="Other") == ["1.2"]
    assert listed(ledger, trouble=True) == ["1.42"]
    assert listed(ledger, uid="1.4") == ["1.40", "1.42", "1.41"]
    day = date(2026, 3, 1)
    assert listed(ledger, until=day - timedelta(days=1)) == ["1.41"]
    assert "1.41" not in listed(ledger, since=day)
    assert scanners(ledger) == ("Magneto", "Other")
    assert refusals(ledger) == ("REASON-X",)


@pytest.mark.parametrize("few", [0, 2_000])
def test_filters_look_at_the_answer_and_at_nothing_that_was_said_before(
    ledger: Ledger,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    monkeypatch.setattr(module, "FEW", few)
    for number in range(1, 5):
        add_study(ledger, f"1.{number}", DAY - number, revision=2)
    add_job(ledger, "1.1", "REPORTED", band="suggested")
    add_job(ledger, "1.1", "REPORTED", band="not suggested", revision=2)
    add_job(ledger, "1.2", "REFUSED", refusal="REASON-X")
    add_job(ledger, "1.2", "RUNNING", revision=2)
    add_job(ledger, "1.3", "REPORTED", band="suggested")
    add_job(ledger, "1.3", "SUPERSEDED", revision=2)
    add_job(ledger, "1.3", "REPORTED", band="not suggested", role="shadow", revision=2)
    add_job(ledger, "1.3", "REPORTED", band="not suggested", analysis="infection", revision=2)
    # The same revision, planned again for another bundle.
    again = {"created_at": DAY, "band": "suggested"}
    add_job(ledger, "1.4", "REPORTED", finished_at=DAY + 20, **{**again, "band": "undetermined"})
    add_job(ledger, "1.4", "REPORTED", finished_at=DAY + 10, **again)

    assert listed(ledger, band="suggested") == ["1.3"]
    assert listed(ledger, band="not suggested") == ["1.1", "1.3"]
    assert listed(ledger, band="undetermined") == ["1.4"]
    assert listed(ledger, refusal="REASON-X") == []
    assert listed(ledger, state="refused") == []
    assert listed(ledger, state="running") == ["1.2"]
    assert listed(ledger, analysis="fistula", band="not suggested") == ["1.1"]
    (row,) = these_studies(ledger, ["1.4"]).studies
    assert [each.band for each in row.answers] == ["undetermined"]
    study = read_study(ledger, "1.4")
    assert study is not None
    assert [each.band for each in study.answers] == ["undetermined"]


@pytest.mark.parametrize("few", [0, 2_000])
def test_a_filter_looks_among_the_jobs_of_a_study_and_not_among_all_of_an_analysis(
    ledger: Ledger,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    """With 100,000 studies the other way takes ten seconds."""
    monkeypatch.setattr(module, "FEW", few)
    with ledger.reading() as connection:
        if connection.dialect.name != "sqlite":
            pytest.skip("PostgreSQL counts rows before it chooses")
        wanted = Wanted(state="refused", analysis="fistula", band="suggested", refusal="X")
        query, _ = module._query(connection, wanted)
        literal = query.compile(connection.engine, compile_kwargs={"literal_binds": True})
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {literal}").all()

    by_study = [row[3] for row in plan if "USING INDEX jobs_of_study (study_uid=?" in row[3]]
    assert len(by_study) == 2, plan


def test_a_row_shows_the_last_answer_of_each_analysis_and_no_shadow(
    ledger: Ledger,  # noqa: F811
) -> None:
    add_study(ledger, "1.1")
    add_job(ledger, "1.1", "REFUSED", revision=1)
    add_job(ledger, "1.1", "REPORTED", revision=2, probability=0.4)
    add_job(ledger, "1.1", "SUPERSEDED", revision=3)
    add_job(ledger, "1.1", "REPORTED", revision=2, role="shadow", probability=0.9)
    add_job(ledger, "1.1", "QUEUED", analysis="infection")

    (row,) = these_studies(ledger, ["1.1", "9.9"]).studies

    assert [(each.analysis, each.state, each.probability) for each in row.answers] == [
        ("fistula", "REPORTED", 0.4),
        ("infection", "QUEUED", None),
    ]


def test_a_study_is_read_whole_with_its_bundle_and_deliveries(
    ledger: Ledger,  # noqa: F811
) -> None:
    add_study(ledger, "1.1")
    card = {"threshold_low": 0.2, "threshold_high": 0.8, "ood_limit": 97.0}
    for version, weights in (("1", "a"), ("2", "b")):
        ledger.register_bundle(BundleRow("fistula", "demo", version, weights, card))
    job_id = add_job(ledger, "1.1", "REPORTED", probability=0.4, summary={"disagreement": 0.1})
    add_delivery(ledger, job_id, "PENDING", 2)
    add_delivery(ledger, job_id, "CONFIRMED", 1)

    study = read_study(ledger, "1.1")

    assert study is not None
    (job,) = study.answers
    assert (job.bundle_name, job.limits, job.ood_limit) == ("demo", (0.2, 0.8), 97.0)
    assert [(each.kind, each.count) for each in job.results] == [("report", 2)]
    assert {(each.state, each.attempts) for each in study.deliveries} == {
        ("PENDING", 2),
        ("CONFIRMED", 1),
    }
    assert study.is_live
    assert read_study(ledger, "1.2") is None
    assert [each.role for each in read_bundles(ledger)] == ["active", "shadow"]


def test_lists_that_end_say_so(
    ledger: Ledger,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "MOST_LISTED", 2)
    monkeypatch.setattr(study_module, "MOST_EVENTS", 2)
    for number in range(3):
        add_study(ledger, f"1.{number}", planned_revision=number % 2)
        add_job(ledger, f"1.{number}", "QUEUED")
        with ledger.writing() as connection:
            ledger.note(connection, "1.0", "something", f"for the time {number}")

    queue = read_queue(ledger)
    assert (len(queue.queued), len(queue.held), queue.cut) == (2, 2, ("queued",))
    study = read_study(ledger, "1.0")
    assert study is not None
    assert [each.detail[-1] for each in study.events] == ["2", "1"]
    assert study.has_more_events
    assert not read_study(ledger, "1.1").has_more_events  # type: ignore[union-attr]


def test_when_a_destination_is_down_the_list_of_troubles_says_that_it_ends(
    ledger: Ledger,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_TROUBLED", 2)
    for number in range(3):
        add_study(ledger, f"1.{number}")
        add_delivery(ledger, add_job(ledger, f"1.{number}", "REPORTED"), "PARKED", 1)

    page = worklist(ledger, Wanted(trouble=True), Turn())

    assert len(page.studies) == 2
    assert page.is_cut
    (outgoing,) = read_queue(ledger).outgoing
    assert (outgoing.destination, outgoing.state, outgoing.count) == ("pacs", "PARKED", 3)
