"""One message of the audit trail, and how it is written (PS3.15 A.5.1 and A.5.2)."""

import ipaddress
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from listener.audit import codes
from listener.audit.codes import Code

# EventActionCode
CREATE: Final = "C"
READ: Final = "R"
DELETE: Final = "D"
EXECUTE: Final = "E"

# EventOutcomeIndicator
SUCCESS: Final = "0"
MINOR_FAILURE: Final = "4"

# ParticipantObjectTypeCode and ParticipantObjectTypeCodeRole
PERSON, SYSTEM_OBJECT = "1", "2"
PATIENT, REPORT, SECURITY_RESOURCE = "1", "3", "13"

# NetworkAccessPointTypeCode
MACHINE_NAME, IP_ADDRESS = "1", "2"

# AuditSourceTypeCode
APPLICATION_SERVER: Final = "4"

LONGEST_TEXT: Final = 1000
"""Characters of one value: what others send us must not make a message that nobody takes."""

MOST_CLASSES: Final = 100
"""Named in one message, which must fit into a datagram: nobody has so many."""

NOT_XML: Final = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, however they are written."""


@dataclass(frozen=True)
class Participant:
    """A person or process that took part.

    Attributes:
        user_id: login@host of a person, process ID of ours, AE title of others.
        alternative_id: the AE titles of an application, another account of a person.
        address: host name or IP address; empty: unknown.
    """

    user_id: str
    is_requestor: bool
    role: Code | None = None
    alternative_id: str = ""
    name: str = ""
    address: str = ""


@dataclass(frozen=True)
class Subject:
    """Something that was dealt with: a study, a patient, a query, a node.

    Attributes:
        name: in words; the schema wants it wherever there is no query.
        query: the dataset of a query, encoded.
        details: pairs of type and value.
        classes: SOP class UID to number of instances; an empty UID: of whatever class.
    """

    identifier: str
    identified_by: Code
    kind: str
    role: str
    name: str = ""
    query: bytes | None = None
    details: tuple[tuple[str, str], ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where messages come from.

    Attributes:
        site: key of the site.
        ae_title: of the listener.
        host: it runs on.
    """

    site: str
    ae_title: str
    host: str


@dataclass(frozen=True)
class Message:
    """One event."""

    event: Code
    action: str
    participants: tuple[Participant, ...]
    subjects: tuple[Subject, ...] = ()
    kind: Code | None = None
    outcome: str = SUCCESS
    outcome_text: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def xml(self, origin: Origin) -> str:
        """The message in one line of ASCII."""
        root = Element("AuditMessage")
        self._add_event(root)
        for participant in self.participants:
            _add_participant(root, participant)
        source = SubElement(
            root,
            "AuditSourceIdentification",
            AuditEnterpriseSiteID=origin.site,
            AuditSourceID=f"{origin.ae_title}@{origin.host}",
        )
        SubElement(source, "AuditSourceTypeCode", {"csd-code": APPLICATION_SERVER})
        for subject in self.subjects:
            _add_subject(root, subject)
        written: bytes = tostring(root, encoding="us-ascii")
        return written.decode("ascii")

    def _add_event(self, root: Element) -> None:
        event = SubElement(
            root,
            "EventIdentification",
            EventActionCode=self.action,
            EventDateTime=self.at.isoformat(timespec="milliseconds"),
            EventOutcomeIndicator=self.outcome,
        )
        _add_code(event, "EventID", self.event)
        if self.kind is not None:
            _add_code(event, "EventTypeCode", self.kind)
        if self.outcome_text:
            SubElement(event, "EventOutcomeDescription").text = _clean(self.outcome_text)


def study(study_uid: str, classes: Mapping[str, int] | None = None) -> Subject:
    """A study, and how many instances of it each SOP class has."""
    return Subject(
        study_uid, codes.STUDY_INSTANCE_UID, SYSTEM_OBJECT, REPORT, "study", classes=classes or {}
    )


def alerted(subject: Subject, text: str) -> Subject:
    """A subject of an alert (PS3.15 A.5.3.11), with what is the matter."""
    return Subject(
        subject.identifier,
        subject.identified_by,
        subject.kind,
        subject.role,
        subject.name,
        details=(("Alert Description", text),),
    )


def node(address: str, name: str) -> Subject:
    """A node of the network, by its IP address or host name."""
    return Subject(address, codes.NODE_ID, SYSTEM_OBJECT, SECURITY_RESOURCE, name)


def query(sop_class: str, dataset: bytes, syntax: str) -> Subject:
    """A query (PS3.15 A.5.3.10), in the transfer syntax that its dataset is encoded in."""
    details = (("TransferSyntax", syntax),)
    return Subject(
        sop_class, codes.SOP_CLASS_UID, SYSTEM_OBJECT, REPORT, query=dataset, details=details
    )


def _add_participant(root: Element, participant: Participant) -> None:
    found = {
        "UserID": participant.user_id,
        "AlternativeUserID": participant.alternative_id,
        "UserName": participant.name,
        "UserIsRequestor": "true" if participant.is_requestor else "false",
    }
    if participant.address:
        found["NetworkAccessPointID"] = participant.address
        found["NetworkAccessPointTypeCode"] = _address_type(participant.address)
    there = {name: _clean(value) for name, value in found.items() if value or name == "UserID"}
    element = SubElement(root, "ActiveParticipant", there)
    if participant.role is not None:
        _add_code(element, "RoleIDCode", participant.role)


def _add_subject(root: Element, subject: Subject) -> None:
    element = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(subject.identifier),
        ParticipantObjectTypeCode=subject.kind,
        ParticipantObjectTypeCodeRole=subject.role,
    )
    _add_code(element, "ParticipantObjectIDTypeCode", subject.identified_by)
    if subject.query is None:
        SubElement(element, "ParticipantObjectName").text = _clean(subject.name)
    else:
        SubElement(element, "ParticipantObjectQuery").text = _base64(subject.query)
    for kind, value in subject.details:
        encoded = _base64(_clean(value).encode())
        SubElement(element, "ParticipantObjectDetail", type=kind, value=encoded)
    if subject.classes:
        description = SubElement(element, "ParticipantObjectDescription")
        for sop_class, count in _most_frequent(subject.classes):
            of_class = {"UID": sop_class} if sop_class else {}
            SubElement(description, "SOPClass", of_class, NumberOfInstances=str(count))


def _most_frequent(classes: Mapping[str, int]) -> list[tuple[str, int]]:
    """Counts of the classes that are frequent, and of all others together."""
    ranked = Counter(classes).most_common()
    told = dict(ranked[:MOST_CLASSES])
    if rest := sum(count for _, count in ranked[MOST_CLASSES:]):
        told[""] = told.get("", 0) + rest
    return sorted(told.items())


def _add_code(parent: Element, name: str, code: Code) -> None:
    value = {
        "csd-code": code.value,
        "codeSystemName": code.scheme,
        "originalText": code.meaning,
    }
    SubElement(parent, name, value)


def _address_type(address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return MACHINE_NAME
    return IP_ADDRESS


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _clean(text: str) -> str:
    """What others told us, as XML can hold it, in one line."""
    return NOT_XML.sub("\ufffd", " ".join(text[:LONGEST_TEXT].split()))
