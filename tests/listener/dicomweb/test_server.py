"""The port of the web service: when it opens and closes, and over TLS."""

import hashlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import trustme
import urllib3
from pydicom.dataset import Dataset

from listener.dicomweb.client import WebClient
from listener.dicomweb.server import WebServer
from listener.errors import BadSettings, CannotListen, ServiceFailed
from listener.ledger import Ledger
from listener.node import Node
from listener.remote import Tls, WebService
from listener.settings import ListenerSettings
from listener.spool import Spool
from tests.listener.dicomweb.conftest import Web, body_of, file_of

Serving = Callable[..., AbstractContextManager[Web]]


def tls_of(folder: Path, name: str, authority: trustme.CA) -> Tls:
    """Files of somebody whom an authority vouches for."""
    certificate, key, trusted = (folder / f"{name}.{what}" for what in ("crt", "key", "ca"))
    made = authority.issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(certificate)
    made.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(trusted)
    return Tls(certificate=certificate, key=key, authorities=trusted)


def fingerprint(tls: Tls) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(tls.certificate.read_text())).hexdigest()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ours(tmp_path: Path, authority: trustme.CA) -> Tls:
    return tls_of(tmp_path, "monro", authority)


@pytest.fixture
def theirs(tmp_path: Path, authority: trustme.CA) -> Tls:
    return tls_of(tmp_path, "gateway", authority)


def store(web: Web, file: Path, tls: Tls | None) -> bool:
    """Send by our own client; whether it was kept."""
    with WebClient(WebService(url=web.url), tls, timeout_seconds=5) as client:
        return client.store([file]).status == 200


@pytest.fixture
def file(tmp_path: Path, an_mr_slice: Callable[..., Dataset]) -> Path:
    path = tmp_path / "slice.dcm"
    path.write_bytes(file_of(an_mr_slice(study="1.2.3")))
    return path


# --- start and stop ---


def test_a_port_that_is_taken_is_named(
    spool: Spool, ledger: Ledger, settings_for: Callable[..., ListenerSettings], free_port: int
) -> None:
    with (
        socket.create_server(("127.0.0.1", free_port)),
        pytest.raises(CannotListen, match=str(free_port)),
    ):
        WebServer(settings_for(web_port=free_port), spool, ledger)


def test_a_service_that_stopped_leaves_its_port_and_no_thread(
    serving: Serving, free_port: int, mr_slice: Dataset
) -> None:
    for _ in range(2):
        with serving() as web:
            assert web.send(mr_slice).status == 200
    assert "web" not in {thread.name for thread in threading.enumerate()}
    socket.create_server(("127.0.0.1", free_port)).close()


def test_a_request_that_is_being_served_comes_to_its_end(
    serving: Serving, mr_slice: Dataset
) -> None:
    body = body_of(file_of(mr_slice))

    def slowly() -> Iterator[bytes]:
        yield body[:100]
        time.sleep(0.5)
        yield body[100:]

    statuses: list[int] = []
    with serving() as web:
        thread = threading.Thread(target=lambda: statuses.append(web.post(slowly()).status))
        thread.start()
        time.sleep(0.2)
    thread.join()
    assert statuses == [200]


