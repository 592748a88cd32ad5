"""Instances fetched from a DICOMweb service by WADO-RS (PS3.18 10.4), as they are stored there."""

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final
from urllib.parse import urlsplit

from listener.audit.tally import Party
from listener.dicomweb.client import InstanceListed, WebClient
from listener.dicomweb.part import FilePart
from listener.errors import BadAttribute, ServiceFailed, SourceFailed, SpoolFull
from listener.handlers import take
from listener.recorder import Recorder
from listener.remote import WebSource
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.turned_away import Reason, Service

log = logging.getLogger(__name__)

ONE_BY_ONE: Final = 10
"""So many instances of a series are asked for by name; if more are missing, the whole series is."""

Progress = Callable[[int], None]
"""Is told how many instances have come so far."""


def fetch_by_web(
    source: WebSource,
    settings: ListenerSettings,
    study_uid: str,
    wanted: Sequence[InstanceListed],
    spool: Spool,
    recorder: Recorder,
    on_progress: Progress,
) -> int:
    """Fetch instances of a study; see `fetch` in retrieval.py.

    Returns:
        How many of the wanted instances were kept.

    Raises:
        SourceFailed: the service does not hand over, or not as the standard has it.
    """
    missing, name = {each.sop_uid for each in wanted}, uuid.uuid4().hex
    party = Party(source.name, urlsplit(source.url).hostname or "", is_ae=False, calls=False)
    is_whole = False
    try:
        with WebClient(source, settings.tls, settings.association_timeout_seconds) as client:
            for pieces in _files(client, study_uid, wanted):
                part = FilePart(spool, study_uid, settings.largest_instance)
                whole = _in_bounds(pieces, 2 * settings.largest_instance, source.name)
                if _keep(whole, part, missing, recorder, party, name):
                    on_progress(len(wanted) - len(missing))
        is_whole = True
    except ServiceFailed as error:
        raise SourceFailed(source.name, error.found) from error
    except SpoolFull as error:
        recorder.turned_away.instance(Service.FETCHED, Reason.FULL)
        raise SourceFailed(source.name, f"was not let finish: {error}") from error
    finally:
        recorder.closed(name, released=is_whole)
    return len(wanted) - len(missing)


def _files(
    client: WebClient, study_uid: str, wanted: Sequence[InstanceListed]
) -> Iterator[Iterator[bytes]]:
    by_series = sorted(wanted, key=lambda each: (each.series_uid, each.sop_uid))
    for series_uid, of_series in groupby(by_series, key=lambda each: each.series_uid):
        uids = [each.sop_uid for each in of_series]
        if len(uids) > ONE_BY_ONE:
            yield from client.retrieve(study_uid, series_uid)
        else:
            for sop_uid in uids:
                yield from client.retrieve(study_uid, series_uid, sop_uid)


def _keep(
    pieces: Iterator[bytes],
    part: FilePart,
    missing: set[str],
    recorder: Recorder,
    party: Party,
    name: str,
) -> bool:
    """Put one file on stable storage as it comes, if it is missing; whether it was kept.

    One that is none must not hold up the others, and one that was here before is no news: with it
    the study would seem to go on coming in.
    """
    try:
        for piece in pieces:
            part.take(memoryview(piece))
            if part.head is not None and part.head.sop_uid not in missing:
                break
        else:
            sop_class = part.head.sop_class if part.head is not None else ""
            take(part.keep, recorder, party, name, sop_class)
            assert part.head is not None  # it was kept
            missing.discard(part.head.sop_uid)
            return True
    except BadAttribute as error:
        log.warning("refused an instance from %s: %s", party.name, error)
        recorder.turned_away.instance(Service.FETCHED, Reason.MALFORMED)
    finally:
        part.drop()
    for _ in pieces:  # on to the next file
        pass
    return False


def _in_bounds(pieces: Iterator[bytes], most: int, source: str) -> Iterator[bytes]:
    """One file, unless it has no end: a large one is refused, and the next one is waited for."""
    came = 0
    for piece in pieces:
        came += len(piece)
        if came > most:
            raise SourceFailed(source, f"sends an instance of more than {most:,} bytes")
        yield piece
