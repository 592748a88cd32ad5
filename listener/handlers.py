"""What the application entity answers: disk first, then 0x0000, then the ledger.

The order is the promise. A peer may delete its copy once it reads Success, so Success
is sent only after the bytes are on stable storage. The ledger's row follows a moment
later (recorder.py); if the process dies in between, it is rebuilt from the spool.
"""

import logging
import uuid
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from io import BytesIO
from typing import Any, Final, cast

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom._globals import APPLICATION_CONTEXT_NAME
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AssociationSocket

from listener.audit.tally import Party
from listener.entrance import Entrance, served_by
from listener.errors import BadAttribute, DoesNotMatch, SpoolFull, where
from listener.reading import BROKEN, read_encoded
from listener.recorder import Recorder
from listener.remote import Peer
from listener.series import InstanceKey, require_uid
from listener.settings import ListenerSettings
from listener.spool import Arrival, Held, Spool
from listener.tls import fingerprint_of
from listener.turned_away import Reason, Service

log = logging.getLogger(__name__)


class EchoStatus(IntEnum):
    """What C-ECHO is answered (PS3.7 9.1.5)."""

    SUCCESS = 0x0000


class StoreStatus(IntEnum):
    """What C-STORE is answered (PS3.4 B.2.3 and PS3.7 C.5): these, and nothing else.

    Attributes:
        UNFORESEEN: what pynetdicom answers for a handler that failed.
    """

    SUCCESS = 0x0000
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    OUT_OF_RESOURCES = 0xA700
    CANNOT_UNDERSTAND = 0xC000
    UNFORESEEN = 0xC211


# PS3.8 9.3.4: result, source, reason
REJECTED_CALLING_AE: Final = (0x01, 0x01, 0x03)
REJECTED_CONTEXT: Final = (0x01, 0x01, 0x02)
REJECTED_CALLED_AE: Final = (0x01, 0x01, 0x07)
REJECTED_FOR_NOW: Final = (0x02, 0x03, 0x02)  # transient: a local limit is exceeded

# Verification and storage commitment: they need no room.
NOT_STORING: Final = frozenset({"1.2.840.10008.1.1", "1.2.840.10008.1.20.1"})

KEY_TAGS: Final = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)

LARGEST_HEADER_BYTES: Final = 4 << 20
"""A deflated dataset is inflated no further than this in search of its UIDs."""

LONGEST_UID_BYTES: Final = 1024
"""What is longer is not looked into: each backslash of it would become a UID."""

MOST_PIECES: Final = 30_000
"""Elements and items that are passed on the way to the UIDs; there are some hundred."""


def on_requested(
    event: evt.Event, settings: ListenerSettings, spool: Spool, entrance: Entrance
) -> None:
    """Name an association; reject it from anybody who is not on the list.

    Who comes when too many are served, or wants to store where the disk would soon be full, is
    asked to come again: refusing a study is better than breaking off in the middle of it.
    """
    try:
        _admit(event, settings, spool, entrance)
    except Exception as error:  # noqa: BLE001 - pynetdicom would accept whom we could not judge
        address = event.assoc.requestor.address or "an unknown address"
        log.error("rejected an association from %s: %s", address, where(error))
        _reject(event, entrance, REJECTED_FOR_NOW, Reason.INTERNAL)


