"""Messages reach a collector over UDP or TLS, sooner or later."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydicom.dataset import Dataset

from listener.audit import syslog
from listener.audit.lines import Lines
from listener.audit.syslog import Collector, Forwarder
from listener.audit.tally import Party
from listener.audit.trail import open_audit
from listener.backoff import Backoff
from listener.node import Node
from listener.remote import Tls
from listener.settings import ListenerSettings
from tests.listener.audit.reading import Message
from tests.listener.audit.test_trail import send, until

HEADER = re.compile(
    r"<(?P<priority>\d+)>1 (?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00) "
    r"(?P<host>\S+) monro (?P<process>\d+) DICOM\+RFC3881 - (?P<xml><AuditMessage>.*)"
)
"""RFC 5424 6, and PS3.15 A.6."""


def taken(line: bytes) -> tuple[int, Message]:
    """Priority and content of a message."""
    found = HEADER.fullmatch(line.decode("ascii"))
    assert found is not None, line
    return int(found["priority"]), Message(found["xml"])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(syslog, "BACKOFF", Backoff(0.05, 0.05))


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(10)
        yield collector


def test_every_process_reaches_a_collector_by_udp(
    settings_for: Any, udp: socket.socket, mr_slice: Dataset
) -> None:
    settings = settings_for(receivers=1, audit=f"syslog://127.0.0.1:{udp.getsockname()[1]}")
    with Node(settings):
        send(settings, mr_slice)
    found = [taken(udp.recv(65536)) for _ in range(3)]

    assert {(priority, each.event) for priority, each in found} == {
        (85, "110100"),
        (85, "110104"),
    }
    left = {path.name for path in (settings.spool / "audit").iterdir()}
    assert left <= {"key", "outbox.log"}  # nothing is on its way


def test_an_alert_is_a_warning(settings_for: Any, udp: socket.socket) -> None:
    settings = settings_for(audit=f"syslog://127.0.0.1:{udp.getsockname()[1]}")
    with open_audit(settings, forwards=True) as audit:
        audit.rejected(Party("STRANGER", "10.0.0.1"), "for a test")

    priority, alert = taken(udp.recv(65536))
    assert (priority, alert.event) == (84, "110113")


def test_what_a_command_says_waits_for_the_listener_to_send_it(
    settings_for: Any, udp: socket.socket
) -> None:
    settings = settings_for(audit=f"syslog://127.0.0.1:{udp.getsockname()[1]}")
    with open_audit(settings) as command:
        command.acted("retry", "1.2.3")
    udp.setblocking(False)
    with pytest.raises(BlockingIOError):
        udp.recv(65536)
    udp.settimeout(10)
    with open_audit(settings, forwards=True):
        _, act = taken(udp.recv(65536))

    assert act.detail == "retry"


class TlsCollector:
    """A collector that speaks TLS; it hangs up once after some messages, if it is told to."""

    def __init__(self, ours: Tls, port: int = 0, hangs_up_after: int = 1 << 30) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(ours.certificate, ours.key)
        self._context.load_verify_locations(ours.authorities)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._hangs_up_after = hangs_up_after
        self._listening = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listening.getsockname()[1])
        self.lines: list[bytes] = []
        self.calls = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            self.calls += 1
            with suppress(OSError), self._context.wrap_socket(plain, server_side=True) as secured:
                self._read(secured)
                self._hangs_up_after = 1 << 30

    def _read(self, connection: ssl.SSLSocket) -> None:
        with connection.makefile("rb") as stream:
            for _ in range(self._hangs_up_after):
                digits = b""
                while (digit := stream.read(1)) not in (b" ", b""):
                    digits += digit
                if not digits:
                    return
                self.lines.append(stream.read(int(digits)))  # RFC 5425 4.3


@pytest.fixture
def certificates(tmp_path: Path) -> Callable[[str], Tls]:
    authority = trustme.CA()

    def make(host: str) -> Tls:
        folder = tmp_path / host
        folder.mkdir(exist_ok=True)
        certificate = authority.issue_cert(host)
        certificate.cert_chain_pems[0].write_to_path(folder / "cert")
        certificate.private_key_pem.write_to_path(folder / "key")
        authority.cert_pem.write_to_path(folder / "ca")
        return Tls(certificate=folder / "cert", key=folder / "key", authorities=folder / "ca")

    return make


def settings_of(settings_for: Any, port: int, tls: Tls) -> ListenerSettings:
    made: ListenerSettings = settings_for(audit=f"syslog+tls://127.0.0.1:{port}", tls=tls)
    return made


def test_messages_wait_for_a_collector_of_tls_and_come_in_order(
    settings_for: Any,
    certificates: Callable[[str], Tls],
    free_port: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = settings_of(settings_for, free_port, certificates("monro"))
    with open_audit(settings, forwards=True) as audit:
        for number in range(5):
            audit.acted("retry", f"1.2.{number}")
        until(lambda: "does not take them" in caplog.text)
        collector = TlsCollector(certificates("127.0.0.1"), free_port)
        until(lambda: len(collector.lines) >= 5)
    collector.close()

    studies = [taken(line)[1].study for line in collector.lines]
    assert studies == [f"1.2.{number}" for number in range(5)]
    assert caplog.text.count("does not take them") == 1
    assert "takes audit messages again" in caplog.text


def test_a_collector_that_hangs_up_gets_every_message(
    settings_for: Any, certificates: Callable[[str], Tls]
) -> None:
    collector = TlsCollector(certificates("127.0.0.1"), hangs_up_after=3)
    settings = settings_of(settings_for, collector.port, certificates("monro"))
    studies = {f"1.2.{number}" for number in range(8)}
    with open_audit(settings) as command:
        for study in sorted(studies):
            command.acted("retry", study)
    with open_audit(settings, forwards=True):
        until(lambda: {taken(line)[1].study for line in collector.lines} == studies)
    collector.close()

    assert collector.calls > 1


def test_a_connection_serves_many_messages(
    settings_for: Any, certificates: Callable[[str], Tls]
) -> None:
    collector = TlsCollector(certificates("127.0.0.1"))
    settings = settings_of(settings_for, collector.port, certificates("monro"))
    with open_audit(settings, forwards=True) as audit:
        for number in range(3):
            audit.acted("retry", f"1.2.{number}")
            until(lambda number=number: len(collector.lines) == number + 1)  # type: ignore[misc]
    collector.close()

    assert collector.calls == 1


def test_a_collector_of_another_name_gets_nothing(
    settings_for: Any, certificates: Callable[[str], Tls], caplog: pytest.LogCaptureFixture
) -> None:
    collector = TlsCollector(certificates("10.0.0.1"))
    settings = settings_of(settings_for, collector.port, certificates("monro"))
    with open_audit(settings, forwards=True) as audit:
        audit.acted("retry", "1.2.3")
        until(lambda: "does not take them (SSLCertVerificationError)" in caplog.text)
    collector.close()

    assert collector.lines == []
    waiting = [path.read_text() for path in (settings.spool / "audit").glob("*.log")]
    assert any("1.2.3" in each for each in waiting)


def test_what_nobody_listened_for_is_sent_again_by_udp(settings_for: Any, free_port: int) -> None:
    settings = settings_for(audit=f"syslog://127.0.0.1:{free_port}")
    with open_audit(settings, forwards=True) as audit:
        audit.acted("retry", "1.2.3")
        until((settings.spool / "audit/sending.log").exists)
        time.sleep(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
            collector.bind(("127.0.0.1", free_port))
            collector.settimeout(10)
            _, act = taken(collector.recv(65536))

    assert act.study == "1.2.3"


def test_a_forwarder_that_was_killed_is_made_up_for(tmp_path: Path, udp: socket.socket) -> None:
    lines = Lines(tmp_path / "outbox.log")
    lines.append("first")
    lines.move(tmp_path / "sending.log")  # and there it ended
    lines.append("second")
    forwarder = Forwarder(lines, Collector("127.0.0.1", udp.getsockname()[1], None))
    forwarder.start()
    found = [udp.recv(65536), udp.recv(65536)]
    forwarder.stop()
    forwarder.join()

    assert found == [b"first", b"second"]


def test_of_several_forwarders_the_one_on_duty_sends_and_the_next_one_sends_all_of_its_own(
    tmp_path: Path, udp: socket.socket
) -> None:
    lines = Lines(tmp_path / "outbox.log")
    collector = Collector("127.0.0.1", udp.getsockname()[1], None)
    has_watch = {"first": True, "second": False}
    forwarders = [
        Forwarder(lines, collector, partial(has_watch.__getitem__, name)) for name in has_watch
    ]
    for forwarder in forwarders:
        forwarder.start()
    found = []
    for turn in range(4):
        lines.append(f"message {turn}")
        found.append(udp.recv(65536))
        # The one at it has not put it away yet: the next one waits for that.
        has_watch.update({name: not ours for name, ours in has_watch.items()})
    for forwarder in forwarders:
        forwarder.stop()
        forwarder.join()

    assert found == [b"message %d" % turn for turn in range(4)]
    udp.setblocking(False)
    with pytest.raises(BlockingIOError):
        udp.recv(65536)


def test_a_full_outbox_is_said_to_be_full(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "outbox.log", limit_bytes=20)
    lines.append("0123456789")
    with pytest.raises(OSError, match="more than 20 bytes wait"):
        lines.append("0123456789")

    assert lines.path.read_text() == "0123456789\n"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [("syslog://logs", "logs", 514), ("syslog+tls://[::1]:7000", "::1", 7000)],
)
def test_a_collector_is_found_where_the_setting_says(url: str, host: str, port: int) -> None:
    found = Collector.from_url(url, None)

    assert (found.host, found.port) == (host, port)
