"""From the files of a job to what is to be said about them: one line a step, no Celery.

read -> check -> prepare -> infer, which gives the score -> explain, and then report (results/)
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from listener.corrections import Choice, remedy, sort_out
from listener.entries import Job
from listener.entries import Predecessor as EarlierJob
from listener.errors import BadAttribute
from listener.reading import Allowance
from listener.selection import Selection, select
from listener.series import MOST_PIECES as MOST_PIECES_IN_ONE
from listener.series import SeriesFacts, read_instance, read_series_facts, require_names
from worker.analyses.interface import Analysis, Judgement, ReaderNeeded
from worker.bundle import Bundle
from worker.drawn import read_drawn
from worker.limits import LIMITS, MOST_PIECES, Limits
from worker.occlusion import Effort
from worker.quality import NEEDED, Reason, UnusableStudy, check_headers, check_volume, no_series
from worker.results.outcome import Estimated, Judged, NotJudged, Options, Predecessor, Proposed
from worker.results.uids import Lineage
from worker.results.unused import Unused, unused
from worker.stopwatch import Stopwatch
from worker.volume import Volume, read_volume

SHADOW: Final = " (shadow)"
"""What the site of a shadow's results ends with."""

LARGEST_HEADERS_BYTES: Final = 512 << 20
"""Of all instances of a series: 2,000 of them with 250 KiB each."""


@dataclass(frozen=True)
class Commission:
    """A job, and what its results derive from.

    Attributes:
        early: the early report that was sent, if one was.
    """

    job: Job
    lineage: Lineage
    options: Options
    early: Predecessor | None = None

    @property
    def created(self) -> datetime:
        """When the job was written down: the only date that its results bear."""
        return datetime.fromtimestamp(self.job.created_at, UTC)

    @property
    def predecessors(self) -> tuple[Predecessor, ...]:
        """The outcomes that this one replaces, each once."""
        found = (_predecessor(self.job.predecessor), self.early)
        return tuple(dict.fromkeys(each for each in found if each is not None))

    @property
    def images(self) -> list[Path]:
        """Files of the chosen series; of the whole study where there is none."""
        chosen = self.job.series_uid
        return [each.path for each in self.job.inputs if chosen in (None, each.series_uid)]

    @cached_property
    def segmentations(self) -> Choice:
        """What is made of readers' segmentations."""
        return sort_out(self.job.analysis, self.job.series_uid, self.job.inputs)

    @property
    def drawn(self) -> list[Path]:
        """The files of what readers drew on the chosen series, if one did."""
        return [each.path for each in self.segmentations.taken]

    @property
    def unused(self) -> tuple[Unused, ...]:
        """The segmentations that readers sent in vain."""
        analysis, why_not = self.job.analysis, self.segmentations.left_aside
        return tuple(
            unused(each.path, why_not[each.sop_uid], remedy(analysis, why_not[each.sop_uid]))
            for each in sorted(self.segmentations.told, key=lambda each: each.sop_uid)
        )


def commission(job: Job, bundle: Bundle, site: str, options: Options) -> Commission:
    """Say what the results of a job derive from (results.md R2).

    What a shadow finds is another installation's: should somebody send it, it is never taken for
    what this one answered.
    """
    return Commission(
        job,
        Lineage(
            site=f"{site}{SHADOW}" if job.role == "shadow" else site,
            study_uid=job.study_uid,
            analysis=job.analysis,
            digest=job.digest,
            bundle=f"{bundle.name} {bundle.version}",
            weights_sha256=bundle.weights_sha256,
            occlusion="",
        ),
        options,
        _predecessor(job.early),
    )


