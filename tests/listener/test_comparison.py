"""A shadow beside the bundle in service: pairs of the same input, and who was right."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from sqlalchemy import Connection, event

from listener.comparison import auroc, compare
from listener.entries import Answer, BundleRow, Plan, Received
from listener.labels import BadLabels, Label, keep_labels, read_labels
from listener.ledger import Ledger
from listener.rollout import promote
from listener.series import InstanceKey
from listener.spool import Arrival, Held
from listener.tables import jobs
from tests.postgresql import postgresql_server

ACTIVE = BundleRow("fistula", "demo", "1.0.0", "a" * 64)
SHADOW = BundleRow("fistula", "demo", "1.1.0", "b" * 64)
ABLE = {ACTIVE.edition, SHADOW.edition}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    book.register_bundle(ACTIVE)
    book.register_bundle(SHADOW)
    yield book
    book.close()


def band(probability: float) -> str:
    return "suggested" if probability >= 0.7 else "not suggested" if probability < 0.3 else "?"


def judged(ledger: Ledger, study: str, active: float | None, shadow: float | None) -> None:
    """A study that both bundles judged; None: refused."""
    key = InstanceKey(study, f"{study}.1", f"{study}.1.1")
    held = Held(key, Path("/spool") / study, "f" * 64, 1, Arrival.NEW, 1000.0)
    ledger.record([Received(held, None, 1000.0)])
    (gathering,) = ledger.gathering()
    ledger.complete(gathering, "quiet")
    plan = Plan("fistula", f"{study}.1", tuple(ledger.instances_of(study)))
    wanted = [(plan, each) for each in ledger.wanted_bundles("fistula")]
    for job_id, probability in zip(
        ledger.plan(study, 1, wanted, {}), (active, shadow), strict=True
    ):
        with ledger.lease(job_id, "worker", 60, ABLE) as lease:
            assert lease is not None
            ledger.keep(lease.job, _answer(probability))


def _answer(probability: float | None) -> Answer:
    if probability is None:
        return Answer("REFUSED", "no", summary={"refused": "REASON-MIXED"})
    return Answer("REPORTED", summary={"probability": probability, "band": band(probability)})


def found(ledger: Ledger):  # type: ignore[no-untyped-def]
    return compare(ledger, "fistula", ACTIVE.edition, SHADOW.edition)


def test_studies_that_both_judged_are_paired_and_those_apart_are_shown_first(
    ledger: Ledger,
) -> None:
    judged(ledger, "1", 0.1, 0.15)
    judged(ledger, "2", 0.9, 0.2)
    judged(ledger, "3", 0.8, None)
    judged(ledger, "4", 0.75, 0.72)
    both = found(ledger)

    assert {each.study_uid for each in both.pairs} == {"1", "2", "3", "4"}
    assert [each.study_uid for each in both.disagreements] == ["3", "2"]
    assert both.same_statement == 0.5
    assert both.mean_difference == pytest.approx((0.05 - 0.7 - 0.03) / 3)
    assert both.active is None
    reach = 1.96 * stdev([0.05, -0.7, -0.03])
    middle = both.mean_difference
    assert both.limits == pytest.approx((middle - reach, middle + reach))


def test_figures_are_of_all_pairs_however_few_are_listed(ledger: Ledger) -> None:
    for number in range(6):
        judged(ledger, f"1.{number}", 0.1 * number, 0.9)
    all_pairs = found(ledger)
    some = compare(ledger, "fistula", ACTIVE.edition, SHADOW.edition, shown=2)

    assert (some.studies, some.disagreeing) == (6, all_pairs.disagreeing) == (6, 6)
    assert some.mean_difference == all_pairs.mean_difference
    assert some.limits == all_pairs.limits
    assert some.kappa == all_pairs.kappa
    assert some.pairs == all_pairs.pairs[:2]
    assert [each.study_uid for each in some.disagreements] == ["1.0", "1.1"]
    latest = compare(ledger, "fistula", ACTIVE.edition, SHADOW.edition, limit=3)
    assert (latest.studies, latest.is_cut, all_pairs.is_cut) == (3, True, False)
    assert {each.study_uid for each in latest.pairs} == {"1.3", "1.4", "1.5"}


def test_pairs_are_the_newest_first_in_whatever_order_the_database_hands_them_over(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        judged(ledger, f"1.{number}", 0.1, 0.2)
    # SQLite happens to keep the order within an aggregate, and promises nothing.
    read = json.loads
    monkeypatch.setattr("listener.comparison.json.loads", lambda text: read(text)[::-1])

    pairs = found(ledger).pairs
    assert [each.study_uid for each in pairs] == [f"1.{number}" for number in range(5, -1, -1)]


def test_with_labels_it_is_told_who_was_right_as_scikit_learn_tells_it(ledger: Ledger) -> None:
    chance = random.Random(0)
    truth = [chance.random() < 0.4 for _ in range(40)]
    one = [round(0.3 * yes + 0.6 * chance.random(), 1) for yes in truth]
    other = [round(0.5 * yes + 0.5 * chance.random(), 1) for yes in truth]
    for number, scores in enumerate(zip(one, other, strict=True)):
        judged(ledger, f"1.{number + 1}", *scores)
    rows = [Label(f"1.{number + 1}", yes) for number, yes in enumerate(truth)]
    kept = keep_labels(ledger, "fistula", [*rows, Label("9.9", True)], "ann")
    assert (kept.labels, kept.unknown) == (41, 1)

    both = found(ledger)

    assert both.active.auroc == pytest.approx(roc_auc_score(truth, one))
    assert both.shadow.auroc == pytest.approx(roc_auc_score(truth, other))
    assert both.kappa == pytest.approx(
        cohen_kappa_score([band(each) for each in one], [band(each) for each in other])
    )
    assert sum(each.studies for each in both.shadow.tenths) == 40
    assert sum(each.positives for each in both.shadow.tenths) == sum(truth)


def test_postgresql_tells_the_same(ledger: Ledger, tmp_path: Path) -> None:
    with postgresql_server(tmp_path / "postgresql") as url:
        other = Ledger(url)
        for book in (ledger, other):
            if book is other:
                book.register_bundle(ACTIVE)
                book.register_bundle(SHADOW)
            assert found(book).pairs == ()
            judged(book, "1", 0.1, 0.15)
            judged(book, "2", 0.9, 0.2)
            judged(book, "3", 0.8, None)
            keep_labels(book, "fistula", [Label("1", False), Label("2", True)], "ann")
        here, there = found(ledger), found(other)
        other.close()

    assert there.active == here.active
    assert there.kappa == here.kappa
    assert there.limits == here.limits
    assert [each.study_uid for each in there.disagreements] == ["3", "2"]
    assert [(each.difference, each.positive) for each in there.pairs] == [
        (each.difference, each.positive) for each in here.pairs
    ]


def test_another_input_of_the_same_study_is_no_pair(ledger: Ledger) -> None:
    judged(ledger, "1", 0.1, 0.2)
    with ledger.writing() as connection:
        connection.exec_driver_sql("UPDATE jobs SET digest = 'other' WHERE role = 'shadow'")

    assert found(ledger).pairs == ()


def test_pairs_are_found_behind_any_number_of_shadows_jobs_that_nothing_answered_beside(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.comparison.FEWEST_SPARE", 1)
    for number in range(12):
        judged(ledger, f"1.{number}", 0.1, 0.2)
    with ledger.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE jobs SET digest = 'other' "
            "WHERE role = 'shadow' AND study_uid NOT IN ('1.0', '1.1', '1.2')"
        )

    latest = compare(ledger, "fistula", ACTIVE.edition, SHADOW.edition, limit=2)
    assert [each.study_uid for each in latest.pairs] == ["1.2", "1.1"]
    assert latest.is_cut
    three = compare(ledger, "fistula", ACTIVE.edition, SHADOW.edition, limit=3)
    assert (three.studies, three.is_cut) == (3, False)


def test_pairs_outlive_the_promotion_that_they_led_to(ledger: Ledger) -> None:
    judged(ledger, "1", 0.1, 0.6)
    promote(ledger, "fistula", SHADOW.edition, "ann")

    (pair,) = compare(ledger, "fistula", SHADOW.edition, ACTIVE.edition).pairs
    assert (pair.active.probability, pair.shadow.probability) == (0.6, 0.1)


def test_self_tests_are_no_pairs(ledger: Ledger) -> None:
    judged(ledger, "1", 0.1, 0.6)
    with ledger.writing() as connection:
        connection.exec_driver_sql("UPDATE studies SET scanner = 'ACME MONRO SELFTEST'")

    assert found(ledger).pairs == ()


def test_a_later_label_replaces_an_earlier_one(ledger: Ledger) -> None:
    judged(ledger, "1", 0.1, 0.2)
    for positive in (True, False):
        keep_labels(ledger, "fistula", [Label("1", positive)], "ann")

    (pair,) = found(ledger).pairs
    assert pair.positive is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study,label\n1.2,1\n", "no column study_uid"),
        ("study_uid,label\n1.2,DOE\n", "another label in line 2"),
        ("study_uid,label\nDOE^JOHN,1\n", "no UID in line 2"),
        ("study_uid,label\n1.2,1\n1.2,0\n", "two labels of one study, in line 3"),
        ("study_uid,label\n", "no rows"),
        ("", "no column study_uid"),
        ("study_uid,label\n1.2," + "x" * 140_000, "no CSV in line"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_as_a_whole(text: str, message: str) -> None:
    with pytest.raises(BadLabels, match=message) as refused:
        read_labels(text)
    assert "DOE" not in str(refused.value)


def test_a_table_from_a_spreadsheet_is_read() -> None:
    text = "\ufeffStudy_UID,other,Label\r\n1.2,x,YES\r\n1.3,,negative\r\n"

    assert read_labels(text) == [Label("1.2", True), Label("1.3", False)]


def test_without_both_classes_there_is_no_auroc() -> None:
    assert auroc([(0.1, True), (0.2, True)]) is None


@pytest.mark.parametrize("youngest", ["jobs_of_study", "jobs_by_finish"])
def test_answers_are_looked_up_by_study_whichever_index_is_the_youngest(
    ledger: Ledger, youngest: str
) -> None:
    plans: list[str] = []

    def explain(connection: Connection, _cursor: object, statement: str, values: Any, *_: object):
        if "json_group_array" in statement:
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            plans.extend(row[-1] for row in cursor.fetchall())

    with ledger.writing() as connection:  # of indexes that promise as much SQLite takes this one
        (index,) = (each for each in jobs.indexes if each.name == youngest)
        index.drop(connection)
        index.create(connection)
        event.listen(connection.engine, "before_cursor_execute", explain)
    compare(ledger, "fistula", ACTIVE.edition, SHADOW.edition)

    assert (
        "SEARCH jobs_1 USING INDEX jobs_of_study (study_uid=? AND analysis=? AND role=?)" in plans
    )
