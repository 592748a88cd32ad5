"""STOW-RS: what becomes of each instance of a request, and what the request is answered.

The promise is that of C-STORE (handlers.py): an instance is named as stored only after it is on
stable storage. An instance that cannot be kept does not hold up the others.
"""

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from listener.audit.tally import Party
from listener.dicomweb.model import (
    FAILED_SEQUENCE,
    FAILURE_REASON,
    OTHER_FAILURES,
    REFERENCED_CLASS,
    REFERENCED_INSTANCE,
    REFERENCED_SEQUENCE,
    RETRIEVE_URL,
    attribute,
)
from listener.dicomweb.multipart import (
    DICOM,
    BadMultipart,
    MultipartReader,
    PartBegun,
    media_type,
)
from listener.dicomweb.part import FilePart, UnknownClass, UnknownSyntax
from listener.errors import BadAttribute, DoesNotMatch, SpoolFull, where
from listener.handlers import take
from listener.recorder import Recorder
from listener.spool import Spool
from listener.turned_away import Reason, Service

log = logging.getLogger(__name__)


class Status(IntEnum):
    """What a request is answered (PS3.18 table 10.5.3-1 and 8.5): these, and nothing else."""

    ALL_KEPT = 200
    SOME_KEPT = 202
    BAD_REQUEST = 400
    NO_TOKEN = 401
    NOT_ADMITTED = 403
    NOT_FOUND = 404
    NOT_OFFERED = 405
    NOT_ACCEPTABLE = 406
    TOO_SLOW = 408
    NONE_KEPT = 409
    NOT_TAKEN = 415
    UNFORESEEN = 500
    COME_AGAIN = 503


class FailureReason(IntEnum):
    """Why an instance was not kept (PS3.18 table I.2-2)."""

    PROCESSING_FAILURE = 0x0110
    UNKNOWN_CLASS = 0x0122
    OUT_OF_RESOURCES = 0xA700
    NO_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    UNKNOWN_SYNTAX = 0xC122


# Of several that fit, the first.
REASONS: Final[Sequence[tuple[type[Exception], FailureReason]]] = (
    (SpoolFull, FailureReason.OUT_OF_RESOURCES),
    (DoesNotMatch, FailureReason.NO_MATCH),
    (UnknownClass, FailureReason.UNKNOWN_CLASS),
    (UnknownSyntax, FailureReason.UNKNOWN_SYNTAX),
    (BadAttribute, FailureReason.CANNOT_UNDERSTAND),
)

MOST_PARTS: Final = 100_000
"""Of one request: what became of each is kept in mind until it is answered."""

MOST_NAMELESS: Final = 1000
"""Parts without a UID, which are no instances: each costs ten bytes to send, and a line to log."""


@dataclass(frozen=True)
class Outcome:
    """What became of one part; the UIDs are empty where they could not be read."""

    sop_class: str
    sop_uid: str
    reason: FailureReason | None
    """Why it was not kept; None: it was."""


