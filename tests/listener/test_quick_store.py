"""The quick way of C-STORE does what pynetdicom's own way does, for whatever is sent."""

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom import (
    AE,
    PYNETDICOM_IMPLEMENTATION_UID,
    PYNETDICOM_IMPLEMENTATION_VERSION,
    _config,
)
from pynetdicom.dsutils import encode_file_meta

from listener import quick_store, server
from listener.caller import call
from listener.ledger import Ledger
from listener.remote import Entity
from listener.spool import Spool
from tests.fuzz import wire

VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture(params=[True, False], ids=["quick", "usual"])
def quick(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


@pytest.fixture(autouse=True)
def _any_uid() -> Iterator[None]:
    """Let pynetdicom send what it would not."""
    before = _config.ENFORCE_UID_CONFORMANCE
    _config.ENFORCE_UID_CONFORMANCE = False
    yield
    _config.ENFORCE_UID_CONFORMANCE = before


def store(sender: Any, dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> tuple[int, ...]:
    """Send twice, with a C-ECHO between; all statuses."""
    entity = AE(ae_title="SENDER")
    entity.add_requested_context(VERIFICATION)
    entity.add_requested_context(dataset.SOPClassUID, syntax)
    association = call(
        entity, Entity(ae_title="MONRO", host="127.0.0.1", port=sender.settings.port), None
    )
    assert association.is_established
    first = association.send_c_store(dataset).Status
    echo = association.send_c_echo().Status
    second = association.send_c_store(dataset).Status
    association.release()
    return first, echo, second


def content(spool: Spool) -> dict[str, str]:
    """Every file of a spool by its place, with a digest of the whole of it."""
    return {
        str(path.relative_to(spool.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in spool.root.rglob("*")
        if path.is_file() and path.suffix in (".dcm", ".part")
    }


def large(dataset: Dataset) -> Dataset:
    dataset.Rows = dataset.Columns = 256
    dataset.PixelData = bytes(range(256)) * 512
    return dataset


SENT = {
    "small": (lambda dataset: dataset, ExplicitVRLittleEndian, 16382),
    "in many fragments": (large, ExplicitVRLittleEndian, 4096),
    "in two fragments": (large, ExplicitVRLittleEndian, 131072),
    "implicit": (large, ImplicitVRLittleEndian, 16382),
    "big endian": (lambda dataset: dataset, ExplicitVRBigEndian, 16382),
    "deflated": (large, DeflatedExplicitVRLittleEndian, 4096),
}


@pytest.mark.parametrize("name", SENT)
def test_both_ways_keep_the_same_bytes_at_the_same_place(
    tmp_path: Path,
    listening: Any,
    an_mr_slice: Callable[..., Dataset],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edit, syntax, pdu = SENT[name]
    monkeypatch.setattr(server, "MAXIMUM_PDU_BYTES", pdu)
    dataset = edit(an_mr_slice())
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset["PixelData"].VR = "OW"
    found = []
    for quick_store_on in (True, False):
        folder = tmp_path / str(quick_store_on)
        folder.mkdir()
        spool, ledger = Spool(folder / "spool"), Ledger(f"sqlite:///{folder / 'l.sqlite'}")
        with listening(spool, ledger, quick_store=quick_store_on) as send:
            statuses = store(send, dataset, syntax)
        rows = [(row.sop_uid, row.sha256) for row in ledger.instances_of(dataset.StudyInstanceUID)]
        ledger.close()
        found.append((statuses, content(spool), rows))

    assert found[0] == found[1]
    assert found[0][0] == (0, 0, 0)
    assert len(found[0][1]) == len(found[0][2]) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about the UID
def test_a_dataset_that_contradicts_its_command_is_refused(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset, quick: bool
) -> None:
    spool = Spool(tmp_path / "spool")
    mr_slice.StudyInstanceUID = "not a uid"
    with listening(spool, ledger, quick_store=quick) as send:
        assert store(send, mr_slice) == (0xC000, 0, 0xC000)

    assert content(spool) == {}


def test_a_full_disk_is_answered_and_the_association_goes_on(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset, quick: bool
) -> None:
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger, quick_store=quick) as send:
        association = send.associate(mr_slice)
        spool.keep_free = 1 << 62
        assert association.send_c_store(mr_slice).Status == 0xA700
        spool.keep_free = 0
        assert association.send_c_store(mr_slice).Status == 0x0000
        association.release()

    assert len(content(spool)) == 1


def test_a_failure_that_nobody_foresaw_is_answered_and_nothing_is_left(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    mr_slice: Dataset,
    quick: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spool = Spool(tmp_path / "spool")

    def fails(*_: object) -> None:
        raise KeyError("PLANTED^NAME")

    with listening(spool, ledger, quick_store=quick) as send:
        monkeypatch.setattr(spool, "_settle", fails)
        assert store(send, mr_slice) == (0xC211, 0, 0xC211)

    assert content(spool) == {}


def test_a_connection_that_breaks_within_an_instance_leaves_nothing(
    tmp_path: Path, ledger: Ledger, listening: Any, an_mr_slice: Callable[..., Dataset], quick: bool
) -> None:
    spool = Spool(tmp_path / "spool")
    dataset = large(an_mr_slice())
    with listening(spool, ledger, quick_store=quick) as send:
        association = send.associate(dataset)
        connection: Any = association.dul.socket.socket
        whole = connection.send

        def half(data: bytes) -> int:
            sent = whole(data[: len(data) // 2])
            connection.shutdown(socket.SHUT_RDWR)
            return int(sent)

        class Breaking:
            """A socket that breaks in the middle of a large PDU."""

            def __getattr__(self, name: str) -> Any:
                return getattr(connection, name)

            def send(self, data: bytes) -> int:
                return half(data) if len(data) > 10_000 else int(whole(data))

        association.dul.socket.socket = Breaking()
        association.send_c_store(dataset)
        until(lambda: not association.is_established)
        until(lambda: content(spool) == {})
        assert send(dataset) == 0x0000

    assert len(content(spool)) == 1


class Slow:
    """A socket that takes its time after each large PDU, and is silent for good after so many."""

    def __init__(self, connection: Any, pause: float, pdus: int = 1 << 30) -> None:
        self._connection, self._pause, self._left = connection, pause, pdus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def send(self, data: bytes) -> int:
        if len(data) > 1000:
            time.sleep(self._pause)
            self._left -= 1
        return int(self._connection.send(data)) if self._left > 0 else len(data)

    def shutdown(self, how: int) -> None:
        if self._left > 0:
            self._connection.shutdown(how)

    def close(self) -> None:
        if self._left > 0:
            self._connection.close()


def test_an_instance_that_takes_longer_than_a_silent_peer_may_is_kept(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    an_mr_slice: Callable[..., Dataset],
    quick: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MAXIMUM_PDU_BYTES", 4096)
    spool = Spool(tmp_path / "spool")
    dataset = large(an_mr_slice())
    with listening(spool, ledger, quick_store=quick, association_timeout_seconds=1) as send:
        association = send.associate(dataset)
        association.dul.socket.socket = Slow(association.dul.socket.socket, 0.1)
        assert association.send_c_store(dataset).Status == 0x0000
        assert association.send_c_echo().Status == 0x0000
        association.release()

    assert len(content(spool)) == 1


def test_a_sender_that_falls_silent_within_an_instance_leaves_nothing(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    an_mr_slice: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MAXIMUM_PDU_BYTES", 4096)
    spool = Spool(tmp_path / "spool")
    dataset = large(an_mr_slice())
    with listening(spool, ledger, association_timeout_seconds=1) as send:
        association = send.associate(dataset)
        association.dimse_timeout = 3
        connection = Slow(association.dul.socket.socket, 0, pdus=10)
        association.dul.socket.socket = connection
        association.send_c_store(dataset)
        until(lambda: content(spool) == {})
        assert send(dataset) == 0x0000
    connection._connection.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03",  # a command without an element
        b"\x04\x00\x00\x00\x00\x04\x00\x00\x00\xff",  # a value longer than its PDU
        b"\x04\x00\xff\xff\xff\xff",  # a PDU of 4 GiB
        b"\x09\x00\x00\x00\x00\x00",  # no PDU at all
    ],
)
def test_garbage_ends_its_association_and_no_other(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset, garbage: bytes
) -> None:
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        association = send.associate(mr_slice)
        association.dul.socket.socket.sendall(garbage)
        until(lambda: not association.is_established)
        assert send(mr_slice) == 0x0000


def test_a_command_in_countless_empty_fragments_ends_its_association_at_once(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset
) -> None:
    empty = wire.data(*[wire.fragment(wire.PLAIN, 1, b"")] * 60_000)
    with (
        listening(Spool(tmp_path / "spool"), ledger) as send,
        wire.Peer(send.settings.port, 20) as peer,
    ):
        peer.send(wire.proposal())
        assert peer.hear(5)
        begun = time.monotonic()
        peer.send(empty)
        assert not peer.hear(20)
        assert time.monotonic() - begun < 5
        assert send(mr_slice) == 0x0000


def test_a_uid_with_a_line_break_is_none() -> None:
    with pytest.raises(ValueError, match=r"1\.2\.3"):
        quick_store._text(b"1.2.3\n")


def test_file_meta_information_is_what_pynetdicom_writes() -> None:
    for sop_uid in (generate_uid(), "1.2.3", "1.2.34"):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
        meta.MediaStorageSOPInstanceUID = UID(sop_uid)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = PYNETDICOM_IMPLEMENTATION_UID
        meta.ImplementationVersionName = PYNETDICOM_IMPLEMENTATION_VERSION

        written = quick_store._file_meta(
            "1.2.840.10008.5.1.4.1.1.4", sop_uid, ExplicitVRLittleEndian
        )
        assert written == encode_file_meta(meta)
