"""What the rest of the worker knows of an analysis: a volume in, a judgement out, then its map."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from worker.bundle import Bundle
from worker.ensemble import Prediction, Score
from worker.gradcam import CamMap
from worker.occlusion import Effort, OcclusionMap
from worker.preprocess import Mask
from worker.quality import UnusableStudy
from worker.radiomics.vector import Provenance
from worker.stopwatch import Stopwatch
from worker.volume import Volume

Explanation = OcclusionMap | CamMap
"""Where in the volume something spoke for the finding."""

Origin = Literal["proposed", "drawn"]


@dataclass(frozen=True)
class SegmentationUids:
    """What a report names a reader's segmentation by, beside its study."""

    sop_class_uid: str
    sop_uid: str
    series_uid: str


@dataclass(frozen=True, eq=False)
class Drawn:
    """Regions as readers drew or mended them.

    Attributes:
        masks: by region, bool (X, Y, Z) on the volume's grid; at least one.
        segmentations: that the masks are from.
        emptied: regions that a reader sent a segment of, and no pixel.
    """

    masks: Mapping[str, Mask]
    segmentations: tuple[SegmentationUids, ...]
    emptied: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class RegionFinding:
    """One region that was looked at.

    Attributes:
        name: as the analysis calls it.
        mask: bool (X, Y, Z) on the volume's grid.
        volume_ml: of the mask.
        origin: whether a reader drew it, or it was proposed and nobody saw it.
        decisive: whether the finding's probability is that of this region.
        score: what its members say; None while a reader is waited for.
        features: handcrafted ones that most members weigh, by name.
        measured_with: what made these features.
    """

    name: str
    mask: Mask
    volume_ml: float
    origin: Origin
    decisive: bool
    score: Score | None = None
    features: tuple[tuple[str, float], ...] = ()
    measured_with: Provenance | None = None


@dataclass(frozen=True, eq=False)
class Unmeasured:
    """A region that was not looked at, which is no hindrance: another one decides.

    Attributes:
        name: as the analysis calls it.
        refusal: what was found of it, and what is needed.
    """

    name: str
    refusal: UnusableStudy


class ReaderNeeded(Exception):
    """This site wants a reader to see proposed regions before they are judged.

    Attributes:
        regions: the proposals.
        unmeasured: regions that cannot be proposed.
        volume: that they lie on.
    """

    def __init__(
        self, regions: tuple[RegionFinding, ...], unmeasured: tuple[Unmeasured, ...], volume: Volume
    ) -> None:
        super().__init__(regions, unmeasured, volume)
        self.regions, self.unmeasured, self.volume = regions, unmeasured, volume


class Judgement(Protocol):
    """A probability, and what its map is to be made from."""

    @property
    def prediction(self) -> Prediction:
        """What the ensemble says."""

    @property
    def regions(self) -> tuple[RegionFinding, ...]:
        """What was looked at, where that is not the whole head."""

    @property
    def unmeasured(self) -> tuple[Unmeasured, ...]:
        """What is not there to be looked at beside them."""

    @property
    def inputs(self) -> Mapping[str, float]:
        """How the input looks, in the numbers of the bundle's `inputs`."""

    def explain(self, on_progress: Callable[[int, int], None], effort: Effort) -> Explanation:
        """Find what speaks for the probability.

        Args:
            on_progress: told of positions done and to do; what it raises to cancel is passed on.
            effort: what may be spent.
        """


class Analysis(Protocol):
    """One warm bundle."""

    @property
    def bundle(self) -> Bundle:
        """What it runs."""

    def judge(self, volume: Volume, drawn: Drawn | None, watch: Stopwatch) -> Judgement:
        """Find the probability for a volume that passed the checks of quality.py.

        Args:
            volume: the chosen series.
            drawn: a reader's regions, where there are some.
            watch: takes the times of the steps.

        Raises:
            UnusableStudy: it cannot be judged, and this is why.
            ReaderNeeded: a reader must see the proposed regions first.
        """
