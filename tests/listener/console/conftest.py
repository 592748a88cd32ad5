"""A console on loopback behind its gate, a ledger and a spool with studies in it, and browsers."""

import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3
from argon2 import PasswordHasher
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from sqlalchemy import update

from listener.audit.trail import open_audit
from listener.completion import plan_studies
from listener.console.gate import passwords
from listener.console.gate.accounts import Accounts
from listener.console.server import ConsoleServer
from listener.entries import Answer, BundleRow, Received, Result
from listener.ledger import Ledger
from listener.series import InstanceKey
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import instances
from tests.listener.conftest import free_port, make_settings

PASSWORDS = {"vera": "a heron stands in the reeds", "oskar": "seven lanterns over the harbour"}

CARD = {
    "description": "A bundle of tests.",
    "statement": "Trained on nothing.",
    "intended_input": "T1 with contrast",
    "threshold_low": 0.3,
    "threshold_high": 0.7,
    "model_card": "# Card\n\nSome *words* <script>alert(1)</script>\n",
    "figures": {"auroc": 0.8765},
    "inputs": {
        "mean intensity": {"edges": [0.25, 0.27, 0.32], "share": [0.1, 0.4, 0.4, 0.1]},
        "noise": {"edges": [0.2, 0.3], "share": [0.05, 0.9, 0.05]},
    },
    "validation": {
        "edges": [tenth / 10 for tenth in range(11)],
        "patients": [40, 30, 20, 10, 10, 10, 10, 10, 20, 2],
        "positives": [1, 2, 3, 2, 4, 5, 6, 7, 17, 2],
    },
}

BUNDLE = BundleRow(
    "fistula", "test-bundle", "1.0.0", "a" * 64, CARD, "<html><body>An evaluation</body></html>"
)


class House:
    """A listener's ledger and spool, and what comes into them."""

    def __init__(self, settings: ListenerSettings, ledger: Ledger) -> None:
        self.settings, self.ledger = settings, ledger
        self.spool = Spool(settings.spool)
        ledger.set_destinations([each.name for each in settings.destinations])

    def receive(self, *datasets: Dataset) -> str:
        """Instances of one study, as if they had come in."""
        arrived = []
        for dataset in datasets:
            key = InstanceKey(
                dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
            )
            held = self.spool.write(key, *parts_of(dataset, self.settings.spool / "made.dcm"))
            arrived.append(Received(held, None, self.ledger.now))
        self.ledger.record(arrived)
        return str(datasets[0].StudyInstanceUID)

    def plan(self) -> list[str]:
        """Declare everything complete, and plan it."""
        for study in self.ledger.gathering():
            self.ledger.complete(study, "quiet for 60 s")
        return plan_studies(self.ledger, self.settings.analyses)

    def answer(
        self,
        job_id: str,
        probability: float = 0.85,
        band: str = "suggested",
        bundle: BundleRow = BUNDLE,
    ) -> None:
        """Do a job: two overlay images and a summary."""
        with self.ledger.lease(job_id, "worker-1", 60, {bundle.edition}) as lease:
            assert lease is not None
            job = lease.job

            def keep(name: str, data: bytes) -> Path:
                return self.spool.keep_result(job.study_uid, job_id, job.lease, name, data)

            found = []
            for number in range(2):
                keep(f"overlay-{number:04d}.anatomy.png", grey_png(8, 6, 100 + number))
                keep(f"overlay-{number:04d}.heat.png", grey_png(8, 6, 200 + number))
                path = keep(f"overlay-{number:04d}.dcm", b"overlay")
                found.append(result("overlay", number, 1, SecondaryCaptureImageStorage, path))
            told = {"marked": [0.1, 0.4], "pixel_mm": [1.0, 2.0], "largest": 0.43}
            keep("layers.json", json.dumps(told | {"caption": "Map of tests."}).encode())
            summary = keep("summary-0000.dcm", bytes_of(a_summary(), self.spool.root / "sr.dcm"))
            found.append(result("summary", 0, 3, EnhancedSRStorage, summary))
            self.ledger.keep(
                job,
                Answer(
                    "REPORTED",
                    found=found,
                    lineage={"site": "test-site"},
                    seconds={"read": 0.5, "explain": 12.0},
                    summary={
                        "probability": probability,
                        "band": band,
                        "disagreement": 0.05,
                        "ood_percentile": 42.0,
                        "statement": "Trained on nothing.",
                        "input": {"mean intensity": 0.28, "noise": 0.1, "volume": 3},
                    },
                ),
            )

    def refuse(self, job_id: str, reason: str, code: str) -> None:
        with self.ledger.lease(job_id, "worker-1", 60, {BUNDLE.edition}) as lease:
            assert lease is not None
            self.ledger.keep(lease.job, Answer("REFUSED", reason, summary={"refused": code}))

    def purge(self, study_uid: str) -> None:
        """Remove the files of a study by policy."""
        self.spool.remove(self.ledger.known(study_uid))
        self.spool.drop_study_results(study_uid)
        with self.ledger.writing() as connection:
            of_study = instances.c.study_uid == study_uid
            connection.execute(update(instances).where(of_study).values(purged_at=self.ledger.now))

    def report(self, name: str = "DOE^JANE", patient_id: str = "P-1") -> tuple[str, str]:
        """A study that was received, judged and reported; returns its UID and that of the job."""
        study_uid = self.receive(*a_head(name, patient_id), *a_localizer(name, patient_id))
        (job_id,) = self.plan()
        self.answer(job_id)
        return study_uid, job_id


