"""The fistula analysis: the whole head, one ensemble, an occlusion map."""

from collections.abc import Callable
from dataclasses import dataclass

from worker.analyses.interface import Drawn, RegionFinding, Unmeasured
from worker.appearance import of_head
from worker.bundle import VolumeBundle
from worker.ensemble import Ensemble, Prediction
from worker.occlusion import Effort, OcclusionMap, explain
from worker.preprocess import NoHead, Prepared, prepare
from worker.quality import Reason, UnusableStudy
from worker.stopwatch import Stopwatch
from worker.volume import Volume


@dataclass(frozen=True, eq=False)
class FistulaJudgement:
    """A probability, and the prepared volume that it is about."""

    ensemble: Ensemble
    prepared: Prepared
    prediction: Prediction
    regions: tuple[RegionFinding, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()

    @property
    def inputs(self) -> dict[str, float]:
        """How the prepared head looks."""
        return of_head(self.prepared.voxels)

    def explain(self, on_progress: Callable[[int, int], None], effort: Effort) -> OcclusionMap:
        """Occlude every position in turn."""
        spec = self.ensemble.bundle.occlusion
        return explain(self.ensemble, self.prepared, spec, on_progress, effort)


class Fistula:
    """One warm bundle that looks at the whole volume."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble

    @property
    def bundle(self) -> VolumeBundle:
        """What it runs."""
        return self._ensemble.bundle

    def judge(self, volume: Volume, _drawn: Drawn | None, watch: Stopwatch) -> FistulaJudgement:
        """Prepare the volume and ask every member.

        Raises:
            UnusableStudy: NOT_HEAD.
        """
        with watch.step("prepare"):
            try:
                prepared = prepare(volume.voxels, volume.affine, self.bundle.recipe)
            except NoHead as error:
                raise UnusableStudy(Reason.NOT_HEAD, str(error), "MR images of a head") from error
        with watch.step("infer"):
            prediction = self._ensemble.predict(prepared)
        return FistulaJudgement(self._ensemble, prepared, prediction)
