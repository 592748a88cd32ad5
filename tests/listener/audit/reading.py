"""What an auditor reads: messages checked against the schema and the tables of PS3.15 A.5.3."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lxml import etree

SCHEMA: Final = etree.RelaxNG(etree.parse(Path(__file__).with_name("audit.rng")))

DESTINATION, SOURCE = "110152", "110153"
STUDY, PATIENT, NODE, SOP_CLASS = "110180", "2", "110182", "110181"


@dataclass(frozen=True)
class Rule:
    """What a table of A.5.3 asks of a message.

    Attributes:
        actions: allowed EventActionCodes.
        kinds: allowed EventTypeCodes; empty: none is asked for.
        roles: that participants must have, once each.
        subjects: ParticipantObjectIDTypeCodes that must be there, with their object type and role.
    """

    actions: str
    kinds: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    subjects: frozenset[tuple[str, str, str]] = frozenset()


OF_PATIENT = frozenset({(STUDY, "2", "3"), (PATIENT, "1", "1")})

RULES: Final = {
    "110100": Rule("E", frozenset({"110120", "110121"}), frozenset({"110150"})),
    "110103": Rule("CRUD", subjects=OF_PATIENT),
    "110104": Rule("CRU", roles=frozenset({SOURCE, DESTINATION}), subjects=OF_PATIENT),
    "110105": Rule("D", subjects=OF_PATIENT),
    "110112": Rule(
        "E", roles=frozenset({SOURCE, DESTINATION}), subjects=frozenset({(SOP_CLASS, "2", "3")})
    ),
    "110113": Rule("E", frozenset({"110126", "110131", "110132", "110134", "110136", "110137"})),
    "110114": Rule("E", frozenset({"110122", "110123"})),
}
"""Tables A.5.3.1-1, A.5.3.6-1, A.5.3.7-1, A.5.3.8-1, A.5.3.10-1, A.5.3.11-1 and
A.5.3.12-1."""


class Message:
    """One message, as it was read."""

    def __init__(self, line: str) -> None:
        self.root: Any = etree.fromstring(line)
        SCHEMA.assertValid(self.root)
        self.event = self._code("EventIdentification/EventID")
        self.kind = self._code("EventIdentification/EventTypeCode")
        self.action = self.root[0].get("EventActionCode")
        self.outcome = self.root[0].get("EventOutcomeIndicator")
        self.participants = self.root.findall("ActiveParticipant")
        self.subjects = {
            each.find("ParticipantObjectIDTypeCode").get("csd-code"): each
            for each in self.root.findall("ParticipantObjectIdentification")
        }
        self._check(RULES[self.event])

    @property
    def study(self) -> str:
        return str(self.subjects[STUDY].get("ParticipantObjectID"))

    @property
    def patient(self) -> tuple[str, str]:
        """ID and name."""
        found = self.subjects[PATIENT]
        return found.get("ParticipantObjectID"), found.findtext("ParticipantObjectName")

    @property
    def classes(self) -> dict[str | None, int]:
        """SOP class to number of instances."""
        return {
            each.get("UID"): int(each.get("NumberOfInstances"))
            for each in self.root.iter("SOPClass")
        }

    @property
    def detail(self) -> str:
        """Of the one subject."""
        (detail,) = self.root.iter("ParticipantObjectDetail")
        return base64.b64decode(detail.get("value")).decode()

    def participant(self, role: str) -> Any:
        (found,) = (
            each
            for each in self.participants
            if role in [code.get("csd-code") for code in each.findall("RoleIDCode")]
        )
        return found

    def _code(self, path: str) -> str | None:
        found = self.root.find(path)
        return None if found is None else str(found.get("csd-code"))

    def _check(self, rule: Rule) -> None:
        assert self.action in rule.actions
        assert self.kind in rule.kinds or not rule.kinds
        for role in rule.roles:
            self.participant(role)
        found = {
            (code, each.get("ParticipantObjectTypeCode"), each.get("ParticipantObjectTypeCodeRole"))
            for code, each in self.subjects.items()
        }
        assert found >= rule.subjects
        requestors = [each.get("UserIsRequestor") for each in self.participants]
        assert requestors.count("true") <= 1  # A.5.2


def messages(path: Path, event: str | None = None) -> list[Message]:
    """Every message of a trail, or those of one event."""
    if not path.exists():
        return []
    found = [Message(line) for line in path.read_text("ascii").splitlines()]
    return [each for each in found if event in (None, each.event)]
