"""What a source has of a study, instance by instance: asked by C-FIND or QIDO-RS."""

from collections.abc import Callable, Iterable, Iterator
from math import inf
from time import monotonic
from typing import Final

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association

from listener.audit.tally import Party
from listener.audit.trail import NO_AUDIT, Audit
from listener.caller import PLAIN, call, caller
from listener.dicomweb.client import InstanceListed, SeriesListed, WebClient
from listener.errors import BadAttribute, ServiceFailed, SourceFailed
from listener.pace import PROGRESS_TIMEOUTS
from listener.remote import Source, WebSource
from listener.series import BROKEN, require_uid
from listener.settings import ListenerSettings

STUDY_ROOT_FIND: Final = UID("1.2.840.10008.5.1.4.1.2.2.1")

# PS3.4 C.4.1
SUCCESS: Final = 0x0000
PENDING: Final = (0xFF00, 0xFF01)

MOST_ANSWERS: Final = 50_000
"""To one question. The largest studies have some ten thousand instances."""

MOST_INSTANCES: Final = 50_000
"""Of one study."""


def list_instances(
    source: Source | WebSource,
    settings: ListenerSettings,
    study_uid: str,
    wants: Callable[[str], bool] = lambda _modality: True,
    audit: Audit = NO_AUDIT,
) -> list[InstanceListed]:
    """List what a source has of a study.

    Args:
        source: to ask.
        settings: who we are, and how long we wait.
        study_uid: of the study.
        wants: whether series of a modality are asked for.
        audit: is told of each question.

    Returns:
        Nothing where the source does not have the study.

    Raises:
        SourceFailed: it does not answer, or not as the standard has it.
    """
    if isinstance(source, WebSource):
        return _list_by_web(source, settings, study_uid, wants)
    entity = caller(settings.ae_title, settings.association_timeout_seconds)
    entity.add_requested_context(STUDY_ROOT_FIND, PLAIN)
    try:
        association = call(entity, source, settings.tls)
    except OSError as error:
        raise SourceFailed(source.name, f"cannot be called ({error})") from error
    if not association.is_established:
        raise SourceFailed(source.name, "does not answer, or does not offer C-FIND")

    def instances(series: SeriesListed) -> Iterator[InstanceListed]:
        return _instances(association, source, study_uid, series, audit)

    try:
        found = _series(association, source, study_uid, audit)
        return _of_study(found, wants, instances, source.name)
    except BadAttribute as error:
        raise SourceFailed(source.name, f"answers C-FIND with what is none: {error}") from error
    finally:
        association.release()


def _list_by_web(
    source: WebSource,
    settings: ListenerSettings,
    study_uid: str,
    wants: Callable[[str], bool],
) -> list[InstanceListed]:
    timeout = settings.association_timeout_seconds
    try:
        with WebClient(source, settings.tls, timeout) as client:

            def instances(series: SeriesListed) -> Iterator[InstanceListed]:
                return client.instances(study_uid, series.series_uid)

            return _of_study(client.series(study_uid), wants, instances, source.name)
    except ServiceFailed as error:
        raise SourceFailed(source.name, error.found) from error


def _of_study(
    listed: Iterable[SeriesListed],
    wants: Callable[[str], bool],
    instances: Callable[[SeriesListed], Iterable[InstanceListed]],
    source: str,
) -> list[InstanceListed]:
    """The instances of all wanted series, unless they are fewer than the source counts itself."""
    found: list[InstanceListed] = []
    for series in [each for each in listed if wants(each.modality)]:
        before = len(found)
        for instance in instances(series):
            if len(found) >= MOST_INSTANCES:
                raise SourceFailed(source, f"lists more than {MOST_INSTANCES:,} instances")
            found.append(instance)
        came = len(found) - before
        if series.instances is not None and came < series.instances:
            raise SourceFailed(source, f"lists {came} of {series.instances} instances")
    return found


def _series(
    association: Association, source: Source, study_uid: str, audit: Audit
) -> Iterator[SeriesListed]:
    wanted = Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "SERIES", study_uid
    wanted.SeriesInstanceUID = wanted.Modality = ""
    wanted.NumberOfSeriesRelatedInstances = None
    for found in _find(association, source, wanted, audit):
        yield SeriesListed(
            _uid(found, "SeriesInstanceUID"),
            str(found.get("Modality") or ""),
            _number(found, "NumberOfSeriesRelatedInstances"),
        )


def _instances(
    association: Association, source: Source, study_uid: str, series: SeriesListed, audit: Audit
) -> Iterator[InstanceListed]:
    """The instances of a series; their class is empty where it is not told."""
    wanted = Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "IMAGE", study_uid
    wanted.SeriesInstanceUID = series.series_uid
    wanted.SOPInstanceUID = wanted.SOPClassUID = ""
    for found in _find(association, source, wanted, audit):
        sop_class = str(found.get("SOPClassUID") or "")
        yield InstanceListed(
            series.series_uid, _uid(found, "SOPInstanceUID"), sop_class, series.modality
        )


def _find(
    association: Association, source: Source, wanted: Dataset, audit: Audit
) -> Iterator[Dataset]:
    """What a source answers to one question.

    Raises:
        SourceFailed: it does not, or not as the standard has it, or not to an end.
    """
    audit.queried(Party(source.ae_title, source.host), STUDY_ROOT_FIND, wanted)
    seconds = PROGRESS_TIMEOUTS * (association.dimse_timeout or inf)
    status, answers, until = None, 0, monotonic() + seconds
    try:
        for response, found in association.send_c_find(wanted, STUDY_ROOT_FIND):
            status, answers = response.get("Status"), answers + 1
            if status not in PENDING:
                continue
            if monotonic() > until:
                association.abort()
                raise SourceFailed(source.name, f"gives no whole answer within {seconds:g} s")
            if answers > MOST_ANSWERS:
                association.abort()
                raise SourceFailed(source.name, f"gives more than {MOST_ANSWERS:,} answers")
            if found is None:
                raise SourceFailed(source.name, "answers C-FIND with what cannot be read")
            yield found
    except (*BROKEN, RuntimeError) as error:
        raise SourceFailed(source.name, f"broke off ({type(error).__name__})") from error
    if status != SUCCESS:
        said = "nothing" if status is None else f"0x{status:04X}"
        raise SourceFailed(source.name, f"answers C-FIND with {said}")


def _uid(found: Dataset, keyword: str) -> str:
    uid = str(found.get(keyword) or "")
    require_uid(keyword, uid)
    return uid


def _number(found: Dataset, keyword: str) -> int | None:
    try:
        value = found.get(keyword)
        return int(value) if value else None
    except BROKEN as error:
        raise BadAttribute(f"{keyword} is not one number") from error
