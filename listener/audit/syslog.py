"""Messages to a collector: RFC 5424, by UDP (RFC 5426) or TLS (RFC 5425, PS3.15 A.6 and A.7).

Every process appends to a file on disk, and one of them sends what is there. A collector that is
away delays nothing but its messages, whoever is stopped or killed meanwhile. Some may come twice.
"""

import fcntl
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from listener.audit.lines import Lines, is_at
from listener.audit.message import SUCCESS, Message
from listener.backoff import Backoff
from listener.errors import MonroError
from listener.remote import Tls
from listener.tls import client_context
from listener.watch import Duty, alone

log = logging.getLogger(__name__)

# PS3.15 A.6: facility 10 (security), severity 5 (notice) or 4 (warning)
NOTICE: Final = 10 * 8 + 5
WARNING: Final = 10 * 8 + 4
MESSAGE_ID: Final = "DICOM+RFC3881"

OUTBOX_BYTES: Final = 64 << 20
"""What may wait on disk: some 30,000 messages, and as much again on its way."""

POLL_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 10.0
BACKOFF: Final = Backoff(1, 60)

SENT_AGAIN: Final = 10
"""Messages before a failure: neither protocol acknowledges any, and they may be lost."""

SETTLE_SECONDS: Final = 0.2
"""For the news that what was sent last met nobody."""

PORTS: Final = {"syslog": 514, "syslog+tls": 6514}


@dataclass(frozen=True)
class Collector:
    """Where messages go; with TLS, or by UDP."""

    host: str
    port: int
    tls: Tls | None

    @classmethod
    def from_url(cls, url: str, tls: Tls | None) -> "Collector":
        """Read syslog://host:port or syslog+tls://host:port."""
        parts = urlsplit(url)
        speaks_tls = parts.scheme == "syslog+tls"
        port = parts.port or PORTS[parts.scheme]
        return cls(parts.hostname or "", port, tls if speaks_tls else None)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Outbox:
    """Takes messages for a collector, in a file of the spool."""

    def __init__(self, folder: Path, host: str) -> None:
        self.lines = Lines(folder / "outbox.log", OUTBOX_BYTES)
        self._host = host

    def check(self) -> None:
        """Raise OSError where nothing can be written."""
        self.lines.check()

    def write(self, message: Message, xml: str) -> None:
        """Take one message; raises OSError where the disk or the limit does not."""
        priority = NOTICE if message.outcome == SUCCESS else WARNING
        at = message.at.isoformat(timespec="milliseconds")
        self.lines.append(
            f"<{priority}>1 {at} {self._host} monro {os.getpid()} {MESSAGE_ID} - {xml}"
        )


class Forwarder(threading.Thread):
    """Sends what lies in the outbox, until stopped.

    Args:
        outbox: of all processes; one forwarder serves it.
        collector: to send to.
        on_duty: whether it is ours to send.
    """

    def __init__(self, outbox: Lines, collector: Collector, on_duty: Duty = alone) -> None:
        super().__init__(name="audit-forwarder", daemon=True)
        self._outbox, self._collector, self._on_duty = outbox, collector, on_duty
        self._parcel = outbox.path.with_name("sending.log")
        self._sent = 0
        """Lines of the parcel that were sent."""
        self._failures = 0
        self._connection: Connection | None = None
        self._over = threading.Event()

    @property
    def is_failing(self) -> bool:
        """Whether what was to be sent last was not taken, or nothing is sent any more."""
        return self._failures > 0 or not self.is_alive()

    def stop(self) -> None:
        """Try once more, then stop."""
        self._over.set()

    def run(self) -> None:
        """Send what comes, and again later what could not be sent."""
        pause = POLL_SECONDS
        while not self._over.wait(pause):
            pause = POLL_SECONDS if self._forward() else BACKOFF.pause(self._failures)
        if not self._forward():
            log.error("audit messages for %s wait for the next start", self._collector)
        self._disconnect()

    def _forward(self) -> bool:
        try:
            while self._is_ours() and self._has_parcel() and self._send_parcel():
                pass
        except (OSError, MonroError) as error:
            if not self._failures:
                why = str(error) if isinstance(error, MonroError) else type(error).__name__
                log.error(
                    "audit messages wait in %s: %s does not take them (%s)",
                    self._outbox.path.parent,
                    self._collector,
                    why,
                )
            self._failures += 1
            self._disconnect()
            return False
        return True

    def _is_ours(self) -> bool:
        if self._on_duty():
            return True
        self._sent = 0  # of a parcel that another sends by now
        return False

    def _has_parcel(self) -> bool:
        if not self._parcel.exists():
            try:
                if not self._outbox.path.stat().st_size:
                    return False
            except FileNotFoundError:
                return False
            self._outbox.move(self._parcel)
        return True

    def _send_parcel(self) -> bool:
        """Send what is on its way; False where another forwarder is at it, or was just now."""
        try:
            file = self._parcel.open("r+b")
        except FileNotFoundError:
            return False
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if not is_at(file.fileno(), self._parcel):
                return False
            for number, line in enumerate(file):
                if number >= self._sent:
                    self._send(line.rstrip(b"\n"))
                    self._sent = number + 1
            self._over.wait(SETTLE_SECONDS)
            if self._connection is not None and not self._connection.is_open:
                self._sent = max(0, self._sent - SENT_AGAIN)
                raise ConnectionResetError
            if is_at(file.fileno(), self._parcel):
                self._parcel.unlink()
        self._sent = 0
        return True

    def _send(self, line: bytes) -> None:
        try:
            if self._connection is None or not self._connection.is_open:
                self._disconnect()
                self._connection = connect(self._collector)
            self._connection.send(line)
        except OSError:
            self._sent = max(0, self._sent - SENT_AGAIN)
            raise
        if self._failures:
            log.warning("%s takes audit messages again", self._collector)
            self._failures = 0

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Connection:
    """To a collector.

    Args:
        connected: to it.
        framed: a message as it goes over the wire.
    """

    def __init__(self, connected: socket.socket, framed: Callable[[bytes], bytes]) -> None:
        self._socket, self._framed = connected, framed

    @property
    def is_open(self) -> bool:
        """Whether the collector has not hung up; it never says anything else that matters.

        Where nobody listens for datagrams, the last one may have come back.
        """
        self._socket.settimeout(0)
        try:
            return bool(self._socket.recv(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        finally:
            self._socket.settimeout(PATIENCE_SECONDS)

    def send(self, line: bytes) -> None:
        """Send one message."""
        self._socket.sendall(self._framed(line))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def connect(collector: Collector) -> Connection:
    """Call a collector.

    Raises:
        OSError: it does not answer, or not as the authorities of MONRO_TLS vouch for.
        BadSettings: our certificate is of no use.
    """
    if collector.tls is None:
        return Connection(_udp(collector), lambda line: line)
    context = client_context(collector.tls)
    plain = socket.create_connection((collector.host, collector.port), PATIENCE_SECONDS)
    try:
        secured = context.wrap_socket(plain, server_hostname=collector.host)
    except BaseException:
        plain.close()
        raise
    return Connection(secured, lambda line: b"%d %s" % (len(line), line))


def _udp(collector: Collector) -> socket.socket:
    family, kind, protocol, _name, address = socket.getaddrinfo(
        collector.host, collector.port, type=socket.SOCK_DGRAM
    )[0]
    connected = socket.socket(family, kind, protocol)
    try:
        connected.connect(address)
    except OSError:
        connected.close()
        raise
    return connected
