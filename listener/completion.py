"""When a study is complete, and why we think so; and what a complete study asks for.

DICOM has no word for "that was all", so several signs are weighed: how long it has been
quiet, whether the sender released its association, whether one is still open, and what those have
of it who are asked (scout.py).
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from listener.clock import since
from listener.corrections import NOT_TAKEN, Choice, choose, read_candidates
from listener.entries import BundleRow, Gathering, Instance, Plan
from listener.errors import BadAttribute, where
from listener.ledger import Ledger
from listener.segmentation import REGIONS, SEGMENTATIONS
from listener.selection import Selection, select
from listener.series import SeriesFacts, read_series_facts
from listener.settings import ListenerSettings

log = logging.getLogger(__name__)


LOOKED_AT = 5
"""Instances of a series in search of a readable one: each may take seconds, and studies wait."""

PURGED = "came after its study was purged: to have it judged again, send all of it again"


@dataclass(frozen=True)
class Patience:
    """How long a study must be quiet before it counts as complete, in seconds."""

    quiet_seconds: float
    """When nothing else is known."""
    released_seconds: float
    """When the last sender released its association: it had said all it wanted to say."""
    stalled_seconds: float
    """When an association that brought part of the study is still open, or a source has more."""
    counted_seconds: float = 0.0
    """When a source has no more of it."""
    sources: frozenset[str] = frozenset()
    """Who is asked what a study should hold."""

    @classmethod
    def from_settings(cls, settings: ListenerSettings) -> "Patience":
        """Take the times, and whom to ask, from the settings."""
        return cls(
            settings.quiet_seconds,
            settings.released_quiet_seconds,
            settings.stalled_seconds,
            settings.counted_seconds,
            frozenset(each.name for each in settings.sources),
        )


def reason_to_complete(study: Gathering, now: float, patience: Patience) -> str | None:
    """Say why a study is complete, or None while it is not.

    >>> patience = Patience(quiet_seconds=60, released_seconds=10, stalled_seconds=600)
    >>> study = Gathering("1.2", last_at=100, released_at=101, open_associations=0)
    >>> reason_to_complete(study, 105, patience)
    >>> reason_to_complete(study, 112, patience)
    'association released, then quiet for 10 s'
    """
    quiet, sign = _longest_pause(study, patience)
    # The earlier one counts where the clock was set back after the later.
    quiet_for = [since(at, now) for at in (study.last_at, study.released_at) if at is not None]
    passed = min(quiet_for)
    return f"{sign} {quiet:g} s" if passed >= quiet else None


def _longest_pause(study: Gathering, patience: Patience) -> tuple[float, str]:
    """How long a study may be quiet before it is complete, in seconds, and for which reason."""
    said = [each for each in study.counts if each.source in patience.sources]
    more = [f"{each.source} has {each.missing} more of it" for each in said if each.missing]
    if more:
        return patience.stalled_seconds, f"{' and '.join(more)}, but quiet for"
    if any(each.missing == 0 for each in said):
        names = " and ".join(each.source for each in said if each.missing == 0)
        sign = f"{names} has no more of it, and quiet for"
        # A source that is being filled meanwhile has just what was passed on.
        usual = patience.quiet_seconds if study.open_associations else 0.0
        return max(patience.counted_seconds, usual), sign
    if study.open_associations:
        return patience.stalled_seconds, "an association is still open, but quiet for"
    if study.released_at is not None and len(said) == len(patience.sources):
        return patience.released_seconds, "association released, then quiet for"
    return patience.quiet_seconds, "quiet for"


def complete_studies(ledger: Ledger, patience: Patience, now: float) -> None:
    """Declare complete every study that is."""
    for study in ledger.gathering():
        reason = reason_to_complete(study, now, patience)
        if reason and ledger.complete(study, reason):
            log.info("study %s is complete: %s", study.study_uid, reason)


def plan_studies(ledger: Ledger, analyses: Sequence[str]) -> list[str]:
    """Turn every complete study into jobs; returns the IDs of jobs to dispatch.

    What an analysis without a bundle wants waits, visibly, until some worker has one; it holds
    back no other analysis of the study. A study whose files the disk does not hand over waits too.
    """
    bundles = {analysis: ledger.wanted_bundles(analysis) for analysis in analyses}
    queued = []
    for study_uid, revision in ledger.unplanned():
        try:
            queued += _plan_study(ledger, study_uid, revision, bundles)
        except IntegrityError as error:  # the next round tries again
            log.error("study %s cannot be planned: %s", study_uid, type(error).__name__)
            ledger.note_waiting(study_uid, f"cannot be planned: {type(error).__name__}")
        except SQLAlchemyError:
            raise  # without a ledger there is nothing to go on with
        except Exception as error:  # noqa: BLE001 - one study must not hold up all others
            log.error("study %s cannot be planned: %s", study_uid, where(error))
            ledger.note_waiting(study_uid, f"cannot be planned: {type(error).__name__}")
    return queued


def _plan_study(
    ledger: Ledger, study_uid: str, revision: int, bundles: Mapping[str, Sequence[BundleRow]]
) -> list[str]:
    by_series = in_series(ledger.instances_of(study_uid))
    if ledger.is_partly_purged(study_uid):
        return ledger.plan(study_uid, revision, [], dict.fromkeys(by_series, PURGED))
    facts, unreadable = read_facts(by_series)
    images = [each for each in facts if each.sop_class not in SEGMENTATIONS]
    scanner = _scanner(images)
    selections = [select(analysis, images) for analysis in bundles]
    segmentations = [
        instance
        for each in facts
        if each.sop_class in SEGMENTATIONS
        for instance in by_series[each.series_uid]
    ]
    choices, left_aside = _choices(selections, by_series, segmentations)
    plans = [
        plan
        for selection in selections
        if (plan := _plan_of(selection, by_series, choices[selection.analysis]))
    ]
    wanted = [(plan, bundle) for plan in plans for bundle in bundles[plan.analysis]]
    lacking = [plan.analysis for plan in plans if not bundles[plan.analysis]]
    not_wanted = _reasons(selections) | unreadable
    for plan in plans:
        for instance in plan.inputs:
            not_wanted.pop(instance.series_uid, None)
            left_aside.pop(instance.sop_uid, None)
    if lacking:
        reason = f"waits for a worker with a bundle for {' and for '.join(lacking)}"
        ledger.note_waiting(study_uid, reason, scanner)
    return ledger.plan(
        study_uid, revision, wanted, not_wanted, left_aside, scanner, is_all=not lacking
    )


def _scanner(facts: Sequence[SeriesFacts]) -> str | None:
    """What most MR series of a study come from: a workstation may have added some of its own."""
    told = Counter(each.scanner for each in facts if each.modality == "MR" and each.scanner)
    return next((scanner for scanner, _series in told.most_common(1)), None)


def _choices(
    selections: Sequence[Selection],
    by_series: Mapping[str, Sequence[Instance]],
    segmentations: Sequence[Instance],
) -> tuple[dict[str, Choice], dict[str, str]]:
    """What each analysis makes of segmentations, and why their instances are left aside."""
    taking = [each.analysis for each in selections if each.analysis in REGIONS]
    candidates, unreadable = read_candidates(segmentations if taking else ())
    choices: dict[str, Choice] = {}
    reasons: dict[str, list[str]] = defaultdict(list)
    for selection in selections:
        series = by_series[selection.chosen] if selection.chosen else ()
        choice = choose(selection.analysis, series, candidates, unreadable)
        choices[selection.analysis] = choice
        for sop_uid, reason in choice.left_aside.items():
            reasons[sop_uid].append(f"{selection.analysis}: {reason}")
    untaken = {} if taking else dict.fromkeys((each.sop_uid for each in segmentations), NOT_TAKEN)
    return choices, untaken | {sop_uid: "; ".join(each) for sop_uid, each in reasons.items()}


def in_series(instances: Sequence[Instance]) -> dict[str, list[Instance]]:
    """Instances by the series that they are of."""
    by_series: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        by_series[instance.series_uid].append(instance)
    return by_series


def read_facts(
    by_series: Mapping[str, Sequence[Instance]],
) -> tuple[list[SeriesFacts], dict[str, str]]:
    """Facts of each series, and why there are none of some."""
    facts: list[SeriesFacts] = []
    unreadable: dict[str, str] = {}
    for series_uid, members in by_series.items():
        found = _facts_of(members)
        if isinstance(found, SeriesFacts):
            facts.append(found)
        else:
            unreadable[series_uid] = str(found)
    return facts, unreadable


def _facts_of(members: Sequence[Instance]) -> SeriesFacts | BadAttribute:
    """Facts from the first readable instance; whether all are sound is the worker's to say."""
    reason = BadAttribute("the series has no instance")
    for instance in sorted(members, key=lambda member: member.sop_uid)[:LOOKED_AT]:
        try:
            return read_series_facts(instance.path, len(members))
        except BadAttribute as error:
            reason = error
    return reason


def _plan_of(
    selection: Selection, by_series: dict[str, list[Instance]], choice: Choice
) -> Plan | None:
    """What an analysis asks for: its chosen series, or a refusal of the whole study.

    Readers' segmentations come beside the series: they are told from it by the UIDs of their own.
    """
    if selection.chosen is not None:
        inputs = (*by_series[selection.chosen], *choice.told, *choice.taken)
        return Plan(selection.analysis, selection.chosen, inputs)
    if not selection.holds_head_mr:
        return None
    considered = [verdict.series_uid for verdict in selection.verdicts]
    inputs = tuple(instance for uid in considered for instance in by_series[uid])
    return Plan(selection.analysis, None, inputs)


def _reasons(selections: Sequence[Selection]) -> dict[str, str]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for selection in selections:
        for verdict in selection.verdicts:
            reasons[verdict.series_uid].append(f"{selection.analysis}: {verdict.decided_by}")
    return {series_uid: "; ".join(lines) for series_uid, lines in reasons.items()}
