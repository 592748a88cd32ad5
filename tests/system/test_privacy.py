"""No patient is named outside DICOM objects, whatever a whole run of the system meets.

A hospital of its own gets studies of patients that cannot be mistaken: one that is judged, ones
that are refused, instances that are broken, one that contradicts another. A second destination is
away, then refuses, then accepts. Somebody reads of them at the console, and looks for them by name.
All that the programs say, send to the broker, tell Prometheus, write beside the DICOM objects and
hand to other processes is searched afterwards.
"""

import base64
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psutil
import pytest
import redis
import urllib3
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt

from deploy.stack import Stack, free_ports
from listener.__main__ import app
from listener.caller import call
from listener.console.gate.accounts import Accounts
from listener.console.gate.sessions import Sessions
from listener.remote import Entity
from tests.system.conftest import Hospital, open_hospital
from tests.system.malformed import identified, post_malformed, send_malformed
from tests.system.planted import PATIENTS, Planted, forms, told
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import NOBODY, write_slices

pytestmark = pytest.mark.timeout(1200)

MAY_NAME_PATIENTS: Final = frozenset({".dcm", ".part"})
"""Files in the spool that are DICOM objects. All others are searched, whatever their names and
folders: the ledger, maps and layers, and the audit trail, which is pseudonymised by default."""

COMMANDS: Final = (
    "check-config", "status", "status --json", "show {judged}", "show {judged} --json",
    "show {refused}", "show {without a series} --json", "show {malformed}", "account",
    "account --json", "reconcile", "account", "pull {judged}", "retry {judged}", "cancel {judged}",
    "selftest --to pacs --study {files}", "rules", "transitions",
)  # fmt: skip
"""Everything that the listener's command line prints, between the deliveries."""

TOKEN: Final = "a token of a web sender"

NAMELESS: Final = (
    "metrics", "healthz", "readyz", "health", "queue", "bundles", "settings", "api/health",
)  # fmt: skip
"""What the console answers that is of no patient."""

Heard = dict[str, bytes]


