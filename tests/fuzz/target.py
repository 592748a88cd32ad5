"""A real listener to attack, and what is watched of it: its processes, its memory, its files."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil

from deploy.stack import answers, free_ports
from tests.fuzz import wire
from tests.fuzz.sessions import messages, sound
from tests.fuzz.source import Source

TIMEOUT_SECONDS: Final = 5.0
START_SECONDS: Final = 180.0
SERVED_SECONDS: Final = 30.0
# Connections are closed by now; threads that go on end soon.
LET_GO_SECONDS: Final = 3.0

# A process that only imports what it needs has about 90; one header may have 64, once inflated, and
# 150 in items and elements.
MOST_MEMORY_MIB: Final = 450.0
# Of a process that serves nobody at the moment.
MOST_THREADS: Final = 12
MOST_DESCRIPTORS: Final = 64

# What the log says of an error that nobody foresaw, and of patients.
UNFORESEEN: Final = re.compile(
    "Traceback|cut short|cannot be planned|was not kept|PLANTED|is asked later|"
    r"an answer was not understood|died and is started again|STOW-RS request was given up: \w+ in "
)

Probe = Callable[[random.Random], str]

UID: Final = r"[0-9.]{1,64}"
OF_THE_SPOOL: Final = re.compile(
    rf"""(
    incoming/[0-9a-f]{{32}}\.part
    | studies/{UID}/{UID}/{UID}\.(dcm|[0-9a-f]{{64}}\.[0-9a-f]{{8}}\.part)
    | audit/(audit\.log|key)
    | quarantine/{UID}/{UID}/{UID}\.[0-9a-f]{{16}}\.dcm
    | ledger\.sqlite(-wal|-shm)?
    )""",
    re.VERBOSE,
)


class Target:
    """A listener that runs, with folders beside its spool that nobody may write to.

    Args:
        folder: of all of its files.
        port: of DICOM without TLS.
        process: the listener.
        most_threads: that it has while it serves nobody.
        probes: tell what became of a sound peer, one after the other; an empty text: it was served.
        ports: others of its, by name.
        ours: files in its folder that it did not write.

    Attributes:
        sources: that it asks.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        process: subprocess.Popen[bytes],
        most_threads: int,
        probes: Sequence[Probe],
        ports: Mapping[str, int],
        ours: Collection[Path],
    ) -> None:
        self.folder, self.port, self.ports = folder, port, ports
        self._process, self._most_threads, self._probes = process, most_threads, probes
        self._ours = ours
        self.sources: Sequence[Source] = ()
        self.peak_mib: dict[int, float] = {}
        self._dice = random.Random(0)
        self._read_so_far = 0

    @property
    def processes(self) -> dict[int, psutil.Process]:
        """All of the listener's, by their IDs."""
        parent = psutil.Process(self._process.pid)
        return {each.pid: each for each in (parent, *parent.children(recursive=True))}

    def look(self) -> None:
        """Note how much memory each process has ever had."""
        for pid in self.processes:
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                found = re.search(r"VmHWM:\s+(\d+) kB", status)
                if found:
                    self.peak_mib[pid] = int(found[1]) / 1024

    def written_elsewhere(self) -> list[str]:
        """Files that lie where none should: beside the spool, or in it under a strange name."""
        spool = self.folder / "spool"
        found = [path for path in self.folder.rglob("*") if path.is_file() or path.is_symlink()]
        return sorted(
            str(path.relative_to(self.folder))
            for path in found
            if path not in self._ours
            and not (
                path.is_relative_to(spool)
                and OF_THE_SPOOL.fullmatch(str(path.relative_to(spool)))
                and ".." not in path.parts
            )
        )

    def serves(self) -> str:
        """An empty text if sound peers are served; or what became of one."""
        until = time.monotonic() + SERVED_SECONDS
        while True:
            found = next(filter(None, (probe(self._dice) for probe in self._probes)), "")
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.2)  # rejected for now

    def _complaints(self) -> list[str]:
        """Lines of the log, since the last look, that no input may bring about."""
        with (self.folder / "log").open(errors="replace") as log:
            log.seek(self._read_so_far)
            lines = log.read()
            self._read_so_far = log.tell()
        return [line for line in lines.splitlines() if UNFORESEEN.search(line)]

    def leaks(self) -> list[str]:
        """What an idle listener holds too much of, once it had time to let go."""
        until = time.monotonic() + LET_GO_SECONDS
        while True:
            found = []
            for pid, process in self.processes.items():
                threads, descriptors = process.num_threads(), process.num_fds()
                if threads > self._most_threads or descriptors > MOST_DESCRIPTORS:
                    found.append(f"process {pid}: {threads} threads, {descriptors} descriptors")
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.2)

    def faults(self, born: set[int]) -> list[str]:
        """Everything that is not as it should be; `born` are the processes of the beginning."""
        found = []
        served = self.serves()
        if served:
            found.append(f"a sound peer was not served: {served}")
        self.look()
        if set(self.processes) != born:
            found.append(f"processes {sorted(born)} became {sorted(self.processes)}")
        found += [
            f"process {pid} had {peak:.0f} MiB"
            for pid, peak in self.peak_mib.items()
            if peak > MOST_MEMORY_MIB
        ]
        found += [f"{path} was written" for path in self.written_elsewhere()]
        found += [f"the log says: {line}" for line in self._complaints()]
        return found + self.leaks()


