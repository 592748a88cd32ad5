"""Which segmentation of a reader a job takes beside its series, and why others are left aside.

The latest counts, by the time that it says its content was made: not by that of its arrival, which
another way through the hospital, or a ledger rebuilt from the spool, would change.
"""

from collections.abc import Mapping, Sequence
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

    @property
    def age(self) -> tuple[object, str]:
        """Orders candidates, the latest last; of two of one moment the UIDs decide."""
        return self.said.content_at, self.instance.sop_uid


@dataclass(frozen=True)
class Choice:
    """What became of the segmentations of a study for one analysis.

    Attributes:
        taken: the one that its job takes; None for none.
        left_aside: instance UID of each other one, and why it is not taken.
    """

    taken: Instance | None
    left_aside: Mapping[str, str]


def read_candidates(
    received: Sequence[Instance],
) -> tuple[list[Candidate], dict[str, str]]:
    """What the segmentations of a study say, and, by instance UID, why some cannot be read.

    Those that came last are read first: where there is too much to read, they have the say.
    """
    candidates: list[Candidate] = []
    unreadable: dict[str, str] = {}
    allowance = Allowance(LARGEST_HEADER_BYTES, MOST_PIECES_TOGETHER, MOST_PIECES)
    for instance in sorted(received, key=lambda each: (-each.received_at, each.sop_uid)):
        try:
            candidates.append(Candidate(instance, read_segmentation(instance.path, allowance)))
        except BadAttribute as error:
            unreadable[instance.sop_uid] = str(error)
    return candidates, unreadable


def choose(analysis: str, series: Sequence[Instance], candidates: Sequence[Candidate]) -> Choice:
    """Choose the segmentation that a job takes; the order given makes no difference.

    Args:
        analysis: that is to be planned; one that takes no segmentations is given none.
        series: the instances of the chosen series; none where no series was chosen.
        candidates: the segmentations of the study.
    """
    if analysis not in REGIONS:
        return Choice(None, {})
    why_not = {each: _unsuitable(analysis, series, each.said) for each in candidates}
    suitable = [each for each, reason in why_not.items() if reason is None]
    if not suitable:
        return Choice(None, _told(analysis, why_not))
    latest = max(suitable, key=lambda each: each.age)
    replaced = REPLACED.format(latest.instance.sop_uid)
    others = {each: reason or replaced for each, reason in why_not.items() if each is not latest}
    return Choice(latest.instance, _told(analysis, others))


def _told(analysis: str, why_not: Mapping[Candidate, str | None]) -> dict[str, str]:
    return {each.instance.sop_uid: f"{analysis}: {reason}" for each, reason in why_not.items()}


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
        return OTHER_SEGMENTS.format(", ".join(region.name for region in REGIONS[analysis]))
    return None
