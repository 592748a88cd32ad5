"""Which series each analysis takes and why the others were not: the rules, one by one.

The same code chooses when a study is planned; here it says what it thinks on the way. What was
decided then stands in the ledger (`decided`): rules may be others today, and files may be gone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final

from listener.completion import in_series, read_facts
from listener.console.study import StudyView
from listener.ledger import Ledger
from listener.segmentation import SEGMENTATIONS
from listener.selection import Selection, Verdict, checked, rules_table, select
from listener.series import SeriesFacts

REMEMBERED: Final = 256
"""Studies whose headers are kept in mind: large ones take a second to read."""

GONE: Final = "its files were removed by policy"
AWAY: Final = "its files are not to be had at present"


@dataclass(frozen=True)
class Checked:
    """One rule on one series.

    Attributes:
        kind: must or prefer.
        sentence: what the rule asks, as "the series ...".
        points: that it gives where it holds.
    """

    rule: str
    kind: str
    sentence: str
    holds: bool
    points: int


@dataclass(frozen=True)
class SeriesChoice:
    """What became of one series for one analysis."""

    series_uid: str
    chosen: bool
    wanted: bool
    points: int
    decided_by: str
    rules: tuple[Checked, ...]


@dataclass(frozen=True)
class Choice:
    """What one analysis takes of a study.

    Attributes:
        chosen: series UID; None where nothing suits.
        without: what happens where nothing suits.
    """

    analysis: str
    chosen: str | None
    without: str
    series: tuple[SeriesChoice, ...]


@dataclass(frozen=True)
class Decided:
    """What an analysis was given when the study was planned.

    Attributes:
        series_uid: that it took; None: no series suited, and the study was refused as a whole.
        inputs: instances that it was given.
    """

    analysis: str
    job_id: str
    revision: int
    series_uid: str | None
    inputs: int


@dataclass(frozen=True)
class SeriesHeader:
    """What the headers of a series say, as far as selection looks at it."""

    series_uid: str
    number: int | None
    modality: str
    description: str
    protocol: str
    plane: str
    slices: int
    slice_step_mm: float | None
    echo_time_ms: float | None
    repetition_time_ms: float | None
    contrast_agent: str
    image_type: str


@dataclass(frozen=True)
class Headers:
    """What is known of the series of a study.

    Attributes:
        facts: of those that could be read.
        unreadable: series UID to the reason.
        missing: why nothing can be concluded from them; empty where all files were there.
    """

    facts: tuple[SeriesFacts, ...]
    unreadable: Mapping[str, str]
    missing: str = ""

    @property
    def images(self) -> tuple[SeriesFacts, ...]:
        """Those that analyses choose from."""
        return tuple(each for each in self.facts if each.sop_class not in SEGMENTATIONS)

    @property
    def shown(self) -> Mapping[str, SeriesHeader]:
        """For people, by series UID."""
        return {each.series_uid: _header(each) for each in self.facts}


class HeaderReader:
    """Reads the headers of a study from the spool, once for each state of the study.

    Args:
        ledger: tells which files are of the study.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[tuple[str, int, int], Headers] = {}
        self._lock = Lock()

    def read(self, study: StudyView) -> Headers:
        """The headers of a study, as far as its files are there."""
        key = study.study_uid, study.received, study.purged
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return known
        by_series = in_series(self._ledger.instances_of(study.study_uid))
        try:
            facts, unreadable = read_facts(by_series)
        except OSError:
            return Headers((), dict.fromkeys(by_series, AWAY), AWAY)
        is_cut = study.purged > 0 and self._ledger.is_partly_purged(study.study_uid)
        found = Headers(tuple(facts), unreadable, GONE if is_cut else "")
        with self._lock:
            while len(self._known) >= REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = found
        return found


def decided(study: StudyView) -> tuple[Decided, ...]:
    """What the answers of a study were given."""
    return tuple(
        Decided(each.analysis, each.job_id, each.revision, each.series_uid, each.inputs)
        for each in study.answers
    )


def choices(analyses: Iterable[str], facts: Sequence[SeriesFacts]) -> tuple[Choice, ...]:
    """What each analysis takes of some series, and why."""
    return tuple(_choice(select(analysis, facts), facts) for analysis in analyses)


def _choice(selection: Selection, facts: Sequence[SeriesFacts]) -> Choice:
    by_uid = {each.series_uid: each for each in facts}
    series = [_of_series(selection, each, by_uid[each.series_uid]) for each in selection.verdicts]
    series.sort(key=lambda each: (not each.chosen, not each.wanted, -each.points))
    return Choice(selection.analysis, selection.chosen, _without(selection), tuple(series))


def _without(selection: Selection) -> str:
    if selection.chosen is not None:
        return ""
    if selection.holds_head_mr:
        return "no series suits, and the study holds MR of the head: it is refused with a reason"
    return "no series suits, and the study shows no head in MR: it is not answered at all"


def _of_series(selection: Selection, verdict: Verdict, facts: SeriesFacts) -> SeriesChoice:
    chosen = verdict.series_uid == selection.chosen
    rules = tuple(
        Checked(rule.name, rule.kind, f"the series {rule.sentence}", holds, rule.points)
        for rule, holds in checked(selection.analysis, facts)
    )
    return SeriesChoice(
        verdict.series_uid, chosen, verdict.wanted, verdict.points, verdict.decided_by, rules
    )


def _header(facts: SeriesFacts) -> SeriesHeader:
    return SeriesHeader(
        series_uid=facts.series_uid,
        number=facts.series_number,
        modality=facts.modality,
        description=facts.description,
        protocol=facts.protocol,
        plane=facts.plane,
        slices=facts.slices,
        slice_step_mm=facts.slice_step,
        echo_time_ms=facts.echo_time,
        repetition_time_ms=facts.repetition_time,
        contrast_agent=facts.contrast_agent,
        image_type="\\".join(facts.image_type),
    )


def rules_of(analysis: str) -> tuple[tuple[str, str, str, str], ...]:
    """The rules of an analysis as rows of text: name, kind, points, sentence."""
    return rules_table(analysis)
