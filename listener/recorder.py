"""Writes the ledger's rows behind the associations' backs, in order and in batches.

A ledger that is away delays the rows, never the associations: the instances are in the
spool already, and a row that dies with the process is rebuilt from there.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from listener.audit.tally import UNKNOWN_PARTY, Party, Tally
from listener.audit.trail import NO_AUDIT, Audit
from listener.entries import Received
from listener.errors import where
from listener.ledger import Ledger
from listener.spool import Arrival, Held
from listener.turned_away import Clicker, nobody_looks

log = logging.getLogger(__name__)

BATCH_SECONDS = 0.2
"""How long what came first waits for others, to be written in the same transaction."""

LEDGER_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class Closed:
    """An association that ended."""

    association: str
    released: bool
    at: float


class Recorder:
    """A queue in front of the ledger, and the thread that empties it.

    Args:
        ledger: takes the rows.
        audit: is told what came.
        turned_away: counts what was not taken.
    """

    def __init__(
        self, ledger: Ledger, audit: Audit = NO_AUDIT, turned_away: Clicker | None = None
    ) -> None:
        self._ledger = ledger
        self.turned_away = turned_away or nobody_looks()
        self._tally = Tally(audit.received)
        self._queue: queue.SimpleQueue[Received | Closed | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def instance(
        self, held: Held, association: str, sop_class: str = "", sender: Party = UNKNOWN_PARTY
    ) -> None:
        """Record an acknowledged instance, soon."""
        self._queue.put(Received(held, association, time.time()))
        study_uid, is_new = held.key.study_uid, held.arrival is not Arrival.SAME
        self._tally.count(association, sender, study_uid, sop_class, held.path, is_new=is_new)

    def closed(self, association: str, released: bool) -> None:
        """Record that an association ended, after everything that it brought."""
        self._queue.put(Closed(association, released, time.time()))
        self._tally.over(association)

    def close(self) -> None:
        """Write what is left, then stop."""
        self._tally.all_over()
        self._closing.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            items = [self._queue.get()]
            # Others are let gather, without a wake-up for each.
            self._closing.wait(BATCH_SECONDS)
            with contextlib.suppress(queue.Empty):
                while True:
                    items.append(self._queue.get_nowait())
            if not self._write(items):
                return

    def _write(self, items: Sequence[Received | Closed | None]) -> bool:
        """Write in the order in which things happened; False: there is nothing more to come."""
        batch: list[Received] = []
        for item in items:
            if isinstance(item, Received):
                batch.append(item)
                continue
            self._flush(batch)
            if item is None:
                return False
            self._insist(
                partial(self._ledger.close_association, item.association, item.released, item.at)
            )
        self._flush(batch)
        return True

    def _flush(self, batch: list[Received]) -> None:
        if batch:
            self._insist(partial(self._ledger.record, tuple(batch)))
            batch.clear()

    def _insist(self, write: Callable[[], None]) -> None:
        while True:
            try:
                return write()
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever it meets
                log.error("the ledger took no rows, trying again: %s", where(error))
                time.sleep(LEDGER_RETRY_SECONDS)