class Monitor(threading.Thread):
    """Everything that is said to a Redis from now on."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.heard = bytearray()
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.sendall(b"MONITOR\r\n")
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            while piece := self._connection.recv(1 << 16):
                self.heard += piece


class PickyArchive:
    """A destination that is away, then refuses in words that name the patient, then accepts."""

    def __init__(self, patient: Planted) -> None:
        (self.port,) = free_ports(1)
        self.accepts = False
        self._patient = patient
        self._server: Any = None

    @property
    def destination(self) -> dict[str, Any]:
        where = {"ae_title": "PICKY", "host": "127.0.0.1", "port": self.port}
        return {"name": "picky", "confirm": "none", **where}

    def open(self) -> None:
        entity = AE(ae_title="PICKY")
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax)
        handlers = [(evt.EVT_C_STORE, self._answer)]
        self._server = entity.start_server(("127.0.0.1", self.port), False, evt_handlers=handlers)

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()

    def _answer(self, _event: evt.Event) -> Dataset:
        answer = Dataset()
        answer.Status = 0x0000 if self.accepts else 0xC000
        if not self.accepts:
            answer.ErrorComment = f"no room for {self._patient.patient_id} {self._patient.name}"
        return answer


def studies(folder: Path) -> dict[str, list[Path]]:
    """Small synthetic heads, one for each planted patient but the malformed one."""
    shown = render(draw_case(2024, positive=True, spectrum=OVERT), spacing_mm=2.4)
    files = write_slices(shown, NOBODY, folder / "plain")
    return {
        "judged": copies("judged", files, folder / "judged"),
        "refused": copies("refused", files[:12], folder / "refused"),
        "without a series": copies("without a series", files[:3], folder / "t2", weighted_by_t2),
    }


class Somebody:
    """Whoever signed in at the console, as an operator."""

    def __init__(self, stack: Stack, port: int) -> None:
        Accounts(stack.ledger).add("olga", "operator", "seven lanterns over the harbour")
        token = Sessions(stack.ledger, 3600, 3600).issue("olga", 1)
        self._root = f"http://127.0.0.1:{port}"
        self._http = urllib3.PoolManager(
            headers={"Authorization": f"Bearer {token}"}, retries=False, timeout=30
        )

    def ask(self, path: str, method: str = "GET", **said: Any) -> urllib3.BaseHTTPResponse:
        """What the console answers."""
        return self._http.request(method, f"{self._root}/{quote(path, safe='/?=&')}", **said)

    def read(self, path: str) -> bytes:
        """What a page holds."""
        answer = self.ask(path)
        assert answer.status == 200, (path, answer.status)
        return answer.data

    def look_around(self, uid: str, job_id: str, patient: Planted) -> None:
        """Read all there is of a study, and look for its patient, also where that is a mistake."""
        study = f"studies/{uid}"
        for page in (
            "",
            "/audit",
            *(f"/jobs/{job_id}{part}" for part in ("", "/slices", "/results")),
        ):
            self.read(study + page)
        for answer in ("", "/patient", "/audit", f"/jobs/{job_id}/documents"):
            self.read(f"api/{study}{answer}")
        for text in (patient.name.split("^")[0], patient.patient_id, patient.accession):
            found = self.ask("api/search", "POST", json={"text": text})
            assert uid in json.loads(found.data)["patients"], text
            for path in (f"studies/{text}", text, f"?uid={text}", f"api/studies/{text}"):
                self.ask(path)
            for body in ({"wrong": text}, {"text": [text]}, text):
                assert self.ask("api/search", "POST", json=body).status == 422
            other = {"Authorization": f"Bearer {quote(text)}"}
            assert self.ask(f"api/{study}", headers=other).status == 401


def copies(
    name: str,
    files: list[Path],
    folder: Path,
    edit: Callable[[Dataset], None] = lambda _dataset: None,
) -> list[Path]:
    """A study of a planted patient, under UIDs that are the same in every run."""
    folder.mkdir()
    paths = []
    for path in files:
        dataset = dcmread(path)
        for level in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, level, generate_uid(entropy_srcs=[name, str(dataset[level].value)]))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        PATIENTS[name].into(dataset)
        edit(dataset)
        paths.append(folder / path.name)
        dataset.save_as(paths[-1])
    return paths


def weighted_by_t2(dataset: Dataset) -> None:
    """A head, and nothing that an analysis could use."""
    dataset.SeriesDescription = dataset.ProtocolName = "T2 TSE axial"
    dataset.RepetitionTime, dataset.EchoTime = "4000", "100"


def contradicted(path: Path) -> Dataset:
    """An instance with the UIDs of another, and other content."""
    dataset = dcmread(path)
    PATIENTS["malformed"].into(dataset)
    dataset.PixelData = bytes(len(dataset.PixelData))
    return dataset


def store(port: int, dataset: Dataset) -> int:
    entity = AE(ae_title="PACS")
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = call(entity, Entity(ae_title="MONRO", host="127.0.0.1", port=port), None)
    try:
        return int(association.send_c_store(dataset).Status)
    finally:
        association.release()


def put_into_the_spool(spool: Path, path: Path) -> None:
    """An instance whose row was lost: `account` finds it, `reconcile` records it."""
    dataset = dcmread(path)
    study_uid = str(dataset.StudyInstanceUID)
    folder = spool / "studies" / study_uid / str(dataset.FrameOfReferenceUID)
    folder.mkdir(parents=True)
    dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm")


def say(stack: Stack, program: str, *words: str) -> bytes:
    """What a command prints, on either stream."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MONRO_")}
    done = subprocess.run(
        [sys.executable, "-m", program, *words],
        env={**environment, **stack.environment, "COLUMNS": "400"},
        capture_output=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def processes(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """Command line and environment of all programs and of the processes that they started."""
    for name in ("listener", "worker"):
        parent = psutil.Process(stack.pid(name))
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                yield (
                    f"process {process.pid} of the {name}",
                    json.dumps([process.cmdline(), process.environ()], ensure_ascii=False).encode(),
                )


def rows(ledger: Path) -> Iterator[tuple[str, bytes]]:
    """Every column of every table."""
    with closing(sqlite3.connect(ledger)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in names.fetchall():
            held = connection.execute(f'SELECT * FROM "{table}"').fetchall()
            yield f"table {table}", "\n".join(map(str, held)).encode()


def keys(port: int) -> bytes:
    """Everything that the broker holds."""
    with closing(redis.Redis(port=port)) as broker:
        return b"\n".join(key + b" " + (broker.dump(key) or b"") for key in broker.scan_iter())


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names of all files of ours, and what those hold that are no DICOM objects."""
    paths = [path for path in folder.rglob("*") if "orthanc" not in path.parts]
    yield "file names", "\n".join(map(str, paths)).encode()
    for path in paths:
        if path.is_file() and not ("spool" in path.parts and path.suffix in MAY_NAME_PATIENTS):
            yield str(path.relative_to(folder)), path.read_bytes()


@dataclass
class Run:
    """What was heard of a whole run, and what became of the studies."""

    heard: Heard
    known: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Everything once, to the end; then all that was written is collected."""
    folder = tmp_path_factory.mktemp("privacy")
    sent = studies(tmp_path_factory.mktemp("sent"))
    found = Run({}, {})
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about what we send
        (folder / "tmp").mkdir()
        patch.setenv("TMPDIR", str(folder / "tmp"))
        run_hospital(folder / "hospital", sent, found)
        run_listener_without_quick_store(folder / "slow")
    found.heard |= dict(files(folder))
    return found


def run_hospital(folder: Path, sent: dict[str, list[Path]], found: Run) -> None:
    picky, monitors = PickyArchive(PATIENTS["judged"]), list[Monitor]()
    web_port, console_port, metrics_port = free_ports(3)
    folder.mkdir()
    (folder / "token").write_text(TOKEN)
    with (
        closing(picky),
        open_hospital(
            folder,
            destinations=[picky.destination],
            on_broker=lambda port: monitors.append(Monitor(port)),
            MONRO_RESEND_SECONDS="0.2",
            MONRO_SOURCES='[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", '
            '"port": ORTHANC_PORT}]',
            MONRO_WEB_PORT=str(web_port),
            MONRO_WEB_SENDERS=json.dumps(
                [{"name": "web", "token_file": str(folder / "token")}],
            ),
            MONRO_CONSOLE_PORT=str(console_port),
            MONRO_WORKER_METRICS_PORT=str(metrics_port),
        ) as hospital,
    ):
        stack = hospital.stack
        uids = {name: str(dcmread(paths[0]).StudyInstanceUID) for name, paths in sent.items()}
        for paths in sent.values():
            hospital.send(paths)
        found.heard |= dict(processes(stack))
        send_malformed(stack.listener_port, PATIENTS["malformed"])
        post_malformed(web_port, TOKEN, PATIENTS["malformed"])
        assert store(stack.listener_port, contradicted(sent["refused"][0])) == 0x0000
        deliver(hospital, picky, uids)
        put_into_the_spool(folder / "spool", sent["judged"][0])
        malformed = identified(PATIENTS["malformed"], "Rows").StudyInstanceUID
        for command in COMMANDS:
            patient_s = folder / "spool" / "studies" / uids["judged"]
            known = {**uids, "malformed": malformed, "files": str(patient_s)}
            words = command.format_map(known).split()
            found.heard[f"listener {command}"] = say(stack, "listener", *words)
        for command in ("checks", f"show-bundle {stack.bundles[0]}"):
            found.heard[f"worker {command}"] = say(stack, "worker", *command.split())
        reader = Somebody(stack, console_port)
        reader.look_around(
            uids["judged"], hospital.job(uids["judged"])["job_id"], PATIENTS["judged"]
        )
        found.heard |= {f"console {path}": reader.read(path) for path in NAMELESS}
        found.heard["figures of the worker"] = figures(metrics_port)
        found.heard["keys of the broker"] = keys(stack.redis_port)
        found.heard |= dict(rows(folder / "spool" / "ledger.sqlite"))
        for name, uid in {**uids, "malformed": malformed}.items():
            found.known[name] = stack.ledger.study(uid) or {}
    (monitor,) = monitors
    found.heard["messages to the broker"] = bytes(monitor.heard)


def figures(port: int) -> bytes:
    """What a worker tells Prometheus."""
    return urllib3.request("GET", f"http://127.0.0.1:{port}/metrics", timeout=30).data


def deliver(hospital: Hospital, picky: PickyArchive, uids: dict[str, str]) -> None:
    """One destination is away, then refuses, then accepts; the other one takes everything."""

    def states() -> dict[str, set[str]]:
        found = defaultdict(set)
        for uid in uids.values():
            for row in (hospital.stack.ledger.study(uid) or {}).get("deliveries", ()):
                found[row["destination"]].add(row["state"])
        return found

    hospital.await_that(lambda: hospital.job(uids["judged"]).get("state") == "REPORTED", 300)
    hospital.await_that(lambda: states()["pacs"] == {"CONFIRMED"}, 120)
    picky.open()
    hospital.await_that(lambda: "PARKED" in states()["picky"])
    for uid in uids.values():
        say(hospital.stack, "listener", "show", uid)
    picky.accepts = True
    for uid in uids.values():
        say(hospital.stack, "listener", "retry", uid)
    hospital.await_that(lambda: states()["picky"] == {"SENT"}, 120)


def run_listener_without_quick_store(folder: Path) -> None:
    """The same broken instances on pynetdicom's own way."""
    peers = json.dumps([{"ae_title": "PACS", "address": "127.0.0.1"}])
    changes = {"MONRO_PEERS": peers, "MONRO_QUICK_STORE": "false"}
    with Stack(folder, changes=changes) as stack:
        stack.start_redis()
        stack.start_listener()
        send_malformed(stack.listener_port, PATIENTS["malformed"])


def test_no_patient_is_named_outside_dicom_objects(run: Run) -> None:
    wanted = forms()

    assert {
        where: found for where, said in run.heard.items() if (found := told(said, wanted))
    } == {}


def test_the_run_met_all_that_it_should(run: Run) -> None:
    """Or else the search above would have little to look at."""
    jobs = {name: known["jobs"][-1] for name, known in run.known.items() if known["jobs"]}
    events = {row["what"] for known in run.known.values() for row in known["events"]}
    log = run.heard["hospital/logs/listener.log"]

    assert jobs["judged"]["state"] == "REPORTED"
    assert jobs["refused"]["state"] == jobs["malformed"]["state"] == "REFUSED"
    assert jobs["without a series"]["series_uid"] is None
    assert events >= {"instance quarantined", "delivery to picky parked", "retry by operator"}
    assert b"the destination does not answer" in log
    for complaint in (
        b"not a UID",
        b"contradicts what it was announced with",
        b"a PDU was not understood",
    ):
        assert complaint in log
    refused = run.heard["listener selftest --to pacs --study {files}"]
    assert b"does not say it is synthetic" in b" ".join(refused.split())
    figures = run.heard["console metrics"]
    assert b'monro_answers_total{analysis="fistula",answer="report",role="active"}' in figures
    assert re.search(rb'monro_instances_refused_total\{.*"malformed".*\} [1-9]', figures)
    assert b'monro_worker_jobs_total{analysis="fistula"' in run.heard["figures of the worker"]
    audit = run.heard["hospital/spool/audit/audit.log"]
    assert b"olga" in audit
    assert b"fetched from pacs" in run.heard["listener pull {judged}"]
    assert b"refused an instance from web" in log
    assert b"1 instance(s) recorded from the spool" in run.heard["listener reconcile"]
    for words in run.heard["messages to the broker"], run.heard["hospital/logs/worker.log"]:
        assert told(words, {jobs["judged"]["job_id"].encode(): "its job"})
    own = {each.name or str(each.callback.__name__) for each in app.registered_commands}
    assert own - {"serve"} == {command.split()[0] for command in COMMANDS}
    for command in COMMANDS:
        assert b"Traceback" not in run.heard[f"listener {command}"]


@pytest.mark.parametrize("name", PATIENTS)
def test_a_planted_name_is_found_however_it_is_written(name: str) -> None:
    patient, wanted = PATIENTS[name], forms()
    own = patient.name.encode(patient.charset[1])
    text = patient.name.encode()
    message = base64.b64encode(json.dumps({"of": patient.name}).encode())
    for written in (
        own, text, patient.name.encode("utf-16"), patient.name.upper().encode(),
        repr(text).encode(), json.dumps(patient.name).encode(), quote(patient.name).encode(),
        own.hex().encode(), base64.b64encode(own), base64.urlsafe_b64encode(b"x" + own),
        b"/spool/" + message, json.dumps({"body": message.decode()}).encode(),
    ):  # fmt: skip
        assert told(b"12:00 INFO: " + written + b".", wanted)
    assert told(patient.birth_date.encode(), wanted)
    assert told(b"1.2.826.0.1 is an instance, 2026-01-01 12:00:00 a time", wanted) == set()
