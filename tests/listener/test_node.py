"""A whole listener: what it brings together when it starts, and what it does by itself."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

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
                name="ward-b:1", seen_at=0, until=time.time() + 600, has_watch=True
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
