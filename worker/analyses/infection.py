"""The infection analysis: two regions on axial T2, each with an ensemble; Grad-CAM."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from worker.analyses.interface import Drawn, ReaderNeeded, RegionFinding
from worker.appearance import of_region
from worker.bundle import RegionBundle
from worker.crops import RegionView, look, paste
from worker.ensemble import Prediction, Score
from worker.gradcam import CamMap
from worker.occlusion import Effort
from worker.region_ensemble import RegionEnsemble, most_weighed
from worker.regions import regions_of
from worker.scene import survey
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
        """Look at both regions, as a reader drew them or as they are proposed.

        Raises:
            UnusableStudy: NOT_HEAD, or NO_REGION.
            ReaderNeeded: a reader must see the proposed regions first.
        """
        with watch.step("prepare"):
            scene = survey(volume.voxels, volume.affine)
            masks = regions_of(scene, {} if drawn is None else drawn.masks)
            proposed = masks.keys() - ({} if drawn is None else drawn.masks).keys()
            found = tuple(
                RegionFinding(
                    name,
                    mask,
                    volume_ml=float(np.count_nonzero(mask)) * scene.voxel_ml,
                    origin="proposed" if name in proposed else "drawn",
                    decisive=name == self.bundle.decisive,
                )
                for name, mask in masks.items()
            )
            if self._waits and self.bundle.decisive in proposed:
                raise ReaderNeeded(found, volume)
            views = {name: look(scene, mask, self.bundle.recipe) for name, mask in masks.items()}
        with watch.step("infer"):
            scores = self._ensemble.scores(views)
            prediction = self._ensemble.prediction(scores)
        regions = tuple(self._judged(each, views[each.name], scores[each.name]) for each in found)
        decisive = views[self.bundle.decisive]
        return InfectionJudgement(self._ensemble, volume, decisive, prediction, regions)

    def _judged(self, region: RegionFinding, view: RegionView, score: Score) -> RegionFinding:
        values = dict(zip(view.radiomics.names, view.radiomics.values.tolist(), strict=True))
        weighed = most_weighed(self.bundle.regions[region.name], KEY_FEATURES)
        return RegionFinding(
            region.name,
            region.mask,
            region.volume_ml,
            region.origin,
            region.decisive,
            score,
            tuple((name, values[name]) for name in weighed),
        )
