"""What happens, in words, and which message says so. Nobody waits until it is written."""

import os
import socket
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from listener.audit import codes, message
from listener.audit.codes import Code
from listener.audit.lines import Lines
from listener.audit.message import Message, Origin, Participant, Subject
from listener.audit.patient import PATIENT_NAME, Named, Patient, Pseudonymous, read_patient
from listener.audit.people import operator
from listener.audit.repeats import Repeats
from listener.audit.syslog import Collector, Forwarder, Outbox
from listener.audit.tally import UNKNOWN_PARTY, Party, Share
from listener.audit.writer import Draft, Target, Writer
from listener.errors import BadSettings
from listener.settings import ListenerSettings
from listener.watch import Duty, alone

PATIENT_GROUP: Final = 0x0010
STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"


class TrailFile:
    """A file of messages, one in each line."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)

    def check(self) -> None:
        """Raise OSError where nothing can be written."""
        self._lines.check()

    def write(self, _message: Message, xml: str) -> None:
        """Append one message; raises OSError when it was not written."""
        self._lines.append(xml)


class Audit:
    """The audit trail of one process.

    Args:
        origin: of the messages.
        patients: how patients appear.
        target: where messages are written; None: nowhere.
        forwarder: sends on what all processes wrote, where this one does so.
    """

    def __init__(
        self,
        origin: Origin,
        patients: Named | Pseudonymous,
        target: Target | None,
        forwarder: Forwarder | None = None,
    ) -> None:
        self._origin, self._patients = origin, patients
        self._target, self._forwarder = target, forwarder
        self._rejections, self._refusals = Repeats(), Repeats()
        self._writer = None if target is None else Writer(target, origin, self._finish, self._alert)

    def __enter__(self) -> Self:
        """Begin to write."""
        return self.start()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Write what is left, then stop."""
        self.close()

    def check(self) -> None:
        """Try whether a message could be written now.

        Raises:
            BadSettings: the key file holds no key.
            OSError: trail or key can be neither written nor made.
        """
        if self._target is not None:
            self._target.check()
            self._patients.check()

    def trouble(self) -> str:
        """What keeps messages from where they shall go now; empty: nothing."""
        try:
            self.check()
        except (OSError, BadSettings) as error:
            return f"cannot be written ({type(error).__name__}); messages wait in memory"
        if self._forwarder is not None and self._forwarder.is_failing:
            return "the collector does not take messages; they wait in a file"
        return ""

    def start(self) -> Self:
        """Begin to write."""
        if self._writer is not None:
            self._writer.start()
        if self._forwarder is not None:
            self._forwarder.start()
        return self

    def close(self) -> None:
        """Write what is left, then stop."""
        if self._writer is not None:
            self._writer.close()
        if self._forwarder is not None:
            self._forwarder.stop()
            self._forwarder.join()

    def started(self) -> None:
        """The listener runs."""
        self._tell_activity(codes.APPLICATION_START)

    def stopped(self) -> None:
        """The listener ends."""
        self._tell_activity(codes.APPLICATION_STOP)

    def received(self, share: Share) -> None:
        """A transfer to us is over."""
        source = _participant(share.party, codes.SOURCE, is_requestor=share.party.calls)
        us = self._us(codes.DESTINATION, is_requestor=not share.party.calls)
        action = message.CREATE if share.is_new else message.READ
        self._tell_transfer(share, action, (source, us))

    def sent(self, share: Share) -> None:
        """A transfer from us is over."""
        source = self._us(codes.SOURCE, is_requestor=True)
        # A.5.3.7: whether the receiver held them before is not for us to know.
        self._tell_transfer(
            share, message.READ, (source, _participant(share.party, codes.DESTINATION))
        )

    def cut_off(self, study_uid: str, path: Path | None) -> None:
        """Something of a study was received, by a process that died before it could say more."""
        source = _participant(UNKNOWN_PARTY, codes.SOURCE)
        self._tell(
            Message(
                codes.INSTANCES_TRANSFERRED,
                message.CREATE,
                (source, self._us(codes.DESTINATION)),
                (message.study(study_uid),),
                outcome=message.MINOR_FAILURE,
                outcome_text="the receiving process ended first: from whom, and how many, is lost",
            ),
            partial(read_patient, path),
        )

    def queried(self, party: Party, sop_class: str, identifier: Dataset) -> None:
        """We asked somebody by C-FIND."""
        source = self._us(codes.SOURCE, is_requestor=True)
        participants = (source, _participant(party, codes.DESTINATION))
        self._tell_query(participants, sop_class, identifier)

    def searched(self, text: str, by: Participant | None = None) -> None:
        """Somebody was shown a list of studies, as a C-FIND with this text would have found it.

        Args:
            text: part of a name or ID; empty: the worklist, without a search.
            by: who was; None: the account of this process.
        """
        wanted = Dataset()
        wanted.QueryRetrieveLevel = "STUDY"
        # People search for more than a name may have.
        name = f"*{text}*" if text else ""
        wanted.add(DataElement(PATIENT_NAME, "PN", name, validation_mode=IGNORE))
        source = replace(by or operator(), role=codes.SOURCE)
        participants = (source, self._us(codes.DESTINATION))
        self._tell_query(participants, STUDY_ROOT_FIND, wanted)

    def viewed(self, study_uid: str, path: Path | None, by: Participant | None = None) -> None:
        """Somebody looked at a study; the account of this process unless another is named."""
        self._tell(
            Message(
                codes.INSTANCES_ACCESSED,
                message.READ,
                (by or operator(), self._us()),
                (message.study(study_uid),),
            ),
            partial(read_patient, path),
        )

    def deleted(self, study_uid: str, patient: Patient, instances: int) -> None:
        """All files of a study were removed.

        Args:
            study_uid: of the study.
            patient: read by `read_patient` while there was something to read.
            instances: files.
        """
        self._tell(
            Message(
                codes.STUDY_DELETED,
                message.DELETE,
                (self._us(is_requestor=True),),
                (message.study(study_uid, {"": instances}),),
            ),
            lambda: patient,
        )

    def rejected(self, party: Party, why: str) -> None:
        """We refused to talk with somebody; one message a minute speaks for all from an address."""
        passed_over = self._rejections.due(party.address)
        if passed_over is None:
            return
        if passed_over:
            why += f"; and {passed_over} more from there since the last message"
        node = message.node(party.address or UNKNOWN_PARTY.name, party.name)
        self._tell(
            Message(
                codes.SECURITY_ALERT,
                message.EXECUTE,
                (self._us(), _participant(party, None)),
                (message.alerted(node, why),),
                codes.NODE_AUTHENTICATION,
                message.MINOR_FAILURE,
            )
        )

    def signed_in(self, by: Participant) -> None:
        """Somebody proved to be who they say."""
        self._tell_authentication(codes.LOGIN, by)

    def not_signed_in(self, by: Participant, why: str) -> None:
        """Somebody did not. Who is not known has no name here: what they typed may be secret."""
        self._tell_authentication(codes.LOGIN, by, why)

    def signed_out(self, by: Participant) -> None:
        """Somebody left."""
        self._tell_authentication(codes.LOGOUT, by)

    def refused(self, by: Participant, what: str) -> None:
        """Somebody wanted what they may not; one message a minute speaks for all from an address.

        Args:
            by: whom.
            what: was refused, and why.
        """
        passed_over = self._refusals.due(f"{by.address} {by.user_id}")
        if passed_over is None:
            return
        if passed_over:
            what += f"; and {passed_over} more refused since the last message"
        self.acted(what, failed=True, by=by)

    def acted(
        self,
        what: str,
        study_uid: str | None = None,
        *,
        failed: bool = False,
        kind: Code = codes.RESTRICTED_FUNCTION,
        by: Participant | None = None,
    ) -> None:
        """Somebody changed what the listener does.

        PS3.15 has no event of its own for that; an alert that is a success informs (A.5.3.11).

        Args:
            what: was done.
            study_uid: of the study that it was done to; None: to the listener.
            failed: whether it did not come about.
            kind: SOFTWARE_CONFIGURATION for what stays changed, such as another bundle.
            by: whom; None: the account of this process.
        """
        self._tell(
            Message(
                codes.SECURITY_ALERT,
                message.EXECUTE,
                (by or operator(), self._us()),
                (message.alerted(self._subject(study_uid), what),),
                kind,
                message.MINOR_FAILURE if failed else message.SUCCESS,
            )
        )

    def _subject(self, study_uid: str | None) -> Subject:
        if study_uid is not None:
            return message.study(study_uid)
        return message.node(self._origin.host, self._origin.ae_title)

    def _us(self, role: Code | None = None, *, is_requestor: bool = False) -> Participant:
        return Participant(
            user_id=str(os.getpid()),
            is_requestor=is_requestor,
            role=role,
            alternative_id=f"AETITLES={self._origin.ae_title}",
            name="monro listener",
            address=self._origin.host,
        )

    def _tell_activity(self, kind: Code) -> None:
        launcher = replace(operator(), role=codes.APPLICATION_LAUNCHER)
        participants = (self._us(codes.APPLICATION), launcher)
        self._tell(Message(codes.APPLICATION_ACTIVITY, message.EXECUTE, participants, kind=kind))

    def _tell_authentication(self, kind: Code, by: Participant, failure: str = "") -> None:
        # PS3.15 A.5.3.12
        self._tell(
            Message(
                codes.USER_AUTHENTICATION,
                message.EXECUTE,
                (by, self._us()),
                kind=kind,
                outcome=message.MINOR_FAILURE if failure else message.SUCCESS,
                outcome_text=failure,
            )
        )

    def _tell_query(
        self, participants: tuple[Participant, ...], sop_class: str, identifier: Dataset
    ) -> None:
        if self._writer is None:
            return
        shown = identifier if isinstance(self._patients, Named) else _without_patient(identifier)
        dataset = encode(shown, is_implicit_vr=False, is_little_endian=True) or b""
        asked = message.query(sop_class, dataset, ExplicitVRLittleEndian)
        self._tell(Message(codes.QUERY, message.EXECUTE, participants, (asked,)))

    def _tell_transfer(
        self, share: Share, action: str, participants: tuple[Participant, ...]
    ) -> None:
        self._tell(
            Message(
                codes.INSTANCES_TRANSFERRED,
                action,
                participants,
                (message.study(share.study_uid, dict(share.classes)),),
                outcome=message.SUCCESS if share.arrived else message.MINOR_FAILURE,
            ),
            partial(read_patient, share.path),
        )

    def _tell(self, told: Message, patient: Callable[[], Patient] | None = None) -> None:
        if self._writer is not None:
            self._writer.put(Draft(told, patient))

    def _finish(self, draft: Draft) -> Message:
        """A message with its patient, who is read now."""
        told = draft.message
        if draft.patient is None:
            return told
        patient = self._patients.subject(draft.patient())
        return replace(told, subjects=(*told.subjects, patient))

    def _alert(self, text: str) -> Message:
        """An alert about the trail itself."""
        return Message(
            codes.SECURITY_ALERT,
            message.EXECUTE,
            (self._us(),),
            (message.alerted(self._subject(None), text),),
            codes.RECORDING_STARTED,
            message.MINOR_FAILURE,
        )


