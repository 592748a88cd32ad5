"""`bundles ...`: what an operator types, reads, and finds in the audit trail afterwards."""

import json
from base64 import b64encode
from pathlib import Path

import pytest
from typer.testing import CliRunner

from listener.__main__ import app
from listener.entries import BundleRow
from listener.ledger import Ledger
from listener.workforce import Worker, Workforce
from tests.listener.test_comparison import ACTIVE, SHADOW, judged
from tests.listener.test_main import environment  # noqa: F401

run = CliRunner()


@pytest.fixture
def ledger(environment: Ledger, tmp_path: Path) -> Ledger:  # noqa: F811
    """Settings of a site, and two bundles that judged two studies."""
    book = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    (first,) = book.gathering()
    book.complete(first, "quiet")
    book.register_bundle(ACTIVE)
    book.register_bundle(SHADOW)
    judged(book, "1.2", 0.9, 0.2)
    judged(book, "1.3", 0.1, 0.2)
    a_worker_holds(book, ACTIVE, SHADOW)
    return book


def a_worker_holds(ledger: Ledger, *held: BundleRow) -> None:
    editions = [(each.analysis, *each.edition) for each in held]
    Workforce(ledger).beat(Worker("host:1", ledger.now, ledger.now, "cpu", editions, {}))


def roles() -> dict[str, str]:
    told = json.loads(run.invoke(app, ["bundles", "list", "--json"]).stdout)
    return {each["version"]: each["role"] for each in told["bundles"]}


def test_a_promotion_and_its_way_back_are_audited(ledger: Ledger, tmp_path: Path) -> None:
    assert run.invoke(app, ["bundles", "promote", "fistula", "1.1.0"]).exit_code == 0
    assert roles() == {"1.0.0": "retired", "1.1.0": "active"}
    assert "answers fistula again" in run.invoke(app, ["bundles", "rollback", "fistula"]).stdout
    assert roles() == {"1.0.0": "active", "1.1.0": "retired"}

    trail = (tmp_path / "audit" / "audit.log").read_text()
    for done in (b"bundles promote fistula 1.1.0", b"bundles rollback fistula"):
        assert b64encode(done).decode() in trail
    told = run.invoke(app, ["bundles", "list"]).stdout
    assert "promoted" in told
    assert "rolled back" in told


def test_a_bundle_that_no_living_worker_holds_is_promoted_only_by_who_insists(
    ledger: Ledger,
) -> None:
    a_worker_holds(ledger, ACTIVE)
    warned = run.invoke(app, ["bundles", "promote", "fistula", "1.1.0"])
    assert warned.exit_code == 1
    said = " ".join(warned.stderr.split())
    assert "no living worker holds version 1.1.0 with weights bbbbbbbbbbbb" in said
    assert "nothing was changed; to promote it all the same, add --without-a-worker" in said
    assert roles() == {"1.0.0": "active", "1.1.0": "shadow"}
    told = json.loads(run.invoke(app, ["bundles", "list", "--json"]).stdout)
    assert {each["version"]: each["has_worker"] for each in told["bundles"]} == {
        "1.0.0": True,
        "1.1.0": False,
    }

    insisted = run.invoke(app, ["bundles", "promote", "fistula", "1.1.0", "--without-a-worker"])
    assert insisted.exit_code == 0
    assert "no living worker holds" in " ".join(insisted.stderr.split())
    assert roles() == {"1.0.0": "retired", "1.1.0": "active"}


def test_a_shadow_is_retired_and_taken_up_again(ledger: Ledger) -> None:
    run.invoke(app, ["bundles", "retire", "fistula", "b" * 12])
    assert roles()["1.1.0"] == "retired"
    run.invoke(app, ["bundles", "shadow", "fistula", "1.1.0"])
    assert roles()["1.1.0"] == "shadow"


def test_what_cannot_be_done_is_said_in_one_line(ledger: Ledger) -> None:
    done = run.invoke(app, ["bundles", "retire", "fistula", "1.0.0"])

    assert done.exit_code == 1
    assert "results would stop" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_shadow_is_put_beside_the_active_bundle_and_labels_tell_who_was_right(
    ledger: Ledger, tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("study_uid,label\n1.2,positive\n1.3,negative\n7.7,positive\n")
    told = run.invoke(app, ["bundles", "label", "fistula", str(table)])
    assert "3 label(s) kept" in told.stdout
    assert "1 of them are of studies that were never received" in told.stderr.replace("\n", " ")

    found = json.loads(run.invoke(app, ["bundles", "compare", "fistula", "1.1.0", "--json"]).stdout)
    assert len(found["pairs"]) == 2
    assert found["active"]["auroc"] == 1.0
    assert found["shadow"]["auroc"] == 0.5
    for_people = run.invoke(app, ["bundles", "compare", "fistula", "1.1.0"]).stdout
    assert "furthest apart (1)" in for_people
    assert "0.500" in for_people


def test_a_table_that_is_not_there_is_named(ledger: Ledger, tmp_path: Path) -> None:
    done = run.invoke(app, ["bundles", "label", "fistula", str(tmp_path / "none.csv")])

    assert done.exit_code == 1
    assert "no file" in done.stderr
