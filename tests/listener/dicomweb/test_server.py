"""The web service outlives those who open connections and say nothing, and its own death."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from pydicom.dataset import Dataset

from listener.dicomweb.server import WebServer
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from listener.spool import Spool
from tests.listener.dicomweb.conftest import Web


def is_turned_away(connection: socket.socket) -> bool:
    connection.settimeout(5)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_one_address_opens_no_more_connections_than_it_may_until_it_closes_some(
    web: Web, mr_slice: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("listener.web_port.CONNECTIONS_OF_ONE_ADDRESS", 3)
    with ExitStack() as silent:
        for _ in range(3):
            silent.enter_context(socket.create_connection(web.address))
        time.sleep(0.2)
        with socket.create_connection(web.address) as one_too_many:
            assert is_turned_away(one_too_many)
    time.sleep(0.5)
    assert web.send(mr_slice).status == 200
    assert "turned a connection from 127.0.0.1 away" in caplog.text


def test_a_service_that_died_answers_again_once_it_is_started_anew(
    spool: Spool,
    ledger: Ledger,
    settings_for: Callable[..., ListenerSettings],
    free_port: int,
    mr_slice: Dataset,
) -> None:
    settings = settings_for(web_port=free_port)
    server = WebServer(settings, spool, ledger)
    server.start()
    server.port.interrupt()
    assert not server.is_alive

    server.start()
    try:
        assert Web(settings).send(mr_slice).status == 200
    finally:
        server.stop()
