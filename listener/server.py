"""The application entity: what it accepts, from whom, and for how long it waits."""

import logging
from collections.abc import Sequence
from typing import Any, cast

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.transport import ThreadedAssociationServer

from listener.errors import CannotListen
from listener.handlers import on_closed, on_echo, on_requested, on_store
from listener.recorder import Recorder
from listener.settings import ListenerSettings
from listener.spool import Spool

log = logging.getLogger(__name__)

VERIFICATION = UID("1.2.840.10008.1.1")

MAXIMUM_PDU_BYTES = 256 << 10
"""Larger than the usual 16 KiB: a slice in two PDUs instead of thirty."""

TRANSFER_SYNTAXES: Sequence[UID] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    *(
        UID(syntax)
        for syntax in ALL_TRANSFER_SYNTAXES
        if syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ),
)
"""In order of preference where a sender leaves us the choice. Nothing is ever transcoded."""


def application_entity(settings: ListenerSettings) -> AE:
    """C-ECHO, and C-STORE of every storage SOP class in every transfer syntax."""
    entity = AE(ae_title=settings.ae_title)
    entity.maximum_pdu_size = MAXIMUM_PDU_BYTES
    entity.maximum_associations = settings.max_associations
    entity.acse_timeout = settings.association_timeout_seconds
    entity.dimse_timeout = settings.association_timeout_seconds
    entity.network_timeout = settings.association_timeout_seconds
    entity.add_supported_context(VERIFICATION)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(cast(UID, context.abstract_syntax), list(TRANSFER_SYNTAXES))
    return entity


def listen(
    settings: ListenerSettings, spool: Spool, recorder: Recorder
) -> ThreadedAssociationServer:
    """Start answering; returns the running server, whose `shutdown` ends it.

    Raises:
        CannotListen: the address or port is taken or not ours.
    """
    handlers: list[Any] = [
        (evt.EVT_REQUESTED, on_requested, [settings]),
        (evt.EVT_C_ECHO, on_echo),
        (evt.EVT_C_STORE, on_store, [spool, recorder]),
        (evt.EVT_RELEASED, on_closed, [recorder]),
        (evt.EVT_ABORTED, on_closed, [recorder]),
        (evt.EVT_CONN_CLOSE, on_closed, [recorder]),
    ]
    try:
        server = application_entity(settings).start_server(
            (settings.bind, settings.port), block=False, evt_handlers=handlers
        )
    except OSError as error:
        raise CannotListen(settings.bind, settings.port, error.strerror or str(error)) from error
    log.info("%s listens on %s:%d", settings.ae_title, settings.bind, settings.port)
    return cast(ThreadedAssociationServer, server)
