"""The console beside the listener: it comes and goes, and studies never wait for it."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import urllib3
from pydicom.dataset import Dataset
from pynetdicom import AE
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from listener.audit.trail import NO_AUDIT
from listener.caller import call
from listener.console.gate.accounts import Accounts
from listener.console.server import ConsoleServer
from listener.console.wellbeing import Checked
from listener.ledger import Ledger
from listener.node import Node
from listener.remote import Entity
from listener.settings import ListenerSettings
from listener.spool import Spool
from tests.listener.console.conftest import PASSWORDS, Browser

Settings = Callable[..., ListenerSettings]


def status(settings: ListenerSettings, path: str = "/sign-in") -> int:
    """What the console answers; 0 where nobody does."""
    try:
        with urllib3.PoolManager(retries=False, timeout=10) as pool:
            return pool.request("GET", f"http://127.0.0.1:{settings.console_port}{path}").status
    except urllib3.exceptions.HTTPError:
        return 0


def send(settings: ListenerSettings, dataset: Dataset) -> int:
    entity = AE("SENDER")
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = call(entity, Entity(ae_title="MONRO", host="127.0.0.1", port=settings.port), None)
    try:
        return int(association.send_c_store(dataset).Status)
    finally:
        association.release()


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def settings(settings_for: Settings, free_port: int) -> ListenerSettings:
    return settings_for(console_port=free_port, poll_seconds=0.1, receivers=1, audit="none")


def test_a_listener_serves_the_console_and_serves_it_again_when_it_died(
    settings: ListenerSettings,
) -> None:
    with Node(settings) as node:
        assert status(settings) == 200
        assert status(settings, "/static/console.css") == 200
        console: Any = node._servers["console"]
        first = console.port._thread
        console.port.interrupt()
        assert wait_for(lambda: console.port._thread is not first and status(settings) == 200)
    assert status(settings) == 0


def test_what_monitoring_brings_is_served_and_shown(
    settings: ListenerSettings, ledger: Ledger, tmp_path: Path
) -> None:
    async def figures(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("monro_up 1")

    checks = [Checked("ledger", ok=True, detail="takes rows"), Checked("broker", False, "is away")]
    Accounts(ledger).add("vera", "viewer", PASSWORDS["vera"])
    server = ConsoleServer(
        settings, ledger, Spool(tmp_path / "spool"), NO_AUDIT, [Route("/healthz", figures)],
        lambda: checks,
    )  # fmt: skip
    server.start()
    try:
        assert status(settings, "/healthz") == 200
        vera = Browser(settings.console_port or 0, "vera")
        page = vera.get("/health")
        assert "Something is amiss" in page
        assert "is away" in page
        assert [each["ok"] for each in vera.json("/api/health")["checks"]] == [True, False]
    finally:
        server.stop()


@pytest.mark.parametrize(("proxies", "most"), [([], 3), (["127.0.0.1"], 5)])
def test_a_proxy_brings_more_connections_than_one_person(
    settings_for: Settings,
    free_port: int,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    proxies: list[str],
    most: int,
) -> None:
    monkeypatch.setattr("listener.web_port.CONNECTIONS_OF_ONE_ADDRESS", 3)
    monkeypatch.setattr("listener.web_port.CONNECTIONS_OF_A_PROXY", 5)
    settings = settings_for(console_port=free_port, console_proxies=proxies)
    server = ConsoleServer(settings, ledger, Spool(tmp_path / "spool"), NO_AUDIT)
    server.start()
    try:
        with ExitStack() as opened:
            answered = 0
            for _ in range(7):
                one = opened.enter_context(socket.create_connection(("127.0.0.1", free_port), 10))
                answered += is_answered(one)
            assert answered == most
    finally:
        server.stop()


def is_answered(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"GET /static/monro.svg HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.recv(8) == b"HTTP/1.1"
    except ConnectionError:
        return False


def test_a_console_that_does_not_start_again_stops_no_study(
    settings: ListenerSettings,
    mr_slice: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_self: ConsoleServer) -> None:
        raise RuntimeError("PLANTED")

    with Node(settings) as node:
        monkeypatch.setattr(ConsoleServer, "start", broken)
        console: Any = node._servers["console"]
        console.port.interrupt()
        assert wait_for(lambda: "the console did not start" in caplog.text)

        assert send(settings, mr_slice) == 0x0000
        study = node.ledger.study
        assert wait_for(
            lambda: (study(mr_slice.StudyInstanceUID) or {}).get("state") == "RECEIVING"
        )
    assert "PLANTED" not in caplog.text


def test_without_a_console_nothing_of_it_is_imported() -> None:
    asked = "import listener.node, sys; print(sorted({'fastapi', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
