"""Which of several listeners does what only one may do at a time, and whose heart stopped.

Every listener that shares a ledger receives. One of them has the watch: it completes, plans,
dispatches, delivers, asks, purges and forwards the audit trail for all, for as long as its heart
beats. When it stops, another one takes over; when it is killed, once its time has run out.

Who has the watch may lose it at any moment, as a process that was suspended does: whoever acts
asks first, and what is done twice all the same is made harmless by those who do it.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection

from sqlalchemy import ColumnElement, delete, not_, or_, select, true, update
from sqlalchemy.exc import SQLAlchemyError

from listener.clock import is_ahead
from listener.errors import where
from listener.ledger import Ledger, this_process
from listener.tables import listeners

log = logging.getLogger(__name__)

BEATS = 4
"""Within the time that a listener is believed to live without one."""

Duty = Callable[[], bool]
"""Whether it is ours to do now what only one listener may do at a time."""


def alone() -> bool:
    """The duty of who shares it with nobody."""
    return True


class Watch(threading.Thread):
    """The heart of one listener among those that share a ledger.

    Args:
        ledger: that is shared.
        seconds: how long a listener is believed to live without a heartbeat.
        name: of this listener.
    """

    def __init__(self, ledger: Ledger, seconds: float, name: str | None = None) -> None:
        super().__init__(name="watch", daemon=True)
        self._ledger, self._seconds = ledger, seconds
        self._us = name or this_process()
        self._ours_until = 0.0
        self._had_it = False
        self._over = threading.Event()

    def start(self) -> None:
        """Beat once, so that it is known who has the watch, and go on beating."""
        self.beat()
        super().start()

    def stop(self) -> None:
        """Leave the watch to others, and the list of those who live."""
        self._over.set()
        self.join()
        self._ours_until = 0.0
        try:
            with self._ledger.writing() as connection:
                connection.execute(delete(listeners).where(listeners.c.name == self._us))
        except SQLAlchemyError as error:
            log.warning("the watch is free once its time is out: %s", where(error))

    def is_ours(self) -> bool:
        """Whether this listener has the watch. Cheap: call it often."""
        return time.monotonic() < self._ours_until

    def was_ours(self) -> bool:
        """Whether this listener had the watch when the ledger last took a heartbeat.

        A disk that is full takes none: for what makes room there, and does no harm when two do it.
        """
        return self._had_it

    def run(self) -> None:
        """Beat until stopped."""
        while not self._over.wait(self._seconds / BEATS):
            try:
                self.beat()
            except SQLAlchemyError as error:
                log.warning("the ledger did not take the listener's heartbeat: %s", where(error))

    def beat(self) -> None:
        """Say that this listener lives, and take the watch where nobody who lives has it."""
        valid_until = time.monotonic() + self._seconds
        with self._ledger.writing() as connection:
            now = self._ledger.now
            me = listeners.c.name == self._us
            row = {"seen_at": now, "until": now + self._seconds}
            if not connection.execute(update(listeners).where(me).values(**row)).rowcount:
                connection.execute(listeners.insert().values(name=self._us, has_watch=False, **row))
            others = select(listeners.c.name).where(listeners.c.has_watch, ~me, self._lives(now))
            is_free = all(map(has_died, connection.scalars(others)))
            if is_free:
                connection.execute(update(listeners).where(~me).values(has_watch=False))
                connection.execute(update(listeners).where(me).values(has_watch=True))
        self._ours_until = valid_until if is_free else 0.0
        if is_free and not self._had_it:
            log.info("this listener has the watch")
        if self._had_it and not is_free:
            log.warning("another listener has taken the watch over")
        self._had_it = is_free

    def is_alone(self) -> bool:
        """Whether no other listener lives."""
        return not self._others_alive()

    def silent(self) -> set[str]:
        """Names of the listeners whose heart stopped before they left."""
        lives = self._lives(self._ledger.now)
        others = select(listeners.c.name, lives.label("lives")).where(listeners.c.name != self._us)
        with self._ledger.reading() as connection:
            rows = connection.execute(others).all()
        return {row.name for row in rows if not row.lives or has_died(row.name)}

    def is_gone_with(self, silent: Collection[str]) -> Callable[[str], bool]:
        """What tells of a process whether it died with one of these listeners.

        Processes of other hosts cannot be looked at: they are gone with the last listener there.
        """
        living = {*map(host_of, self._others_alive()), host_of(self._us)}
        dead = set(map(host_of, silent)) - living
        return lambda process: has_died(process) or host_of(process) in dead

    def forget(self, silent: Collection[str]) -> None:
        """Everything that died with these listeners was made up for."""
        with self._ledger.writing() as connection:
            connection.execute(delete(listeners).where(listeners.c.name.in_(silent)))

    def _others_alive(self) -> list[str]:
        alive = select(listeners.c.name).where(
            listeners.c.name != self._us, self._lives(self._ledger.now)
        )
        with self._ledger.reading() as connection:
            return [name for name in connection.scalars(alive) if not has_died(name)]

    def _lives(self, now: float) -> ColumnElement[bool]:
        """Whether a heart beats still; all do until they had time to beat after the clock was set.

        A time that is too far ahead is of one that stopped before the clock was set back.
        """
        if self._ledger.jumped_within(self._seconds):
            return true()
        return not_(or_(listeners.c.until < now, is_ahead(listeners.c.until, now, self._seconds)))


def host_of(process: str) -> str:
    """Of a process as the ledger names it."""
    return process.rpartition(":")[0]


def has_died(process: str) -> bool:
    """Whether a process, as the ledger names it, was of this host and is no more."""
    host, _, pid = process.rpartition(":")
    return host == socket.gethostname() and not _is_alive(int(pid))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
