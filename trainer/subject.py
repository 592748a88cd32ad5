"""A frozen bundle and a cohort to measure it on, whatever it looks at.

Evaluation, comparison and recalibration know bundles by this interface only: `open_subject` is the
one place that tells analyses apart.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from listener.errors import MonroError
from trainer.cohort import Cohort, Examined, analysis_of, read_cohort
from trainer.regional.cohort import RegionalCohort, read_regional_cohort
from trainer.regional.export import view_of
from trainer.regional.settings import INFECTION
from trainer.reporting.maps import Maps, exams_to_map, map_cohort
from worker.bundle import Bundle, RegionBundle, VolumeBundle, load_bundle
from worker.crops import CropRecipe
from worker.ensemble import Ensemble, Prediction
from worker.preprocess import Prepared, Recipe
from worker.radiomics.extraction import LIBRARY, VERSION
from worker.radiomics.vector import Provenance
from worker.region_ensemble import RegionEnsemble
from worker.seal import METADATA

WHOLE: Final = ""
"""What a bundle judges that does not look at regions."""

Values = NDArray[np.float64]
Progress = Callable[[int, int], None]


class NotComparable(MonroError):
    """A cohort and what is to be judged on it do not belong together."""

    def __init__(self, what: str, found: str, remedy: str) -> None:
        super().__init__(what, found, remedy)
        self.what, self.found, self.remedy = what, found, remedy

    def __str__(self) -> str:
        return f"{self.what}: {self.found}; {self.remedy}"


@dataclass(frozen=True, eq=False)
class Example:
    """A prepared volume to show.

    Attributes:
        voxels: (X, Y, Z).
        spacing_mm: of its grid.
    """

    voxels: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]


class Subject(Protocol):
    """One bundle on one cohort."""

    @property
    def bundle(self) -> Bundle:
        """What is judged; nothing of it is fitted."""

    @property
    def recipe(self) -> Recipe | CropRecipe:
        """How the bundle wants images prepared."""

    @property
    def cohort(self) -> Examined:
        """What it is judged on."""

    @property
    def temperatures(self) -> Mapping[str, tuple[float, ...]]:
        """One per member, by region; under WHOLE where there are none."""

    @property
    def decisive(self) -> str:
        """The region whose probability is that of the finding, or WHOLE."""

    @property
    def preparation(self) -> str:
        """How images are prepared, in words."""

    @property
    def example(self) -> Example | None:
        """The first positive as members see it, where that is one volume."""

    def predict(self, exam: int) -> Prediction:
        """What the service would say of an exam."""

    def log_odds(self, exam: int) -> dict[str, Values]:
        """(members,) uncalibrated log odds of an exam, by region."""

    def maps(self, probabilities: Values, count: int, on_progress: Progress) -> Maps:
        """Mean map and worst errors, where maps can be averaged; see `map_cohort`."""

    def maps_to_make(self, probabilities: Values, count: int) -> int:
        """How many exams `maps` will map."""


@dataclass(frozen=True, eq=False)
class Heads:
    """A bundle that looks at whole heads."""

    ensemble: Ensemble
    cohort: Cohort

    @property
    def bundle(self) -> VolumeBundle:
        """What is judged."""
        return self.ensemble.bundle

    @property
    def recipe(self) -> Recipe:
        """How the bundle wants volumes prepared."""
        return self.bundle.recipe

    @property
    def temperatures(self) -> Mapping[str, tuple[float, ...]]:
        """One per member."""
        return {WHOLE: self.bundle.temperatures}

    @property
    def decisive(self) -> str:
        """The whole head."""
        return WHOLE

    @property
    def preparation(self) -> str:
        """The grid of prepared volumes."""
        return grid(self.recipe.spacing_mm, self.recipe.shape)

    @property
    def example(self) -> Example:
        """The first positive."""
        return first_positive(self.cohort)

    def predict(self, exam: int) -> Prediction:
        """What the service would say of an exam."""
        voxels = self.cohort.voxels[exam].astype(np.float32)
        return self.ensemble.predict(Prepared(voxels, np.eye(4)))

    def log_odds(self, exam: int) -> dict[str, Values]:
        """(members,) of the whole head."""
        batch = self.ensemble.batch(self.cohort.voxels[exam][None].astype(np.float32))
        return {WHOLE: self.ensemble.logits(batch)[:, 0]}

    def maps(self, probabilities: Values, count: int, on_progress: Progress) -> Maps:
        """Occlusion maps by all members."""
        spec = self.bundle.occlusion
        return map_cohort(
            self.cohort, probabilities, lambda _: self.ensemble, spec, count, on_progress
        )

    def maps_to_make(self, probabilities: Values, count: int) -> int:
        """How many exams are mapped."""
        return exams_to_map(self.cohort, probabilities, count)


@dataclass(frozen=True, eq=False)
class RegionsOfHeads:
    """A bundle that looks at regions, as the cohort has them."""

    ensemble: RegionEnsemble
    cohort: RegionalCohort

    @property
    def bundle(self) -> RegionBundle:
        """What is judged."""
        return self.ensemble.bundle

    @property
    def recipe(self) -> CropRecipe:
        """How the bundle wants regions looked at."""
        return self.bundle.recipe

    @property
    def temperatures(self) -> Mapping[str, tuple[float, ...]]:
        """One per member of each region."""
        return {name: each.temperatures for name, each in self.bundle.regions.items()}

    @property
    def decisive(self) -> str:
        """The region that decides."""
        return self.bundle.decisive

    @property
    def preparation(self) -> str:
        """The size of crops."""
        side, features = self.recipe.side, len(self.recipe.radiomics.names)
        return f"crops of {side} x {side} pixels around each region, {features} features"

    @property
    def example(self) -> None:
        """Crops are not one volume."""

    def predict(self, exam: int) -> Prediction:
        """What the service would say of an exam."""
        view = view_of(self.cohort, self.decisive, exam)
        return self.ensemble.prediction(self.ensemble.scores({self.decisive: view}))

    def log_odds(self, exam: int) -> dict[str, Values]:
        """(members,) of each region: means over its crops."""
        found = {}
        for region, models in self.bundle.regions.items():
            view = view_of(self.cohort, region, exam)
            found[region] = np.array(
                [
                    self.ensemble.member_log_odds(region, number, view).mean()
                    for number in range(len(models.members))
                ]
            )
        return found

    def maps(self, probabilities: Values, count: int, on_progress: Progress) -> Maps:
        """None: crops lie elsewhere in every head, and where they lie is not kept."""
        return Maps(None, 0, None, ())

    def maps_to_make(self, probabilities: Values, count: int) -> int:
        """None."""
        return 0


def read_any_cohort(folder: Path) -> Cohort | RegionalCohort:
    """Read a cohort of any analysis.

    Raises:
        BadCohort: it is not complete, or was altered.
    """
    return (read_regional_cohort if analysis_of(folder) == INFECTION else read_cohort)(folder)


def open_subject(folder: Path, cohort: Cohort | RegionalCohort, device: str = "cpu") -> Subject:
    """Warm a bundle and put it before a cohort.

    Raises:
        BadBundle: the bundle must not be used.
        NotComparable: the cohort is about something else, was prepared otherwise, or lacks a label.
    """
    subject: Subject
    match load_bundle(folder), cohort:
        case VolumeBundle() as bundle, Cohort():
            subject = Heads(Ensemble(bundle, device), cohort)
        case RegionBundle() as bundle, RegionalCohort():
            _require_same_measure(bundle, cohort)
            subject = RegionsOfHeads(RegionEnsemble(bundle, device), cohort)
        case bundle, _:
            raise _of_another_analysis(bundle, cohort)
    require_fit(subject)
    return subject


def require_fit(subject: Subject) -> None:
    """Refuse a cohort that a bundle cannot be measured on.

    Raises:
        NotComparable: the cohort is about something else, was prepared by another recipe, or lacks
            a label.
    """
    bundle, cohort = subject.bundle, subject.cohort
    if cohort.analysis != bundle.analysis:
        raise _of_another_analysis(bundle, cohort)
    if cohort.recipe != subject.recipe:
        remedy = "gather the cohort again with the preparation of the bundle"
        raise NotComparable(_named(bundle), "the cohort was prepared by another recipe", remedy)
    if len(set(cohort.labels.tolist())) < 2:
        remedy = "add exams of the other label"
        raise NotComparable(_named(bundle), "all exams of the cohort have one label", remedy)


def seen_in_training(subject: Subject) -> int:
    """How many exams of the cohort the bundle was fitted to, by the digests of what was kept."""
    metadata = json.loads((subject.bundle.folder / METADATA).read_bytes())
    training = metadata.get("training", {})
    seen = {*training.get("volumes", ()), *training.get("calibrated_on", ())}
    return sum(exam.volume in seen for exam in subject.cohort.exams)


def first_positive(cohort: Cohort) -> Example:
    """The first positive of a cohort of volumes."""
    first = int(np.flatnonzero(cohort.labels == 1)[0])
    return Example(cohort.voxels[first].astype(np.float32), cohort.recipe.spacing_mm)


def grid(spacing_mm: Sequence[float], shape: Sequence[int]) -> str:
    """A grid in words."""
    voxels = " x ".join(map(str, shape))
    return f"{voxels} voxels of {' x '.join(f'{each:g}' for each in spacing_mm)} mm"


def _require_same_measure(bundle: RegionBundle, cohort: RegionalCohort) -> None:
    """Features of the cohort are as those in training, or as measured here, which is as good."""
    told = bundle.measured_with
    if told is None:
        return
    there = Provenance(*cohort.measured_with)
    here = Provenance(LIBRARY, VERSION, bundle.recipe.radiomics.config_hash)
    if there not in (here, told.provenance):
        found = f"the cohort's features are of {there}, the bundle's of {told.provenance}"
        raise NotComparable(_named(bundle), found, "gather the cohort again with this installation")


def _of_another_analysis(bundle: Bundle, cohort: Examined) -> NotComparable:
    found = f"the cohort is about {cohort.analysis}, the bundle about {bundle.analysis}"
    return NotComparable(_named(bundle), found, "name a cohort of the same analysis")


def _named(bundle: Bundle) -> str:
    return f"bundle {bundle.name} {bundle.version}"
