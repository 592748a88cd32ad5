"""A cohort is gathered over DICOMweb from a real Orthanc, as from a folder, and leaves no trace."""

import http.server
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import dcmread
from urllib3.util import Retry

from deploy.stack import answers, free_ports
from listener.errors import BadSettings
from trainer.cohort import read_cohort
from trainer.gathering import dicomweb
from trainer.gathering.dicomweb import (
    DicomWebSettings,
    DicomWebSource,
    private_folder,
    read_settings,
)
from trainer.gathering.gather import GatherSettings, gather
from trainer.gathering.sources import FolderSource, SourceFailed
from trainer.gathering.table import LabelRow
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import study_uid, write_study
from worker.preprocess import DEMO_RECIPE

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "trainer", "a password"
CASE = draw_case(5, positive=True, spectrum=OVERT)
SALT = b"a salt for tests"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One phantom study with an accession number and a scout beside it."""
    folder = tmp_path_factory.mktemp("study")
    paths = write_study(render(CASE, spacing_mm=2.4), folder)
    for path in paths:
        dataset = dcmread(path)
        dataset.AccessionNumber = "ACC-1"
        dataset.save_as(path)
    for path in paths[:2]:
        dataset = dcmread(path)
        dataset.SeriesInstanceUID += ".1"
        dataset.SOPInstanceUID += ".1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.save_as(path.with_suffix(".scout.dcm"))
    return folder / "study"


@pytest.fixture(scope="module")
def server(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Root of the DICOMweb services of an Orthanc that holds the study and asks for a password."""
    assert PLUGIN.exists(), "Orthanc's DICOMweb plugin is missing: `make system-tools` installs it"
    folder = tmp_path_factory.mktemp("orthanc")
    dicom_port, http_port = free_ports(2)
    config = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "PACS",
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": True,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [str(PLUGIN)],
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        orthanc = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "Orthanc", str(folder / "orthanc.json")],
            stdout=log, stderr=log, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/usr/local/bin"},
        )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (answers(dicom_port) and answers(http_port)):
        assert orthanc.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, "Orthanc did not start within 60 s"
        time.sleep(0.1)
    root = f"http://127.0.0.1:{http_port}"
    try:
        with requests.Session() as session:
            session.auth = (USER, PASSWORD)
            for path in sorted(study.iterdir()):
                session.post(f"{root}/instances", data=path.read_bytes()).raise_for_status()
        yield f"{root}/dicom-web"
    finally:
        orthanc.terminate()
        orthanc.wait(30)


