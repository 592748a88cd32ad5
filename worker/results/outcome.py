"""What a job ended with, before it is written down as DICOM objects."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from listener.entries import Answered
from worker.analyses.interface import (
    Drawn,
    Explanation,
    RegionFinding,
    SegmentationUids,
    Unmeasured,
)
from worker.bundle import Bundle
from worker.ensemble import Prediction
from worker.quality import UnusableStudy
from worker.radiomics.vector import Provenance
from worker.results.terms import ANALYSES, KINDS, PROCESSING_ALGORITHM, AnalysisTerms, Kind
from worker.results.uids import Lineage
from worker.results.unused import Unused
from worker.volume import Volume


@dataclass(frozen=True)
class Predecessor:
    """The outcome that this one replaces.

    Attributes:
        lineage: of its objects.
        answered: what they say.
    """

    lineage: Lineage
    answered: Answered


@dataclass(frozen=True)
class Options:
    """What a site may choose about its result objects.

    Attributes:
        series_base: series numbers begin after it; None for that of the analysis.
        algorithm_purpose: code under which the model is listed as contributing equipment;
            (109102, DCM) where an archive refuses the one that IHE AIR asks for.
        extras: kinds of objects to send beside: REGION, FLOAT_MAP.
    """

    series_base: int | None = None
    algorithm_purpose: Code = PROCESSING_ALGORITHM
    extras: frozenset[Kind] = frozenset()


@dataclass(frozen=True, eq=False)
class Outcome:
    """What both ends of a job share.

    Attributes:
        lineage: gives every object its UIDs.
        created: the time that the objects bear, from the ledger; with its offset from UTC.
        sources: headers of the instances looked at, without pixels; at least one.
        predecessors: the outcomes that this one replaces: of an earlier job, and the early report
            of the same one.
        unused: segmentations that readers sent in vain.

    Raises:
        ValueError: there is no source, the time has no offset, or nobody named the analysis.
    """

    lineage: Lineage
    created: datetime
    sources: tuple[Dataset, ...]
    predecessors: tuple[Predecessor, ...] = field(default=(), kw_only=True)
    options: Options = field(default=Options(), kw_only=True)
    unused: tuple[Unused, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("no source instance: a result needs a study to belong to")
        if self.created.tzinfo is None:
            raise ValueError("the time of creation has no offset from UTC: give it a time zone")
        if self.lineage.analysis not in ANALYSES:
            raise ValueError(
                f"no terms for the analysis {self.lineage.analysis!r}; known: {', '.join(ANALYSES)}"
            )

    @property
    def terms(self) -> AnalysisTerms:
        """What the analysis and its objects are called."""
        return ANALYSES[self.lineage.analysis]

    def series_number(self, kind: Kind) -> int:
        """Of the series that holds the objects of one kind."""
        base = self.options.series_base
        return KINDS[kind].number + (self.terms.series_base if base is None else base)


@dataclass(frozen=True, eq=False)
class Seen(Outcome):
    """The chosen series was read.

    Attributes:
        regions: that were looked at, where that is not the whole head.
        unmeasured: regions that were not.
    """

    volume: Volume
    bundle: Bundle
    regions: tuple[RegionFinding, ...] = field(default=(), kw_only=True)
    unmeasured: tuple[Unmeasured, ...] = field(default=(), kw_only=True)

    @property
    def measured_with(self) -> Provenance | None:
        """What made the features of its regions, the same for all of them."""
        return next((each.measured_with for each in self.regions if each.measured_with), None)

    @property
    def proposed(self) -> tuple[RegionFinding, ...]:
        """The regions that no reader has seen."""
        return tuple(each for each in self.regions if each.origin == "proposed")


@dataclass(frozen=True, eq=False)
class Proposed(Seen):
    """Regions are proposed, and a reader must see them before anything is judged."""


@dataclass(frozen=True, eq=False)
class Estimated(Seen):
    """The probability is known; what spoke for it is not yet.

    Attributes:
        drawn: the regions that come from readers' segmentations, if any do.
    """

    prediction: Prediction
    drawn: Drawn | None = field(default=None, kw_only=True)

    def evidence(self, made: Sequence[Dataset]) -> list[Dataset]:
        """What reports rest on: sources, what was made of them, and what a reader drew."""
        drawn = () if self.drawn is None else self.drawn.segmentations
        return [*self.sources, *made, *(self._named(each) for each in drawn)]

    def _named(self, drawn: SegmentationUids) -> Dataset:
        """The reader's segmentation by its four UIDs."""
        named = Dataset()
        named.StudyInstanceUID = self.lineage.study_uid
        named.SeriesInstanceUID = drawn.series_uid
        named.SOPClassUID = drawn.sop_class_uid
        named.SOPInstanceUID = drawn.sop_uid
        return named


@dataclass(frozen=True, eq=False)
class Judged(Estimated):
    """The study was judged."""

    map: Explanation


@dataclass(frozen=True, eq=False)
class NotJudged(Outcome):
    """The study could not be judged, and this is why."""

    refusal: UnusableStudy
