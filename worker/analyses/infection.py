"""The infection analysis: two regions on axial T2, each with an ensemble; Grad-CAM."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from worker.analyses.interface import Drawn, ReaderNeeded, RegionFinding, Unmeasured
from worker.appearance import of_region
from worker.bundle import RegionBundle
from worker.crops import RegionView, look, paste
from worker.ensemble import Prediction, Score
from worker.gradcam import CamMap
from worker.occlusion import Effort
from worker.preprocess import Mask
from worker.quality import NEEDED, Reason, UnusableStudy
from worker.region_ensemble import RegionEnsemble, most_weighed
from worker.regions import regions_of
from worker.scene import Scene, survey
from worker.stopwatch import Stopwatch
from worker.volume import Volume

KEY_FEATURES: Final = 5


@dataclass(frozen=True, eq=False)
class InfectionJudgement:
    """A probability, and the regions that it is about."""

    ensemble: RegionEnsemble
    volume: Volume
    view: RegionView
    prediction: Prediction
    regions: tuple[RegionFinding, ...]
    unmeasured: tuple[Unmeasured, ...]

    @property
    def inputs(self) -> dict[str, float]:
        """How the decisive region looks."""
        return of_region(self.view)

    def explain(self, on_progress: Callable[[int, int], None], _effort: Effort) -> CamMap:
        """Weigh the last feature map of every crop of the decisive region."""
        places = self.view.places
        on_progress(0, len(places))
        heat = self.ensemble.heat(self.ensemble.bundle.decisive, self.view)
        on_progress(len(places), len(places))
        shape = self.volume.voxels.shape
        grid = (shape[0], shape[1], shape[2])
        looked = paste(np.ones_like(heat), places, grid) > 0
        return CamMap(
            heat=paste(heat, places, grid),
            looked=looked,
            affine=self.volume.affine,
            crops=len(places),
            members=len(self.prediction.members),
        )


class Infection:
    """One warm bundle that looks at regions."""

    def __init__(self, ensemble: RegionEnsemble, *, waits_for_reader: bool = False) -> None:
        self._ensemble = ensemble
        self._waits = waits_for_reader

    @property
    def bundle(self) -> RegionBundle:
        """What it runs."""
        return self._ensemble.bundle

    def judge(self, volume: Volume, drawn: Drawn | None, watch: Stopwatch) -> InfectionJudgement:
        """Look at the regions, as a reader drew them or as they are proposed.

        The decisive one must be there; another one may be absent.

        Raises:
            UnusableStudy: NOT_HEAD, or NO_REGION.
            ReaderNeeded: a reader must see the proposed regions first.
        """
        with watch.step("prepare"):
            scene = survey(volume.voxels, volume.affine)
            by_reader = {} if drawn is None else drawn.masks
            masks, missing = regions_of(scene, by_reader)
            for name in frozenset() if drawn is None else drawn.emptied:
                masks.pop(name, None)
                missing[name] = _emptied(name)
            self._require_decisive(missing)
            if self._waits and self.bundle.decisive not in by_reader:
                found = tuple(self._found(scene, *each, by_reader) for each in masks.items())
                raise ReaderNeeded(found, _unmeasured(missing), volume)
            views, unseen = self._look(scene, masks)
        with watch.step("infer"):
            scores = self._ensemble.scores(views)
            prediction = self._ensemble.prediction(scores)
        return InfectionJudgement(
            self._ensemble,
            volume,
            views[self.bundle.decisive],
            prediction,
            tuple(
                self._judged(self._found(scene, name, masks[name], by_reader), view, scores[name])
                for name, view in views.items()
            ),
            _unmeasured(missing | unseen),
        )

    def _require_decisive(self, missing: Mapping[str, UnusableStudy]) -> None:
        if (refusal := missing.get(self.bundle.decisive)) is not None:
            raise refusal

    def _look(
        self, scene: Scene, masks: Mapping[str, Mask]
    ) -> tuple[dict[str, RegionView], dict[str, UnusableStudy]]:
        """Each region as the networks see it, and why some cannot be looked at."""
        views: dict[str, RegionView] = {}
        unseen: dict[str, UnusableStudy] = {}
        for name, mask in masks.items():
            try:
                views[name] = look(scene, mask, self.bundle.recipe)
            except UnusableStudy as refusal:
                unseen[name] = refusal
        self._require_decisive(unseen)
        return views, unseen

    def _found(
        self, scene: Scene, name: str, mask: Mask, by_reader: Mapping[str, Mask]
    ) -> RegionFinding:
        return RegionFinding(
            name,
            mask,
            volume_ml=float(np.count_nonzero(mask)) * scene.voxel_ml,
            origin="drawn" if name in by_reader else "proposed",
            decisive=name == self.bundle.decisive,
        )

    def _judged(self, region: RegionFinding, view: RegionView, score: Score) -> RegionFinding:
        values = dict(zip(view.radiomics.names, view.radiomics.values.tolist(), strict=True))
        weighed = most_weighed(self.bundle.regions[region.name], KEY_FEATURES)
        return replace(
            region,
            score=score,
            features=tuple((name, values[name]) for name in weighed),
            measured_with=view.radiomics.provenance if weighed else None,
        )


def _emptied(region: str) -> UnusableStudy:
    """A reader wiped a region out: neither is it measured, nor is what was proposed."""
    found = f"a reader's segment for the region {region} without a pixel"
    return UnusableStudy(Reason.BAD_DRAWING, found, NEEDED[Reason.BAD_DRAWING])


def _unmeasured(missing: Mapping[str, UnusableStudy]) -> tuple[Unmeasured, ...]:
    return tuple(Unmeasured(name, refusal) for name, refusal in missing.items())
