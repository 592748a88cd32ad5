"""Writes docs/conformance.md: what monro says and understands of DICOM, from the code's own tables.

`make conformance` writes it; a test holds it equal to the code, and the code equal to it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydicom.sr.coding import Code
from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from listener import (
    carrier,
    commitment,
    confirmation,
    handlers,
    inventory,
    retrieval,
    storage_scu,
)
from listener.commitment import ActionStatus
from listener.confirmation import ReportStatus
from listener.dicomweb import client, store, stow_agent
from listener.dicomweb.store import Status
from listener.handlers import EchoStatus, StoreStatus
from listener.remote import Destination
from listener.scout import MODALITIES
from listener.segmentation import REGIONS, SEGMENTATIONS
from listener.server import (
    INDUSTRIAL_STORAGE,
    MAXIMUM_PDU_BYTES,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    VERIFICATION,
)
from listener.settings import ListenerSettings
from listener.tls import CIPHERS, NEWEST, SECTIONS
from worker.quality import Reason
from worker.results import terms

STATEMENT: Final = Path(__file__).parents[1] / "docs" / "conformance.md"
TEMPLATE: Final = "conformance.md.j2"


class Service(NamedTuple):
    """A SOP class that is negotiated for itself, and in which roles."""

    uid: UID
    as_user: str
    as_provider: str


SERVICES: Final = (
    Service(VERIFICATION, "yes", "yes"),
    Service(confirmation.STORAGE_COMMITMENT, "yes", "yes"),
    Service(inventory.STUDY_ROOT_FIND, "yes", "no"),
    Service(retrieval.STUDY_ROOT_GET, "yes", "no"),
    Service(retrieval.STUDY_ROOT_MOVE, "yes", "no"),
)

REJECTIONS: Final[Mapping[tuple[int, int, int], str]] = MappingProxyType(
    {
        handlers.REJECTED_CONTEXT: "the application context name is not DICOM's",
        handlers.REJECTED_CALLED_AE: "the called AE title is not ours",
        handlers.REJECTED_CALLING_AE: "the calling AE title, address or certificate is not among "
        "the peers",
        handlers.REJECTED_FOR_NOW: "too many associations in all or from this peer, or the disk "
        "would soon be full: come again",
    }
)

STORE_STATUSES: Final[Mapping[int, str]] = MappingProxyType(
    {
        StoreStatus.SUCCESS: "the instance is on stable storage (also when it was there already, "
        "or went into quarantine beside another of the same UID)",
        StoreStatus.OUT_OF_RESOURCES: "the disk would be too full; nothing was kept",
        StoreStatus.SOP_CLASS_NOT_SUPPORTED: "the command names another SOP class than its "
        "presentation context",
        StoreStatus.CANNOT_UNDERSTAND: "UIDs are missing, malformed, or contradict the "
        "command; or the instance is larger than `MONRO_LARGEST_INSTANCE` "
        "(without `MONRO_QUICK_STORE`: A-ABORT)",
        StoreStatus.UNFORESEEN: "something unforeseen; nothing was kept, the log says where",
    }
)

ACTION_STATUSES: Final[Mapping[int, str]] = MappingProxyType(
    {
        ActionStatus.SUCCESS: "the request is written down and will be answered",
        ActionStatus.NO_SUCH_ACTION: "the action type is not 1",
        ActionStatus.NO_SUCH_INSTANCE: "the instance is not the well-known one",
        ActionStatus.INVALID_ARGUMENT: "the request is malformed, or the transaction is another's",
        ActionStatus.RESOURCE_LIMITATION: "the ledger does not answer at present",
        ActionStatus.UNFORESEEN: "something unforeseen; the log says where",
    }
)

REPORT_STATUSES: Final[Mapping[int, str]] = MappingProxyType(
    {
        ReportStatus.SUCCESS: "the answer is written down, or is to no request of ours",
        ReportStatus.PROCESSING_FAILURE: "it is malformed, or the ledger does not answer at "
        "present; the log says where",
    }
)

WEB_STATUSES: Final[Mapping[int, str]] = MappingProxyType(
    {
        Status.ALL_KEPT: "all instances are on stable storage",
        Status.SOME_KEPT: "some are; the answer says which, and why others are not",
        Status.BAD_REQUEST: "the body is not multipart, has no part, or breaks off; the study of "
        "the address is no UID; or it is no HTTP",
        Status.NO_TOKEN: "no bearer token that we know",
        Status.NOT_ADMITTED: "an address or certificate that we do not know",
        Status.NOT_FOUND: "there is no such service here",
        Status.NOT_OFFERED: "another method than POST",
        Status.NOT_ACCEPTABLE: "no answer in JSON or XML is accepted; nothing of the body was read",
        Status.TOO_SLOW: "nothing came for `MONRO_ASSOCIATION_TIMEOUT_SECONDS`",
        Status.NONE_KEPT: "no instance was kept; the answer says why",
        Status.NOT_TAKEN: "another media type, or an encoded body",
        Status.UNFORESEEN: "something unforeseen; the log says where",
        Status.COME_AGAIN: "too many requests at present, or the disk would soon be full: "
        "come again",
    }
)

WEB_REASONS: Final[Mapping[int, str]] = MappingProxyType(
    {
        store.FailureReason.OUT_OF_RESOURCES: "the disk would be too full",
        store.FailureReason.PROCESSING_FAILURE: "something unforeseen; the log says where",
        store.FailureReason.NO_MATCH: "UIDs contradict each other, or the study of the address",
        store.FailureReason.UNKNOWN_CLASS: "it is no class of annex A",
        store.FailureReason.UNKNOWN_SYNTAX: "its transfer syntax is not in annex B",
        store.FailureReason.CANNOT_UNDERSTAND: "it is no PS3.10 file, or cannot be read",
    }
)

FAILURE_REASONS: Final[Mapping[int, str]] = MappingProxyType(
    {
        commitment.FailureReason.NO_SUCH_INSTANCE: "we do not have the instance (any more)",
        commitment.FailureReason.CLASS_INSTANCE_CONFLICT: "it has another SOP class here",
        commitment.FailureReason.PROCESSING_FAILURE: "its file is damaged, or "
        "different bytes came with its UID",
    }
)


def statement() -> str:
    """The conformance statement as Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"status": lambda status: f"{status:04X}H", "name": _name}
    return environment.get_template(TEMPLATE).render(
        services=SERVICES,
        storage_classes=sorted(STORAGE_CLASSES, key=_name),
        industrial=sorted(INDUSTRIAL_STORAGE, key=_name),
        transfer_syntaxes=TRANSFER_SYNTAXES,
        result_syntaxes=storage_scu.TRANSFER_SYNTAXES,
        rejections=REJECTIONS,
        store_statuses=STORE_STATUSES,
        cannot_understand=StoreStatus.CANNOT_UNDERSTAND,
        echo_statuses=EchoStatus,
        action_statuses=ACTION_STATUSES,
        report_statuses=REPORT_STATUSES,
        failure_reasons=FAILURE_REASONS,
        web_reasons=WEB_REASONS,
        web_statuses=WEB_STATUSES,
        permanent=[_span(each) for each in carrier.PERMANENT_STATUSES],
        not_committing=[f"{each:04X}H" for each in confirmation.NOT_SUPPORTED],
        not_committed=_span(confirmation.FAILURES),
        matches=confirmation.PENDING_MATCHES,
        retrieval=retrieval,
        client=client,
        object_refused=stow_agent.REFUSES_THE_OBJECT,
        other_class=stow_agent.CLASS_NOT_SUPPORTED,
        duplicate=carrier.DUPLICATE,
        warnings=[status for status, (kind, *_) in STORAGE_SERVICE_CLASS_STATUS.items()
                  if kind == "Warning"],
        confirm=Destination.model_fields["confirm"],
        settings=ListenerSettings.model_fields,
        pdu_bytes=MAXIMUM_PDU_BYTES,
        implementation_uid=PYNETDICOM_IMPLEMENTATION_UID,
        implementation_version=PYNETDICOM_IMPLEMENTATION_VERSION,
        modalities=sorted(MODALITIES),
        ciphers=CIPHERS,
        sections=SECTIONS,
        newest=NEWEST,
        segmentations=sorted(SEGMENTATIONS),
        regions=REGIONS,
        kinds=terms.KINDS,
        analyses=terms.ANALYSES,
        scheme=terms,
        feature=terms.feature_code("original_firstorder_Mean"),
        private_codes=sorted(_private_codes(), key=lambda code: code.value),
    )  # fmt: skip


def _span(statuses: range) -> str:
    first, last = statuses.start, statuses.stop - 1
    return f"{first:04X}H" if first == last else f"{first:04X}H to {last:04X}H"


def _name(uid: UID | str) -> str:
    return UID(uid).name


def _private_codes() -> set[Code]:
    """Codes of our own scheme that results may hold, or that segmentations of readers may."""
    found = {code for value in vars(terms).values() for code in _codes_in(value)}
    regions = (Code(*region.concept) for each in REGIONS.values() for region in each)
    found |= {code for region in regions for code in _codes_in(region)}
    return found | {terms.reason_code(reason) for reason in Reason}


def _codes_in(value: Any) -> Iterator[Code]:
    if isinstance(value, Code):
        if value.scheme_designator == terms.SCHEME:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _codes_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _codes_in(getattr(value, field.name))


if __name__ == "__main__":
    STATEMENT.write_text(statement())