def stores(dice: random.Random, opening: Callable[[], wire.Peer]) -> str:
    """An empty text if a C-ECHO and a C-STORE succeed; or what became of them."""
    echo = messages(wire.ECHO, wire.command(wire.echo_fields().items()), None)
    store = sound(dice)
    try:
        with opening() as peer:
            peer.send(store.proposal)
            peer.hear(SERVED_SECONDS)
            peer.send(*echo)
            peer.hear(SERVED_SECONDS)
            peer.send(*store.parts)
            peer.hear(SERVED_SECONDS)
            peer.send(wire.pdu(wire.RELEASE_RQ, bytes(4)))
            peer.hear(SERVED_SECONDS)
            answer = peer.end()
    except OSError as error:
        answer = wire.Answer(ending=type(error).__name__)
    if answer.kinds == {"accepted": 1, "status 0x0000": 2, "released": 1}:
        return ""
    return f"{dict(answer.kinds)}, {answer.ending}"


@contextmanager
def attacked(
    folder: Path,
    *,
    quick: bool = True,
    most_threads: int = MOST_THREADS,
    probes: Sequence[Probe] = (),
    ports: Mapping[str, int] = MappingProxyType({}),
    **changes: str,
) -> Iterator[Target]:
    """A listener for as long as it is needed.

    Args:
        folder: of all of its files.
        quick: whether it stores quickly.
        most_threads: that a process of it may have while it serves nobody.
        probes: whom it must serve besides who sends by C-STORE.
        ports: that the changes name.
        changes: settings that differ from the usual ones.
    """
    for name in ("spool", "home", "temporary", "studies"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}
    settings = {
        "MONRO_SPOOL": str(folder / "spool"),
        "MONRO_BROKER": "redis://127.0.0.1:1/0",
        "MONRO_SITE": "fuzz",
        "MONRO_PORT": str(port),
        "MONRO_OPEN_NODE": "true",
        "MONRO_KEEP_FREE": "0",
        "MONRO_ROOM_FOR_STUDY": "0",
        "MONRO_DESTINATIONS": json.dumps([destination]),
        "MONRO_QUICK_STORE": str(quick).lower(),
        "MONRO_ASSOCIATION_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
        "MONRO_QUIET_SECONDS": "1",
        "MONRO_RELEASED_QUIET_SECONDS": "0.5",
        "MONRO_POLL_SECONDS": "0.5",
    }
    inherited = {name: value for name, value in os.environ.items() if name[:6] != "MONRO_"}
    with (folder / "log").open("ab") as log:
        ours = {path for path in folder.rglob("*") if path.is_file()}
        process = subprocess.Popen(
            [sys.executable, "-m", "listener", "serve"],
            env={
                **inherited,
                **settings,
                **changes,
                "HOME": str(folder / "home"),
                "TMPDIR": str(folder / "temporary"),
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            cwd=folder / "studies",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    usual: Probe = partial(stores, opening=partial(wire.Peer, port, SERVED_SECONDS))
    target = Target(folder, port, process, most_threads, (usual, *probes), ports, ours)
    try:
        until = time.monotonic() + START_SECONDS
        while not answers(port) or target.serves():
            assert process.poll() is None, "the listener did not start"
            assert time.monotonic() < until, "the listener does not answer"
            time.sleep(0.1)
        yield target
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