class Intake:
    """Takes the body of one request.

    Args:
        spool: that takes the instances.
        recorder: takes their rows.
        sender: who sends them.
        study_uid: that they must belong to; None for any.
        boundary: of the parts.
        largest: bytes that an instance may have.

    Attributes:
        name: of the request in the ledger, where it stands for an association.
        outcomes: of the parts so far.

    Raises:
        BadMultipart: the boundary is none.
    """

    def __init__(
        self,
        spool: Spool,
        recorder: Recorder,
        sender: Party,
        study_uid: str | None,
        boundary: bytes,
        largest: int,
    ) -> None:
        self.name = uuid.uuid4().hex
        self.outcomes: list[Outcome] = []
        self._spool, self._recorder = spool, recorder
        self._sender, self._study_uid, self._largest = sender, study_uid, largest
        self._reader = MultipartReader(boundary)
        self._part: FilePart | None = None
        self._failed: Exception | None = None
        self._nameless = 0
        self._is_whole = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            BadMultipart: it does not follow from what came before, or there are too many parts.
        """
        for event in self._reader.feed(piece):
            if isinstance(event, memoryview):
                self._take(event)
            elif isinstance(event, PartBegun):
                self._begin(event.headers)
            else:
                self._end()

    def finish(self) -> None:
        """Note that the body has come to its end.

        Raises:
            BadMultipart: the body was cut short.
        """
        if not self._reader.is_finished:
            raise BadMultipart("a multipart body ends without its closing boundary")
        self._is_whole = True

    def fail(self, error: BadMultipart) -> None:
        """Note that the body cannot be read to its end."""
        self._failed = error
        self._end()

    def close(self) -> None:
        """Have it noted that the request has ended; nothing stays of a part that did not."""
        if self._part is not None:
            self._part.drop()
        self._recorder.closed(self.name, released=self._is_whole)

    def _begin(self, headers: Mapping[str, str]) -> None:
        if len(self.outcomes) >= MOST_PARTS:
            raise BadMultipart(f"a body has more than {MOST_PARTS:,} parts; send it in several")
        if self._nameless >= MOST_NAMELESS:
            raise BadMultipart(f"more than {MOST_NAMELESS:,} parts of a body are no DICOM files")
        self._part, self._failed = FilePart(self._spool, self._study_uid, self._largest), None
        kind, _options = media_type(headers.get("content-type", DICOM))
        if kind != DICOM:
            self._failed = BadAttribute(
                f"a part is said to be something else than {DICOM}; leave it out"
            )

    def _take(self, content: memoryview) -> None:
        if self._part is None or self._failed is not None:
            return
        try:
            self._part.take(content)
        except Exception as error:  # noqa: BLE001 - the others must not suffer for it
            self._failed = error

    def _end(self) -> None:
        part, self._part = self._part, None
        try:
            if self._failed is not None:
                raise self._failed
            assert part is not None
            sop_class = part.head.sop_class if part.head is not None else ""
            take(part.keep, self._recorder, self._sender, self.name, sop_class)
            reason = None
        except Exception as error:  # noqa: BLE001 - the sender must get an answer, and keep its copy
            reason = self._reason(error)
        finally:
            if part is not None:
                part.drop()
        head = part.head if part is not None else None
        sop_class, sop_uid = (head.sop_class, head.sop_uid) if head is not None else ("", "")
        self._nameless += not sop_uid
        self.outcomes.append(Outcome(sop_class, sop_uid, reason))

    def _reason(self, error: Exception) -> FailureReason:
        turned_away = self._recorder.turned_away
        if isinstance(error, SpoolFull):
            log.error("refused an instance from %s: %s", self._sender.name, error)
            turned_away.instance(Service.STOW, Reason.FULL)
        elif isinstance(error, BadAttribute | BadMultipart):
            log.warning("refused an instance from %s: %s", self._sender.name, error)
            turned_away.instance(Service.STOW, Reason.MALFORMED)
        else:
            turned_away.instance(Service.STOW, Reason.INTERNAL)
            log.error("an instance was not kept: %s", where(error))
            return FailureReason.PROCESSING_FAILURE
        reasons = (reason for kind, reason in REASONS if isinstance(error, kind))
        return next(reasons, FailureReason.CANNOT_UNDERSTAND)


def status_of(outcomes: Sequence[Outcome]) -> Status:
    """HTTP status of a request whose body was read (PS3.18 table 10.5.3-1).

    >>> refused = Outcome("1.2", "1.2.4", FailureReason.CANNOT_UNDERSTAND)
    >>> int(status_of([Outcome("1.2", "1.2.3", None), refused]))
    202
    """
    failed = [each.reason for each in outcomes if each.reason is not None]
    if not outcomes:
        return Status.BAD_REQUEST
    if not failed:
        return Status.ALL_KEPT
    if len(failed) < len(outcomes):
        return Status.SOME_KEPT
    is_full = set(failed) == {FailureReason.OUT_OF_RESOURCES}
    return Status.COME_AGAIN if is_full else Status.NONE_KEPT


def answer_to(outcomes: Sequence[Outcome]) -> Mapping[str, Any]:
    """The store instances response (PS3.18 10.5.3.2), in the DICOM JSON model."""
    # Type 2 (PS3.18 I.1): nothing can be retrieved from us.
    nowhere = {RETRIEVE_URL: attribute("UR", [])}
    kept = [_reference(each) | nowhere for each in outcomes if each.reason is None]
    failed = [
        _reference(each) | _failure(each) for each in outcomes if each.reason and each.sop_uid
    ]
    other = [_failure(each) for each in outcomes if each.reason and not each.sop_uid]
    sequences = {REFERENCED_SEQUENCE: kept, FAILED_SEQUENCE: failed, OTHER_FAILURES: other}
    return nowhere | {tag: attribute("SQ", items) for tag, items in sequences.items() if items}


def _reference(outcome: Outcome) -> dict[str, Any]:
    return {
        REFERENCED_CLASS: attribute("UI", [outcome.sop_class]),
        REFERENCED_INSTANCE: attribute("UI", [outcome.sop_uid]),
    }


def _failure(outcome: Outcome) -> dict[str, Any]:
    return {FAILURE_REASON: attribute("US", [outcome.reason])}
