"""A whole listener: what it brings together when it starts, and what it does by itself."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from listener.accounting import account
from listener.ledger import Ledger
from listener.node import Node, rebuild
from listener.series import InstanceKey
from listener.spool import Spool
from listener.tables import associations, listeners

HEAD = b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\x04\x00\x00\x00" + b"meta"


def test_rows_that_died_with_a_process_come_back_from_the_spool(
    tmp_path: Path, ledger: Ledger
) -> None:
    spool = Spool(tmp_path / "spool")
    for number in range(3):
        spool.write(InstanceKey("1", "1.1", f"1.1.{number}"), HEAD, b"dataset %d" % number)
    spool.write(InstanceKey("1", "1.1", "1.1.0"), HEAD, b"other bytes")

    assert rebuild(spool, ledger) == 4
    assert ledger.counts()["instances"] == {"quarantined": 1, "waiting": 3}
    assert rebuild(spool, ledger) == 0


def test_a_file_that_cannot_be_read_keeps_no_other_from_being_recorded(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "spool")
    torn = spool.write(InstanceKey("1", "1.1", "1.1.1"), HEAD, b"dataset").path
    torn.write_bytes(b"")
    spool.write(InstanceKey("1", "1.1", "1.1.2"), HEAD, b"dataset")

    assert rebuild(spool, ledger) == 1
    assert "studies/1/1.1/1.1.1.dcm" in caplog.text
    assert [each.unknown for each in account(spool, ledger)] == [(torn,)]


def test_a_listener_starts_beside_what_is_torn_and_what_is_not_its_own(settings_for: Any) -> None:
    settings = settings_for(receivers=1)
    spool = Spool(settings.spool)
    kept = spool.write(InstanceKey("1", "1.1", "1.1.2"), HEAD, b"dataset").path
    (kept.parent / "1.1.1.dcm").write_bytes(b"")
    (kept.parent / f"1.1.1.{'0' * 64}.00000000.part").write_bytes(b"torn")
    strange = [kept.parent / "x.part", kept.parent / "x.dcm"]
    for path in strange:
        path.write_bytes(b"")

    with Node(settings) as node:
        assert node.ledger.known("1") == {kept}
    assert sorted(spool.strangers()) == sorted(strange)


def test_of_two_instances_of_one_uid_that_which_came_first_counts_again(
    tmp_path: Path, ledger: Ledger
) -> None:
    spool = Spool(tmp_path / "spool")
    first = spool.write(InstanceKey("1", "1.2", "1.1.1"), HEAD, b"first").path
    later = spool.write(InstanceKey("1", "1.1", "1.1.1"), HEAD, b"later").path
    os.utime(first, (1000, 1000))
    os.utime(later, (2000, 2000))

    rebuild(spool, ledger)
    states = {each.path: each.state for each in ledger.instances_of("1")}
    assert states.get(first) == "waiting"
    assert states.get(later) in (None, "quarantined")


def test_who_died_is_known_until_its_rows_are_back(
    settings_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(receivers=1, poll_seconds=600)
    with Node(settings) as node:
        with node.ledger.writing() as connection:
            connection.execute(
                associations.insert().values(association="a", study_uid="1", process="ward-b:7")
            )
        is_gone = {"ward-b:7"}.__contains__
        with monkeypatch.context() as patch:

            def fail(_batch: object) -> None:
                raise OSError("the ledger is away")

            patch.setattr(node.ledger, "record", fail)
            with pytest.raises(OSError, match="away"):
                node._make_up_for(is_gone)
        assert node.ledger.serving() == {"ward-b:7"}

        node._make_up_for(is_gone)
        assert node.ledger.serving() == set()


def test_what_a_receiver_had_not_named_when_it_was_killed_is_named_while_the_listener_runs(
    settings_for: Any,
) -> None:
    with Node(settings_for(receivers=1, poll_seconds=600)) as node:
        held = node.spool.write(InstanceKey("1", "1.1", "1.1.1"), HEAD, b"dataset")
        claim = held.path.with_name(f"1.1.1.{held.sha256}.00000000.part")
        held.path.rename(claim)
        assert [path for _, path in node.spool.unsettled()] == [claim]

        node._make_up_for({"ward-b:7"}.__contains__)
        assert list(node.spool.unsettled()) == []
        assert node.ledger.known("1") == {held.path}


def test_a_lost_ledger_is_rebuilt_with_the_digests_that_it_had(
    tmp_path: Path, ledger: Ledger, listening: Any, an_mr_slice: Callable[..., Dataset]
) -> None:
    spool = Spool(tmp_path / "spool")
    study = an_mr_slice().StudyInstanceUID
    with listening(spool, ledger) as send:
        send(*(an_mr_slice(study=study) for _ in range(3)))
    before = ledger.instances_of(study)

    second = Ledger(f"sqlite:///{tmp_path / 'second.sqlite'}")
    rebuild(spool, second)
    after = second.instances_of(study)
    second.close()

    assert len(before) == 3
    assert after == before


def test_what_died_with_a_listener_of_another_host_is_made_up_for_by_who_has_the_watch(
    settings_for: Any,
) -> None:
    settings = settings_for(receivers=1, poll_seconds=0.1)
    with Node(settings) as node:
        # Acknowledged by a process of another host, and not yet written down.
        node.spool.write(InstanceKey("1", "1.1", "1.1.1"), HEAD, b"dataset")
        with node.ledger.writing() as connection:
            connection.execute(
                listeners.insert().values(name="ward-b:1", seen_at=0, until=1, has_watch=False)
            )
            connection.execute(
                associations.insert().values(association="a", study_uid="1", process="ward-b:7")
            )
        deadline = time.monotonic() + 20
        while not node.ledger.known("1") or node.ledger.serving():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_listener_that_stands_by_completes_nothing(settings_for: Any) -> None:
    settings = settings_for(receivers=1, poll_seconds=0.1, quiet_seconds=0)
    before = Ledger(settings_ledger(settings))
    with before.writing() as connection:
        connection.execute(
            listeners.insert().values(
                name="ward-b:1", seen_at=0, until=time.time() + 30, has_watch=True
            )
        )
    with Node(settings) as node:
        node.spool.write(InstanceKey("1", "1.1", "1.1.1"), HEAD, b"dataset")
        rebuild(node.spool, node.ledger)
        time.sleep(1)
        assert node.ledger.counts()["studies"] == {"RECEIVING": 1}

        with before.writing() as connection:
            connection.execute(listeners.delete().where(listeners.c.name == "ward-b:1"))
        node._watch.beat()
        deadline = time.monotonic() + 20
        while node.ledger.counts()["studies"] != {"COMPLETE": 1}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    before.close()


def settings_ledger(settings: Any) -> str:
    """URL of a listener's ledger, whose folder is made."""
    Spool(settings.spool)
    return str(settings.ledger_url)
