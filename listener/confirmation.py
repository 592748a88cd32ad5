"""Was it kept? What a destination acknowledged, until it commits to it or shows it.

A C-STORE answered with Success says that the object arrived, not that it is archived. So the
destination is asked: for a storage commitment (PS3.4 J), and where it offers none, by C-FIND for
what it has (PS3.4 C). What it turns out not to have is sent again.
"""

import logging
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import IntEnum
from io import BytesIO
from itertools import groupby
from typing import Final, cast

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from sqlalchemy import ColumnElement, Connection, and_, select, update

from listener.audit.tally import Party
from listener.audit.trail import NO_AUDIT, Audit
from listener.backoff import Backoff
from listener.caller import PLAIN, call, caller
from listener.clock import is_due
from listener.entries import Sent
from listener.errors import where
from listener.ledger import Ledger
from listener.reading import BROKEN, read_encoded
from listener.remote import Destination, WebDestination
from listener.settings import ListenerSettings
from listener.tables import deliveries, jobs, move, results

log = logging.getLogger(__name__)

STORAGE_COMMITMENT: Final = UID("1.2.840.10008.1.20.1")
STORAGE_COMMITMENT_INSTANCE: Final = UID("1.2.840.10008.1.20.1.1")
STUDY_ROOT_FIND: Final = UID("1.2.840.10008.5.1.4.1.2.2.1")

# PS3.4 J.3.2 and table J.3-1; PS3.3 C.14.1.1
REQUEST_COMMITMENT: Final = 1
NO_SUCH_INSTANCE: Final = 0x0112

SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
PENDING_MATCHES: Final = (0xFF00, 0xFF01)


