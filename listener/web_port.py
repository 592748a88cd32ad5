"""A port that HTTP is spoken at: uvicorn in a thread, HTTPS where there is a certificate."""

import asyncio
import hashlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from listener.entrance import open_port
from listener.errors import CannotListen

log = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 256
CONNECTIONS_OF_ONE_ADDRESS: Final = 64

CONNECTIONS_OF_A_PROXY: Final = MOST_CONNECTIONS - CONNECTIONS_OF_ONE_ADDRESS
"""It brings many people; monitors that come past it find room, too."""

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
    _is_proxy: Callable[[str], bool]

    @classmethod
    def of(cls, opened: socket.socket, is_proxy: Callable[[str], bool]) -> "LimitedPort":
        """One that takes the place of a plain socket."""
        port = cls(opened.family, opened.type, opened.proto, opened.detach())
        port._open, port._is_proxy = WeakSet(), is_proxy
        return port

    def dup(self) -> "LimitedPort":
        """Another one for the same port."""
        return self.of(super().dup(), self._is_proxy)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; raises BlockingIOError where one was turned away."""
        connection, address = super().accept()
        here = [each for each in self._open if each.fileno() >= 0]
        from_there = sum(_peer(each) == address[0] for each in here)
        is_proxy = self._is_proxy(address[0])
        most = CONNECTIONS_OF_A_PROXY if is_proxy else CONNECTIONS_OF_ONE_ADDRESS
        if len(here) >= MOST_CONNECTIONS or from_there >= most:
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


class WebPort:
    """Serves an ASGI application at a port until it is stopped.

    Args:
        what: is served there, for people.
        address: to listen on.
        port: likewise.
        encryption: of HTTPS; None for HTTP.
        idle_seconds: a connection without a request is closed after so long.
        is_proxy: whether many people come from an address; it may have more connections.

    Raises:
        CannotListen: the port is taken or not ours.
    """

    def __init__(
        self,
        what: str,
        address: str,
        port: int,
        encryption: ssl.SSLContext | None,
        idle_seconds: float,
        is_proxy: Callable[[str], bool] = lambda _address: False,
    ) -> None:
        self._what, self._address = what, (address, port)
        self._encryption, self._idle_seconds = encryption, idle_seconds
        opened = open_port(address, port)
        self._port = LimitedPort.of(opened, is_proxy)
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread()

    @property
    def is_alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def start(self, app: Any) -> None:
        """Begin to answer, or begin anew.

        Raises:
            CannotListen: the server does not start.
        """
        server = self._server = uvicorn.Server(self._config(app))
        self._thread = threading.Thread(
            target=server.run, args=([self._port.dup()],), name=self._what, daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise CannotListen(*self._address, "the web server did not start")
            time.sleep(0.01)
        log.info("%s listens on %s:%d", self._what, *self._address)

    def interrupt(self) -> None:
        """Answer no more, and let requests come to their end; `start` may follow."""
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join(2 * STOP_SECONDS)

    def close(self) -> None:
        """Answer no more, for good."""
        self.interrupt()
        self._port.close()

    def _config(self, app: Any) -> uvicorn.Config:
        encryption = self._encryption
        return uvicorn.Config(
            app,
            loop="asyncio",
            http=Connection,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            # Who is believed about others' addresses is for the application to know.
            proxy_headers=False,
            server_header=False,
            # Between requests; and as long may the header of the next one take.
            timeout_keep_alive=self._idle_seconds,  # type: ignore[arg-type]
            timeout_graceful_shutdown=STOP_SECONDS,  # type: ignore[arg-type]
            ssl_context_factory=(lambda *_: encryption) if encryption is not None else None,
        )
