"""The outbox: results to their destinations, for as long as it takes.

Anything temporary is tried again with a growing, capped pause, without end. Only a
permanent rejection parks a result, visibly, until an operator retries it. The order is
the ledger's: the report follows only once every overlay it refers to was acknowledged.
"""

import logging
import threading
from collections.abc import Sequence
from itertools import groupby
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError

from listener.audit.tally import Party, Tally
from listener.audit.trail import NO_AUDIT, Audit
from listener.backoff import Backoff
from listener.carrier import Answer, Carrier, NotReached
from listener.confirmation import Confirmer, DimseConfirmer
from listener.dicomweb.qido_confirmer import QidoConfirmer
from listener.dicomweb.stow_agent import StowAgent
from listener.entries import Pending
from listener.errors import where
from listener.ledger import Ledger
from listener.remote import Destination, WebDestination
from listener.settings import ListenerSettings
from listener.storage_scu import StorageScu
from listener.watch import Duty, alone

log = logging.getLogger(__name__)

UNFORESEEN = "sending stopped: {}; the listener's log says where"


class Courier(threading.Thread):
    """Delivers to one destination."""

    def __init__(
        self,
        destination: Destination | WebDestination,
        settings: ListenerSettings,
        ledger: Ledger,
        audit: Audit = NO_AUDIT,
        on_duty: Duty = alone,
    ) -> None:
        super().__init__(name=f"courier-{destination.name}", daemon=True)
        self._destination = destination
        self._carrier = carrier_to(destination, settings)
        self._backoff = Backoff(settings.retry_first_seconds, settings.retry_cap_seconds)
        self._confirmer = confirmer_of(destination, settings, ledger, audit)
        self._party = _party(destination)
        self._tally = Tally(audit.sent)
        self._confirm_seconds = settings.confirm_first_seconds
        self._poll_seconds = settings.poll_seconds
        self._ledger = ledger
        self._on_duty = on_duty
        self._over = threading.Event()

    def stop(self) -> None:
        """Finish the object at hand, then stop."""
        self._over.set()

    def run(self) -> None:
        """Deliver what is due, and ask after what was delivered, until stopped."""
        while not self._over.wait(self._poll_seconds):
            try:
                if self._on_duty():
                    self.deliver_due()
                    self._confirmer.confirm_due()
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever it meets
                log.error("delivery to %s goes on later: %s", self._destination.name, where(error))

    def deliver_due(self) -> None:
        """Send everything that may be sent now, one job at a time."""
        due = self._ledger.due(self._destination.name, self._backoff.cap_seconds)
        for _job_id, of_job in groupby(due, key=lambda pending: pending.job_id):
            if self._over.is_set() or not self._on_duty():
                return
            self._deliver_apart(list(of_job))

    def _deliver_apart(self, of_job: Sequence[Pending]) -> None:
        """Deliver one job; whatever happens to it, the next one has its turn."""
        try:
            self._deliver(of_job)
        except SQLAlchemyError:
            raise  # without a ledger there is nothing to go on with
        except Exception as error:  # noqa: BLE001 - one job must not hold up all others
            log.error("delivery to %s stopped: %s", self._destination.name, where(error))
            self._postpone(of_job, UNFORESEEN.format(type(error).__name__))
        finally:
            self._tally.all_over()

    def _deliver(self, of_job: Sequence[Pending]) -> None:
        answered = 0
        try:
            with self._carrier.calling(of_job) as send:
                for pending in of_job:
                    if not self._on_duty():
                        return
                    self._note(pending, send(pending))
                    answered += 1
        except NotReached as error:
            self._postpone(of_job[answered:], str(error))

    def _postpone(self, rest: Sequence[Pending], reason: str) -> None:
        pause = self._backoff.pause(rest[0].attempts + 1)
        log.warning(
            "%s: %s; %d result(s) of study %s wait, next attempt in %g s",
            self._destination.name,
            reason,
            len(rest),
            rest[0].study_uid,
            pause,
        )
        self._ledger.postpone(rest, self._destination.name, reason, self._ledger.now + pause)

    def _note(self, pending: Pending, answer: Answer) -> None:
        self._count(pending, answer)
        pause = self._backoff.pause(pending.attempts + 1)
        pauses = {"PENDING": pause, "SENT": self._confirm_seconds}
        self._ledger.note_delivery(
            pending,
            self._destination.name,
            answer.state,
            answer.message,
            status=answer.status,
            sent_as=answer.sent_as,
            next_at=self._ledger.now + pauses.get(answer.state, 0.0),
        )
        if answer.state != "SENT":
            log.warning(
                "result %s for %s: %s (%s)",
                pending.encodings[0].sop_uid,
                self._destination.name,
                answer.message,
                f"next attempt in {pause:g} s"
                if answer.state == "PENDING"
                else "parked; `retry` the study once it is mended",
            )

    def _count(self, pending: Pending, answer: Answer) -> None:
        """For the audit trail: one message for each job, and one more for what failed."""
        by_uid = {result.sop_uid: result for result in pending.encodings}
        result = by_uid.get(answer.sent_as or "", pending.encodings[0])
        self._tally.count(
            pending.job_id,
            self._party,
            pending.study_uid,
            result.sop_class,
            result.path,
            arrived=answer.state == "SENT",
        )


def carrier_to(destination: Destination | WebDestination, settings: ListenerSettings) -> Carrier:
    """How results get to a destination."""
    if isinstance(destination, WebDestination):
        return StowAgent(destination, settings)
    return StorageScu(destination, settings)


def confirmer_of(
    destination: Destination | WebDestination,
    settings: ListenerSettings,
    ledger: Ledger,
    audit: Audit,
) -> Confirmer:
    """Who asks a destination what it kept."""
    if isinstance(destination, WebDestination):
        return QidoConfirmer(destination, settings, ledger)
    return DimseConfirmer(destination, settings, ledger, audit)


def _party(destination: Destination | WebDestination) -> Party:
    """What the audit trail calls a destination."""
    if isinstance(destination, WebDestination):
        return Party(destination.name, urlsplit(destination.url).hostname or "", is_ae=False)
    return Party(destination.ae_title, destination.host)


def couriers(
    settings: ListenerSettings, ledger: Ledger, audit: Audit = NO_AUDIT, on_duty: Duty = alone
) -> list[Courier]:
    """One courier per destination, not yet started: a slow one never holds up another."""
    return [
        Courier(destination, settings, ledger, audit, on_duty)
        for destination in settings.destinations
    ]
