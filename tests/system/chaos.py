"""Kill whatever runs, at any moment, many times; then see whether anything was lost or doubled.

    make chaos KILLS=200

Real listener, worker, Redis and Orthanc. Senders bring studies on several associations, through a
wire that is cut in the middle of PDUs, and insist until every instance is acknowledged; some slices
come late, some twice. Meanwhile processes are killed, Redis is flushed, the archive goes away, and
the disk fills up. At the end, one JSON line: what was lost, doubled or stuck.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis
from pydicom import dcmread
from pynetdicom import AE

from deploy.stack import Stack
from listener.accounting import account
from listener.caller import call
from listener.remote import Entity
from listener.spool import Spool
from tests.system.conftest import Hospital, Orthanc, edited_copy, open_hospital
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import write_study

DISK_BYTES = 512 << 20
KEEP_FREE = 48 << 20

SETTINGS = {
    "MONRO_COMMITMENT_SECONDS": "3",
    "MONRO_STALLED_SECONDS": "10",
    "MONRO_QUIET_SECONDS": "4",
    "MONRO_MAX_ATTEMPTS": "7",
    "MONRO_KEEP_FREE": str(KEEP_FREE),
    "MONRO_ROOM_FOR_STUDY": str(KEEP_FREE // 2),
    "MONRO_ASSOCIATION_TIMEOUT_SECONDS": "10",
}

# Enough slices to be judged, and too few of them.
WHOLE, TOO_FEW = None, 12
# One study in so many is whole: the others are refused, which takes a moment instead of many.
WHOLE_EVERY = 6
LATE_EVERY, RESENT_EVERY = 4, 3

REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
SUMMARY = "1.2.840.10008.5.1.4.1.1.88.22"


class Wire:
    """A port in front of the listener, whose connections break in the middle of a PDU."""

    def __init__(self, port: int, dice: random.Random) -> None:
        self._to, self._dice = port, dice
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._server.accept()
                try:
                    theirs = socket.create_connection(("127.0.0.1", self._to), 5)
                except OSError:
                    ours.close()
                    continue
                life = self._dice.randrange(3_000, 400_000) if self._dice.random() < 0.7 else None
                for source, sink, limit in ((ours, theirs, life), (theirs, ours, None)):
                    threading.Thread(
                        target=self._carry, args=(source, sink, limit), daemon=True
                    ).start()

    def _carry(self, source: socket.socket, sink: socket.socket, life: int | None) -> None:
        with suppress(OSError):
            while part := source.recv(1 << 16):
                if life is not None:
                    part, life = part[:life], life - len(part)
                sink.sendall(part)
                if life is not None and life <= 0:
                    self.cuts += 1
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclass
class Load:
    """One study, and what the listener acknowledged of it."""

    uid: str
    files: Sequence[Path]
    late: Sequence[Path]
    again: Sequence[Path]
    acknowledged: dict[Path, str] = field(default_factory=dict)
    done: bool = False


class Sender(threading.Thread):
    """Brings one study and insists, as a good modality does."""

    def __init__(self, load: Load, ports: Sequence[int], dice: random.Random) -> None:
        super().__init__(daemon=True)
        self._load, self._ports, self._dice = load, ports, dice

    def run(self) -> None:
        """Send everything, then what is late, then some of it again."""
        self._send(self._load.files)
        if self._load.late:
            time.sleep(self._dice.uniform(2, 12))
            self._send(self._load.late)
        if self._load.again:
            time.sleep(self._dice.uniform(0, 5))
            self._send(self._load.again)
        self._load.done = True

    def _send(self, files: Sequence[Path]) -> None:
        waiting = list(files)
        while waiting:
            waiting = self._send_some(waiting)
            if waiting:
                time.sleep(0.3)

    def _send_some(self, waiting: Sequence[Path]) -> list[Path]:
        """Send on one association; returns what was not acknowledged."""
        entity = AE(ae_title="SCANNER")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        entity.connection_timeout = 5
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1")
        left = list(waiting)
        association = call(
            entity,
            Entity(ae_title="MONRO", host="127.0.0.1", port=self._dice.choice(self._ports)),
            None,
        )
        while association.is_established and left:
            try:
                status = association.send_c_store(dcmread(left[0])).get("Status")
            except (RuntimeError, ValueError, OSError):
                break
            if status != 0x0000:
                break
            path = left.pop(0)
            self._load.acknowledged[path] = pixels(path)
        if association.is_established:
            association.release()
        return left


def pixels(path: Path) -> str:
    """What must not have changed of an instance."""
    dataset = dcmread(path)
    return f"{dataset.SOPInstanceUID} {hashlib.sha256(dataset.PixelData).hexdigest()}"


class Chaos:
    """Everything that runs, and everything that may happen to it."""

    def __init__(self, stack: Stack, orthanc: Orthanc, dice: random.Random, disk: bool) -> None:
        self._stack, self._orthanc, self._dice = stack, orthanc, dice
        self.happened: Counter[str] = Counter()
        self._events: dict[Callable[[], bool | None], int] = {
            self._kill_listener: 6,
            self._kill_receiver: 5,
            self._kill_worker: 3,
            self._kill_redis: 3,
            self._kill_archive: 3,
            self._flush_redis: 2,
            self._stop_archive_for_long: 1,
            **({self._fill_disk: 2} if disk else {}),
        }

    def __call__(self) -> None:
        """Let something happen; only what came about counts."""
        (event,) = self._dice.choices([*self._events], [*self._events.values()])
        if event() is not False:
            self.happened[event.__name__.strip("_")] += 1

    @property
    def kills(self) -> int:
        """How often a process was killed."""
        return sum(count for name, count in self.happened.items() if name.startswith("kill"))

    def _kill_listener(self) -> None:
        self._stack.stop("listener", signal.SIGKILL)
        time.sleep(self._dice.uniform(0, 1))
        self._stack.start_listener()

    def _kill_receiver(self) -> bool:
        """False where there was none: they are being started."""
        try:
            listener = psutil.Process(self._stack.pid("listener"))
            receivers = [each for each in listener.children() if _is_receiver(each)]
            if receivers:
                self._dice.choice(receivers).kill()
        except psutil.NoSuchProcess:
            return False
        return bool(receivers)

    def _kill_worker(self) -> None:
        self._stack.stop("worker", signal.SIGKILL)
        self._stack.start_worker()

    def _kill_redis(self) -> None:
        self._stack.stop("redis", signal.SIGKILL)
        time.sleep(self._dice.uniform(0, 1))
        self._stack.start_redis()

    def _flush_redis(self) -> None:
        redis.Redis(port=self._stack.redis_port).flushall()

    def _kill_archive(self) -> None:
        self._orthanc.kill()
        time.sleep(self._dice.uniform(0, 1))
        self._orthanc.start()

    def _stop_archive_for_long(self) -> None:
        self._orthanc.stop()
        time.sleep(self._dice.uniform(3, 6))
        self._orthanc.start()

    def _fill_disk(self) -> None:
        """Leave less than must stay free, or nothing at all."""
        spool = self._stack.folder / "spool"
        ballast = spool / "ballast"
        left = self._dice.choice((0, KEEP_FREE // 3))
        disk = os.statvfs(spool)
        size = disk.f_bavail * disk.f_frsize - left
        with suppress(OSError), ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, size))
        time.sleep(self._dice.uniform(1, 4))
        ballast.unlink(missing_ok=True)


def _is_receiver(process: psutil.Process) -> bool:
    """Whether it receives; one that was killed a moment ago does not."""
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@contextmanager
def hospital(folder: Path, disk: bool) -> Iterator[Hospital]:
    """Everything that runs; the spool on a small disk of its own where that is allowed."""
    peers = json.dumps([{"ae_title": name} for name in ("SCANNER", "PACS")])
    (folder / "spool").mkdir(parents=True)
    with (
        small_disk(folder / "spool", disk),
        open_hospital(folder, MONRO_PEERS=peers, **SETTINGS) as place,
    ):
        yield place


@contextmanager
def small_disk(folder: Path, allowed: bool) -> Iterator[None]:
    """A folder on a small disk of its own, where that is allowed."""
    if not allowed:
        yield
        return
    mount(folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(folder: Path) -> None:
    """A small disk in memory."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    subprocess.run(command, check=True)


