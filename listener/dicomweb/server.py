"""The port of the web service: uvicorn in a thread, HTTPS where we have a certificate."""

import asyncio
import hashlib
import logging
import os
import socket
import ssl
import threading
import time
from typing import Any, Final
from weakref import WeakSet

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from listener.audit.trail import NO_AUDIT, Audit
from listener.dicomweb.service import StoreService
from listener.dicomweb.tls import web_context
from listener.entrance import open_port
from listener.errors import CannotListen
from listener.ledger import Ledger
from listener.recorder import Recorder
from listener.settings import ListenerSettings
from listener.spool import Spool

log = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 256
CONNECTIONS_OF_ONE_ADDRESS: Final = 64

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
"""For requests that are being served; then their connections are closed."""


class Connection(H11Protocol):
    """A connection; requests on it have `certificate` in their state, and come in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note the certificate that the other side has shown and proved to own."""
        super().connection_made(transport)
        encrypted: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        shown = encrypted.getpeercert(binary_form=True) if encrypted else None
        fingerprint = hashlib.sha256(shown).hexdigest() if shown else None
        self.app_state = {**self.app_state, "certificate": fingerprint}
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take what came; a request whose header is whole is timed by its service."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._deadline.cancel()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is here already."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        """Close the connection unless the header of a request comes in time."""
        self._deadline = self.loop.call_later(self.timeout_keep_alive, self.transport.close)


class LimitedPort(socket.socket):
    """A socket that listens, and lets nobody open more connections than we can bear.

    Connections count before TLS is spoken on them: each takes a descriptor of the process that
    completes and delivers studies, too.
    """

    _open: "WeakSet[socket.socket]"

    def dup(self) -> "LimitedPort":
        """Another one for the same port."""
        return LimitedPort(self.family, self.type, self.proto, os.dup(self.fileno()))

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; raises BlockingIOError where one was turned away."""
        connection, address = super().accept()
        if not hasattr(self, "_open"):
            self._open = WeakSet()
        here = [each for each in self._open if each.fileno() >= 0]
        from_there = sum(_peer(each) == address[0] for each in here)
        if len(here) >= MOST_CONNECTIONS or from_there >= CONNECTIONS_OF_ONE_ADDRESS:
            log.warning("turned a connection from %s away: there are too many", address[0])
            connection.close()
            raise BlockingIOError
        self._open.add(connection)
        return connection, address


def _peer(connection: socket.socket) -> str:
    try:
        return str(connection.getpeername()[0])
    except OSError:  # it has just left
        return ""


class WebServer:
    """Serves STOW-RS until it is stopped.

    Args:
        settings: of the listener; `web_port` is set.
        spool: that takes the instances.
        ledger: that takes their rows.
        audit: that is told.

    Raises:
        CannotListen: the port is taken or not ours.
        BadSettings: the certificate cannot be used.
    """

    def __init__(
        self, settings: ListenerSettings, spool: Spool, ledger: Ledger, audit: Audit = NO_AUDIT
    ) -> None:
        assert settings.web_port is not None
        self._address = settings.bind, settings.web_port
        self._encryption = web_context(settings.tls) if settings.tls is not None else None
        opened = open_port(settings.bind, settings.web_port)
        self._port = LimitedPort(opened.family, opened.type, opened.proto, opened.detach())
        self._settings, self._spool, self._audit = settings, spool, audit
        self._recorder = Recorder(ledger, audit)

    @property
    def is_alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to answer, or begin anew."""
        service = StoreService(self._settings, self._spool, self._recorder, self._audit)
        self._server = uvicorn.Server(self._config(service))
        self._thread = threading.Thread(
            target=self._server.run, args=([self._port.dup()],), name="web", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise CannotListen(*self._address, "the web server did not start")
            time.sleep(0.01)
        log.info("STOW-RS listens on %s:%d", *self._address)

    def stop(self) -> None:
        """Answer no more, let requests come to their end, write the last rows."""
        self._server.should_exit = True
        self._thread.join(2 * STOP_SECONDS)
        self._recorder.close()
        self._port.close()

    def _config(self, service: StoreService) -> uvicorn.Config:
        encryption = self._encryption
        return uvicorn.Config(
            service.app,
            loop="asyncio",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            # Whoever forwards for others is not believed about their addresses.
            proxy_headers=False,
            server_header=False,
            # Between requests; and as long may the header of the next one take.
            timeout_keep_alive=self._settings.association_timeout_seconds,  # type: ignore[arg-type]
            timeout_graceful_shutdown=STOP_SECONDS,  # type: ignore[arg-type]
            ssl_context_factory=(lambda *_: encryption) if encryption is not None else None,
        )