def _predecessor(before: EarlierJob | None) -> Predecessor | None:
    return None if before is None else Predecessor(Lineage(**before.lineage), before.answered)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A score, and what its map is to be made from."""

    outcome: Estimated
    judgement: Judgement


def estimate(
    commission: Commission, analysis: Analysis, watch: Stopwatch, limits: Limits = LIMITS
) -> Estimate:
    """Find the probability for the chosen series.

    Args:
        commission: what is asked for.
        analysis: with the bundle that the commission names.
        watch: takes the times of the steps.
        limits: of the series.

    Raises:
        UnusableStudy: the study cannot be judged, and this is why.
        ReaderNeeded: a reader must see what is proposed first.
        OSError: a file is not to be had at present, so nothing can be said of the study.
    """
    with watch.step("read"):
        volume = _read_source(commission, limits)
        drawn = read_drawn(commission.drawn, commission.job.analysis, volume, limits)
    judgement = analysis.judge(volume, drawn, watch)
    outcome = Estimated(
        commission.lineage,
        commission.created,
        read_headers(commission.images),
        volume,
        analysis.bundle,
        judgement.prediction,
        predecessors=commission.predecessors,
        options=commission.options,
        regions=judgement.regions,
        unmeasured=judgement.unmeasured,
        drawn=drawn,
        unused=commission.unused,
    )
    return Estimate(outcome, judgement)


def _read_source(commission: Commission, limits: Limits = LIMITS) -> Volume:
    """The chosen series, as far as the analysis can judge it.

    Raises:
        UnusableStudy: it cannot, and this is why.
        OSError: a file is not to be had at present.
    """
    analysis = commission.job.analysis
    check_headers(_chosen_series(commission.job), analysis)
    volume = read_volume(commission.images, limits)
    check_volume(volume, analysis)
    return volume


def judge(
    commission: Commission,
    estimate: Estimate,
    watch: Stopwatch,
    on_progress: Callable[[int, int], None],
    effort: Effort,
) -> Judged:
    """Find what speaks for the probability: its map.

    Args:
        commission: what is asked for; it knows of the early report by now.
        estimate: the score.
        watch: takes the time of the step.
        on_progress: told of what is done and to do; what it raises to cancel is passed on.
        effort: what may be spent on the map.
    """
    known = estimate.outcome
    with watch.step("explain"):
        found = estimate.judgement.explain(on_progress, effort)
    return Judged(
        replace(commission.lineage, occlusion=found.canonical),
        known.created,
        known.sources,
        known.volume,
        known.bundle,
        known.prediction,
        found,
        predecessors=commission.predecessors,
        options=known.options,
        regions=known.regions,
        unmeasured=known.unmeasured,
        drawn=known.drawn,
        unused=known.unused,
    )


def propose(commission: Commission, needed: ReaderNeeded, bundle: Bundle) -> Proposed:
    """Put before a reader what is to be judged."""
    return Proposed(
        commission.lineage,
        commission.created,
        read_headers(commission.images),
        predecessors=commission.predecessors,
        options=commission.options,
        unused=commission.unused,
        volume=needed.volume,
        bundle=bundle,
        regions=needed.regions,
        unmeasured=needed.unmeasured,
    )


def refuse(commission: Commission, refusal: UnusableStudy) -> NotJudged | None:
    """Put a refusal into words; None when no header can be read to address it with."""
    sources = read_headers(commission.images)
    if not sources:
        return None
    return NotJudged(
        commission.lineage,
        commission.created,
        sources,
        refusal,
        predecessors=commission.predecessors,
        options=commission.options,
        unused=commission.unused,
    )


def read_headers(paths: Sequence[Path]) -> tuple[Dataset, ...]:
    """Headers without pixels, of the files that have a readable one, as many as fit the memory.

    Raises:
        OSError: a file is not to be had at present.
    """
    headers = []
    allowance = Allowance(LARGEST_HEADERS_BYTES, MOST_PIECES, MOST_PIECES_IN_ONE)
    for path in paths:
        try:
            header = read_instance(path, pixels=False, allowance=allowance)
            require_names(header)
            headers.append(header)
        except BadAttribute:
            continue
    return tuple(headers)


def _chosen_series(job: Job) -> SeriesFacts:
    """Facts of the one series to judge.

    Raises:
        UnusableStudy: the study has none, or its header cannot be read.
    """
    facts, broken = _facts(job)
    if job.series_uid is None:
        raise _no_series(job.analysis, select(job.analysis, facts), facts)
    if not facts:
        raise UnusableStudy(Reason.UNREADABLE, broken, NEEDED[Reason.UNREADABLE])
    return facts[0]


def _facts(job: Job) -> tuple[list[SeriesFacts], str]:
    by_series: Mapping[str, list[Path]] = defaultdict(list)
    for instance in job.inputs:
        if job.series_uid not in (None, instance.series_uid):
            continue  # what a reader drew on it
        by_series[instance.series_uid].append(instance.path)
    facts, broken = [], "no image"
    for paths in by_series.values():
        try:
            facts.append(read_series_facts(min(paths), len(paths)))
        except BadAttribute as error:
            broken = str(error)
    return facts, broken


def _no_series(analysis: str, selection: Selection, facts: Sequence[SeriesFacts]) -> UnusableStudy:
    named = {each.series_uid: _named(each) for each in facts}
    found = "; ".join(
        f"{named[verdict.series_uid]}: {verdict.decided_by}" for verdict in selection.verdicts
    )
    return no_series(found, analysis)


def _named(facts: SeriesFacts) -> str:
    """A series as people know it: by number and description, as far as it has them."""
    number = "a series" if facts.series_number is None else f"series {facts.series_number}"
    return f'{number} "{facts.description}"' if facts.description else number
