"""Real servers for the system tests: Orthanc and DCMTK beside the whole of monro.

Orthanc binds every interface whatever its settings say, so these tests run where there is
only one: `make test` starts them through deploy/loopback-only.sh.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from deploy.stack import Stack, answers, free_ports

REPOSITORY = Path(__file__).parents[2]
# By its path: in an activated environment, pynetdicom's program of the same name comes first.
DCMTK_STORESCU = "/usr/bin/storescu"

FORWARD_STABLE_STUDIES = REPOSITORY / "deploy" / "orthanc" / "forward-stable-studies.lua"


def pytest_configure(config: pytest.Config) -> None:
    names = {name for _index, name in socket.if_nameindex()}
    if names != {"lo"}:
        pytest.exit(
            f"system tests start servers that bind every interface, and here are {sorted(names)}; "
            "run them as `make test` does: deploy/loopback-only.sh python -m pytest tests/system",
            returncode=4,
        )


LONGEST_FIRST = (
    "test_failures", "test_round_trip", "test_privacy", "test_rollout", "test_regions",
    "test_many_processes", "test_stow", "test_demo", "test_disaster",
)  # fmt: skip
"""Files that take minutes: begun last, they would run alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda each: rank.get(each.path.stem, len(rank)))


class Orthanc:
    """A real Orthanc that forwards every stable study to monro, results included."""

    def __init__(
        self,
        folder: Path,
        dicom_port: int,
        http_port: int,
        monro_port: int,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        self.dicom_port = dicom_port
        self._folder = folder
        self.url = f"http://127.0.0.1:{http_port}"
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "orthanc.json"
        self._config.write_text(
            json.dumps(
                {
                    "Name": "PACS",
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "storage"),
                    "DicomAet": "PACS",
                    "DicomPort": dicom_port,
                    "HttpPort": http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomModalities": {"monro": ["MONRO", "127.0.0.1", monro_port]},
                    "LuaScripts": [str(FORWARD_STABLE_STUDIES)],
                    "StableAge": 2,
                    "OverwriteInstances": False,
                    **(changes or {}),
                }
            )
        )

    def start(self) -> None:
        with (self._folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", _orthanc(), str(self._config)],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while not answers(self.dicom_port):
            assert self._process.poll() is None, (self._folder / "orthanc.log").read_text()
            assert time.monotonic() < deadline, "Orthanc did not start within 60 s"
            time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as response:
            return json.load(response)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(f"{self.url}{path}", data=json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def download(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as response:
            content: bytes = response.read()
            return content

    def files(self, study_uid: str, folder: Path) -> list[Path]:
        """Every instance that Orthanc holds of a study, as files."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for study in self._studies(study_uid):
            for instance in self.get(f"/studies/{study}/instances"):
                path = folder / f"{instance['ID']}.dcm"
                path.write_bytes(self.download(f"/instances/{instance['ID']}/file"))
                paths.append(path)
        return paths

    def count(self, study_uid: str) -> int:
        return sum(len(self.get(f"/studies/{s}/instances")) for s in self._studies(study_uid))

    def _studies(self, study_uid: str) -> list[str]:
        query = {"Level": "Study", "Query": {"StudyInstanceUID": study_uid}}
        found: list[str] = self.post("/tools/find", query)
        return found


def _orthanc() -> str:
    found = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
    assert found, "Orthanc is not installed: `make system-tools` installs it"
    return found


class Hospital:
    """monro and the Orthanc that plays the PACS."""

    def __init__(self, stack: Stack, orthanc: Orthanc) -> None:
        self.stack = stack
        self.orthanc = orthanc

    def send(self, files: Sequence[Path]) -> None:
        """Send files to the PACS by DCMTK's storescu."""
        done = subprocess.run(
            [DCMTK_STORESCU, "-xs", "-aet", "SCANNER", "-aec", "PACS", "127.0.0.1",
             str(self.orthanc.dicom_port), *map(str, files)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def job(self, study_uid: str) -> dict[str, Any]:
        """The latest job of a study, once it has one."""
        known = self.stack.ledger.study(study_uid) or {}
        jobs = known.get("jobs") or [{}]
        latest: dict[str, Any] = jobs[-1]
        return latest

    def delivered(self, study_uid: str) -> bool:
        """Whether a study was answered and the PACS committed to everything."""
        known = self.stack.ledger.study(study_uid) or {}
        sent = {row["state"] for row in known.get("deliveries", ())}
        done = {job["state"] for job in known.get("jobs", ())}
        return sent == {"CONFIRMED"} and done <= {"REPORTED", "REFUSED", "SUPERSEDED"}

    def await_delivery(self, study_uid: str, seconds: float = 120) -> None:
        self.await_that(lambda: self.delivered(study_uid), seconds, study_uid)

    def await_that(
        self, condition: Callable[[], bool], seconds: float = 60, study_uid: str = ""
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                known = json.dumps(self.stack.ledger.study(study_uid), indent=1)
                logs = {name: self.stack.log(name).read_text()[-2000:] for name in SERVERS}
                pytest.fail(
                    f"not within {seconds} s: {known}\n{logs['listener']}\n{logs['worker']}"
                )
            time.sleep(0.2)

    def results(self, study_uid: str, folder: Path) -> list[Path]:
        """What monro added to a study in the PACS."""
        return [
            path
            for path in self.orthanc.files(study_uid, folder)
            if dcmread(path, stop_before_pixels=True).Manufacturer == "monro project"
        ]


SERVERS = ("listener", "worker")

ORTHANC_PORT, ORTHANC_HTTP = "ORTHANC_PORT", "ORTHANC_HTTP"
"""Stand for its ports in settings of a hospital that is still to be opened."""


@contextmanager
def open_hospital(
    folder: Path,
    destinations: Sequence[dict[str, Any]] = (),
    on_broker: Callable[[int], None] = lambda _port: None,
    orthanc_changes: Mapping[str, Any] | None = None,
    **changes: str,
) -> Iterator[Hospital]:
    """A hospital with a PACS that results go to.

    Args:
        folder: for all that it writes.
        destinations: where results go besides.
        on_broker: is told the broker's port before anybody else talks to it.
        orthanc_changes: settings of the PACS that differ from the usual ones.
        changes: settings of monro that differ from those below.
    """
    dicom_port, http_port = free_ports(2)
    pacs = {
        "name": "pacs",
        "ae_title": "PACS",
        "host": "127.0.0.1",
        "port": dicom_port,
        "tls": "MONRO_TLS" in changes,
    }

    def filled(value: str) -> str:
        return value.replace(ORTHANC_PORT, str(dicom_port)).replace(ORTHANC_HTTP, str(http_port))

    settings = {
        "MONRO_PEERS": json.dumps([{"ae_title": "PACS", "address": "127.0.0.1"}]),
        "MONRO_DESTINATIONS": json.dumps([pacs, *destinations]),
        "MONRO_LEASE_SECONDS": "4",
        "MONRO_RESEND_SECONDS": "2",
        "MONRO_RETRY_FIRST_SECONDS": "0.5",
        "MONRO_RETRY_CAP_SECONDS": "2",
        "MONRO_CONFIRM_FIRST_SECONDS": "1",
        # A coarse map is a map to whatever is looked at here; test_demo.py has the bundle's own.
        "MONRO_WORKER_MAP_MODE": "preview",
        **{name: filled(value) for name, value in changes.items()},
    }
    with Stack(folder, changes=settings) as stack:
        orthanc = Orthanc(
            folder / "orthanc", dicom_port, http_port, stack.listener_port, orthanc_changes
        )
        orthanc.start()
        try:
            stack.start_redis()
            on_broker(stack.redis_port)
            stack.start_listener()
            stack.start_worker()
            stack.wait_for_bundles()
            yield Hospital(stack, orthanc)
        finally:
            orthanc.stop()


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """One hospital for all tests that break nothing."""
    with open_hospital(tmp_path_factory.mktemp("hospital")) as place:
        yield place


@pytest.fixture
def a_hospital(tmp_path: Path) -> Callable[..., AbstractContextManager[Hospital]]:
    """A hospital of its own, for a test that breaks something."""
    return lambda **changes: open_hospital(tmp_path / "hospital", **changes)


def edited_copy(
    files: Sequence[Path], folder: Path, edit: Callable[[Dataset], None] = lambda _dataset: None
) -> tuple[str, list[Path]]:
    """Copies of a study's files under fresh UIDs; returns the new study UID and the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh: dict[str, str] = {}
    paths = []
    for path in files:
        dataset = dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            old = str(dataset[keyword].value)
            dataset[keyword].value = fresh.setdefault(old, generate_uid())
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        edit(dataset)
        paths.append(folder / f"{dataset.SOPInstanceUID}.dcm")
        dataset.save_as(paths[-1])
    return str(dataset.StudyInstanceUID), paths


def errors(tool: str, *files: Path) -> list[str]:
    """What a validator calls an error."""
    done = subprocess.run(
        [tool, *map(str, files)], capture_output=True, text=True, errors="replace", check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")]


def check_validity(results: Sequence[Path], sources: Sequence[Path]) -> None:
    """No validator finds an error: in any report, in a sample of the overlays, in all together."""
    images = [path for path in results if dcmread(path, stop_before_pixels=True).Modality == "OT"]
    reports = set(results) - set(images)
    for path in (*reports, *images[::40]):
        assert errors("dciodvfy", path) == []
    assert errors("dcentvfy", *results, *sources) == []


@pytest.fixture(scope="session")
def assert_valid() -> Callable[[Sequence[Path], Sequence[Path]], None]:
    return check_validity


@pytest.fixture
def copies(tmp_path: Path) -> Callable[..., tuple[str, list[Path]]]:
    return lambda files, edit=lambda _dataset: None: edited_copy(files, tmp_path / "copies", edit)
