"""Asks sources what a study should hold, and fetches from there what is missing.

A study is asked after once it is quiet, and again after whatever came since. What was learnt stands
in the ledger, where completion reads it (completion.py).
"""

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import and_, or_, select
from sqlalchemy.exc import SQLAlchemyError

from listener.audit.trail import NO_AUDIT, Audit
from listener.backoff import Backoff
from listener.dicomweb.client import InstanceListed
from listener.errors import SourceFailed, where
from listener.inventory import list_instances
from listener.ledger import Ledger
from listener.recorder import Recorder
from listener.remote import Source, WebSource
from listener.retrieval import fetch
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import counts, instances, jobs, results, studies
from listener.turned_away import Clicker
from listener.watch import Duty, alone

log = logging.getLogger(__name__)

MODALITIES: Final = frozenset({"MR"})
"""What studies wait for; reports, presentation states and segmentations come when they come."""

MISSING: Final = "{} of the {} that it has are missing here"
UNKNOWN: Final = "it does not have the study"


@dataclass(frozen=True)
class Due:
    """A study that a source is to be asked after."""

    study_uid: str
    attempts: int


class Counts:
    """What is written down of what sources said."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def due(self, source: str, quiet_seconds: float) -> list[Due]:
        """Studies that were quiet for so long, and that a source was not asked after since.

        Or that it has more of, or did not tell about, for some time.
        """
        query = (
            select(studies.c.study_uid, counts.c.attempts, counts.c.asked_at < studies.c.last_at)
            .outerjoin(
                counts,
                and_(counts.c.study_uid == studies.c.study_uid, counts.c.source == source),
            )
            .where(
                studies.c.state == "RECEIVING",
                studies.c.last_at <= self._ledger.now - quiet_seconds,
                or_(
                    counts.c.asked_at.is_(None),
                    counts.c.asked_at < studies.c.last_at,
                    and_(
                        counts.c.next_at <= self._ledger.now,
                        or_(counts.c.missing.is_(None), counts.c.missing > 0),
                    ),
                ),
            )
            .order_by(studies.c.last_at)
        )
        with self._ledger.reading() as connection:
            return [
                Due(study_uid, 0 if attempts is None or came_since else attempts)
                for study_uid, attempts, came_since in connection.execute(query)
            ]

    def note(
        self,
        due: Due,
        source: str,
        asked_at: float,
        missing: int | None,
        message: str,
        next_at: float,
    ) -> None:
        """Note what a source said of a study."""
        said = {
            "asked_at": asked_at,
            "missing": missing,
            "message": message,
            "attempts": due.attempts + 1,
            "next_at": next_at,
        }
        this = and_(counts.c.study_uid == due.study_uid, counts.c.source == source)
        with self._ledger.writing() as connection:
            if not connection.execute(counts.update().where(this).values(**said)).rowcount:
                connection.execute(
                    counts.insert().values(study_uid=due.study_uid, source=source, **said)
                )

    def held(self, study_uid: str) -> Collection[str]:
        """Instance UIDs of a study that are here, or that we made ourselves."""
        received = select(instances.c.sop_uid).where(
            instances.c.study_uid == study_uid, instances.c.purged_at.is_(None)
        )
        made = (
            select(results.c.sop_uid)
            .join(jobs, jobs.c.job_id == results.c.job_id)
            .where(jobs.c.study_uid == study_uid)
        )
        with self._ledger.reading() as connection:
            return set(connection.scalars(received.union(made)))


class Scout(threading.Thread):
    """Asks one source after whatever is gathering; a slow one never holds up another.

    Args:
        source: to ask.
        settings: who we are, and for how long we wait.
        ledger: of the studies.
        spool: for what is fetched.
        audit: is told of both.
        on_duty: whether it is ours to ask.
        turned_away: counts what is fetched and not taken.
    """

    def __init__(
        self,
        source: Source | WebSource,
        settings: ListenerSettings,
        ledger: Ledger,
        spool: Spool,
        audit: Audit = NO_AUDIT,
        on_duty: Duty = alone,
        turned_away: Clicker | None = None,
    ) -> None:
        super().__init__(name=f"scout-{source.name}", daemon=True)
        self._source, self._settings = source, settings
        self._ledger, self._spool, self._audit = ledger, spool, audit
        self._counts = Counts(ledger)
        self._backoff = Backoff(settings.retry_first_seconds, settings.retry_cap_seconds)
        self._on_duty, self._turned_away = on_duty, turned_away
        self._over = threading.Event()

    def stop(self) -> None:
        """Finish the study at hand, then stop."""
        self._over.set()

    def run(self) -> None:
        """Ask after what is due until stopped."""
        while not self._over.wait(self._settings.poll_seconds):
            try:
                if self._on_duty():
                    self.ask_due()
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever it meets
                log.error("source %s is asked later: %s", self._source.name, where(error))

    def ask_due(self) -> None:
        """Ask after everything that is due, then fetch what is missing of it."""
        lacking = []
        for due in self._counts.due(self._source.name, self._settings.counted_seconds):
            if self._over.is_set() or not self._on_duty():
                return
            missing = self._ask(due)
            if missing and self._source.retrieve != "none":
                lacking.append((due, missing))
        for due, missing in lacking:
            if self._over.is_set() or not self._on_duty():
                return
            self._fetch(due, missing)

    def _ask(self, due: Due) -> list[InstanceListed]:
        """Note how much a source has that is not here; returns it."""
        asked_at = self._ledger.now  # what comes meanwhile asks for another look
        missing: list[InstanceListed] | None = None
        try:
            listed = list_instances(
                self._source, self._settings, due.study_uid, MODALITIES.__contains__, self._audit
            )
        except SourceFailed as error:
            log.warning("study %s: %s", due.study_uid, error)
            message = error.found
        except Exception as error:  # noqa: BLE001 - no answer keeps the other studies waiting
            log.error("study %s: an answer was not understood: %s", due.study_uid, where(error))
            message = "answers with what is not understood"
        else:
            if listed:
                missing = missing_of(listed, self._counts.held(due.study_uid))
                message = MISSING.format(len(missing), len(listed))
            else:
                message = UNKNOWN
        next_at = self._ledger.now + self._backoff.pause(due.attempts + 1)
        number = None if missing is None else len(missing)
        self._counts.note(due, self._source.name, asked_at, number, message, next_at)
        return missing or []

    def _fetch(self, due: Due, missing: list[InstanceListed]) -> None:
        recorder = Recorder(self._ledger, self._audit, self._turned_away)
        try:
            came = fetch(
                self._source, self._settings, due.study_uid, missing, self._spool, recorder
            )
        except SQLAlchemyError:
            raise
        except SourceFailed as error:
            log.warning("study %s: %s", due.study_uid, error)
        else:
            log.info(
                "study %s: %d of %d missing instance(s) came from %s",
                due.study_uid,
                came,
                len(missing),
                self._source.name,
            )
        finally:
            recorder.close()


def missing_of(listed: Collection[InstanceListed], held: Collection[str]) -> list[InstanceListed]:
    """What a source has and we do not."""
    return [each for each in listed if each.sop_uid not in held]


def scouts(
    settings: ListenerSettings,
    ledger: Ledger,
    spool: Spool,
    audit: Audit = NO_AUDIT,
    on_duty: Duty = alone,
    turned_away: Clicker | None = None,
) -> list[Scout]:
    """One scout per source, not yet started."""
    return [
        Scout(source, settings, ledger, spool, audit, on_duty, turned_away)
        for source in settings.sources
    ]