def test_a_request_that_does_not_end_is_broken_off(
    serving: Serving, spool: Spool, mr_slice: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.dicomweb.server.STOP_SECONDS", 0.2)
    body = body_of(file_of(mr_slice))
    with serving() as web:
        connection = socket.create_connection(web.address)
        head = (
            "POST /studies HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n"
            'Content-Type: multipart/related; type="application/dicom"; boundary=edge\r\n\r\n'
        )
        connection.sendall(head.encode() + body[:-50])
        time.sleep(0.3)
        begun = time.monotonic()
    connection.close()
    assert time.monotonic() - begun < 5
    assert list((spool.root / "incoming").iterdir()) == []


def test_a_whole_listener_takes_studies_over_both_ways(
    settings_for: Callable[..., ListenerSettings], free_port: int, mr_slice: Dataset
) -> None:
    settings = settings_for(web_port=free_port, receivers=1)
    with Node(settings) as node:
        assert Web(settings).send(mr_slice).status == 200
        deadline = time.monotonic() + 5
        while not node.ledger.instances_of(str(mr_slice.StudyInstanceUID)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_connection_that_asks_nothing_is_closed(serving: Serving, mr_slice: Dataset) -> None:
    with serving(association_timeout_seconds=0.3) as web:
        for begun in (b"", b"POST /stu"):
            with socket.create_connection(web.address, timeout=5) as connection:
                connection.sendall(begun)
                assert connection.recv(100) == b""
        # One that was answered once, and is then silent in the middle of a header.
        with socket.create_connection(web.address, timeout=5) as connection:
            connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = b""
            while not answer.endswith(b"Not Found"):
                answer += connection.recv(1000)
            connection.sendall(b"GET /noth")
            assert connection.recv(100) == b""


def test_a_connection_is_used_again(web: Web, mr_slice: Dataset) -> None:
    with urllib3.PoolManager(maxsize=1, retries=False) as pool:
        for _ in range(3):
            body = body_of(file_of(mr_slice))
            headers = {"Content-Type": "multipart/related; boundary=edge"}
            url = f"{web.url}/studies"
            assert pool.request("POST", url, body=body, headers=headers).status == 200
        (only,) = [pool.pools[key] for key in pool.pools.keys()]  # noqa: SIM118
        assert only.num_connections == 1


# --- TLS ---


def test_instances_come_encrypted(
    serving: Serving, spool: Spool, ours: Tls, theirs: Tls, file: Path
) -> None:
    with serving(tls=ours) as web:
        assert store(web, file, theirs)
        with pytest.raises(ServiceFailed):  # the system's authorities do not know ours
            store(web, file, None)
        plain = Web(web.settings)
        with pytest.raises(urllib3.exceptions.HTTPError):
            plain.post(b"")
    ((_key, path),) = spool.received()
    assert path.read_bytes() == file.read_bytes()


def test_a_sender_is_known_by_its_certificate(
    serving: Serving, ours: Tls, theirs: Tls, tmp_path: Path, authority: trustme.CA, file: Path
) -> None:
    other = tls_of(tmp_path, "other", authority)
    senders = [{"name": "gateway", "certificate": fingerprint(theirs)}]
    changes = {"open_node": False, "peers": [{"ae_title": "PACS"}], "web_senders": senders}
    with serving(tls=ours, **changes) as web:
        assert store(web, file, theirs)
        with pytest.raises(ServiceFailed, match="403"):
            store(web, file, other)
        context = ssl.create_default_context(cafile=ours.authorities)
        assert web.post(file.read_bytes(), ssl_context=context).status == 403  # it shows none


def test_a_certificate_that_nobody_vouches_for_is_refused(
    serving: Serving, ours: Tls, tmp_path: Path, file: Path
) -> None:
    stranger = tls_of(tmp_path, "stranger", trustme.CA())
    trusting = Tls(certificate=stranger.certificate, key=stranger.key, authorities=ours.authorities)
    with serving(tls=ours) as web, pytest.raises(ServiceFailed) as caught:
        store(web, file, trusting)
    assert caught.value.status is None


def test_certificates_and_authorities_may_change_while_we_run(
    serving: Serving, ours: Tls, theirs: Tls, tmp_path: Path, file: Path
) -> None:
    with serving(tls=ours) as web:
        assert store(web, file, theirs)
        new_authority = trustme.CA()
        renewed = tls_of(tmp_path, "monro", new_authority)
        assert renewed.certificate == ours.certificate

        assert store(web, file, tls_of(tmp_path, "new", new_authority))
        with pytest.raises(ServiceFailed):
            store(web, file, theirs)
        # Even if it trusts us: the authority that vouches for it is not ours any more.
        context = ssl.create_default_context(cafile=renewed.authorities)
        context.load_cert_chain(theirs.certificate, theirs.key)
        with pytest.raises(urllib3.exceptions.HTTPError):
            web.post(b"", ssl_context=context)


def test_files_that_do_not_fit_together_leave_the_last_ones_in_force(
    serving: Serving, ours: Tls, theirs: Tls, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tls=ours) as web:
        ours.certificate.write_text("half of a cert")
        assert store(web, file, theirs)
    assert "stays" in caplog.text


def test_a_certificate_that_cannot_be_used_stops_the_start(
    spool: Spool, ledger: Ledger, ours: Tls, free_port: int,
    settings_for: Callable[..., ListenerSettings],
) -> None:  # fmt: skip
    ours.key.write_text("no key")
    with pytest.raises(BadSettings, match="MONRO_TLS"):
        WebServer(settings_for(web_port=free_port, tls=ours), spool, ledger)
    socket.create_server(("127.0.0.1", free_port)).close()


def test_nothing_is_logged_of_a_request_that_went_well(
    web: Web, mr_slice: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    web.send(mr_slice)
    lines: list[Any] = [record for record in caplog.records if record.name.startswith("uvicorn")]
    assert lines == []