def result(kind: str, number: int, phase: int, sop_class: str, path: Path) -> Result:
    return Result(generate_uid(), "1.9.1", sop_class, kind, number, phase, path)


def an_image(name: str, patient_id: str, study: str, series: str, **values: Any) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientName, dataset.PatientID = name, patient_id
    dataset.Modality = "MR"
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelData = bytes(32)
    dataset.update(values)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


_studies: dict[str, str] = {}


def a_study_of(patient_id: str) -> str:
    return _studies.setdefault(patient_id, generate_uid())


def a_head(name: str, patient_id: str, slices: int = 3) -> list[Dataset]:
    """A series that the fistula analysis wants."""
    series = generate_uid()
    return [
        an_image(
            name, patient_id, a_study_of(patient_id), series,
            SeriesNumber=3, SeriesDescription="t1_mprage_sag +KM", ContrastBolusAgent="GADO",
            ImageType=["ORIGINAL", "PRIMARY", "M"], ScanningSequence=["GR", "IR"],
            MRAcquisitionType="3D", RepetitionTime="1900", EchoTime="2.9", InversionTime="900",
            FlipAngle="9", SliceThickness="1", ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        )
        for _ in range(slices)
    ]  # fmt: skip


def a_localizer(name: str, patient_id: str, **values: Any) -> list[Dataset]:
    return [
        an_image(
            name, patient_id, a_study_of(patient_id), generate_uid(),
            SeriesNumber=1, SeriesDescription="localizer",
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **values,
        )
    ]  # fmt: skip


def a_summary() -> Dataset:
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = EnhancedSRStorage, generate_uid()
    report.ValueType = "CONTAINER"
    report.ConceptNameCodeSequence = [code("AI result summary")]
    section, sentence = Dataset(), Dataset()
    section.ValueType, section.ConceptNameCodeSequence = "CONTAINER", [code("Conclusions")]
    sentence.ValueType, sentence.ConceptNameCodeSequence = "TEXT", [code("Conclusion")]
    sentence.TextValue = "A finding of tests: suggested by <the> AI model."
    section.ContentSequence = [sentence]
    report.ContentSequence = [section]
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID
    return report


def code(meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99TEST", meaning
    return item


def bytes_of(dataset: Dataset, path: Path) -> bytes:
    dataset.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    path.unlink()
    return content


def parts_of(dataset: Dataset, path: Path) -> tuple[bytes, bytes]:
    """Head and dataset of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = bytes_of(dataset, path)
    head = 132 + 12 + int.from_bytes(content[140:144], "little")
    return content[:head], content[head:]


def grey_png(columns: int, rows: int, value: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    lines = (b"\0" + bytes([value]) * columns) * rows
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    )


class Browser:
    """Somebody who has signed in; forms are sent with the token of the last page."""

    def __init__(self, port: int, name: str | None) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._pool = urllib3.PoolManager(retries=False, timeout=20)
        self._cookie = ""
        self.csrf = ""
        if name is not None:
            answer = self._send("POST", "/sign-in", name=name, password=PASSWORDS[name])
            assert answer.status == 303, answer.data
            self._cookie = answer.headers["Set-Cookie"].partition(";")[0]
            self.get("/")

    def get(self, path: str) -> str:
        answer = self._send("GET", path)
        assert answer.status == 200, (answer.status, answer.data)
        text = answer.data.decode()
        if found := re.search('name="csrf" content="([^"]*)"', text):
            self.csrf = found[1]
        return text

    def json(self, path: str) -> Any:
        answer = self._send("GET", path)
        assert answer.status == 200, (answer.status, answer.data)
        return json.loads(answer.data)

    def status(self, path: str) -> int:
        return self._send("GET", path).status

    def data(self, path: str) -> bytes:
        return self._send("GET", path).data

    def post(self, path: str, **fields: str) -> urllib3.BaseHTTPResponse:
        return self._send("POST", path, csrf=self.csrf, **fields)

    def post_json(self, path: str, value: Any) -> urllib3.BaseHTTPResponse:
        headers = {"X-CSRF-Token": self.csrf, "Content-Type": "application/json"}
        return self._request("POST", path, json.dumps(value).encode(), headers)

    def _send(self, method: str, path: str, **fields: str) -> urllib3.BaseHTTPResponse:
        headers = {}
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return self._request(method, path, urlencode(fields).encode() if fields else None, headers)

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        if self._cookie:
            headers["Cookie"] = self._cookie
        if method == "POST":
            headers["Origin"] = self.url
        return self._pool.request(
            method, self.url + path, body=body, headers=headers, redirect=False
        )


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 that takes no time: what it costs is for test_accounts."""
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "HASHER", cheap)


@pytest.fixture
def house(tmp_path: Path, ledger: Ledger, cheap_hashes: None) -> House:
    """A listener that knows one bundle."""
    settings = make_settings(tmp_path, console_port=free_port())
    ledger.register_bundle(BUNDLE)
    return House(settings, ledger)


@contextmanager
def opened(house: House) -> Iterator[ConsoleServer]:
    accounts = Accounts(house.ledger)
    accounts.add("vera", "viewer", PASSWORDS["vera"])
    accounts.add("oskar", "operator", PASSWORDS["oskar"])
    with open_audit(house.settings) as audit:
        server = ConsoleServer(house.settings, house.ledger, house.spool, audit)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def console(house: House) -> Iterator[Callable[..., Browser]]:
    """Lets people in at a running console, by name."""
    port = house.settings.console_port or 0
    with opened(house):
        yield lambda name="vera": Browser(port, name)
