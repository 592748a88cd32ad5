"""The application entity: what it accepts, from whom, and for how long it waits."""

import sys
import threading
from collections.abc import Sequence
from copy import copy
from typing import Any, cast

from pydicom import uid
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import (
    AE,
    ALL_TRANSFER_SYNTAXES,
    AllStoragePresentationContexts,
    build_context,
    evt,
)
from pynetdicom.pdu_primitives import A_ASSOCIATE, SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext

from listener.commitment import Herald
from listener.confirmation import STORAGE_COMMITMENT, Confirmations, on_event_report
from listener.doorkeeper import Doorkeeper
from listener.entrance import Entrance, EntranceServer
from listener.handlers import on_closed, on_echo, on_requested, on_store
from listener.quick_store import read_quickly
from listener.recorder import Recorder
from listener.settings import ListenerSettings
from listener.spool import Spool

VERIFICATION = UID("1.2.840.10008.1.1")

MAXIMUM_PDU_BYTES = 256 << 10
"""Larger than the usual 16 KiB: a slice in two PDUs instead of thirty."""

STORAGE_SERVICE = UID("1.2.840.10008.4.2")
"""The Storage Service Class, PS3.4 B."""

ENCAPSULATED_UNCOMPRESSED = UID("1.2.840.10008.1.2.1.98")
"""PS3.5 A.4: Explicit VR Little Endian, its native pixels in fragments."""

TRANSFER_SYNTAXES: Sequence[UID] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    *(
        UID(syntax)
        for syntax in ALL_TRANSFER_SYNTAXES
        if syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ),
    ENCAPSULATED_UNCOMPRESSED,
)
"""In order of preference where a sender leaves us the choice. Nothing is ever transcoded."""

ANY_SYNTAX = build_context(VERIFICATION, list(TRANSFER_SYNTAXES))

STORAGE_CLASSES: frozenset[UID] = frozenset(
    cast(UID, context.abstract_syntax) for context in AllStoragePresentationContexts
)
"""The current ones that pynetdicom knows; none of them is a non-patient object."""

INDUSTRIAL_STORAGE: frozenset[UID] = frozenset(
    {
        uid.DICOS2DAITStorage,
        uid.DICOS3DAITStorage,
        uid.DICOSCTImageStorage,
        uid.DICOSDigitalXRayImageStorageForPresentation,
        uid.DICOSDigitalXRayImageStorageForProcessing,
        uid.DICOSQuadrupoleResonanceStorage,
        uid.DICOSThreatDetectionReportStorage,
        uid.EddyCurrentImageStorage,
        uid.EddyCurrentMultiFrameImageStorage,
    }
)
"""Storage classes of DICOS and DICONDE, which pynetdicom does not know."""


def application_entity(settings: ListenerSettings) -> AE:
    """C-ECHO and storage commitment; `on_proposed` adds what a sender wants to store."""
    entity = AE(ae_title=settings.ae_title)
    entity.maximum_pdu_size = MAXIMUM_PDU_BYTES
    # Who is one too many is for `on_requested` to say, which knows of the other processes and does
    # not count connections that have proposed nothing.
    entity.maximum_associations = sys.maxsize
    entity.acse_timeout = settings.association_timeout_seconds
    entity.dimse_timeout = settings.association_timeout_seconds
    entity.network_timeout = settings.association_timeout_seconds
    entity.add_supported_context(VERIFICATION)
    # Others ask us to commit; and as who committed, they call us back with the roles reversed.
    entity.add_supported_context(STORAGE_COMMITMENT, scu_role=True, scp_role=True)
    return entity


def on_proposed(event: evt.Event) -> dict[UID, SOPClassCommonExtendedNegotiation]:
    """Accept for storage, in this association, what is proposed and belongs to a study.

    These are all current storage classes but the non-patient objects (PS3.4 GG), such as hanging
    protocols; not the retired ones. Private ones are among them: MR scanners put such objects
    beside their images, and many a sender gives a whole study up at the first one that it cannot
    send. (pynetdicom copies what a server supports for each association, all contexts deeply; a
    handful of those that are proposed is not copied.)

    Returns:
        For each class that pynetdicom does not know, that it belongs to the storage service (PS3.7
        D.3.3.6).
    """
    proposal = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
    proposed = {
        cast(UID, each.abstract_syntax) for each in proposal.presentation_context_definition_list
    }
    unknown = {each for each in proposed if each.is_private or each in INDUSTRIAL_STORAGE}
    acceptor = event.assoc.acceptor
    acceptor.supported_contexts = [
        *acceptor.supported_contexts,
        *(_storing(each) for each in sorted(proposed & STORAGE_CLASSES | unknown)),
    ]
    return {each: _for_storage(each) for each in unknown}


def _storing(sop_class: UID) -> PresentationContext:
    """What is accepted of a storage class."""
    context = copy(ANY_SYNTAX)  # shares its transfer syntaxes, which negotiation only reads
    context.abstract_syntax = sop_class
    return context


def _for_storage(sop_class: UID) -> SOPClassCommonExtendedNegotiation:
    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid, item.service_class_uid = sop_class, STORAGE_SERVICE
    return item


def listen(
    settings: ListenerSettings,
    spool: Spool,
    recorder: Recorder,
    herald: Herald,
    confirmations: Confirmations,
    entrance: Entrance,
) -> list[EntranceServer]:
    """Start answering; returns a running server for each port, whose `shutdown` ends it."""
    doorkeeper = Doorkeeper(settings)
    handlers: list[Any] = [
        (evt.EVT_CONN_OPEN, doorkeeper.on_opened),
        (evt.EVT_REQUESTED, doorkeeper.on_requested),
        (evt.EVT_REQUESTED, on_requested, [settings, spool, entrance]),
        (evt.EVT_SOP_COMMON, on_proposed),
        (evt.EVT_C_ECHO, on_echo),
        (evt.EVT_C_STORE, on_store, [spool, recorder]),
        (evt.EVT_N_ACTION, herald.on_action),
        (evt.EVT_N_EVENT_REPORT, on_event_report, [confirmations]),
        (evt.EVT_RELEASED, on_closed, [recorder]),
        (evt.EVT_ABORTED, on_closed, [recorder]),
        (evt.EVT_CONN_CLOSE, on_closed, [recorder]),
        (evt.EVT_CONN_CLOSE, doorkeeper.on_closed),
    ]
    if settings.quick_store:
        handlers.append((evt.EVT_CONN_OPEN, read_quickly, [settings, spool, recorder]))
    servers = entrance.serve(application_entity(settings), handlers)
    for server in servers:
        threading.Thread(target=server.serve_forever, name="entrance", daemon=True).start()
    return servers