class ReportStatus(IntEnum):
    """What N-EVENT-REPORT is answered (PS3.4 J.3.3.1.3 and PS3.7 C.5)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110


# PS3.7 C.5: answers to a request that say that commitment is no service of the destination's. Any
# other failure, and any failed instance, is its word that it does not commit.
NOT_SUPPORTED: Final = (0x0122, 0x0123, 0x0211)
# Failures that are no warnings: what `status` of a delivery holds after C-STORE is outside of them.
FAILURES: Final = range(0x0100, 0xB000)

# A request for commitment, or an answer to one, of 12,000 instances: a hundred bytes, and eight
# pieces, for each.
LARGEST_REPORT_BYTES: Final = 2 << 20
MOST_REPORT_PIECES: Final = 100_000

# Instances named in one request for commitment.
AT_ONCE: Final = 500
# How long an answer may come on the association of its request; later ones come on another.
SAME_ASSOCIATION_SECONDS: Final = 2.0
# Our own response to it must be on its way before that association is released.
PARTING_SECONDS: Final = 0.1
# A destination may accept to commit and never say so, for instance because it does not know where
# we are: after so many looks, the last of them a request without an answer, it is asked what it
# has, every other time.
IN_VAIN: Final = 2
# A destination that says so often that it does not commit to something is sent it again.
REFUSALS_BEFORE_RESENDING: Final = 3
# Archives index when they find the time: only what was missed so often is sent again.
MISSES_BEFORE_RESENDING: Final = 3
# Pause before a destination that offers neither way is asked again: it may learn.
NEITHER_SECONDS: Final = 24 * 3600.0

# What a destination is asked with, by the setting `confirm`.
WAYS: Final = {
    "auto": "storage commitment or C-FIND",
    "commitment": "storage commitment",
    "query": "C-FIND",
}

COMMITTED: Final = "committed to by the destination"
SHOWN: Final = "shown by the destination"
NOT_HELD: Final = "the destination does not have it after all; it is sent again"
NOT_COMMITTED: Final = "the destination does not commit to it: reason 0x{:04X}"
NOT_COMMITTED_AGAIN: Final = f"{NOT_COMMITTED}; it is sent again"


class Confirmations:
    """What is written down of results that were sent, until they are confirmed."""

    def __init__(self, ledger: Ledger, backoff: Backoff) -> None:
        self._ledger = ledger
        self._backoff = backoff

    def due(self, destination: str) -> list[Sent]:
        """What a destination acknowledged and has not confirmed, oldest job first."""
        query = (
            select(
                deliveries.c.sop_uid.label("key"),
                jobs.c.study_uid,
                results.c.series_uid,
                results.c.sop_class,
                results.c.sop_uid,
                deliveries.c.looks,
                deliveries.c.transaction_uid,
                deliveries.c.status,
            )
            .join(results, results.c.sop_uid == deliveries.c.sent_as)
            .join(jobs, jobs.c.job_id == results.c.job_id)
            .where(
                deliveries.c.destination == destination,
                deliveries.c.state == "SENT",
                is_due(deliveries.c.next_at, self._ledger.now, NEITHER_SECONDS),
            )
            .order_by(jobs.c.finished_at, results.c.series_uid, results.c.number)
        )
        with self._ledger.reading() as connection:
            return [
                Sent(*row[:-2], unanswered=transaction_uid is not None and status not in FAILURES)
                for row in connection.execute(query)
                for transaction_uid, status in [row[-2:]]
            ]

    def asked(
        self, sent: Sequence[Sent], destination: str, transaction_uid: str, next_at: float
    ) -> None:
        """Note a request for commitment; without an answer, the next one is due at `next_at`."""
        self._postpone(
            sent, destination, next_at, "commitment was asked for", transaction_uid=transaction_uid
        )

    def refused(self, transaction_uid: str, reason: int) -> None:
        """Note that a destination commits to nothing of a request."""
        with self._ledger.writing() as connection:
            self._not_committed(connection, deliveries.c.transaction_uid == transaction_uid, reason)

    def postpone(
        self, sent: Sequence[Sent], destination: str, message: str, next_at: float
    ) -> None:
        """Note that a destination could not tell."""
        self._postpone(sent, destination, next_at, message)

    def answered(
        self, transaction_uid: str, committed: Collection[str], failed: Mapping[str, int]
    ) -> int:
        """Note what a destination answered to a request for commitment.

        Args:
            transaction_uid: of the request.
            committed: instance UIDs that it is responsible for now.
            failed: instance UID to the reason why it is not for others.

        Returns:
            How many results the request was about that are not confirmed otherwise by now.
        """
        of_request = deliveries.c.transaction_uid == transaction_uid
        absent = [uid for uid, reason in failed.items() if reason == NO_SUCH_INSTANCE]
        with self._ledger.writing() as connection:
            found = move(
                connection,
                deliveries,
                and_(of_request, deliveries.c.sent_as.in_(committed)),
                "CONFIRMED",
                message=COMMITTED,
                at=self._ledger.now,
            )
            found += self._send_again(
                connection, and_(of_request, deliveries.c.sent_as.in_(absent))
            )
            for uid in failed.keys() - set(absent):
                this = and_(of_request, deliveries.c.sent_as == uid)
                found += self._not_committed(connection, this, failed[uid])
        return found

    def _not_committed(
        self, connection: Connection, these: ColumnElement[bool], reason: int
    ) -> int:
        """Note that a destination said that it does not commit; what is refused often goes again.

        The reason stays in `status`: what was refused is not confirmed by being shown.
        """
        here = and_(these, deliveries.c.state == "SENT")
        kept = reason if reason in FAILURES else PROCESSING_FAILURE
        noted = connection.execute(
            update(deliveries).where(here).values(message=NOT_COMMITTED.format(reason), status=kept)
        ).rowcount
        often = and_(here, deliveries.c.looks >= REFUSALS_BEFORE_RESENDING)
        self._send_again(connection, often, NOT_COMMITTED_AGAIN.format(reason))
        return noted

    def seen(self, sent: Sequence[Sent], destination: str, held: Collection[str]) -> None:
        """Note which of these a destination shows; those missed too often are sent again."""
        there = [each.key for each in sent if each.sop_uid in held]
        gone = [
            each.key
            for each in sent
            if each.sop_uid not in held and each.looks + 1 >= MISSES_BEFORE_RESENDING
        ]
        with self._ledger.writing() as connection:
            move(
                connection,
                deliveries,
                and_(deliveries.c.sop_uid.in_(there), deliveries.c.destination == destination),
                "CONFIRMED",
                message=SHOWN,
                at=self._ledger.now,
            )
            self._send_again(
                connection,
                and_(deliveries.c.sop_uid.in_(gone), deliveries.c.destination == destination),
            )

    def _send_again(
        self, connection: Connection, these: ColumnElement[bool], message: str = NOT_HELD
    ) -> int:
        """Put results on their way again, with a pause that grows with every attempt."""
        query = (
            select(
                deliveries.c.sop_uid,
                deliveries.c.destination,
                deliveries.c.attempts,
                jobs.c.study_uid,
            )
            .join(results, results.c.sop_uid == deliveries.c.sop_uid)
            .join(jobs, jobs.c.job_id == results.c.job_id)
        )
        rows = connection.execute(query.where(these, deliveries.c.state == "SENT")).all()
        for row in rows:
            this = and_(
                deliveries.c.sop_uid == row.sop_uid, deliveries.c.destination == row.destination
            )
            next_at = self._ledger.now + self._backoff.pause(row.attempts)
            at = self._ledger.now
            move(connection, deliveries, this, "PENDING", message=message, next_at=next_at, at=at)
            what = f"delivery to {row.destination} not confirmed"
            self._ledger.note(connection, row.study_uid, what, f"{row.sop_uid}: {message}")
            log.warning("result %s for %s: %s", row.sop_uid, row.destination, message)
        return len(rows)

    def _postpone(
        self, sent: Sequence[Sent], destination: str, next_at: float, message: str, **values: str
    ) -> None:
        these = and_(
            deliveries.c.sop_uid.in_([each.key for each in sent]),
            deliveries.c.destination == destination,
            deliveries.c.state == "SENT",
        )
        with self._ledger.writing() as connection:
            connection.execute(
                update(deliveries)
                .where(these)
                .values(looks=deliveries.c.looks + 1, next_at=next_at, message=message, **values)
            )


class Confirmer(ABC):
    """Asks one destination what it kept."""

    def __init__(
        self,
        destination: Destination | WebDestination,
        settings: ListenerSettings,
        ledger: Ledger,
    ) -> None:
        self._name, self._asks = destination.name, destination.confirm != "none"
        self._backoff = Backoff(settings.confirm_first_seconds, settings.retry_cap_seconds)
        self._ledger = ledger
        self._book = Confirmations(ledger, resending(settings))

    def confirm_due(self) -> None:
        """Ask for everything that is due."""
        if not self._asks:
            return
        due = self._book.due(self._name)
        for start in range(0, len(due), AT_ONCE):
            if not self._confirm(due[start : start + AT_ONCE]):
                return

    @abstractmethod
    def _confirm(self, sent: Sequence[Sent]) -> bool:
        """Ask for some; False when the destination does not answer."""

    def _note_shown(self, sent: Sequence[Sent], held: Collection[str]) -> None:
        """Note which of these a destination shows."""
        self._postpone(sent, "the destination does not show it yet")
        self._book.seen(sent, self._name, held)

    def _take_at_its_word(self, sent: Sequence[Sent], way: str) -> None:
        """Note that a destination offers no way to ask."""
        self._book.postpone(
            sent,
            self._name,
            f"the destination does not offer {way}: taken at its word",
            self._ledger.now + NEITHER_SECONDS,
        )

    def _postpone(self, sent: Sequence[Sent], message: str) -> None:
        next_at = self._ledger.now + self._pause(sent)
        self._book.postpone(sent, self._name, message, next_at)

    def _pause(self, sent: Sequence[Sent]) -> float:
        return self._backoff.pause(1 + min(each.looks for each in sent))


class DimseConfirmer(Confirmer):
    """Asks one application entity what it kept."""

    def __init__(
        self,
        destination: Destination,
        settings: ListenerSettings,
        ledger: Ledger,
        audit: Audit = NO_AUDIT,
    ) -> None:
        super().__init__(destination, settings, ledger)
        self._destination, self._audit = destination, audit
        self._ae_title, self._tls = settings.ae_title, settings.tls
        self._timeout_seconds = settings.association_timeout_seconds
        self._answer_seconds = settings.commitment_seconds
        self._answered = threading.Event()

    def _confirm(self, sent: Sequence[Sent]) -> bool:
        try:
            association = self._associate()
        except OSError:
            association = None
        if association is None or not (association.is_established or association.rejected_contexts):
            self._postpone(sent, "the destination does not answer")
            return False
        try:
            return self._ask(association, sent)
        finally:
            if association.is_established:
                association.release()

    def _ask(self, association: Association, sent: Sequence[Sent]) -> bool:
        offered = {str(each.abstract_syntax) for each in association.accepted_contexts}
        commits = STORAGE_COMMITMENT in offered
        finds = STUDY_ROOT_FIND in offered
        silent = [each for each in sent if finds and _asked_in_vain(each)]
        asked = [each for each in sent if each not in silent]
        if commits:
            return (not asked or self._ask_to_commit(association, asked, finds)) and (
                self._look_at_all(association, silent)
            )
        if finds:
            return self._look_at_all(association, sent)
        self._take_at_its_word(sent, WAYS[self._destination.confirm])
        return True

    def _ask_to_commit(self, association: Association, sent: Sequence[Sent], finds: bool) -> bool:
        request = Dataset()
        request.TransactionUID = f"2.25.{uuid.uuid4().int}"
        request.ReferencedSOPSequence = [reference(each.sop_class, each.sop_uid) for each in sent]
        # Written down first: the answer may be here before the request's own.
        self._answered.clear()
        next_at = self._ledger.now + max(self._answer_seconds, self._pause(sent))
        self._book.asked(sent, self._destination.name, request.TransactionUID, next_at)
        try:
            response, _ = association.send_n_action(
                request,
                REQUEST_COMMITMENT,
                STORAGE_COMMITMENT,
                STORAGE_COMMITMENT_INSTANCE,
            )
        except (*BROKEN, RuntimeError) as error:
            log.warning("%s: asking stopped: %s", self._destination.name, type(error).__name__)
            return False
        status = response.get("Status")
        if status is None:
            self._postpone(sent, "the destination does not answer requests to commit")
            return False
        if status in NOT_SUPPORTED:
            if finds:
                return self._look_at_all(association, sent)
            self._take_at_its_word(sent, WAYS[self._destination.confirm])
            return True
        if status in FAILURES:
            self._book.refused(request.TransactionUID, status)
            return True
        if self._answered.wait(SAME_ASSOCIATION_SECONDS):
            time.sleep(PARTING_SECONDS)
        return True

    def _look_at_all(self, association: Association, sent: Sequence[Sent]) -> bool:
        return all(
            self._look(association, list(of_series))
            for _uid, of_series in groupby(sent, key=lambda each: each.series_uid)
        )

    def _look(self, association: Association, sent: Sequence[Sent]) -> bool:
        """Ask what a destination has of one series."""
        wanted = Dataset()
        wanted.QueryRetrieveLevel = "IMAGE"
        wanted.StudyInstanceUID, wanted.SeriesInstanceUID = sent[0].study_uid, sent[0].series_uid
        wanted.SOPInstanceUID = ""
        held, status = set(), None
        party = Party(self._destination.ae_title, self._destination.host)
        self._audit.queried(party, STUDY_ROOT_FIND, wanted)
        try:
            for response, found in association.send_c_find(wanted, STUDY_ROOT_FIND):
                status = response.get("Status")
                if status in PENDING_MATCHES and found is not None:
                    held.add(str(found.get("SOPInstanceUID", "")))
        except (*BROKEN, RuntimeError) as error:
            log.warning("%s: asking stopped: %s", self._destination.name, type(error).__name__)
        if status != SUCCESS:
            said = "no answer" if status is None else f"0x{status:04X}"
            self._postpone(sent, f"the destination does not tell what it has: {said}")
            return False
        self._note_shown(sent, held)
        return True

    def _associate(self) -> Association:
        entity = caller(self._ae_title, self._timeout_seconds)
        if self._destination.confirm in ("auto", "commitment"):
            entity.add_requested_context(STORAGE_COMMITMENT, PLAIN)
        if self._destination.confirm in ("auto", "query"):
            entity.add_requested_context(STUDY_ROOT_FIND, PLAIN)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._on_event_report)]
        return call(entity, self._destination, self._tls, evt_handlers=handlers)

    def _on_event_report(self, event: evt.Event) -> tuple[ReportStatus, None]:
        answer = on_event_report(event, self._book)
        self._answered.set()
        return answer


def _asked_in_vain(sent: Sent) -> bool:
    """Whether a destination is asked what it has, instead of to commit once more."""
    return sent.unanswered and sent.looks >= IN_VAIN and sent.looks % 2 == 0


def resending(settings: ListenerSettings) -> Backoff:
    """Pauses before what a destination turned out not to have is sent again."""
    return Backoff(settings.retry_first_seconds, settings.retry_cap_seconds)


def on_event_report(event: evt.Event, book: Confirmations) -> tuple[ReportStatus, None]:
    """Take a destination's answer to a request for commitment, on whatever association it comes."""
    try:
        request = cast(N_EVENT_REPORT, event.request)
        answer = references(request.EventInformation, event.context.transfer_syntax)
        committed = set(_instances(answer, "ReferencedSOPSequence"))
        failed = {
            uid: int(item.get("FailureReason") or PROCESSING_FAILURE)
            for uid, item in _instances(answer, "FailedSOPSequence").items()
        }
        known = book.answered(str(answer.TransactionUID), committed, failed)
    except Exception as error:  # noqa: BLE001 - whatever it is, the destination must get an answer
        log.error("an answer to a request for commitment was not understood: %s", where(error))
        return ReportStatus.PROCESSING_FAILURE, None
    log.info("%d of %d result(s) committed to", len(committed), known)
    return ReportStatus.SUCCESS, None


def reference(sop_class: str, sop_uid: str) -> Dataset:
    """Name an instance in a request for commitment, or in the answer to one."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
    return item


def references(encoded: object, syntax: UID) -> Dataset:
    """Read a request for commitment, or the answer to one.

    Raises:
        Exception: it cannot be read, or names more instances than a study has.
    """
    return read_encoded(
        cast(BytesIO, encoded),
        syntax,
        most_bytes=LARGEST_REPORT_BYTES,
        most_pieces=MOST_REPORT_PIECES,
    )


def _instances(answer: Dataset, keyword: str) -> Mapping[str, Dataset]:
    items: Iterator[Dataset] = iter(answer.get(keyword) or [])
    return {str(item.ReferencedSOPInstanceUID): item for item in items}
