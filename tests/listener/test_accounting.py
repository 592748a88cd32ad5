"""Spool and ledger are counted apart, and must agree."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from listener import __main__ as main
from listener.accounting import account
from listener.ledger import Ledger
from listener.node import rebuild
from listener.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def study(spool: Spool, ledger: Ledger, listening: Any, an_mr_slice: Callable[..., Dataset]) -> str:
    """A study of three slices, one of them also with other bytes."""
    first = an_mr_slice()
    uid = str(first.StudyInstanceUID)
    others = [an_mr_slice(study=uid) for _ in range(2)]
    with listening(spool, ledger) as send:
        send(first, *others)
        first.PatientName = "OTHER^BYTES"
        send(first)
    return uid


def test_everything_received_is_in_one_state_and_on_disk(
    spool: Spool, ledger: Ledger, study: str
) -> None:
    (found,) = account(spool, ledger)

    assert found.study_uid == study
    assert found.agrees
    assert found.on_disk == found.received == 4
    assert found.states == {"waiting": 3, "quarantined": 1}


def test_a_file_that_is_gone_is_named(spool: Spool, ledger: Ledger, study: str) -> None:
    _key, path = next(spool.received())
    path.unlink()

    (found,) = account(spool, ledger)
    assert not found.agrees
    assert found.missing == (path,)


def test_a_file_that_the_ledger_does_not_know_is_named_until_it_is_reconciled(
    spool: Spool, ledger: Ledger, study: str
) -> None:
    _key, path = next(spool.received())
    stranger = path.with_name("9.9.9.dcm")
    stranger.write_bytes(path.read_bytes())

    (found,) = account(spool, ledger)
    assert not found.agrees
    assert found.unknown == (stranger,)

    rebuild(spool, ledger)
    assert all(each.agrees for each in account(spool, ledger))


@pytest.fixture
def run(
    settings_for: Any, spool: Spool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    monkeypatch.setattr(main, "read_settings", settings_for)
    monkeypatch.setattr(main, "ROW_SECONDS", 0.0)
    monkeypatch.setattr(
        type(settings_for()), "ledger_url", property(lambda _self: str(ledger._engine.url))
    )
    return lambda *arguments: CliRunner().invoke(main.app, arguments)


def test_the_command_exits_with_0_where_they_agree_and_1_where_not(
    run: Any, spool: Spool, study: str
) -> None:
    done = run("account", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["agrees"]
    assert told["totals"] == {
        "on disk": 4, "received": 4, "used": 0, "not wanted": 0, "refused": 0, "quarantined": 1,
        "waiting": 3, "purged": 0,
    }  # fmt: skip

    _key, path = next(spool.received())
    path.unlink()
    done = run("account")
    assert done.exit_code == 1
    assert path.name in done.output.replace("\n", "")
