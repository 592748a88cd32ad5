"""Results to an application entity, by C-STORE (PS3.4 B)."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association

from listener.caller import call, caller
from listener.carrier import (
    Answer,
    NotReached,
    Send,
    accepts_none_of,
    answer_of,
    read_result,
)
from listener.entries import Pending, Result
from listener.remote import Destination
from listener.series import BROKEN
from listener.settings import ListenerSettings

log = logging.getLogger(__name__)

TRANSFER_SYNTAXES: Final = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]

UNREACHABLE: Final = "the destination does not answer"


class StorageScu:
    """Sends to one application entity."""

    def __init__(self, destination: Destination, settings: ListenerSettings) -> None:
        self._destination = destination
        self._ae_title, self._tls = settings.ae_title, settings.tls
        self._timeout_seconds = settings.association_timeout_seconds

    @contextmanager
    def calling(self, of_job: Sequence[Pending]) -> Iterator[Send]:
        """See Carrier; one association for all of them."""
        try:
            association = self._associate(of_job)
        except OSError as error:  # such as a host name that does not resolve
            log.warning("%s: %s", self._destination.name, type(error).__name__)
            raise NotReached(UNREACHABLE) from error
        try:
            yield partial(_send, association)
        finally:
            if association.is_established:
                association.release()

    def _associate(self, of_job: Sequence[Pending]) -> Association:
        entity = caller(self._ae_title, self._timeout_seconds)
        for sop_class in sorted(
            {result.sop_class for pending in of_job for result in pending.encodings}
        ):
            entity.add_requested_context(sop_class, TRANSFER_SYNTAXES)
        return call(entity, self._destination, self._tls)


def _send(association: Association, pending: Pending) -> Answer:
    if not (association.is_established or _refuses_every_class(association)):
        raise NotReached(UNREACHABLE)
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    for result in pending.encodings:
        if result.sop_class in accepted:
            return _store(association, result)
    return accepts_none_of(pending.encodings)


def _refuses_every_class(association: Association) -> bool:
    """Whether a destination answered, but accepted no presentation context at all."""
    return bool(association.rejected_contexts) and not association.accepted_contexts


def _store(association: Association, result: Result) -> Answer:
    dataset = read_result(result)
    if isinstance(dataset, Answer):
        return dataset
    try:
        response = association.send_c_store(dataset)
    except (*BROKEN, RuntimeError) as error:
        return Answer("PENDING", f"sending stopped: {type(error).__name__}")
    if "Status" not in response:
        return Answer("PENDING", "the connection was lost before the destination answered")
    return answer_of(int(response.Status), result)
