"""The outbox: results to their destinations, for as long as it takes.

Anything temporary is tried again with a growing, capped pause, without end. Only a
permanent rejection parks a result, visibly, until an operator retries it. The order is
the ledger's: the report follows only once every overlay it refers to was acknowledged.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.status import code_to_category
from sqlalchemy.exc import SQLAlchemyError

from listener.audit.tally import Party, Tally
from listener.audit.trail import NO_AUDIT, Audit
from listener.backoff import Backoff
from listener.caller import call, caller
from listener.confirmation import Confirmer
from listener.entries import Pending, Result
from listener.errors import where
from listener.ledger import Ledger
from listener.remote import Destination
from listener.series import BROKEN
from listener.settings import ListenerSettings

log = logging.getLogger(__name__)

VERIFICATION = "1.2.840.10008.1.1"

TRANSFER_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]

PERMANENT_STATUSES = (range(0xA900, 0xAA00), range(0xC000, 0xD000), range(0x0122, 0x0123))
"""PS3.4 B.2.3: the object itself is refused, and will be refused again."""

DUPLICATE = 0x0111
"""PS3.7 C.5.2: the destination has an object of this UID. Ours derive from their content."""

KNOCK_SECONDS = 5.0
"""How long a destination may take to answer a C-ECHO before somebody who waits is told."""

UNREACHABLE = "the destination does not answer"

UNFORESEEN = "sending stopped: {}; the listener's log says where"


@dataclass(frozen=True)
class Answer:
    """What a destination made of one object."""

    state: str
    """SENT, PARKED, or PENDING to be tried again."""
    message: str
    status: int | None = None
    sent_as: str | None = None


class Courier(threading.Thread):
    """Delivers to one destination."""

    def __init__(
        self,
        destination: Destination,
        settings: ListenerSettings,
        ledger: Ledger,
        audit: Audit = NO_AUDIT,
    ) -> None:
        super().__init__(name=f"courier-{destination.name}", daemon=True)
        self._destination = destination
        self._ae_title, self._tls = settings.ae_title, settings.tls
        self._timeout_seconds = settings.association_timeout_seconds
        self._backoff = Backoff(settings.retry_first_seconds, settings.retry_cap_seconds)
        self._confirmer = Confirmer(destination, settings, ledger, audit)
        self._party = Party(destination.ae_title, destination.host)
        self._tally = Tally(audit.sent)
        self._confirm_seconds = settings.confirm_first_seconds
        self._poll_seconds = settings.poll_seconds
        self._ledger = ledger
        self._over = threading.Event()

    def stop(self) -> None:
        """Finish the object at hand, then stop."""
        self._over.set()

    def run(self) -> None:
        """Deliver what is due, and ask after what was delivered, until stopped."""
        while not self._over.wait(self._poll_seconds):
            try:
                self.deliver_due()
                self._confirmer.confirm_due()
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever it meets
                log.error("delivery to %s goes on later: %s", self._destination.name, where(error))

    def deliver_due(self) -> None:
        """Send everything that may be sent now, one job at a time."""
        due = self._ledger.due(self._destination.name)
        for _job_id, of_job in groupby(due, key=lambda pending: pending.job_id):
            if self._over.is_set():
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
        try:
            association = self._associate(of_job)
        except OSError as error:  # such as a host name that does not resolve
            log.warning("%s: %s", self._destination.name, type(error).__name__)
            self._postpone(of_job, UNREACHABLE)
            return
        try:
            for position, pending in enumerate(of_job):
                if not (association.is_established or _refuses_every_class(association)):
                    self._postpone(of_job[position:], UNREACHABLE)
                    return
                self._note(pending, self._send(association, pending))
        finally:
            if association.is_established:
                association.release()

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

    def _associate(self, of_job: Sequence[Pending]) -> Association:
        entity = caller(self._ae_title, self._timeout_seconds)
        for sop_class in sorted(
            {result.sop_class for pending in of_job for result in pending.encodings}
        ):
            entity.add_requested_context(sop_class, TRANSFER_SYNTAXES)
        return call(entity, self._destination, self._tls)

    def _send(self, association: Association, pending: Pending) -> Answer:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        for result in pending.encodings:
            if result.sop_class in accepted:
                return _store(association, result)
        offered = ", ".join(sorted({result.sop_class for result in pending.encodings}))
        return Answer("PARKED", f"the destination accepts no object of class {offered}")


def _refuses_every_class(association: Association) -> bool:
    """Whether a destination answered, but accepted no presentation context at all."""
    return bool(association.rejected_contexts) and not association.accepted_contexts


def _store(association: Association, result: Result) -> Answer:
    try:
        dataset = _read(result)
    except BROKEN as error:
        why = f"cannot be read ({type(error).__name__})"
        return Answer("PENDING", f"the file of the result {why}: restore {result.path}")
    try:
        response = association.send_c_store(dataset)
    except (*BROKEN, RuntimeError) as error:
        return Answer("PENDING", f"sending stopped: {type(error).__name__}")
    if "Status" not in response:
        return Answer("PENDING", "the connection was lost before the destination answered")
    status = int(response.Status)
    return _answer(status, result)


def _read(result: Result) -> Dataset:
    """Read a result; raises one of BROKEN when its file is not what was kept."""
    dataset = dcmread(result.path)
    if (dataset.SOPClassUID, dataset.SOPInstanceUID) != (result.sop_class, result.sop_uid):
        raise ValueError(result.path)
    return dataset


def _answer(status: int, result: Result) -> Answer:
    """Sort a C-STORE status by what to do.

    A warning means that the object was stored, perhaps with coerced attributes (PS3.4 B.2.3).
    """
    category = code_to_category(status)
    said = f"0x{status:04X} {category}"
    if category in ("Success", "Warning") or status == DUPLICATE:
        return Answer("SENT", said, status, sent_as=result.sop_uid)
    if any(status in statuses for statuses in PERMANENT_STATUSES):
        return Answer("PARKED", f"rejected with {said}", status)
    return Answer("PENDING", f"not stored: {said}", status)


def destination_answers(destination: Destination, settings: ListenerSettings) -> bool:
    """Tell whether a destination answers a C-ECHO now."""
    entity = caller(settings.ae_title, KNOCK_SECONDS)
    entity.add_requested_context(VERIFICATION)
    try:
        association = call(entity, destination, settings.tls)
    except OSError:
        return False
    if not association.is_established:
        return False
    try:
        return bool(association.send_c_echo().get("Status") == 0x0000)
    finally:
        association.release()


def couriers(settings: ListenerSettings, ledger: Ledger, audit: Audit = NO_AUDIT) -> list[Courier]:
    """One courier per destination, not yet started: a slow one never holds up another."""
    return [Courier(destination, settings, ledger, audit) for destination in settings.destinations]