@pytest.fixture
def settings(server: str) -> DicomWebSettings:
    return DicomWebSettings(url=server, username=USER, password=PASSWORD)


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go in this test; nothing may stay there.

    Its path is short: multiprocessing puts a Unix socket into it, whose path may have 107 bytes.
    """
    folder = tmp_path_factory.mktemp("s")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def row(study_name: str, patient: str = "PHANTOM-5") -> LabelRow:
    return LabelRow(number=1, patient=patient, study=study_name, label="positive")


@pytest.mark.parametrize(
    ("name", "patient"),
    [(study_uid(CASE), "whoever"), ("ACC-1", "whoever"), ("", "PHANTOM-5")],
    ids=["uid", "accession", "patient"],
)
def test_a_study_is_found_as_in_a_folder(
    settings: DicomWebSettings, study: Path, name: str, patient: str
) -> None:
    found = DicomWebSource(settings).find(row(name, patient))

    assert found == FolderSource.under(study).find(row(name, patient))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "patient"), [("1.2.3", ""), ("ACC-*", ""), ("", "PHANTOM-*"), ("", "PHANTOM")]
)
def test_wildcards_find_nothing(settings: DicomWebSettings, name: str, patient: str) -> None:
    assert DicomWebSource(settings).find(row(name, patient)) == []


def test_series_and_their_facts_are_those_of_the_files(
    settings: DicomWebSettings, study: Path
) -> None:
    source, folder = DicomWebSource(settings), FolderSource.under(study)
    (found,) = source.find(row("ACC-1"))

    assert source.series(found) == folder.series(found)


def test_a_series_arrives_as_it_was_sent_and_is_removed_afterwards(
    settings: DicomWebSettings, study: Path, scratch: Path
) -> None:
    source, folder = DicomWebSource(settings), FolderSource.under(study)
    (found,) = source.find(row("ACC-1"))
    series = max(source.series(found), key=lambda each: each.facts.instances)

    with source.deliver(series).files() as got, folder.deliver(series).files() as sent:
        assert [dcmread(path) for path in got] == [dcmread(path) for path in sent]
        assert {path.parent.stat().st_mode & 0o777 for path in got} == {0o700}
        assert all(path.is_relative_to(scratch) for path in got)

    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_cohort_over_dicomweb_equals_one_from_a_folder(
    settings: DicomWebSettings, study: Path, scratch: Path, tmp_path: Path, processes: int
) -> None:
    prepare = GatherSettings(DEMO_RECIPE)
    web, folder = tmp_path / "web", tmp_path / "folder"

    gather([row("")], DicomWebSource(settings), web, SALT, prepare, processes)
    gather([row("")], FolderSource.under(study), folder, SALT, prepare)

    assert read_cohort(web).fingerprint == read_cohort(folder).fingerprint
    assert [path.name for path in scratch.iterdir() if path.name.startswith("monro-")] == []


def test_a_wrong_password_is_told_without_quoting_what_was_asked(
    settings: DicomWebSettings,
) -> None:
    wrong = settings.model_copy(update={"password": type(settings.password)("wrong")})

    with pytest.raises(SourceFailed, match="HTTP 401; check address, user and rights") as failed:
        DicomWebSource(wrong).find(row(""))
    assert "PHANTOM-5" not in str(failed.value)
    assert failed.value.__suppress_context__


def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "PATIENCE", Retry(1))
    (port,) = free_ports(1)
    gone = DicomWebSettings(url=f"http://127.0.0.1:{port}/dicom-web", timeout_seconds=1)

    with pytest.raises(SourceFailed, match=r"no answer \(ConnectionError\)") as failed:
        DicomWebSource(gone).find(row(""))
    assert "PHANTOM-5" not in str(failed.value)


def test_a_page_that_is_no_dicomweb_is_told(server: str) -> None:
    root = server.removesuffix("/dicom-web") + "/app"
    settings = DicomWebSettings(url=root, username=USER, password=PASSWORD)

    with pytest.raises(SourceFailed):
        DicomWebSource(settings).find(row(""))


def test_a_token_is_sent_as_a_bearer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    heard: list[str | None] = []

    class Listening(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers["Authorization"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Listening) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        settings = DicomWebSettings(url=f"http://127.0.0.1:{listening.server_port}", token="abc")
        assert DicomWebSource(settings).find(row("")) == []
        listening.shutdown()

    assert heard == ["Bearer abc"]


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"url": "http://pacs.example/dicom-web", "token": "hush"}, "can be read on the way"),
        ({"url": "https://me:hush@pacs.example/dicom-web"}, "must not hold a password"),
        ({"url": "ftp://pacs.example"}, "must begin with https"),
        ({"url": "https://pacs.example", "token": "hush", "username": "me"}, "not both"),
        (
            {"url": "https://pacs.example", "password": ["hush"]},
            r"DICOMWEB_PASSWORD: found a list of 1; expected text",
        ),
        (
            {"url": "https://pacs.example", "timeout_seconds": "long"},
            r"TIMEOUT_SECONDS: found 'long'; expected seconds",
        ),
        ({}, "MONRO_TRAINER_DICOMWEB_URL: found nothing; expected text"),
    ],
)
def test_unsafe_settings_are_refused_without_quoting_secrets(
    facts: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadSettings, match=why) as refused:
        read_settings(**facts)
    assert "hush" not in str(refused.value)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONRO_TRAINER_DICOMWEB_URL", "https://pacs.example/dicom-web")
    monkeypatch.setenv("MONRO_TRAINER_DICOMWEB_TOKEN", "hush")

    settings = read_settings()

    assert settings.token.get_secret_value() == "hush"
    assert "hush" not in repr(settings)


HOLD_A_FOLDER = """
import time
from trainer.gathering.dicomweb import private_folder
with private_folder() as folder:
    (folder / "patient.dcm").touch()
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_retrieved_is_removed_by_the_next_one(scratch: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_FOLDER], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    left = Path(child.stdout.readline().strip())
    assert left.is_relative_to(scratch)

    with private_folder():
        assert (left / "patient.dcm").exists(), "a folder in use was removed"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    with private_folder() as ours:
        assert list(scratch.iterdir()) == [ours]