def _admit(event: evt.Event, settings: ListenerSettings, spool: Spool, entrance: Entrance) -> None:
    event.assoc.name = uuid.uuid4().hex
    address = event.assoc.requestor.address or ""
    proposal = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
    calling, called = proposal.calling_ae_title.strip(), proposal.called_ae_title.strip()
    certificate = fingerprint_of(cast(AssociationSocket, event.assoc.dul.socket).socket)
    peer = _peer(settings, calling, address, certificate)
    if peer is not None:
        entrance.admit(event.assoc, peer)
    limit, served = settings.max_associations, served_by(event.assoc.ae)
    entrance.tell(served)  # before the others are asked: two that come at once see each other
    if proposal.application_context_name != APPLICATION_CONTEXT_NAME:
        log.warning(
            "rejected an association from %s at %s: its application context is not DICOM's, %s",
            calling,
            address,
            APPLICATION_CONTEXT_NAME,
        )
        _reject(event, entrance, REJECTED_CONTEXT, Reason.CONTEXT)
        entrance.audit.rejected(
            Party(calling, address), "association rejected: not DICOM's context"
        )
    elif called != settings.ae_title:
        log.warning(
            "rejected an association from %s at %s: it called %r, but this is %s; correct the "
            "called AE title there",
            calling,
            address,
            called,
            settings.ae_title,
        )
        _reject(event, entrance, REJECTED_CALLED_AE, Reason.CALLED)
        entrance.audit.rejected(Party(calling, address), f"association rejected: called {called!r}")
    elif not settings.open_node and peer is None:
        shown = "no certificate" if certificate is None else f"certificate {certificate}"
        log.warning(
            "rejected an association from %s at %s with %s: not among MONRO_PEERS; add it there "
            "if it may send",
            calling,
            address,
            shown,
        )
        _reject(event, entrance, REJECTED_CALLING_AE, Reason.UNKNOWN)
        entrance.audit.rejected(Party(calling, address), f"association rejected: no peer, {shown}")
    elif peer is not None and _has_enough(settings.peers[peer], entrance.served_of(peer)):
        log.warning(
            "rejected an association from %s at %s for now: it has %d already; raise its "
            "max_associations in MONRO_PEERS if this is usual",
            calling,
            address,
            settings.peers[peer].max_associations,
        )
        _reject(event, entrance, REJECTED_FOR_NOW, Reason.ENOUGH)
    elif len(served) + entrance.served_elsewhere > limit:
        log.warning(
            "rejected an association from %s at %s for now: %d are served; raise "
            "MONRO_MAX_ASSOCIATIONS if this is usual",
            calling,
            address,
            limit,
        )
        _reject(event, entrance, REJECTED_FOR_NOW, Reason.BUSY)
    elif _wants_to_store(proposal) and not spool.has_room_for(settings.room_for_study):
        log.error(
            "rejected an association from %s at %s for now: the spool's disk has %d bytes free; "
            "make room, or lower MONRO_KEEP_FREE or MONRO_ROOM_FOR_STUDY",
            calling,
            address,
            spool.free_bytes(),
        )
        _reject(event, entrance, REJECTED_FOR_NOW, Reason.FULL)


def _peer(
    settings: ListenerSettings, calling: str, address: str, certificate: str | None
) -> int | None:
    """Which of the peers this is."""
    for number, peer in enumerate(settings.peers):
        if peer.admits(calling, address, certificate):
            return number
    return None


def _has_enough(peer: Peer, associations: int) -> bool:
    """Whether so many associations, the one that is asked for among them, are too many."""
    return peer.max_associations is not None and associations > peer.max_associations


def _wants_to_store(proposal: A_ASSOCIATE) -> bool:
    proposed = {str(each.abstract_syntax) for each in proposal.presentation_context_definition_list}
    return bool(proposed - NOT_STORING)


def on_echo(_event: evt.Event) -> EchoStatus:
    """Answer C-ECHO."""
    return EchoStatus.SUCCESS


def on_store(
    event: evt.Event, spool: Spool, recorder: Recorder, study_uid: str | None = None
) -> StoreStatus:
    """Answer one C-STORE request with a status.

    A peer that missed our answer sends again, so the write bears repeating. Anything
    unforeseen is left to pynetdicom, which answers 0xC211 for us.

    Args:
        event: of pynetdicom.
        spool: that takes the instance.
        recorder: takes its row.
        study_uid: that it must belong to; None for any.
    """
    request = cast(C_STORE, event.request)
    sop_class, sop_uid = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
    dataset = cast(BytesIO, request.DataSet)

    def keep() -> Held:
        key = read_key(dataset, event.context.transfer_syntax, sop_class, sop_uid)
        if study_uid not in (None, key.study_uid):
            raise DoesNotMatch(
                f"instance {key.sop_uid} is of study {key.study_uid}, but {study_uid} was asked for"
            )
        return spool.write(key, file_head(event), dataset.getbuffer())

    agreed = str(event.context.abstract_syntax)
    return answer(keep, recorder, event.assoc, sop_class, agreed)


def answer(
    keep: Callable[[], Held],
    recorder: Recorder,
    association: Association,
    sop_class: str,
    agreed: str,
) -> StoreStatus:
    """Keep one instance and say with which status its C-STORE is answered.

    Args:
        keep: puts it on stable storage.
        recorder: takes its row.
        association: that brought it.
        sop_class: that the request names.
        agreed: SOP class of the presentation context.
    """
    other = association.requestor if association.is_acceptor else association.acceptor
    service = Service.DIMSE if association.is_acceptor else Service.FETCHED
    sender, refused = other.ae_title, partial(recorder.turned_away.instance, service)
    if sop_class != agreed:
        log.warning(
            "refused an instance from %s: class %s was sent where %s had been agreed",
            sender,
            sop_class,
            agreed,
        )
        refused(Reason.NOT_AGREED)
        return StoreStatus.SOP_CLASS_NOT_SUPPORTED
    try:
        party = Party(sender, other.address or "", calls=association.is_acceptor)
        take(keep, recorder, party, str(association.name), sop_class)
    except BadAttribute as error:
        log.warning("refused an instance from %s: %s", sender, error)
        refused(Reason.MALFORMED)
        return StoreStatus.CANNOT_UNDERSTAND
    except SpoolFull as error:
        log.error("refused an instance from %s: %s", sender, error)
        refused(Reason.FULL)
        return StoreStatus.OUT_OF_RESOURCES
    except Exception:  # what it is answered is for the caller to say
        refused(Reason.INTERNAL)
        raise
    return StoreStatus.SUCCESS


