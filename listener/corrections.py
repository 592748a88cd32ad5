"""Which segmentations of readers a job takes beside its series, and why others are left aside.

Of each region the latest counts, by the time that it says its content was made: not by that of its
arrival, which another way through the hospital, or a ledger rebuilt from the spool, would change.

Who drew and is left aside is told so, with the next report: what a reader may have meant for an
analysis is part of its job's input, and the worker sorts it out once more by the same rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from listener.entries import Instance
from listener.errors import BadAttribute
from listener.reading import Allowance
from listener.segmentation import REGIONS, Segmentation, read_segmentation
from listener.series import LARGEST_HEADER_BYTES, MOST_PIECES

MOST_PIECES_TOGETHER: Final = 10 * MOST_PIECES
"""Elements and items that are read of all segmentations of a study: meanwhile, others wait."""

NOT_TAKEN: Final = "a segmentation, which no analysis that is asked for takes"
OWN_PROPOSAL: Final = "our own segmentation, which nobody corrected"
NO_SERIES: Final = "a segmentation, but the study has no series that suits"
OTHER_SERIES: Final = "a segmentation of another series than the chosen one"
OTHER_SEGMENTS: Final = "a segmentation that names none of: {}"
REPLACED: Final = "a segmentation that a later one replaces: {}"


@dataclass(frozen=True)
class Candidate:
    """A segmentation that was received, and what its header says."""

    instance: Instance
    said: Segmentation


@dataclass(frozen=True)
class Choice:
    """What became of the segmentations of a study for one analysis.

    Attributes:
        taken: those that its job takes: of each region the latest.
        left_aside: instance UID of each other one, and why it is not taken.
        told: those of them that a reader may have meant for this analysis, and should hear of.
    """

    taken: tuple[Instance, ...]
    left_aside: Mapping[str, str]
    told: tuple[Instance, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A segmentation that was received, and why nothing is known of it.

    Attributes:
        is_broken: it is at fault itself; others had used up what may be read where it is not.
    """

    instance: Instance
    reason: str
    is_broken: bool


def read_candidates(
    received: Sequence[Instance],
) -> tuple[list[Candidate], list[Unreadable]]:
    """What the segmentations of a study say, and why some cannot be read.

    Those that came last are read first: where there is too much to read, they have the say.
    """
    candidates: list[Candidate] = []
    unreadable: list[Unreadable] = []
    allowance = Allowance(LARGEST_HEADER_BYTES, MOST_PIECES_TOGETHER, MOST_PIECES)
    for instance in sorted(received, key=lambda each: (-each.received_at, each.sop_uid)):
        try:
            candidates.append(Candidate(instance, read_segmentation(instance.path, allowance)))
        except BadAttribute as error:
            broken = not allowance.exceeded
            unreadable.append(Unreadable(instance, str(error), broken))
    return candidates, unreadable


def choose(
    analysis: str,
    series: Sequence[Instance],
    candidates: Sequence[Candidate],
    unreadable: Sequence[Unreadable] = (),
) -> Choice:
    """Choose the segmentations that a job takes; the order given makes no difference.

    Args:
        analysis: that is to be planned; one that takes no segmentations is given none.
        series: the instances of the chosen series; none where no series was chosen.
        candidates: the segmentations of the study.
        unreadable: those of which nothing is known.
    """
    if analysis not in REGIONS:
        return Choice((), {})
    why_not = {each: _unsuitable(analysis, series, each.said) for each in candidates}
    suitable = [each for each, reason in why_not.items() if reason is None]
    latest = latest_of_regions(analysis, [each.said for each in suitable])
    counting = [each for each in suitable if any(each.said is one for one in latest.values())]
    left_aside = {
        each.instance.sop_uid: reason or _replaced(analysis, each.said, latest)
        for each, reason in why_not.items()
        if each not in counting
    }
    told = [each.instance for each in candidates if _is_told(analysis, each, why_not[each])]
    told += [each.instance for each in unreadable if series and each.is_broken]
    return Choice(
        tuple(each.instance for each in counting),
        left_aside | {each.instance.sop_uid: each.reason for each in unreadable},
        tuple(told),
    )


def latest_of_regions(
    analysis: str, segmentations: Iterable[Segmentation]
) -> dict[str, Segmentation]:
    """The segmentation that counts for each region; of two of one moment the UIDs decide."""
    latest: dict[str, Segmentation] = {}
    for each in sorted(segmentations, key=lambda each: (each.content_at, each.key.sop_uid)):
        latest |= dict.fromkeys(each.regions_for(analysis), each)
    return latest


def sort_out(analysis: str, series_uid: str | None, inputs: Sequence[Instance]) -> Choice:
    """What a job's input holds of segmentations, as it was planned.

    Args:
        analysis: of the job.
        series_uid: of the chosen series; None where the study is refused as a whole.
        inputs: of the job.

    Raises:
        OSError: a file is not to be had at present.
    """
    if series_uid is None:
        return Choice((), {})
    series = [each for each in inputs if each.series_uid == series_uid]
    beside = [each for each in inputs if each.series_uid != series_uid]
    return choose(analysis, series, *read_candidates(beside))


def remedy(analysis: str, reason: str) -> str:
    """What a reader can do about a segmentation that was left aside; nothing where it is told."""
    names = " or ".join(f'"{region.name}"' for region in REGIONS[analysis])
    steps = {
        OTHER_SERIES: "draw on the series that is named as input, and send that",
        _other_segments(analysis): f"call the segments {names}, and send it again as a new object",
    }
    return steps.get(reason, "")


def _is_told(analysis: str, candidate: Candidate, reason: str | None) -> bool:
    """Whether a reader may have meant it for this analysis: on its series, or of its regions."""
    if reason == OTHER_SERIES:
        return bool(candidate.said.regions_for(analysis))
    return reason == _other_segments(analysis)


def _replaced(analysis: str, segmentation: Segmentation, latest: Mapping[str, Segmentation]) -> str:
    later = {latest[region].key.sop_uid for region in segmentation.regions_for(analysis)}
    return REPLACED.format(", ".join(sorted(later)))


def _other_segments(analysis: str) -> str:
    return OTHER_SEGMENTS.format(", ".join(region.name for region in REGIONS[analysis]))


def _unsuitable(
    analysis: str, series: Sequence[Instance], segmentation: Segmentation
) -> str | None:
    """Why an analysis would not take a segmentation if it were the latest; None where it would."""
    if segmentation.is_own:
        return OWN_PROPOSAL
    if not series:
        return NO_SERIES
    if not segmentation.refers_to(series[0].series_uid, {each.sop_uid for each in series}):
        return OTHER_SERIES
    if not segmentation.regions_for(analysis):
        return _other_segments(analysis)
    return None
