"""What the audit trail says of a study, where it is a file: the last part of it is looked through.

The trail may name patients, or bear their pseudonyms; operators read it, and nobody else. Files
that were rotated away are not read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, ParseError, fromstring

from listener.settings import ListenerSettings

LOOKED_THROUGH_BYTES: Final = 16 << 20
"""Of the end of the file: some 10,000 messages."""

WRITTEN_AT: Final = re.compile(rb'\n[^\n]*EventDateTime="([^"\n]*)"')
"""In a line that is there from its beginning."""

OUTCOMES: Final = {"0": "success", "4": "failure", "8": "serious failure", "12": "major failure"}


@dataclass(frozen=True)
class Entry:
    """One message of the audit trail.

    Attributes:
        at: as written, in UTC.
        who: everybody who took part, and from where.
    """

    at: str
    event: str
    kind: str
    outcome: str
    who: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class Trail:
    """What was found.

    Attributes:
        place: where the trail is, in words.
        is_whole: whether all of the file was looked through.
        since: when the first message was written that was looked at; empty where none was.
        entries: the latest first.
    """

    place: str
    is_whole: bool
    since: str
    entries: tuple[Entry, ...]


def read_trail(settings: ListenerSettings, study_uid: str) -> Trail:
    """The messages about a study."""
    if settings.audit == "none":
        return Trail("nowhere: MONRO_AUDIT is none", is_whole=False, since="", entries=())
    if settings.audit.startswith("syslog"):
        return Trail("at the collector of syslog messages", is_whole=False, since="", entries=())
    path = (
        Path(urlsplit(settings.audit).path)
        if settings.audit
        else settings.spool.absolute() / "audit" / "audit.log"
    )
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - LOOKED_THROUGH_BYTES)
            file.seek(start)
            content = file.read(LOOKED_THROUGH_BYTES)
    except OSError:
        return Trail("in a file that cannot be read", is_whole=False, since="", entries=())
    content = content if start else b"\n" + content
    first = WRITTEN_AT.search(content)
    lines = list(_lines_with(study_uid.encode(), content))
    entries = map(_entry, reversed(lines))
    return Trail(
        "in a file",
        is_whole=start == 0,
        since=first[1].decode("ascii", "replace") if first else "",
        entries=tuple(each for each in entries if each is not None),
    )


def _lines_with(word: bytes, content: bytes) -> Iterator[bytes]:
    """Lines that hold a word; the others are passed over as a whole, not one by one."""
    at = content.find(word)
    while at >= 0:
        end = content.find(b"\n", at)
        end = end if end >= 0 else len(content)
        yield content[content.rfind(b"\n", 0, at) + 1 : end]
        at = content.find(word, end)


def _entry(line: bytes) -> Entry | None:
    begin = line.find(b"<AuditMessage")
    try:
        message = fromstring(line[begin:])
    except ParseError:  # cut off
        return None
    event = message.find("EventIdentification")
    if event is None:
        return None
    return Entry(
        at=event.get("EventDateTime", ""),
        event=_code(event.find("EventID")),
        kind=_code(event.find("EventTypeCode")),
        outcome=OUTCOMES.get(event.get("EventOutcomeIndicator", ""), ""),
        who=tuple(_who(each) for each in message.findall("ActiveParticipant")),
        detail=event.findtext("EventOutcomeDescription", ""),
    )


def _who(participant: Element) -> str:
    name = participant.get("UserName") or participant.get("UserID") or ""
    address = participant.get("NetworkAccessPointID")
    return f"{name} at {address}" if address else name


def _code(element: Element | None) -> str:
    return "" if element is None else element.get("originalText", "")
