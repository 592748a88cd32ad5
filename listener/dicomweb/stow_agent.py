"""Results to a DICOMweb service, by STOW-RS (PS3.18 10.5)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from listener.carrier import (
    Answer,
    NotReached,
    Send,
    accepts_none_of,
    answer_of,
    read_result,
)
from listener.dicomweb.client import WebClient
from listener.entries import Pending, Result
from listener.errors import ServiceFailed
from listener.remote import WebDestination
from listener.settings import ListenerSettings

CLASS_NOT_SUPPORTED: Final = 0x0122
"""PS3.18 10.5.3: another encoding of the same content may be taken."""

REFUSES_THE_OBJECT: Final = frozenset({400, 409, 413, 415, 422})
"""Of HTTP, where no reason is given for the instance. Other statuses are about the service, the
address or the token: what is meant for it waits until somebody has mended that."""


class StowAgent:
    """Sends to one DICOMweb service."""

    def __init__(self, destination: WebDestination, settings: ListenerSettings) -> None:
        self._destination, self._tls = destination, settings.tls
        self._timeout_seconds = settings.association_timeout_seconds

    @contextmanager
    def calling(self, _of_job: Sequence[Pending]) -> Iterator[Send]:
        """See Carrier; a request for each."""
        with WebClient(self._destination, self._tls, self._timeout_seconds) as client:
            yield partial(_send, client)


def _send(client: WebClient, pending: Pending) -> Answer:
    for result in pending.encodings:
        answer = _store(client, result)
        if answer.status != CLASS_NOT_SUPPORTED:
            return answer
    return accepts_none_of(pending.encodings)


def _store(client: WebClient, result: Result) -> Answer:
    damage = read_result(result)
    if isinstance(damage, Answer):
        return damage
    try:
        stored = client.store([result.path])
    except ServiceFailed as error:
        if error.status in REFUSES_THE_OBJECT:
            return Answer("PARKED", f"rejected: {error.found}")
        raise NotReached(f"the destination does not take results: {error.found}") from error
    if stored.keeps(result.sop_uid):
        return answer_of(stored.kept.get(result.sop_uid, 0), result)
    reason = stored.failed.get(result.sop_uid)
    if reason:
        return answer_of(reason, result)
    said = f"HTTP {stored.status}, and no reason"
    if stored.status in REFUSES_THE_OBJECT:
        return Answer("PARKED", f"rejected: {said}")
    return Answer("PENDING", f"not stored: {said}")
