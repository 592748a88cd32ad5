"""A listener in this process, and instances to send to it."""

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE

from listener.ledger import Ledger
from listener.recorder import Recorder
from listener.server import listen
from listener.settings import ListenerSettings
from listener.spool import Spool


def make_slice(study: str | None = None, series: str | None = None, number: int = 1) -> Dataset:
    """A small MR slice with a planted patient name, of a study and series of its own."""
    dataset = Dataset()
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = study or generate_uid()
    dataset.SeriesInstanceUID = series or generate_uid()
    dataset.PatientName = "PLANTED^NAME"
    dataset.PatientID = "PLANTED-ID"
    dataset.Modality = "MR"
    dataset.InstanceNumber = number
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(32)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


@pytest.fixture
def an_mr_slice() -> Callable[..., Dataset]:
    return make_slice


@pytest.fixture
def mr_slice() -> Dataset:
    return make_slice()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield book
    book.close()


@pytest.fixture
def settings_for(tmp_path: Path) -> Callable[..., ListenerSettings]:
    return partial(make_settings, tmp_path)


def make_settings(tmp_path: Path, **changes: Any) -> ListenerSettings:
    """Settings of a listener on a free loopback port that lets everybody in."""
    values: dict[str, Any] = {
        "spool": tmp_path / "spool",
        "broker": "redis://127.0.0.1:1/0",
        "site": "test-site",
        "port": free_port(),
        "open_node": True,
        "keep_free": 0,
        "destinations": [
            {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": free_port()}
        ],
    }
    return ListenerSettings(**(values | changes))


@pytest.fixture(name="free_port")
def a_free_port() -> int:
    return free_port()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def listening() -> Callable[..., AbstractContextManager["Sender"]]:
    return start_listening


@contextmanager
def start_listening(spool: Spool, ledger: Ledger, **changes: Any) -> Iterator["Sender"]:
    """A listener; yields what sends datasets to it, in one association each time."""
    settings = make_settings(spool.root.parent, **changes)
    recorder = Recorder(ledger)
    server = listen(settings, spool, recorder)
    try:
        yield Sender(settings)
    finally:
        server.shutdown()
        recorder.close()


class Sender:
    """Sends datasets to a listener and tells what it answered."""

    def __init__(self, settings: ListenerSettings) -> None:
        self.settings = settings

    def __call__(self, *datasets: Dataset) -> int:
        """Send in one association; returns the last status."""
        association = self.associate(*datasets)
        assert association.is_established, "the listener did not accept the association"
        try:
            return [int(association.send_c_store(dataset).Status) for dataset in datasets][-1]
        finally:
            association.release()

    def associate(
        self, *datasets: Dataset, calling: str = "SENDER", called: str | None = None
    ) -> Any:
        entity = AE(ae_title=calling)
        for dataset in datasets:
            entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        entity.add_requested_context("1.2.840.10008.1.1")
        return entity.associate(
            "127.0.0.1", self.settings.port, ae_title=called or self.settings.ae_title
        )
