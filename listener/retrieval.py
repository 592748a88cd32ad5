"""Instances fetched from a source.

By C-GET into our own hands, by C-MOVE to our own port, or by WADO-RS.
"""

import logging
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from math import inf
from time import monotonic
from typing import Any, Final

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import build_role, evt
from pynetdicom.association import Association

from listener.caller import PLAIN, call, caller
from listener.dicomweb.client import InstanceListed
from listener.dicomweb.retrieve import Progress, fetch_by_web
from listener.errors import SourceFailed
from listener.handlers import StoreStatus, on_closed, on_store
from listener.pace import PROGRESS_TIMEOUTS
from listener.recorder import Recorder
from listener.remote import Source, WebSource
from listener.series import BROKEN
from listener.server import TRANSFER_SYNTAXES
from listener.settings import ListenerSettings
from listener.spool import Spool

log = logging.getLogger(__name__)

STUDY_ROOT_GET: Final = UID("1.2.840.10008.5.1.4.1.2.2.3")
STUDY_ROOT_MOVE: Final = UID("1.2.840.10008.5.1.4.1.2.2.2")

# PS3.4 C.4.2 and C.4.3
SUCCESS: Final = 0x0000
SOME_FAILED: Final = 0xB000
PENDING: Final = 0xFF00

MOST_CONTEXTS: Final = 128
"""In one association (PS3.8 9.3.2.2)."""

MOST_RESPONSES: Final = 50_000
"""To one request: one for each instance, or one every few seconds."""

MOST_UNASKED: Final = 100
"""Instances that a source may hand over beside those that were asked for, twice."""

AT_ONCE: Final = 500
"""Instances named in one request: a list of UIDs must fit into 64 KiB (PS3.5 6.2)."""


def fetch(
    source: Source | WebSource,
    settings: ListenerSettings,
    study_uid: str,
    wanted: Sequence[InstanceListed],
    spool: Spool,
    recorder: Recorder,
    on_progress: Progress = lambda _instances: None,
) -> int:
    """Fetch instances of a study from a source.

    Args:
        source: that has them.
        settings: who we are, and how long we wait.
        study_uid: of the study.
        wanted: what to fetch.
        spool: where to, by C-GET; by C-MOVE they come to the running listener.
        recorder: of their rows.
        on_progress: is told now and then.

    Returns:
        How many instances the source handed over; it may have been fewer than were wanted.

    Raises:
        SourceFailed: it offers no way that the settings allow, or gave up.
    """
    if isinstance(source, WebSource):
        return fetch_by_web(source, settings, study_uid, wanted, spool, recorder, on_progress)
    entity = caller(settings.ae_title, settings.association_timeout_seconds)
    roles = []
    if source.retrieve != "move":
        entity.add_requested_context(STUDY_ROOT_GET, PLAIN)
        contexts = list(_storage_contexts(wanted))
        for sop_class, syntaxes in contexts:
            entity.add_requested_context(sop_class, syntaxes)
        roles = [build_role(each, scp_role=True) for each in dict(contexts)]
    if source.retrieve != "get":
        entity.add_requested_context(STUDY_ROOT_MOVE, PLAIN)
    handover = Handover(2 * len(wanted) + MOST_UNASKED)
    handlers: list[Any] = [
        (evt.EVT_C_STORE, handover.on_store, [spool, recorder, study_uid]),
        (evt.EVT_RELEASED, on_closed, [recorder]),
        (evt.EVT_ABORTED, on_closed, [recorder]),
        (evt.EVT_CONN_CLOSE, on_closed, [recorder]),
    ]
    try:
        association = call(
            entity,
            source,
            settings.tls,
            settings.largest_instance,
            ext_neg=roles,
            evt_handlers=handlers,
        )
    except OSError as error:
        raise SourceFailed(source.name, f"cannot be called ({error})") from error
    if not association.is_established:
        raise SourceFailed(source.name, "does not answer, or offers neither C-GET nor C-MOVE")
    association.name = uuid.uuid4().hex
    try:
        return _retrieve(association, source, settings.ae_title, study_uid, wanted, on_progress)
    except SourceFailed as error:
        if handover.is_too_much:
            raise SourceFailed(source.name, "hands over more than it was asked for") from error
        raise
    finally:
        if association.is_established:
            association.release()


