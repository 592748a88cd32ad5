"""Our application entity as one that calls others: how long it waits, and how it speaks."""

import logging
import ssl
from typing import Any, Final, cast

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association

from listener.bounds import (
    Line,
    read_in_bounds,
    survive,
    survive_proposal,
    take_messages_in_bounds,
)
from listener.checkpoint import guard_answers
from listener.errors import BadSettings
from listener.remote import Entity, Tls
from listener.tls import client_context

log = logging.getLogger(__name__)

PLAIN: Final = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]
"""Transfer syntaxes of questions and answers: deflated ones could be of any size."""

LARGEST_MESSAGE_BYTES: Final = 256 << 10
"""Of an answer, or of a request that is none to store: a match takes some hundred bytes."""

MOST_WAITING_BYTES: Final = 64 << 20
"""Of answers that came faster than we read them: of twenty thousand matches."""


def caller(ae_title: str, timeout_seconds: float) -> AE:
    """An application entity that waits so long for a connection, an answer, or the next PDU."""
    entity = AE(ae_title=ae_title)
    entity.acse_timeout = entity.dimse_timeout = timeout_seconds
    entity.network_timeout = entity.connection_timeout = timeout_seconds
    return entity


def call(
    ours: AE,
    theirs: Entity,
    tls: Tls | None,
    largest_instance: int = LARGEST_MESSAGE_BYTES,
    **options: Any,
) -> Association:
    """Ask another application entity for an association.

    It is not established where the other one answers with what is none.

    Args:
        ours: with its presentation contexts.
        theirs: to call.
        tls: how we speak TLS where they do.
        largest_instance: bytes of an instance that they may store here in turn.
        options: for `AE.associate`.

    Raises:
        OSError: there is no such host, or our certificate is of no use at present.
    """
    if theirs.tls:
        options["tls_args"] = (_context(tls), theirs.host)
    handlers = options.pop("evt_handlers", ())
    options["evt_handlers"] = [(evt.EVT_CONN_OPEN, _begin, [largest_instance]), *handlers]
    association = ours.associate(theirs.host, theirs.port, ae_title=theirs.ae_title, **options)
    if association.is_established and not _is_as_proposed(association):
        log.warning("%s accepts a transfer syntax that was not proposed", theirs.ae_title)
        association.abort()
    return association


def _begin(event: evt.Event, largest_instance: int) -> None:
    """Give a connection that we opened its limits, as if the other side had."""
    association = event.assoc
    connection = cast(Any, association.dul).socket
    # Who stops in the middle of a PDU, or of TLS, is waited for no longer than a silent peer is.
    connection.socket.settimeout(association.network_timeout)
    guard_answers(association)
    read_in_bounds(connection, Line(association))
    survive_proposal(association)
    survive(association)
    take_messages_in_bounds(
        association,
        largest_instance,
        LARGEST_MESSAGE_BYTES,
        lambda _messages, size: size > MOST_WAITING_BYTES + largest_instance,
    )


def _is_as_proposed(association: Association) -> bool:
    """Whether all contexts were accepted in a transfer syntax of ours: who may choose another one,
    such as a deflated one, may fill the memory with a few bytes.
    """
    ours = {
        each.context_id: set(each.transfer_syntax)
        for each in association.requestor.requested_contexts
    }
    return all(
        set(each.transfer_syntax) <= ours[each.context_id] for each in association.accepted_contexts
    )


def _context(tls: Tls | None) -> ssl.SSLContext:
    assert tls is not None  # the settings see to it
    try:
        return client_context(tls)
    except BadSettings as error:
        raise OSError(str(error)) from error
