"""A whole listener: what it brings together when it starts, and what it does by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from listener.ledger import Ledger
from listener.node import rebuild
from listener.series import InstanceKey
from listener.spool import Spool

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
