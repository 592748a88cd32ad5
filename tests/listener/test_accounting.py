"""Spool and ledger are counted apart, and must agree."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import update
from typer.testing import CliRunner

from listener import __main__ as main
from listener.accounting import account, look_again
from listener.ledger import Ledger
from listener.node import rebuild
from listener.spool import Spool
from listener.tables import studies


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


def test_what_comes_while_the_spool_is_walked_is_not_missing(
    spool: Spool, ledger: Ledger, study: str, listening: Any, an_mr_slice: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    walk = spool.quarantined

    def walk_and_receive() -> Any:
        yield from walk()
        with listening(spool, ledger) as send:
            send(an_mr_slice(study=study))

    monkeypatch.setattr(spool, "quarantined", walk_and_receive)

    (found,) = account(spool, ledger)
    assert found.agrees
    assert found.on_disk == found.received == 5


def test_a_row_that_comes_a_moment_after_its_file_is_waited_for(
    spool: Spool, ledger: Ledger, study: str
) -> None:
    _key, path = next(spool.received())
    stranger = path.with_name("9.9.9.dcm")
    stranger.write_bytes(path.read_bytes())
    (found,) = account(spool, ledger)
    assert found.unknown == (stranger,)
    assert not look_again(found, spool, ledger).agrees

    rebuild(spool, ledger)
    assert look_again(found, spool, ledger).agrees


def test_an_emptied_or_shortened_file_is_damaged(spool: Spool, ledger: Ledger, study: str) -> None:
    paths = sorted(path for _key, path in spool.received())
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-2])

    (found,) = account(spool, ledger)
    assert not found.agrees
    assert found.damaged == (paths[0], paths[1])
    assert found.missing == ()


def test_a_torn_body_behind_a_sound_header_is_damaged_though_the_ledger_knows_nothing_of_it(
    spool: Spool, ledger: Ledger, study: str, caplog: pytest.LogCaptureFixture
) -> None:
    _key, path = next(spool.received())
    torn = path.with_name("9.9.9.dcm")
    torn.write_bytes(path.read_bytes()[:-2])

    (found,) = account(spool, ledger)
    assert (found.unknown, found.damaged) == ((torn,), (torn,))

    rebuild(spool, ledger)
    assert "9.9.9.dcm was recorded, but ends within an element" in caplog.text


def test_what_was_left_half_way_to_its_name_disagrees_until_it_is_settled(
    spool: Spool, ledger: Ledger, study: str
) -> None:
    _key, path = next(spool.received())
    claim = path.with_name(f"9.9.9.{spool.identity(path)[1]}.0badcafe.part")
    claim.write_bytes(path.read_bytes())
    torn = path.with_name(f"9.9.8.{'0' * 64}.0badcafe.part")
    torn.write_bytes(path.read_bytes()[:-2])

    (found,) = account(spool, ledger)
    assert found.unsettled == (claim,)
    assert not found.agrees
    assert not look_again(found, spool, ledger).agrees

    spool.recover()
    rebuild(spool, ledger)
    assert all(each.agrees for each in account(spool, ledger))


def test_what_was_set_aside_is_named_and_does_not_count(
    spool: Spool, ledger: Ledger, study: str
) -> None:
    key, _path = next(spool.received())
    aside = spool.root / "quarantine" / study / key.series_uid / f"{key.sop_uid}.0.1.rotten"
    aside.parent.mkdir(parents=True, exist_ok=True)
    aside.write_bytes(b"\0")

    (found,) = account(spool, ledger)
    assert found.agrees
    assert found.set_aside == (aside,)


def test_a_file_of_the_same_size_is_told_from_what_was_received_by_its_digest(
    spool: Spool, ledger: Ledger, study: str
) -> None:
    _key, path = next(spool.received())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    told: list[int] = []

    (found,) = account(spool, ledger)
    assert found.agrees
    (found,) = account(spool, ledger, verify=True, tell=told.append)
    assert found.damaged == (path,)
    assert told == [1, 2, 3, 4]


def test_rows_that_are_gone_are_told_by_what_was_counted_as_it_came(
    spool: Spool, ledger: Ledger, study: str
) -> None:
    with ledger.writing() as connection:
        connection.execute(update(studies).values(received=5))

    (found,) = account(spool, ledger)
    assert not found.agrees
    assert (found.received, sum(found.states.values())) == (5, 4)


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


def test_the_command_names_strangers(run: Any, spool: Spool, study: str) -> None:
    _key, path = next(spool.received())
    path.with_name("copy of a slice.dcm").write_bytes(b"\0")

    done = run("account")
    assert done.exit_code == 0
    assert "1 file(s) have names that no listener gives" in done.output
    assert "copyofaslice.dcm" in "".join(done.output.split())  # lines may break anywhere


def test_the_command_names_what_is_damaged(run: Any, spool: Spool, study: str) -> None:
    _key, path = next(spool.received())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert run("account").exit_code == 0

    done = run("account", "--verify")
    assert done.exit_code == 1
    assert "1 file(s) are not what was received" in done.output
    assert path.name in done.output.replace("\n", "")
