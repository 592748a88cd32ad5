"""The processes that associations are served in, and who keeps them running.

One Python process has one interpreter lock, so a busy node receives in several. Each has its own
recorder, and what it wrote to the spool is acknowledged; rows that die with it come back from there
(node.py). A receiver that has lost its listener ends at once.
"""

import atexit
import gc
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext

from listener.audit.trail import audit_of
from listener.commitment import Herald
from listener.confirmation import Confirmations, resending
from listener.entrance import Attendance, Entrance, OpenPort
from listener.ledger import Ledger, process_name
from listener.logs import set_up_logging
from listener.pynetdicom_parts import require_parts
from listener.recorder import Recorder
from listener.server import listen
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.turned_away import TurnedAway

log = logging.getLogger(__name__)

SILENT_SECONDS = 30.0
"""A receiver looks at its ports several times a second; one that has not for so long hangs."""

STOP_SECONDS = 30.0
"""For a receiver to write its last rows; then it is killed, and they come back from the spool."""


class Receiver:
    """A process that serves associations; it ends when its lifeline says so, or breaks."""

    def __init__(
        self,
        context: SpawnContext,
        settings: ListenerSettings,
        ports: Sequence[OpenPort],
        attendance: Attendance,
        turned_away: TurnedAway,
        number: int,
    ) -> None:
        self.lifeline, theirs = context.Pipe()
        self._process = context.Process(
            target=receive,
            args=(settings, ports, attendance, turned_away, number, theirs),
            name=f"receiver-{number}",
            daemon=True,
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid or 0

    @property
    def is_gone(self) -> bool:
        """Whether it has ended: it never says anything."""
        return self.lifeline.poll()

    def kill(self) -> None:
        """Do not wait for it any more."""
        self._process.kill()


class Receivers:
    """Keeps as many receivers running as the settings say.

    Args:
        settings: of the listener.
        ports: that `open_ports` opened.
        turned_away: counts of at least as many processes.

    Attributes:
        gone: how the ledger calls those that died; whoever made up for them takes them out.

    Raises:
        UnknownPynetdicom, CannotStoreQuickly: pynetdicom is not one that we know.
    """

    def __init__(
        self, settings: ListenerSettings, ports: Sequence[OpenPort], turned_away: TurnedAway
    ) -> None:
        require_parts(settings.quick_store)
        self.gone: set[str] = set()
        self._settings, self._ports, self._turned_away = settings, ports, turned_away
        self._context = multiprocessing.get_context("spawn")
        self._attendance = Attendance(settings.receivers, len(settings.peers))
        self._running = [self._start(number) for number in range(settings.receivers)]
        atexit.register(self.stop)  # or multiprocessing would wait for them for ever
        for port in ports:
            manner = "with TLS" if port.speaks_tls else "without TLS"
            address, number, *_ = port.socket.getsockname()
            log.info("%s listens on %s:%d %s", settings.ae_title, address, number, manner)

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [receiver.pid for receiver in self._running]

    @property
    def served(self) -> list[int]:
        """How many associations each of them serves."""
        return self._attendance.served

    def trouble(self) -> str:
        """What is the matter with them; empty: all of them look at their ports."""
        silent = self._attendance.silent_seconds
        found = [
            f"receiver {number} {'has died' if receiver.is_gone else 'does not answer'}"
            for number, receiver in enumerate(self._running)
            if receiver.is_gone or silent[number] > SILENT_SECONDS
        ]
        return ", ".join(found)

    def trouble_at_ports(self) -> str:
        """Which ports nobody listens at any more; empty: none."""
        closed = [number for number, port in enumerate(self._ports) if not _listens(port.socket)]
        return f"{len(closed)} of {len(self._ports)} ports are closed" if closed else ""

    def replace_dead(self) -> None:
        """Start anew what has died."""
        for number, receiver in enumerate(self._running):
            if receiver.is_gone:
                self.gone.add(process_name(receiver.pid))
                self._running[number] = self._start(number)
                log.error("receiver %d died and was started again", number)

    def stop(self) -> None:
        """Let every receiver write its last rows, and wait until they are gone."""
        atexit.unregister(self.stop)
        for port in self._ports:
            port.socket.close()
        for receiver in self._running:
            with suppress(OSError):  # gone already
                receiver.lifeline.send(None)
        deadline = time.monotonic() + STOP_SECONDS
        for number, receiver in enumerate(self._running):
            if not receiver.lifeline.poll(max(0.0, deadline - time.monotonic())):
                log.error("receiver %d did not stop in %g s, it was killed", number, STOP_SECONDS)
                receiver.kill()

    def _start(self, number: int) -> Receiver:
        self._attendance.tell(number, [])  # it has time to begin
        self._attendance.connections[number] = 0
        shared = self._attendance, self._turned_away
        return Receiver(self._context, self._settings, self._ports, *shared, number)


def _listens(opened: socket.socket) -> bool:
    """Whether connections may come in at a socket."""
    try:
        return bool(opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # closed
        return False


def receive(
    settings: ListenerSettings,
    ports: Sequence[OpenPort],
    attendance: Attendance,
    turned_away: TurnedAway,
    number: int,
    lifeline: Connection,
) -> None:
    """Serve associations until told to stop."""
    for meant_for_the_listener in (signal.SIGINT, signal.SIGTERM):
        signal.signal(meant_for_the_listener, signal.SIG_IGN)
    gc.freeze()  # what was imported stays: it is not walked through for garbage
    set_up_logging(settings.log_format)
    spool, ledger = Spool(settings.spool, settings.keep_free), Ledger(settings.ledger_url)
    spool.sha256_at = ledger.sha256_at
    audit = audit_of(settings).start()
    clicker = turned_away.clicker(number)
    recorder = Recorder(ledger, audit, clicker)
    herald = Herald(settings, ledger, spool, calls=lambda: False)
    herald.start()
    confirmations = Confirmations(ledger, resending(settings))
    entrance = Entrance(list(ports), attendance, number, settings, audit, clicker)
    servers = listen(settings, spool, recorder, herald, confirmations, entrance)
    try:
        lifeline.recv()
    except EOFError:  # the listener is gone; another one may be starting
        os._exit(1)
    for server in servers:
        server.shutdown()
    herald.stop()
    recorder.close()
    audit.close()
    herald.join()
    ledger.close()
    os._exit(0)  # threads of pynetdicom may wait for peers
