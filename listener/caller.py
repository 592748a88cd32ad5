"""Our application entity as one that calls others: how long it waits, and how it speaks."""

import ssl
from typing import Any, cast

from pynetdicom import AE, evt
from pynetdicom.association import Association

from listener.checkpoint import guard_answers
from listener.errors import BadSettings
from listener.remote import Entity, Tls
from listener.tls import client_context


def caller(ae_title: str, timeout_seconds: float) -> AE:
    """An application entity that waits so long for a connection, an answer, or the next PDU."""
    entity = AE(ae_title=ae_title)
    entity.acse_timeout = entity.dimse_timeout = timeout_seconds
    entity.network_timeout = entity.connection_timeout = timeout_seconds
    return entity


def call(ours: AE, theirs: Entity, tls: Tls | None, **options: Any) -> Association:
    """Ask another application entity for an association.

    Args:
        ours: with its presentation contexts.
        theirs: to call.
        tls: how we speak TLS where they do.
        options: for `AE.associate`.

    Raises:
        OSError: there is no such host, or our certificate is of no use at present.
    """
    if theirs.tls:
        options["tls_args"] = (_context(tls), theirs.host)
    handlers = options.pop("evt_handlers", ())
    options["evt_handlers"] = [(evt.EVT_CONN_OPEN, _begin), *handlers]
    return ours.associate(theirs.host, theirs.port, ae_title=theirs.ae_title, **options)


def _begin(event: evt.Event) -> None:
    guard_answers(event.assoc)
    _lose_patience(event.assoc)


def _lose_patience(association: Association) -> None:
    """Wait no longer for a peer in the middle of a PDU, or of TLS, than for a silent one.

    pynetdicom would wait for ever, and whoever waits for its thread would as well.
    """
    cast(Any, association.dul).socket.socket.settimeout(association.network_timeout)


def _context(tls: Tls | None) -> ssl.SSLContext:
    assert tls is not None  # the settings see to it
    try:
        return client_context(tls)
    except BadSettings as error:
        raise OSError(str(error)) from error
