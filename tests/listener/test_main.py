"""The command line: what an operator reads."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from listener.__main__ import app
from listener.entries import Received, Result
from listener.ledger import Ledger
from listener.series import InstanceKey
from listener.spool import Arrival, Held
from listener.terminal import console
from tests.listener.conftest import keep

run = CliRunner()


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Sound settings, and a ledger with one study."""
    for name, value in {
        "MONRO_SPOOL": str(tmp_path),
        "MONRO_BROKER": "redis://127.0.0.1:1/0",
        "MONRO_SITE": "test",
        "MONRO_OPEN_NODE": "true",
        "MONRO_DESTINATIONS": json.dumps(
            [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}]
        ),
    }.items():
        monkeypatch.setenv(name, value)
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    held = Held(InstanceKey("1", "1.1", "1.1.1"), tmp_path / "x", "f" * 64, 1, Arrival.NEW, 1000.0)
    ledger.record([Received(held, None, 1000.0)])
    ledger.close()
    return ledger


def test_status_counts_what_is_there_for_people_and_for_programs(environment: Ledger) -> None:
    assert "waiting" in run.invoke(app, ["status"]).stdout
    told = json.loads(run.invoke(app, ["status", "--json"]).stdout)

    assert told["counts"]["instances"] == {"waiting": 1}
    assert [study["study_uid"] for study in told["studies"]] == ["1"]


def test_show_tells_all_that_is_known_of_a_study(environment: Ledger) -> None:
    told = json.loads(run.invoke(app, ["show", "1", "--json"]).stdout)

    assert told["state"] == "RECEIVING"
    assert told["instances"][0]["count"] == 1


def test_on_a_narrow_terminal_nothing_of_a_study_is_cut_off(
    environment: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = "1.2.826.0.1.3680043.8.498.270373932161789211764536515"
    (first,) = environment.gathering()
    environment.complete(first, "quiet")
    keep(environment, tmp_path, uid)
    monkeypatch.setattr(console, "_width", 80)

    told = run.invoke(app, ["show", uid]).stdout

    known = environment.study(uid)
    environment.close()
    assert known is not None
    row = known["jobs"][0]
    for name in ("job_id", "state", "weights_sha256"):
        assert f"  {name}: {row[name]}\n" in told
    lines = run.invoke(app, ["status"]).stdout.splitlines()
    assert uid in "".join(line.split("│")[1].strip() for line in lines if line.startswith("│"))


def test_retry_says_what_it_set_going_and_what_waited_anyway(
    environment: Ledger, tmp_path: Path
) -> None:
    (first,) = environment.gathering()
    environment.complete(first, "quiet")
    environment.set_destinations(["pacs"])
    keep(environment, tmp_path, "2", Result("2.9", "2.8", "1.2.3", "report", 0, 0, tmp_path / "r"))

    said = run.invoke(app, ["retry", "2"]).stdout

    assert said == (
        "0 job(s) queued again, 0 parked result(s) on their way again, "
        "1 waiting result(s) sent at once\n"
    )


def test_a_study_that_nobody_sent_is_named_without_a_traceback(environment: Ledger) -> None:
    done = run.invoke(app, ["show", "1.2.3.4"])

    assert done.exit_code == 1
    assert "no study 1.2.3.4 was received" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_config_names_what_is_wrong(
    environment: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run.invoke(app, ["check-config"]).exit_code == 0
    monkeypatch.setenv("MONRO_PROT", "104")
    done = run.invoke(app, ["check-config"])

    assert done.exit_code == 1
    assert "MONRO_PROT" in done.stderr


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("rules", "contrast"),
        ("rules --analysis infection", "T2-weighted"),
        ("rules --analysis infection", "Brain ventricle"),
        ("transitions", "SUPERSEDED"),
    ],
)
def test_the_tables_can_be_read(command: str, says: str) -> None:
    assert says in run.invoke(app, command.split()).stdout


def test_rules_of_an_unknown_analysis_are_told_without_a_traceback() -> None:
    done = run.invoke(app, ["rules", "--analysis", "astrology"])

    assert done.exit_code == 1
    assert "no analysis astrology is known, only fistula, infection" in done.stderr


def test_reconcile_says_where_results_go(environment: Ledger, tmp_path: Path) -> None:
    assert run.invoke(app, ["reconcile"]).exit_code == 0

    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
        assert connection.execute("SELECT name FROM destinations").fetchall() == [("pacs",)]
