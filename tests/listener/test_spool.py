"""The spool: on stable storage before anybody is told so."""

import errno
import os
import time
from pathlib import Path

import pytest

from listener import spool as spool_module
from listener.entries import Received
from listener.errors import SpoolFull
from listener.ledger import Ledger
from listener.series import InstanceKey
from listener.spool import Arrival, Spool

KEY = InstanceKey("1.2.3", "1.2.3.4", "1.2.3.4.5")
HEAD = b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\x04\x00\x00\x00" + b"meta"


def test_an_instance_lies_where_its_uids_say_with_the_bytes_that_came(tmp_path: Path) -> None:
    held = Spool(tmp_path).write(KEY, HEAD, b"dataset")

    assert held.path == tmp_path / "studies" / "1.2.3" / "1.2.3.4" / "1.2.3.4.5.dcm"
    assert held.path.read_bytes() == HEAD + b"dataset"
    assert held.arrival is Arrival.NEW
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("brings_its_name", [False, True])
def test_the_file_and_every_folder_above_it_are_synced_before_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brings_its_name: bool
) -> None:
    monkeypatch.setattr(spool_module, "brings_its_name", lambda _folder: brings_its_name)
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    spool = Spool(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    held = spool.write(KEY, HEAD, b"dataset")

    # The file under a name that says what it must hold, then the folder that has the name; unless
    # that comes with the file.
    (file,) = [path for path in synced if path.endswith(".part")]
    assert Path(file).parent == held.path.parent
    assert Path(file).name.startswith(f"{KEY.sop_uid}.{held.sha256}.")
    last = [file] if brings_its_name else [file, str(held.path.parent)]
    assert synced[-len(last) :] == last
    for folder in (held.path.parent, held.path.parents[1], held.path.parents[2], tmp_path):
        assert str(folder) in synced


class PowerCut(BaseException):
    """Nothing after this happens."""


def cut_before_settling(spool: Spool, monkeypatch: pytest.MonkeyPatch, data: bytes) -> Path:
    """Write an instance whose listener dies once it is durable; where it lies then."""

    def cut(*_: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(spool, "_settle", cut)
        patch.setattr(spool_module.Incoming, "drop", spool_module.Incoming.close)
        with pytest.raises(PowerCut):
            spool.write(KEY, HEAD, data)
    (claim,) = (spool.root / "studies").rglob("*.part")
    return claim


def test_what_was_durable_when_the_power_failed_is_received(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    claim = cut_before_settling(spool, monkeypatch, b"dataset")

    assert Spool(tmp_path).recover() == 1
    assert [(key, path.read_bytes()) for key, path in spool.received()] == [
        (KEY, HEAD + b"dataset")
    ]
    assert not claim.exists()
    assert spool.recover() == 0


@pytest.mark.parametrize("torn", [b"", HEAD[:140], HEAD, HEAD + b"data", HEAD + b"\0" * 7])
def test_what_was_torn_when_the_power_failed_was_never_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bytes
) -> None:
    spool = Spool(tmp_path)
    claim = cut_before_settling(spool, monkeypatch, b"dataset")
    claim.write_bytes(torn)

    assert spool.recover() == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was made durable, in order."""
    told: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        told.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return told


def test_a_claim_is_durable_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[Path]
) -> None:
    spool = Spool(tmp_path)
    claim = cut_before_settling(spool, monkeypatch, b"dataset")
    starting = Spool(tmp_path)
    synced.clear()

    assert starting.recover() == 1
    assert synced[0] == claim
    for folder in (claim.parent, claim.parents[1], claim.parents[2], tmp_path):
        assert folder in synced


@pytest.mark.parametrize("data", [b"dataset", b"other"])
def test_what_another_process_left_is_durable_before_a_resend_trusts_it(
    tmp_path: Path, synced: list[Path], data: bytes
) -> None:
    first = Spool(tmp_path)
    first.write(KEY, HEAD, b"dataset")
    there = first.write(KEY, HEAD, data).path
    resent = Spool(tmp_path)
    synced.clear()

    assert resent.write(KEY, HEAD, data).path == there
    assert there in synced
    assert there.parent in synced[synced.index(there) :]


@pytest.mark.parametrize("trouble", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
def test_what_cannot_be_read_for_a_while_is_not_torn(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trouble: int,
) -> None:
    spool = Spool(tmp_path)
    claim = cut_before_settling(spool, monkeypatch, b"dataset")
    with monkeypatch.context() as patch:
        # The disk's own trouble cannot be had for real.
        def fail(_path: Path) -> str:
            raise OSError(trouble, os.strerror(trouble))

        patch.setattr(spool_module, "_dataset_sha256", fail)
        assert spool.recover() == 0

    assert claim.exists()
    assert str(claim.relative_to(tmp_path)) in caplog.text
    assert spool.recover() == 1


def test_a_listener_that_starts_takes_nothing_from_one_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    claim = cut_before_settling(spool, monkeypatch, b"dataset")
    claim.write_bytes(HEAD)  # as another host may see it, which has not all of it yet

    assert spool.recover(alone=False) == 0
    assert claim.exists()

    os.utime(claim, (time.time() - 7200,) * 2)
    assert spool.recover(alone=False) == 0
    assert not claim.exists()


@pytest.mark.parametrize("there_before", [None, b"dataset", b"other"])
def test_an_instance_is_acknowledged_although_another_listener_finished_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bytes | None
) -> None:
    spool, starting = Spool(tmp_path), Spool(tmp_path)
    if there_before is not None:
        spool.write(KEY, HEAD, there_before)
    settle = spool._settle

    def settle_late(key: InstanceKey, claim: str, sha256: str) -> tuple[str, Arrival]:
        assert starting.recover(alone=False) == 1
        return settle(key, claim, sha256)

    monkeypatch.setattr(spool, "_settle", settle_late)
    held = spool.write(KEY, HEAD, b"dataset")

    assert held.path.read_bytes() == HEAD + b"dataset"
    assert held.arrival is (Arrival.CONFLICT if there_before == b"other" else Arrival.SAME)


def test_other_bytes_that_were_durable_when_the_power_failed_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.write(KEY, HEAD, b"first")
    cut_before_settling(spool, monkeypatch, b"other")

    assert spool.recover() == 1
    assert [path.read_bytes() for _, path in spool.received()] == [HEAD + b"first"]
    assert [path.read_bytes() for _, path in spool.quarantined()] == [HEAD + b"other"]


def test_the_same_bytes_again_are_the_same_instance(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = spool.write(KEY, HEAD, b"dataset")
    again = spool.write(KEY, HEAD.replace(b"meta", b"atem"), b"dataset")

    assert again.arrival is Arrival.SAME
    assert (again.path, again.sha256) == (first.path, first.sha256)
    assert first.path.read_bytes() == HEAD + b"dataset"


def test_other_bytes_under_the_same_uid_are_kept_apart(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = spool.write(KEY, HEAD, b"dataset")
    other = spool.write(KEY, HEAD, b"changed")
    other_again = spool.write(KEY, HEAD, b"changed")

    assert other.arrival is Arrival.CONFLICT
    assert other.path.read_bytes() == HEAD + b"changed"
    assert other_again.path == other.path
    assert first.path.read_bytes() == HEAD + b"dataset"
    assert [key for key, _ in spool.received()] == [KEY]
    assert [key for key, _ in spool.quarantined()] == [KEY]


@pytest.mark.parametrize("torn", [b"", HEAD[:140]])
def test_what_was_torn_is_healed_by_a_resend(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    spool = Spool(tmp_path)
    path = spool.write(KEY, HEAD, b"dataset").path
    path.write_bytes(torn)

    again = spool.write(KEY, HEAD, b"dataset")
    assert (again.path, again.arrival) == (path, Arrival.NEW)
    assert path.read_bytes() == HEAD + b"dataset"
    assert [each.read_bytes() for each in spool.set_aside()] == [torn]
    assert list(spool.quarantined()) == list(spool.strangers()) == []
    assert str(path.relative_to(tmp_path)) in caplog.text

    spool.drop_study_results(KEY.study_uid)
    assert list(spool.set_aside()) == []


def test_a_claim_beside_what_is_torn_heals_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    claim = cut_before_settling(spool, monkeypatch, b"dataset")
    path = claim.with_name(f"{KEY.sop_uid}.dcm")
    path.write_bytes(b"")

    assert spool.recover() == 1
    assert path.read_bytes() == HEAD + b"dataset"


def test_what_has_rotten_is_healed_by_what_the_ledger_expects_and_by_nothing_else(
    tmp_path: Path, ledger: Ledger
) -> None:
    spool = Spool(tmp_path)
    spool.sha256_at = ledger.sha256_at
    held = spool.write(KEY, HEAD, b"dataset")
    ledger.record([Received(held, None, held.written_at)])
    held.path.write_bytes(HEAD + b"datasex")

    assert spool.write(KEY, HEAD, b"other").arrival is Arrival.CONFLICT
    assert held.path.read_bytes() == HEAD + b"datasex"

    again = spool.write(KEY, HEAD, b"dataset")
    assert (again.path, again.arrival) == (held.path, Arrival.NEW)
    assert held.path.read_bytes() == HEAD + b"dataset"
    assert [each.read_bytes() for each in spool.set_aside()] == [HEAD + b"datasex"]
    assert spool.write(KEY, HEAD, b"changed").arrival is Arrival.CONFLICT


def test_what_has_rotten_in_quarantine_is_healed_by_a_resend(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write(KEY, HEAD, b"dataset")
    apart = spool.write(KEY, HEAD, b"other").path
    apart.write_bytes(HEAD + b"rotten")

    assert spool.write(KEY, HEAD, b"other").path == apart
    assert apart.read_bytes() == HEAD + b"other"


def test_an_instance_that_outgrows_the_disk_while_it_comes_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, keep_free=1000)
    monkeypatch.setattr(spool, "free_bytes", lambda: 1500)
    incoming = spool.begin(HEAD)
    spool.add(incoming, bytes(400))
    with pytest.raises(SpoolFull, match="600 more would leave"):
        spool.add(incoming, bytes(600))
    incoming.drop()


def test_a_full_spool_takes_nothing_and_says_how_much_room_is_missing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, keep_free=1 << 62)

    with pytest.raises(SpoolFull, match="4,611,686,018,427,387,904"):
        spool.write(KEY, HEAD, b"dataset")

    assert list(tmp_path.rglob("*.dcm")) == []
    assert list(tmp_path.rglob("*.part")) == []


def test_a_disk_that_fills_up_while_writing_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)

    def no_room(_descriptor: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool_module.os, "writev", no_room)
    with pytest.raises(SpoolFull):
        spool.write(KEY, HEAD, b"dataset")

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_was_never_acknowledged_is_swept_once_nobody_can_be_writing_it(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path)
    old, fresh = tmp_path / "incoming" / "old.part", tmp_path / "incoming" / "fresh.part"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)

    assert spool.sweep() == 1
    assert not old.exists()
    assert fresh.exists()


def test_an_instance_found_on_disk_is_described_as_it_was_when_it_came(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    written = spool.write(KEY, HEAD, b"dataset")

    assert spool.held(KEY, written.path) == written


def test_results_of_one_lease_do_not_touch_those_of_another(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    kept = spool.keep_result("1.2.3", "job", "lease-a", "report.dcm", b"a")
    spool.keep_result("1.2.3", "job", "lease-b", "report.dcm", b"b")
    spool.drop_results("1.2.3", "job", "lease-b")

    assert kept.read_bytes() == b"a"
    assert [path.name for path in kept.parents[1].iterdir()] == ["lease-a"]