def take(
    keep: Callable[[], Held], recorder: Recorder, sender: Party, association: str, sop_class: str
) -> None:
    """Keep one instance and have its row written; raises what `keep` does.

    Args:
        keep: puts it on stable storage.
        recorder: takes its row.
        sender: who it is from.
        association: name of the association, or of the request, that brought it.
        sop_class: of the instance.
    """
    held = keep()
    if held.arrival is Arrival.CONFLICT:
        uid, why = held.key.sop_uid, held.arrival.value
        log.warning("quarantined instance %s from %s: %s", uid, sender.name, why)
    recorder.instance(held, association, sop_class, sender)


def on_closed(event: evt.Event, recorder: Recorder) -> None:
    """Note how an association ended: release, or anything else."""
    recorder.closed(association_of(event), released=event.event is evt.EVT_RELEASED)


def association_of(event: evt.Event) -> str:
    """A name for an association that no other process will give to one of its own."""
    return str(event.assoc.name)


def file_head(event: evt.Event) -> bytes:
    """Preamble and file meta information for the dataset as it was sent (PS3.10 7.1)."""
    return b"\x00" * 128 + b"DICM" + encode_file_meta(event.file_meta)


def read_key(dataset: BytesIO, syntax: UID, sop_class: str, sop_uid: str) -> InstanceKey:
    """Read the UIDs of a dataset without decoding the rest of it.

    Args:
        dataset: encoded, at least as far as the UIDs.
        syntax: that it is encoded in.
        sop_class: that it was announced with, by a C-STORE command or a file's meta information.
        sop_uid: likewise.

    Raises:
        BadAttribute: they are missing or malformed; or what was announced is no UID, and may be
            anything.
        DoesNotMatch: they are others than those that were announced.
    """
    require_uid("the C-STORE command's AffectedSOPInstanceUID", sop_uid)
    header = _read_header(dataset, syntax, sop_uid)
    key = InstanceKey(
        study_uid=_uid(header, "StudyInstanceUID"),
        series_uid=_uid(header, "SeriesInstanceUID"),
        sop_uid=_uid(header, "SOPInstanceUID"),
    )
    for keyword, told in (("SOPClassUID", sop_class), ("SOPInstanceUID", sop_uid)):
        if _uid(header, keyword) != told:
            raise DoesNotMatch(
                f"instance {key.sop_uid}: the dataset's {keyword} contradicts what it was "
                "announced with; one of the two was changed on the way, send it from the source"
            )
    return key


def _reject(
    event: evt.Event, entrance: Entrance, answer: tuple[int, int, int], reason: Reason
) -> None:
    entrance.turned_away.association(Service.DIMSE, reason)
    event.assoc.acse.send_reject(*answer)
    event.assoc.kill()  # waits until the answer is on its way


def _read_header(stream: BytesIO, syntax: UID, sop_uid: str) -> Dataset:
    try:
        return read_encoded(
            stream,
            syntax,
            most_bytes=LARGEST_HEADER_BYTES,
            most_pieces=MOST_PIECES,
            stop_when=lambda tag, _vr, _length: tag > KEY_TAGS[-1],
            only=KEY_TAGS,
        )
    except BROKEN as error:
        raise BadAttribute(
            f"instance {sop_uid}: the dataset cannot be read as "
            f"{syntax.name} ({type(error).__name__}); send it again from the source"
        ) from error


def _uid(header: Dataset, keyword: str) -> str:
    raw: Any = header.get_item(keyword)
    is_long = isinstance(raw, RawDataElement) and len(raw.value or b"") > LONGEST_UID_BYTES
    try:
        value = () if is_long else header.get(keyword)
    except BROKEN:  # of a value representation that there is not, for instance
        value = ()
    if not isinstance(value, str) or not value:
        raise BadAttribute(
            f"the dataset's {keyword} is {'absent' if value is None else 'not one UID'}; "
            "the sender must set it"
        )
    return value
