"""A study fetched from a source because somebody asked for it."""

from dataclasses import dataclass

from listener.audit.trail import NO_AUDIT, Audit
from listener.dicomweb.client import InstanceListed
from listener.dicomweb.retrieve import Progress
from listener.errors import MonroError, SourceFailed
from listener.inventory import list_instances
from listener.ledger import Ledger
from listener.recorder import Recorder
from listener.remote import Source, WebSource
from listener.retrieval import fetch
from listener.scout import Counts, missing_of
from listener.settings import ListenerSettings
from listener.spool import Spool


@dataclass(frozen=True)
class Pulled:
    """What came of it, in instances."""

    source: str
    has: int
    missing: int
    came: int


def pull(
    study_uid: str,
    settings: ListenerSettings,
    ledger: Ledger,
    spool: Spool,
    wanted_source: str | None = None,
    on_progress: Progress = lambda _instances: None,
    audit: Audit = NO_AUDIT,
) -> Pulled:
    """Fetch whatever a source has of a study and is not here, of all modalities.

    Args:
        study_uid: of the study.
        settings: that name the sources.
        ledger: that knows what is here.
        spool: where to.
        wanted_source: name of the source; None: the first that has the study.
        on_progress: is told how many have come.
        audit: is told what was asked, and what came.

    Raises:
        MonroError: no source has the study, or hands it over.
    """
    source, listed = _find(study_uid, settings, wanted_source, audit)
    missing = missing_of(listed, Counts(ledger).held(study_uid))
    if not missing:
        return Pulled(source.name, len(listed), 0, 0)
    if source.retrieve == "none":
        raise MonroError(
            f"source {source.name} has {len(missing)} more instance(s), but nothing is fetched "
            "from there: change its `retrieve` in MONRO_SOURCES, or send the study from there"
        )
    recorder = Recorder(ledger, audit)
    try:
        came = fetch(source, settings, study_uid, missing, spool, recorder, on_progress)
    finally:
        recorder.close()
    return Pulled(source.name, len(listed), len(missing), came)


def _find(
    study_uid: str, settings: ListenerSettings, wanted_source: str | None, audit: Audit
) -> tuple[Source | WebSource, list[InstanceListed]]:
    sources = [each for each in settings.sources if wanted_source in (None, each.name)]
    if not sources:
        known = ", ".join(each.name for each in settings.sources) or "none"
        raise MonroError(f"no such source; MONRO_SOURCES names: {known}")
    failures = []
    for source in sources:
        try:
            listed = list_instances(source, settings, study_uid, audit=audit)
        except SourceFailed as error:
            failures.append(str(error))
            continue
        if listed:
            return source, listed
        failures.append(f"source {source.name} does not have study {study_uid}")
    raise MonroError("; ".join(failures))