class Handover:
    """Takes what a source hands over on our own association, and not without end.

    Args:
        most: instances.
    """

    def __init__(self, most: int) -> None:
        self._left = most

    @property
    def is_too_much(self) -> bool:
        """Whether more came."""
        return self._left < 0

    def on_store(self, event: evt.Event, spool: Spool, recorder: Recorder, study_uid: str) -> int:
        """Answer one C-STORE request, or end the association."""
        self._left -= 1
        if not self.is_too_much:
            return on_store(event, spool, recorder, study_uid)
        event.assoc.abort(block=False)
        event.assoc.dimse.msg_queue.put((None, None))  # nothing more is waited for
        return StoreStatus.OUT_OF_RESOURCES


def _retrieve(
    association: Association,
    source: Source,
    ae_title: str,
    study_uid: str,
    wanted: Sequence[InstanceListed],
    on_progress: Progress,
) -> int:
    offered = {str(context.abstract_syntax) for context in association.accepted_contexts}
    completed = 0
    for identifier in _identifiers(study_uid, wanted):
        if STUDY_ROOT_GET in offered:
            responses = association.send_c_get(identifier, STUDY_ROOT_GET)
        elif STUDY_ROOT_MOVE in offered:
            responses = association.send_c_move(identifier, ae_title, STUDY_ROOT_MOVE)
        else:
            raise SourceFailed(source.name, "offers neither C-GET nor C-MOVE")
        of_request = 0
        patience = PROGRESS_TIMEOUTS * (association.dimse_timeout or inf)
        for of_request in _completed(responses, source, patience):
            on_progress(completed + of_request)
        completed += of_request
    return completed


def _completed(
    responses: Iterable[tuple[Dataset, Dataset | None]], source: Source, patience: float
) -> Iterator[int]:
    """How many sub-operations were completed, with each response.

    Args:
        responses: to one request.
        source: that gives them.
        patience: in seconds, until another one is completed.

    Raises:
        SourceFailed: they do not come, or not to an end.
    """
    status, most, until = None, 0, monotonic() + patience
    try:
        for number, (response, _identifier) in enumerate(responses):
            if number >= MOST_RESPONSES:
                raise SourceFailed(source.name, f"gives more than {MOST_RESPONSES:,} answers")
            status = response.get("Status")
            completed = int(response.get("NumberOfCompletedSuboperations") or 0)
            if completed > most:
                most, until = completed, monotonic() + patience
            elif status == PENDING and monotonic() > until:
                raise SourceFailed(source.name, f"hands nothing more over within {patience:g} s")
            yield completed
    except (*BROKEN, RuntimeError) as error:
        raise SourceFailed(source.name, f"broke off ({type(error).__name__})") from error
    if status == SOME_FAILED:
        log.warning("source %s did not hand everything over", source.name)
    elif status != SUCCESS:
        said = "nothing" if status is None else f"0x{status:04X}"
        raise SourceFailed(source.name, f"hands nothing over: it answers {said}")


def _identifiers(study_uid: str, wanted: Sequence[InstanceListed]) -> Iterator[Dataset]:
    """Requests for instances by name, a series at a time (PS3.4 C.4.2.1.4)."""
    by_series = sorted(wanted, key=lambda each: (each.series_uid, each.sop_uid))
    for series_uid, of_series in groupby(by_series, key=lambda each: each.series_uid):
        uids = [each.sop_uid for each in of_series]
        for start in range(0, len(uids), AT_ONCE):
            identifier = Dataset()
            identifier.QueryRetrieveLevel = "IMAGE"
            identifier.StudyInstanceUID, identifier.SeriesInstanceUID = study_uid, series_uid
            identifier.SOPInstanceUID = uids[start : start + AT_ONCE]
            yield identifier


def _storage_contexts(wanted: Sequence[InstanceListed]) -> Iterator[tuple[str, list[UID]]]:
    """What we take by C-GET: each class as it is stored there, in a context for each encoding.

    The source chooses one transfer syntax of each context, before it knows what it will send in it.
    """
    plain = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]  # in this order
    others = [syntax for syntax in TRANSFER_SYNTAXES if syntax not in plain]
    classes = sorted({each.sop_class for each in wanted if each.sop_class} or {MRImageStorage})
    classes = classes[: MOST_CONTEXTS - 2]
    each_has = (MOST_CONTEXTS - 2) // len(classes)
    for sop_class in classes:
        yield sop_class, plain
        for syntax in others[: each_has - 1]:
            yield sop_class, [syntax]