def may_mount(folder: Path) -> bool:
    """Whether a small disk can be had here; the mount goes with the namespace."""
    probe = folder / "probe"
    probe.mkdir(parents=True)
    try:
        mount(probe)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
    subprocess.run(["umount", str(probe)], check=True)
    return True


def loads(folder: Path, studies: int, dice: random.Random) -> list[Load]:
    """Copies of one phantom's study, each under UIDs of its own."""
    phantom = render(draw_case(2024, positive=True, spectrum=OVERT))
    original = write_study(phantom, folder / "original")
    found = []
    for number in range(studies):
        count = WHOLE if number % WHOLE_EVERY == 0 else TOO_FEW
        uid, files = edited_copy(original[:count], folder / f"{number}")
        late = files[-2:] if number % LATE_EVERY == 1 else []
        again = dice.sample(files, 3) if number % RESENT_EVERY == 2 else []
        found.append(Load(uid, files[: len(files) - len(late)], late, again))
    return found


@dataclass
class Verdict:
    """What was lost, doubled or stuck; each in words."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)


def settled(stack: Stack, studies: Sequence[Load]) -> list[str]:
    """What is still under way."""
    waiting = []
    for load in studies:
        known = stack.ledger.study(load.uid) or {}
        jobs = {job["state"] for job in known.get("jobs", ())}
        sent = {row["state"] for row in known.get("deliveries", ())}
        over = known.get("state") == "COMPLETE" and (known["planned_revision"] == known["revision"])
        if not (load.done and over and sent == {"CONFIRMED"} and jobs) or jobs & {
            "QUEUED", "RUNNING", "FAILED",
        }:  # fmt: skip
            waiting.append(f"{load.uid}: {known.get('state')} jobs {jobs} deliveries {sent}")
    return waiting


def settle(stack: Stack, studies: Sequence[Load], patience: float) -> None:
    """Wait for as long as one study after another settles, each of them within the patience."""
    left, until = len(studies), time.monotonic() + patience
    while (now := len(settled(stack, studies))) and time.monotonic() < until:
        if now < left:
            left, until = now, time.monotonic() + patience
        say(f"{now} studies are not settled yet")
        time.sleep(2)


def judge(stack: Stack, orthanc: Orthanc, studies: Sequence[Load], folder: Path) -> Verdict:
    """Compare what was acknowledged with what is there, here and in the archive."""
    found = Verdict(stuck=settled(stack, studies))
    spool = Spool(stack.folder / "spool")
    held = {pixels(path) for _key, path in spool.received() if "PixelData" in dcmread(path)}
    for load in studies:
        found.lost += [uid for uid in load.acknowledged.values() if uid not in held]
    found.lost += disagreements(spool, stack)
    for number, load in enumerate(studies):
        files = orthanc.files(load.uid, folder / f"archive-{number}")
        archived = [dcmread(path, stop_before_pixels=True) for path in files]
        judge_kinds(stack, load.uid, [str(each.SOPInstanceUID) for each in archived], found)
        reports = [dataset for dataset in archived if dataset.Modality == "SR"]
        replaced = {uid for report in reports for uid in predecessors(report)}
        current = Counter(
            str(report.SOPClassUID) for report in reports if report.SOPInstanceUID not in replaced
        )
        for sop_class in (REPORT, SUMMARY):
            if current[sop_class] > 1:
                found.doubled.append(f"{load.uid}: {current[sop_class]} of {sop_class}")
            if current[sop_class] < 1:
                found.stuck.append(f"{load.uid}: no current {sop_class} in the archive")
    return found


def judge_kinds(stack: Stack, study_uid: str, archived: Sequence[str], found: Verdict) -> None:
    """Compare what the archive has of a study with the results that the ledger knows.

    Of everything that the current answer consists of, overlays as well, the archive must have one,
    in one encoding; and nothing that the ledger does not know of.
    """
    known = stack.ledger.study(study_uid) or {}
    jobs = known.get("jobs", ())
    answered = [job for job in jobs if job["answered"] and job["role"] == "active"]
    results = {job["job_id"]: stack.ledger.results_of(job["job_id"]) for job in jobs}
    ours = {result.sop_uid for of_job in results.values() for result in of_job}
    there = Counter(archived)
    for uid in there.keys() - ours:
        found.doubled.append(f"{study_uid}: the archive has {uid}, which no answer knows")
    for job in latest_of_each_analysis(answered):
        of_job = results[job["job_id"]]
        named = Counter((each.kind, each.number) for each in of_job if each.alternative_of is None)
        arrived: Counter[tuple[str, int]] = Counter()
        by_uid = {each.sop_uid: each for each in of_job}
        for each in of_job:
            preferred = by_uid[each.alternative_of or each.sop_uid]
            arrived[preferred.kind, preferred.number] += there[each.sop_uid]
        for (kind, index), count in named.items():
            if count > 1 or arrived[kind, index] > 1:
                found.doubled.append(
                    f"{study_uid}: {kind} {index}: {count} known, {arrived[kind, index]} archived"
                )
            if not arrived[kind, index]:
                found.stuck.append(f"{study_uid}: {kind} {index} is not in the archive")


def latest_of_each_analysis(answered: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """The jobs that answer for a study, of all that answered, which are in order of revision."""
    return {job["analysis"]: job for job in answered}.values()


def disagreements(spool: Spool, stack: Stack) -> list[str]:
    """Where spool and ledger disagree for good: the archive still sends us our own results back."""
    for _ in range(10):
        found = [
            f"{each.study_uid}: the ledger lacks {len(each.unknown)} file(s), the spool "
            f"{len(each.missing)}; {len(each.damaged)} are damaged, {len(each.unsettled)} half way"
            for each in account(spool, stack.ledger)
            if not each.agrees
        ]
        if not found:
            break
        time.sleep(1)
    return found


def predecessors(report: Any) -> Iterator[str]:
    """Instance UIDs of the documents that a report replaces."""
    for study in report.get("PredecessorDocumentsSequence", []):
        for series in study.ReferencedSeriesSequence:
            for instance in series.ReferencedSOPSequence:
                yield str(instance.ReferencedSOPInstanceUID)


def run(kills: int, studies: int, seed: int, patience: float) -> int:
    """Do it all; returns the exit code."""
    dice = random.Random(seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="monro-chaos-") as name:
        folder = Path(name)
        disk = may_mount(folder)
        if not disk:
            say("no disk of its own can be mounted here: the disk is never full in this run")
        brought = loads(folder / "studies", studies, dice)
        with hospital(folder / "monro", disk) as place:
            stack, orthanc = place.stack, place.orthanc
            wire = Wire(stack.listener_port, dice)
            chaos = Chaos(stack, orthanc, dice, disk)
            ports = (stack.listener_port, wire.port, wire.port)
            waiting = [Sender(load, ports, random.Random(dice.random())) for load in brought]
            every = max(1, kills // max(1, studies))
            while chaos.kills < kills or waiting:
                if waiting and chaos.kills >= every * (studies - len(waiting)) - every:
                    waiting.pop(0).start()
                    continue
                time.sleep(dice.expovariate(1.5))
                chaos()
                say(f"{chaos.kills} of {kills} kills, {studies - len(waiting)} studies begun")
            settle(stack, brought, patience)
            found = judge(stack, orthanc, brought, folder / "found")
            wire.close()
        report(found, brought, chaos, wire, time.monotonic() - started)
        if found.lost or found.doubled or found.stuck:
            kept = Path(tempfile.mkdtemp(prefix="monro-chaos-logs-"))
            for log in (folder / "monro" / "logs").glob("*"):
                (kept / log.name).write_bytes(log.read_bytes())
            say(f"the logs are in {kept}")
            return 1
    return 0


def report(
    found: Verdict, brought: Sequence[Load], chaos: Chaos, wire: Wire, seconds: float
) -> None:
    """One JSON line for machines, and the reasons for people."""
    for name in ("lost", "doubled", "stuck"):
        for reason in getattr(found, name):
            say(f"{name}: {reason}")
    line = {
        "figure": "chaos",
        "kills": chaos.kills,
        "studies": len(brought),
        "instances": sum(len(load.acknowledged) for load in brought),
        "lost": len(found.lost),
        "doubled": len(found.doubled),
        "stuck": len(found.stuck),
        "cuts": wire.cuts,
        "events": dict(sorted(chaos.happened.items())),
        "seconds": round(seconds),
    }
    print(json.dumps(line))


def say(text: str) -> None:
    """Tell a person how far it is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--patience", type=float, default=180, help="seconds for the next to settle, at the end"
    )
    asked = parser.parse_args()
    sys.exit(run(asked.kills, asked.studies, asked.seed, asked.patience))
