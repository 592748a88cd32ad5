"""/healthz and /readyz tell the truth: each thing is broken for real, and they say which it is."""

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from listener import receivers
from listener.front_door import our_port
from listener.knock import answers
from listener.ledger import this_process
from listener.monitoring.health import REMEMBERED_SECONDS, Health, Probe
from listener.monitoring.pulse import Pulse
from listener.monitoring.routes import routes
from listener.node import STEWARD, Node
from listener.settings import ListenerSettings
from listener.turned_away import TurnedAway
from listener.workforce import ALIVE_SECONDS, Worker, Workforce
from tests.listener.conftest import BUNDLE
from tests.listener.monitoring.conftest import serving

MIB = 1 << 20


class Listener:
    """A running listener that everything is there for, and its web page."""

    def __init__(self, node: Node, ask: Callable[[str], Any]) -> None:
        self.node, self._ask = node, ask

    def ill(self, path: str) -> dict[str, str]:
        """The checks that are not well, and what they say."""
        answer = self._ask(path)
        body = json.loads(answer.body)
        found = {
            name: str(check["detail"]) for name, check in body["checks"].items() if not check["ok"]
        }
        assert answer.status == (503 if found else 200)
        assert body["ok"] is not bool(found)
        return found

    def until_ill(self, path: str, name: str, seconds: float = 15) -> str:
        """Wait for one check, and only that, to tell; returns what it says."""
        deadline = time.monotonic() + seconds
        while set(found := self.ill(path)) != {name}:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        return found[name]

    def until_well(self, path: str, seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while found := self.ill(path):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


@pytest.fixture
def opened(
    settings_for: Callable[..., ListenerSettings], broker: redis.Redis
) -> Iterator[Callable[..., Listener]]:
    """Starts a listener with a broker and a worker, and waits until it is ready."""
    with ExitStack() as stack:

        def start(*, is_well: bool = True, **changes: Any) -> Listener:
            port = broker.connection_pool.connection_kwargs["port"]
            settings = settings_for(
                **{"broker": f"redis://127.0.0.1:{port}/0", "receivers": 1, "poll_seconds": 0.1}
                | changes
            )
            node = stack.enter_context(Node(settings))
            # A receiver makes the folders of the spool when it begins.
            assert answers(our_port(settings), settings)
            node.ledger.register_bundle(BUNDLE)
            beat(node)
            health = Health(settings, node.ledger, node.spool, node.audit, node.pulse)
            served = routes(settings, node.ledger, node.spool, health, TurnedAway(1))
            listener = Listener(node, stack.enter_context(serving(served)))
            if is_well:
                listener.until_well("/readyz")
                assert listener.ill("/healthz") == {}
            return listener

        yield start


def beat(node: Node, ago: float = 0.0) -> None:
    held = ("fistula", *BUNDLE.edition)
    at = node.ledger.now - ago
    Workforce(node.ledger).beat(Worker(this_process(), at, at, "cpu", [held], {}))


def test_a_broker_that_was_killed(opened: Callable[..., Listener], broker: redis.Redis) -> None:
    listener = opened()
    broker.shutdown(nosave=True)

    assert "does not answer" in listener.until_ill("/readyz", "broker")
    assert listener.ill("/healthz") == {}


def test_a_worker_whose_heart_stopped(opened: Callable[..., Listener]) -> None:
    listener = opened()
    beat(listener.node, ago=ALIVE_SECONDS + 1)

    assert "fistula" in listener.until_ill("/readyz", "workers")
    beat(listener.node)
    listener.until_well("/readyz")


def test_a_bundle_that_no_worker_holds(opened: Callable[..., Listener]) -> None:
    listener = opened(is_well=False, analyses=("fistula", "infection"))

    assert listener.until_ill("/readyz", "workers").endswith("for infection")


def test_a_disk_that_fills_up(opened: Callable[..., Listener], tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    listener = opened(keep_free=free - 700 * MIB, room_for_study=100 * MIB)
    ballast = tmp_path / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1300 * MIB)

    assert "bytes free" in listener.until_ill("/readyz", "spool")
    ballast.unlink()
    listener.until_well("/readyz")


def test_a_spool_that_takes_nothing(opened: Callable[..., Listener]) -> None:
    listener = opened()
    shutil.rmtree(listener.node.spool.root / "incoming")

    assert listener.until_ill("/readyz", "spool")


def test_a_ledger_that_takes_no_write(
    opened: Callable[..., Listener], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does a loop that waits for it come round."""
    listener = opened()
    listener.node.pulse.expect(STEWARD, within_seconds=1.0)
    blocker = sqlite3.connect(listener.node.spool.root / "ledger.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        deadline = time.monotonic() + 20
        while "ledger" not in (found := listener.ill("/readyz")):
            assert time.monotonic() < deadline
        assert "has not answered for" in found["ledger"]
        assert STEWARD in found
        assert set(listener.ill("/healthz")) == {STEWARD}
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    listener.until_well("/readyz", 30)


def test_a_thread_that_ended(opened: Callable[..., Listener]) -> None:
    listener = opened()
    listener.node._couriers[0].stop()

    assert listener.until_ill("/healthz", "courier-pacs") == "its thread ended"
    assert "courier-pacs" in listener.ill("/readyz")


def test_a_receiver_that_hangs(
    opened: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "SILENT_SECONDS", 2.0)
    listener = opened()
    (pid,) = listener.node.receivers.pids
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "receiver 0 does not answer" in listener.until_ill("/healthz", "receivers")
    finally:
        os.kill(pid, signal.SIGCONT)
    listener.until_well("/healthz")


def test_a_port_that_is_closed(opened: Callable[..., Listener]) -> None:
    listener = opened()
    listener.node.receivers._ports[0].socket.close()

    assert listener.until_ill("/healthz", "ports") == "1 of 1 ports are closed"


def test_an_audit_trail_that_cannot_be_written(opened: Callable[..., Listener]) -> None:
    listener = opened()
    folder = listener.node.spool.root / "audit"
    shutil.rmtree(folder)
    folder.touch()
    try:
        assert "cannot be written" in listener.until_ill("/readyz", "audit trail")
    finally:
        folder.unlink()
    listener.until_well("/readyz")


def test_an_audit_trail_that_is_not_taken(
    opened: Callable[..., Listener], free_port: int, settings_for: Callable[..., Any]
) -> None:
    listener = opened(is_well=False, audit=f"syslog://127.0.0.1:{settings_for().port}")

    assert "collector" in listener.until_ill("/readyz", "audit trail")


def test_a_look_that_hangs_is_not_waited_for_and_not_begun_twice() -> None:
    begun = []

    def hangs() -> str:
        begun.append(1)
        time.sleep(1)
        return "well after all"

    probe = Probe("disk", hangs)
    for _ in range(3):
        probe.begin()
        found = probe.found(time.monotonic() + 0.05)
        assert not found.ok
        assert "has not answered" in found.detail
    assert probe.found(time.monotonic() + 5).ok
    assert begun == [1]


def test_what_fails_is_told_without_its_message() -> None:
    def fails() -> str:
        raise ValueError("PLANTED^NAME")

    probe = Probe("disk", fails)
    probe.begin()

    assert probe.found(time.monotonic() + 5).detail == "ValueError"


def test_a_loop_is_given_up_when_its_time_has_passed() -> None:
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    pulse.expect("steward", within_seconds=10)
    now[0] = 10.0
    assert [check.ok for check in pulse.checks()] == [True]
    now[0] = 10.1
    assert [check.ok for check in pulse.checks()] == [False]
    pulse.touch("steward")
    assert [check.ok for check in pulse.checks()] == [True]


def test_readiness_is_not_looked_for_more_often_than_it_may_cost(
    opened: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = opened()
    looked = []
    check = listener.node.spool.check
    monkeypatch.setattr(
        listener.node.spool, "check", lambda room: (looked.append(room), check(room))
    )
    begun = time.monotonic()
    for _ in range(20):
        listener.ill("/readyz")

    assert len(looked) <= 1 + (time.monotonic() - begun) / REMEMBERED_SECONDS
