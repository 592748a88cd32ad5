"""The conformance statement says what the program does."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

from deploy import conformance
from deploy.conformance import REJECTIONS, SERVICES, STATEMENT, statement
from listener import commitment
from listener.commitment import ActionStatus
from listener.confirmation import ReportStatus
from listener.dicomweb import store
from listener.dicomweb.store import Status
from listener.handlers import StoreStatus
from listener.ledger import Ledger
from listener.spool import Spool

MOST_CONTEXTS = 128
LISTED = re.compile(r"\| [^|]+ \| (?P<uid>[0-9.]{5,}) \|")
# PS3.4 GG and B.6; and what we are no provider of.
NOT_LISTED = {
    "Hanging Protocol Storage": "1.2.840.10008.5.1.4.38.1",
    "Ultrasound Image Storage (Retired)": "1.2.840.10008.5.1.4.1.1.6",
    "Modality Worklist": "1.2.840.10008.5.1.4.31",
    "Unified Procedure Step - Push": "1.2.840.10008.5.1.4.34.6.1",
}

Listening = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def listed() -> dict[str, list[UID]]:
    """UIDs of the tables of the statement, by heading."""
    found: dict[str, list[UID]] = {}
    for line in STATEMENT.read_text().splitlines():
        if line.startswith("## "):
            rows = found.setdefault(line.removeprefix("## "), [])
        elif row := LISTED.match(line):
            rows.append(UID(row["uid"]))
    return found


@pytest.fixture
def port(tmp_path: Path, ledger: Ledger, listening: Listening) -> Iterator[int]:
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        yield send.settings.port


def negotiated(port: int, contexts: Sequence[tuple[str, str]]) -> set[tuple[str | None, str]]:
    """Those of many presentation contexts, each of one transfer syntax, that are accepted."""
    found = set()
    rest = iter(contexts)
    while some := list(islice(rest, MOST_CONTEXTS)):
        entity = AE(ae_title="SENDER")
        for sop_class, syntax in some:
            entity.add_requested_context(sop_class, syntax)
        association = entity.associate("127.0.0.1", port, ae_title="MONRO")
        if not association.is_established:  # none of them was accepted
            continue
        found |= {
            (each.abstract_syntax, each.transfer_syntax[0])
            for each in association.accepted_contexts
        }
        association.release()
    return found


def test_the_statement_is_that_of_this_version() -> None:
    assert STATEMENT.read_text() == statement(), "write it anew: make conformance"


@pytest.mark.parametrize(
    ("answers", "listed"),
    [
        (StoreStatus, conformance.STORE_STATUSES),
        (ActionStatus, conformance.ACTION_STATUSES),
        (ReportStatus, conformance.REPORT_STATUSES),
        (commitment.FailureReason, conformance.FAILURE_REASONS),
        (Status, conformance.WEB_STATUSES),
        (store.FailureReason, conformance.WEB_REASONS),
    ],
)
def test_whatever_is_answered_is_listed(answers: type[IntEnum], listed: Mapping[int, str]) -> None:
    # What answers with a status is annotated with these classes: mypy lets no other number pass.
    assert set(listed) == set(answers)


def test_every_storage_class_and_transfer_syntax_that_is_listed_is_accepted(
    port: int, listed: dict[str, list[UID]]
) -> None:
    classes = listed["Annex A: storage classes that are received"]
    syntaxes = listed["Annex B: transfer syntaxes that are received"]
    assert len(classes) > 100
    assert len(syntaxes) > 40
    contexts = [
        *((sop_class, ExplicitVRLittleEndian) for sop_class in classes),
        *((MRImageStorage, syntax) for syntax in syntaxes),
        ("1.3.12.2.1107.5.9.1", ExplicitVRLittleEndian),  # Siemens CSA, for private ones
    ]
    assert negotiated(port, contexts) == set(contexts)


def test_what_is_not_listed_is_not_accepted(port: int, listed: dict[str, list[UID]]) -> None:
    assert not set(NOT_LISTED.values()) & {uid for table in listed.values() for uid in table}
    foreign = [*NOT_LISTED.values(), *(each.uid for each in SERVICES if each.as_provider == "no")]
    contexts = [(uid, ExplicitVRLittleEndian) for uid in foreign]
    assert negotiated(port, contexts) == set()


def test_services_are_provided_as_listed(port: int) -> None:
    provided = [str(each.uid) for each in SERVICES if each.as_provider == "yes"]
    contexts = [(uid, ExplicitVRLittleEndian) for uid in provided]
    assert negotiated(port, contexts) == set(contexts)


@pytest.mark.parametrize(
    ("settings", "called", "why"),
    [
        ({}, "OTHER", "called AE title is not ours"),
        ({"open_node": False, "peers": [{"ae_title": "FRIEND"}]}, "MONRO", "not among the peers"),
        ({"room_for_study": "1EiB"}, "MONRO", "disk would soon be full"),
    ],
)
def test_associations_are_rejected_as_listed(
    tmp_path: Path, ledger: Ledger, listening: Listening, mr_slice: Dataset,
    settings: dict[str, Any], called: str, why: str,
) -> None:  # fmt: skip
    with listening(Spool(tmp_path / "spool"), ledger, **settings) as send:
        association = send.associate(mr_slice, called=called)
        answer = association.acceptor.primitive
    reason = (answer.result, answer.result_source, answer.diagnostic)
    assert why in REJECTIONS[reason]