NO_AUDIT: Final = Audit(Origin("", "", ""), Named(), None)
"""For who has nothing to tell."""


def open_audit(
    settings: ListenerSettings, *, forwards: bool = False, on_duty: Duty = alone
) -> Audit:
    """The audit trail that the settings name, where it can be written now.

    Args:
        settings: of the listener.
        forwards: whether this process sends messages on to a collector; one of a listener must.
        on_duty: whether it is ours to do so now.

    Raises:
        BadSettings: the key file holds no key.
        OSError: trail or key can be neither written nor made.
    """
    audit = audit_of(settings, forwards=forwards, on_duty=on_duty)
    audit.check()
    return audit


def audit_of(settings: ListenerSettings, *, forwards: bool = False, on_duty: Duty = alone) -> Audit:
    """The audit trail that the settings name; it may be away."""
    if settings.audit == "none":
        return NO_AUDIT
    origin = Origin(settings.site, settings.ae_title, socket.gethostname())
    folder = settings.spool.absolute() / "audit"
    patients = (
        Named() if settings.audit_names else Pseudonymous(settings.audit_key or folder / "key")
    )
    if not settings.audit.startswith("syslog"):
        path = Path(urlsplit(settings.audit).path) if settings.audit else folder / "audit.log"
        return Audit(origin, patients, TrailFile(path))
    outbox = Outbox(folder, origin.host)
    if not forwards:
        return Audit(origin, patients, outbox)
    collector = Collector.from_url(settings.audit, settings.tls)
    return Audit(origin, patients, outbox, Forwarder(outbox.lines, collector, on_duty))


def _participant(party: Party, role: Code | None, *, is_requestor: bool = False) -> Participant:
    titles = f"AETITLES={party.name}" if party.is_ae else ""
    return Participant(party.name, is_requestor, role, titles, address=party.address)


def _without_patient(identifier: Dataset) -> Dataset:
    """A query without what it says of a patient."""
    blank = deepcopy(identifier)
    for element in blank.group_dataset(PATIENT_GROUP):
        blank[element.tag].value = None
    return blank
