"""Storage commitment for others: we say that we have what they sent, once we looked (PS3.4 J).

A request is written down before it is answered, so that a restart forgets none. The answer is read
from the spool, byte for byte, and goes to where the asker listens; where we do not know that, it
goes over the asker's own association while that is open.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, cast

from pydicom import Dataset
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION
from sqlalchemy import Row, select, update
from sqlalchemy.exc import SQLAlchemyError

from listener.backoff import Backoff
from listener.caller import call, caller
from listener.clock import is_due, since
from listener.confirmation import (
    REQUEST_COMMITMENT,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    SUCCESS,
    reference,
    references,
)
from listener.errors import BadAttribute, where
from listener.ledger import ROWS_AT_ONCE, Ledger
from listener.remote import Entity, Peer, WebDestination
from listener.series import BROKEN, require_uid
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import instances, move, promises
from listener.watch import Duty, alone

log = logging.getLogger(__name__)


class ActionStatus(IntEnum):
    """What N-ACTION is answered (PS3.7 10.1.4.1.10 and C.5).

    Attributes:
        UNFORESEEN: what pynetdicom answers for a handler that failed.
    """

    SUCCESS = 0x0000
    UNFORESEEN = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    INVALID_ARGUMENT = 0x0115
    NO_SUCH_ACTION = 0x0123
    RESOURCE_LIMITATION = 0x0213


class FailureReason(IntEnum):
    """Why we do not commit to an instance (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119


# PS3.4 table J.3-2
ALL_COMMITTED: Final = 1
SOME_FAILED: Final = 2

ORPHANED_SECONDS: Final = 5.0
"""A process that serves the asker would have answered by then."""

YOUNG_SECONDS: Final = 60.0
"""Rows are written within moments of the files: what a request names that is older, and the ledger
does not know, was never here, and is not looked for on the whole disk."""

References = Sequence[tuple[str, str]]
"""SOP class and instance UIDs."""


@dataclass(frozen=True)
class Promise:
    """A request for commitment that waits for its answer."""

    transaction_uid: str
    calling: str
    address: str
    references: References
    attempts: int
    due_since: float
    asked_at: float


class Promises:
    """What is written down of requests for commitment."""

    def __init__(self, ledger: Ledger, spool: Spool) -> None:
        self._ledger = ledger
        self._spool = spool

    def ask(self, transaction_uid: str, calling: str, address: str, named: References) -> None:
        """Write a request down; one that is asked again is answered again."""
        asked = {
            "calling": calling,
            "address": address,
            "references": [list(each) for each in named],
            "asked_at": self._ledger.now,
            "next_at": self._ledger.now,
            "attempts": 0,
            "state": "ASKED",
        }
        with self._ledger.writing() as connection:
            connection.execute(
                self._ledger.insert_or_ignore(promises).values(
                    transaction_uid=transaction_uid, **asked
                )
            )
            connection.execute(
                update(promises)
                .where(promises.c.transaction_uid == transaction_uid)
                .values(**asked)
            )

    def is_of_another(self, transaction_uid: str, calling: str) -> bool:
        """Whether somebody else has made this request."""
        query = select(promises.c.calling).where(promises.c.transaction_uid == transaction_uid)
        with self._ledger.reading() as connection:
            return connection.scalar(query) not in (None, calling)

    def due(self) -> list[Promise]:
        """Requests to answer now, oldest first."""
        query = (
            select(promises)
            .where(promises.c.state == "ASKED", is_due(promises.c.next_at, self._ledger.now))
            .order_by(promises.c.asked_at)
        )
        with self._ledger.reading() as connection:
            return [
                Promise(
                    row.transaction_uid,
                    row.calling,
                    row.address,
                    [(sop_class, sop_uid) for sop_class, sop_uid in row.references],
                    row.attempts,
                    row.next_at,
                    row.asked_at,
                )
                for row in connection.execute(query)
            ]

    def answered(self, promise: Promise, message: str) -> None:
        """Note that the asker has its answer."""
        this = promises.c.transaction_uid == promise.transaction_uid
        with self._ledger.writing() as connection:
            move(connection, promises, this, "ANSWERED", message=message)

    def postpone(self, promise: Promise, message: str, next_at: float) -> None:
        """Note why the answer did not get through."""
        this = promises.c.transaction_uid == promise.transaction_uid
        with self._ledger.writing() as connection:
            connection.execute(
                update(promises)
                .where(this)
                .values(attempts=promises.c.attempts + 1, message=message, next_at=next_at)
            )

    def failures(
        self, named: References, asked_at: float | None = None
    ) -> dict[str, FailureReason]:
        """Instance UIDs that we cannot commit to, each with its reason (PS3.3 C.14.1.1).

        A request names UIDs, not bytes: of a UID that came with different ones, nobody knows which
        the asker means, and who deletes its copy may be the one whose bytes are in quarantine.

        Args:
            named: what the asker wants kept.
            asked_at: when; None: now.

        Raises:
            OSError: the disk does not answer at present.
        """
        rows = self._rows([sop_uid for _, sop_uid in named])
        found = {}
        rowless = self._rowless({sop_uid for _, sop_uid in named} - rows.keys(), asked_at)
        for sop_class, sop_uid in named:
            failure = self._failure_of(sop_class, rows.get(sop_uid, ()), rowless.get(sop_uid))
            if failure is not None:
                found[sop_uid] = failure
        return found

    def _rowless(self, sop_uids: Collection[str], asked_at: float | None) -> dict[str, Path]:
        """Files whose row is a moment later, as long as that may be so."""
        if asked_at is not None and since(asked_at, self._ledger.now) > YOUNG_SECONDS:
            return {}
        return self._spool.find(sop_uids)

    def _failure_of(
        self, sop_class: str, rows: Sequence[Row[Any]], rowless: Path | None
    ) -> FailureReason | None:
        if any(row.state == "quarantined" for row in rows):
            return FailureReason.PROCESSING_FAILURE
        held = [row for row in rows if row.purged_at is None]
        path, sha256 = (Path(held[0].path), held[0].sha256) if held else (rowless, None)
        if path is not None and self._has_other_version(path):
            return FailureReason.PROCESSING_FAILURE
        return self._failure(sop_class, path, sha256)

    def _rows(self, sop_uids: Sequence[str]) -> dict[str, list[Row[Any]]]:
        """Everything that the ledger knows of these UIDs, quarantined and purged ones as well."""
        found: dict[str, list[Row[Any]]] = defaultdict(list)
        with self._ledger.reading() as connection:
            for start in range(0, len(sop_uids), ROWS_AT_ONCE):
                some = instances.c.sop_uid.in_(sop_uids[start : start + ROWS_AT_ONCE])
                for row in connection.execute(select(instances).where(some)):
                    found[row.sop_uid].append(row)
        return found

    def _has_other_version(self, path: Path) -> bool:
        """Whether other bytes of the same UID lie in quarantine, whose row may be to come."""
        study_uid, series_uid, name = path.parts[-3:]
        apart = self._spool.root / "quarantine" / study_uid / series_uid
        return any(apart.glob(f"{name.removesuffix('.dcm')}.*.dcm"))

    def _failure(
        self, sop_class: str, path: Path | None, sha256: str | None
    ) -> FailureReason | None:
        if path is None or not path.exists():
            return FailureReason.NO_SUCH_INSTANCE
        try:
            found_class, found_sha256 = self._spool.identity(path)
        except (BadAttribute, *BROKEN) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            log.error("%s in the spool cannot be read: %s", path.name, type(error).__name__)
            return FailureReason.PROCESSING_FAILURE
        if sha256 not in (None, found_sha256):
            log.error("%s in the spool is not what was received", path.name)
            return FailureReason.PROCESSING_FAILURE
        return None if found_class == sop_class else FailureReason.CLASS_INSTANCE_CONFLICT


class Herald(threading.Thread):
    """Answers requests for commitment for as long as it takes.

    Args:
        settings: where those listen who ask.
        ledger: of the requests.
        spool: of the instances.
        calls: whether it is ours to call those back whose port is known. Of several processes one
            does; the others answer on the associations that they serve.
    """

    def __init__(
        self, settings: ListenerSettings, ledger: Ledger, spool: Spool, calls: Duty = alone
    ) -> None:
        super().__init__(name="herald", daemon=True)
        self.promises = Promises(ledger, spool)
        self._calls = calls
        self._settings = settings
        self._ledger = ledger
        self._backoff = Backoff(settings.retry_first_seconds, settings.retry_cap_seconds)
        self._asked_over: dict[str, Association] = {}
        self._over = threading.Event()

    def stop(self) -> None:
        """Finish the answer at hand, then stop."""
        self._over.set()

    def run(self) -> None:
        """Answer what is due until stopped."""
        while not self._over.wait(self._settings.poll_seconds):
            try:
                self.answer_due()
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever it meets
                log.error("requests for commitment wait: %s", where(error))

    def answer_due(self) -> None:
        """Answer everything that may be answered now."""
        for promise in self.promises.due():
            if self._over.is_set():
                return
            if not self._is_ours(promise):
                continue
            try:
                self._answer(promise)
            except SQLAlchemyError:
                raise  # without a ledger there is nothing to go on with
            except Exception as error:  # noqa: BLE001 - one request must not hold up all others
                log.error("a request for commitment was not answered: %s", where(error))
                self._postpone(promise, f"answering stopped: {type(error).__name__}")

    def on_action(self, event: evt.Event) -> tuple[ActionStatus, None]:
        """Take a request for commitment (N-ACTION)."""
        request = cast(N_ACTION, event.request)
        if request.ActionTypeID != REQUEST_COMMITMENT:
            return ActionStatus.NO_SUCH_ACTION, None
        if request.RequestedSOPInstanceUID != STORAGE_COMMITMENT_INSTANCE:
            return ActionStatus.NO_SUCH_INSTANCE, None
        try:
            asked = references(request.ActionInformation, event.context.transfer_syntax)
            named = [
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in asked.ReferencedSOPSequence
            ]
            transaction_uid = str(asked.TransactionUID)
            if not named:
                raise BadAttribute("a request for commitment names no instance")
            for uid in (transaction_uid, *(uid for each in named for uid in each)):
                require_uid("a request for commitment", uid)
        except Exception as error:  # noqa: BLE001 - whatever the peer sent is refused, not fatal
            log.warning("refused a malformed request for commitment: %s", where(error))
            return ActionStatus.INVALID_ARGUMENT, None
        requestor = event.assoc.requestor
        try:
            if self.promises.is_of_another(transaction_uid, requestor.ae_title):
                log.warning("refused a request for commitment that another has made")
                return ActionStatus.INVALID_ARGUMENT, None
            self._asked_over[transaction_uid] = event.assoc
            self.promises.ask(transaction_uid, requestor.ae_title, requestor.address or "", named)
        except SQLAlchemyError as error:
            log.error("refused a request for commitment for now: %s", where(error))
            return ActionStatus.RESOURCE_LIMITATION, None
        return ActionStatus.SUCCESS, None

    def _is_ours(self, promise: Promise) -> bool:
        if self._asker(promise) is not None:
            return self._calls()
        asked_over = self._asked_over.get(promise.transaction_uid)
        if asked_over is not None and asked_over.is_established:
            return True
        self._asked_over.pop(promise.transaction_uid, None)
        # Nobody serves the asker any more; that has to be told.
        return self._calls() and promise.due_since < self._ledger.now - ORPHANED_SECONDS

    def _answer(self, promise: Promise) -> None:
        association, ours = self._way_to(promise)
        if association is None:
            self._asked_over.pop(promise.transaction_uid, None)
            self._postpone(promise, self._unreachable(promise))
            return
        try:
            failed = self.promises.failures(promise.references, promise.asked_at)
            response, _ = association.send_n_event_report(
                _report(promise, failed),
                SOME_FAILED if failed else ALL_COMMITTED,
                STORAGE_COMMITMENT,
                STORAGE_COMMITMENT_INSTANCE,
            )
        finally:
            if ours:
                association.release()
        status = response.get("Status")
        if status != SUCCESS:
            said = "nothing" if status is None else f"0x{status:04X}"
            self._postpone(promise, f"the asker answered {said}")
            return
        self._asked_over.pop(promise.transaction_uid, None)
        committed = len(promise.references) - len(failed)
        self.promises.answered(promise, f"{committed} committed, {len(failed)} not")
        log.info("committed to %d instance(s) for %s, not to %d", committed, promise.calling,
                 len(failed))  # fmt: skip

    def _way_to(self, promise: Promise) -> tuple[Association | None, bool]:
        """An association to answer on, and whether it is ours to release."""
        asker = self._asker(promise)
        if asker is None:
            theirs = self._asked_over.get(promise.transaction_uid)
            return (theirs if theirs is not None and theirs.is_established else None), False
        entity = caller(self._settings.ae_title, self._settings.association_timeout_seconds)
        entity.add_requested_context(STORAGE_COMMITMENT)
        role = build_role(STORAGE_COMMITMENT, scp_role=True)
        association = call(entity, asker, self._settings.tls, ext_neg=[role])
        return (association if association.is_established else None), True

    def _asker(self, promise: Promise) -> Entity | None:
        """Where an asker listens: as a peer says, or as a destination of the same title does."""
        told = (*self._settings.peers, *self._settings.destinations)
        for each in told:
            if isinstance(each, WebDestination) or each.ae_title != promise.calling:
                continue
            if each.port is not None:
                host = each.host if isinstance(each, Peer) and each.host else promise.address
                return Entity(ae_title=promise.calling, host=host, port=each.port, tls=each.tls)
        return None

    def _unreachable(self, promise: Promise) -> str:
        if self._asker(promise) is not None:
            return "the asker does not answer"
        return (
            f"{promise.calling} is not connected any more; name its port in MONRO_PEERS to answer "
            "on an association of our own"
        )

    def _postpone(self, promise: Promise, message: str) -> None:
        pause = self._backoff.pause(promise.attempts + 1)
        log.warning("commitment for %s waits: %s", promise.calling, message)
        self.promises.postpone(promise, message, self._ledger.now + pause)


def _report(promise: Promise, failed: Mapping[str, FailureReason]) -> Dataset:
    """What we commit to and what not (PS3.4 table J.3-2)."""
    report = Dataset()
    report.TransactionUID = promise.transaction_uid
    report.ReferencedSOPSequence = [
        reference(*each) for each in promise.references if each[1] not in failed
    ]
    if failed:
        report.FailedSOPSequence = [
            _failed(*each, failed[each[1]]) for each in promise.references if each[1] in failed
        ]
    return report


def _failed(sop_class: str, sop_uid: str, reason: FailureReason) -> Dataset:
    item = reference(sop_class, sop_uid)
    item.FailureReason = reason
    return item
