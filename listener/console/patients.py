"""Who the patients are. The ledger must not know, so files are asked, and memory remembers.

What is known here is lost with the process, which is meant: names are in no table, log, URL or
metric. A thread of low priority reads one file of each study, the latest first, so that people can
search by name. A study without a file in the spool has no name here.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from listener.console.identity import UNREAD, Identity, State, read_identity
from listener.console.latest import LATEST_FIRST, Place
from listener.errors import where
from listener.ledger import Ledger
from listener.tables import studies
from listener.wording import fold

log = logging.getLogger(__name__)

MOST_KNOWN: Final = 500_000
"""Studies in memory, some 600 bytes each."""

AT_ONCE: Final = 500
"""Studies that the thread asks the ledger for at a time."""

PAGE_SECONDS: Final = 0.1
"""How long a page waits for headers that are not known yet; the thread reads the others."""

ROUND_SECONDS: Final = 10.0
"""Pause between looks for studies that are new."""

BREATH_SECONDS: Final = 0.001
"""Pause after each file: whoever receives studies comes first."""

LATE_SECONDS: Final = 60.0
"""What comes is in the ledger at most so much later than the ledger says that it came."""

MOST_IN_VAIN: Final = 200
"""Files that were gone or could not be read, and still are, that one round looks for."""

NICE: Final = 15


@dataclass(frozen=True)
class Found:
    """What a search by name came to.

    Attributes:
        study_uids: of the studies, in no order; at most as many as asked for.
        is_all: whether there are no more.
    """

    study_uids: tuple[str, ...]
    is_all: bool


@dataclass(frozen=True)
class Reach:
    """How many studies a search by name looks at.

    Attributes:
        known: whose header was read.
        gone: of which no file is left in the spool, so that no name can be read.
        unreadable: whose files cannot be read at present.
        studies: that there are.
    """

    known: int
    gone: int
    unreadable: int
    studies: int

    @property
    def is_complete(self) -> bool:
        """Whether a search looks at all studies."""
        return self.known >= self.studies


class Patients:
    """Whose studies are, by study.

    Args:
        ledger: tells which studies there are, and where their files lie.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, tuple[Identity, str]] = {}
        self._without: dict[str, State] = {}
        self._studies = 0
        self._looked_at = ledger.now
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="patients", daemon=True)

    def start(self) -> None:
        """Begin to read in the background, where that is not so already."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Stop reading, and forget everybody."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._known.clear()
        self._without.clear()

    @property
    def reach(self) -> Reach:
        """How far the thread is."""
        known, without = len(self._known), list(self._without.copy().values())
        gone = without.count("gone")
        seen = known + len(without)
        return Reach(known, gone, len(without) - gone, max(self._studies, seen))

    def of(self, study_uids: Iterable[str], seconds: float = PAGE_SECONDS) -> dict[str, Identity]:
        """Whose some studies are; `UNREAD` for those that could not be read in time."""
        deadline = time.monotonic() + seconds
        found: dict[str, Identity] = {}
        for study_uid in study_uids:
            known = self._known.get(study_uid)
            if known is not None:
                found[study_uid] = known[0]
            else:
                late = time.monotonic() > deadline
                found[study_uid] = UNREAD if late else self._read(study_uid)
        return found

    def search(self, text: str, most: int) -> Found:
        """Studies whose patient's name or ID, or accession number, hold every word of a text."""
        words = fold(text).replace("^", " ").split()
        if not words:
            return Found((), is_all=True)
        found: list[str] = []
        # A copy is made in one go; a list of items is not, and the thread adds some meanwhile.
        for study_uid, (_identity, folded) in self._known.copy().items():
            if all(word in folded for word in words):
                if len(found) == most:
                    return Found(tuple(found), is_all=False)
                found.append(study_uid)
        return Found(tuple(found), is_all=True)

    def _read(self, study_uid: str) -> Identity:
        found = read_identity(self._ledger.path_of(study_uid))
        # What could not be read is looked for again, and goes to the end of the line.
        self._without.pop(study_uid, None)
        is_known = study_uid in self._known
        if found.state == "known" and (is_known or len(self._known) < MOST_KNOWN):
            self._known[study_uid] = found, found.searchable
        elif found.state != "known" and not is_known:
            self._without[study_uid] = found.state
        return found

    def _run(self) -> None:
        with suppress(OSError):  # Linux knows a priority of each thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._over.is_set():
            try:
                self._read_all()
            except SQLAlchemyError as error:
                log.warning("patients are looked up again later: %s", type(error).__name__)
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever it meets
                log.error("patients are looked up again later: %s", where(error))
            self._over.wait(ROUND_SECONDS)

    def _read_all(self) -> None:
        """Read those that are not known, the latest first."""
        with self._ledger.reading() as connection:
            self._studies = connection.scalar(select(func.count()).select_from(studies)) or 0
        self._read_changed()
        self._read_again()
        before: Place | None = None
        while not self._over.is_set() and self._seen < min(self._studies, MOST_KNOWN):
            batch = self._some(before)
            if not batch:
                return
            for place in batch:
                if place.study_uid not in self._known and place.study_uid not in self._without:
                    self._read(place.study_uid)
                    if self._over.wait(BREATH_SECONDS):
                        return
            before = batch[-1]

    @property
    def _seen(self) -> int:
        return len(self._known) + len(self._without)

    def _read_changed(self) -> None:
        """Read those anew of which something came meanwhile: it may name somebody else."""
        now = self._ledger.now
        since = min(self._looked_at, now) - LATE_SECONDS
        query = select(studies.c.study_uid).where(studies.c.last_at >= since)
        with self._ledger.reading() as connection:
            changed = connection.scalars(query).all()
        for study_uid in changed:
            if study_uid in self._known:
                self._read(study_uid)
                if self._over.wait(BREATH_SECONDS):
                    return
        self._looked_at = now

    def _read_again(self) -> None:
        """Look for files that were gone or could not be read, as long as some are there again."""
        in_vain = 0
        for study_uid in list(self._without.copy()):
            in_vain += self._read(study_uid).state != "known"
            if in_vain == MOST_IN_VAIN or self._over.wait(BREATH_SECONDS):
                return

    def _some(self, before: Place | None) -> Sequence[Place]:
        query = select(studies.c.last_at, studies.c.study_uid).order_by(*LATEST_FIRST)
        if before is not None:
            query = query.where(before.earlier)
        with self._ledger.reading() as connection:
            return [Place(*row) for row in connection.execute(query.limit(AT_ONCE))]
