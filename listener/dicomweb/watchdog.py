"""Ends a request whose answer does not come on, however busily its bytes do.

A time-out counts from one byte to the next: an answer that drips, or begins anew without end, would
never run into one.
"""

import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

Sockets = WeakSet[socket.socket]


class Watchdog(threading.Thread):
    """Watches one request.

    Args:
        sockets: to shut when there is no progress.
        seconds: that progress may take.

    Attributes:
        has_bitten: whether they were shut.
    """

    def __init__(self, sockets: Iterable[socket.socket], seconds: float) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.has_bitten = False
        self._sockets, self._seconds = sockets, seconds
        self._until = time.monotonic() + seconds
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Let the request be."""
        self._over.set()

    def calm(self) -> None:
        """Note progress."""
        self._until = time.monotonic() + self._seconds

    def run(self) -> None:
        """Wait for the end of the request, or of our patience."""
        while (left := self._until - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        self.has_bitten = True
        for each in list(self._sockets):
            with suppress(OSError):  # gone already
                # Not the method of a TLS socket, which would let its reader go on without TLS.
                socket.socket.shutdown(each, socket.SHUT_RDWR)


def watched_pool(sockets: Sockets, **options: Any) -> PoolManager:
    """Connections whose sockets are noted as they are opened."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    class Encrypted(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    pool = PoolManager(**options)
    pool.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}
    return pool
