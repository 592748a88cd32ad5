"""A cohort of regions: what the networks see of each, without patients' identities.

    cohort/
      views/<sha256>.safetensors   of one exam: crops and handcrafted features of every region

The rest is as in trainer/cohort.py; an exam's `volume` names its views.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise_arrays

from listener.segmentation import REGIONS as OF_ANALYSIS
from trainer.cohort import Exam, Examined, read_exams, readable, write_bytes
from trainer.flow import Flow
from worker.crops import CropRecipe, RegionView
from worker.radiomics.vector import MixedVectors, Vector, require_same

REGIONS: Final = tuple(each.name for each in OF_ANALYSIS["infection"])
VIEWS: Final = "views"
DRAWN: Final = "drawn"
PROPOSED: Final = "proposed"
MEASURED_WITH: Final = "measured_with"

Indices = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Views:
    """One region of all exams.

    Attributes:
        crops: float16 (M, 3, side, side), exam by exam.
        exam_of: (M,) index of the exam that each is of.
        radiomics: (N, features) one vector per exam, in the order of the recipe's names.
        volume_ml: (N,) of the region.
    """

    crops: NDArray[np.float16]
    exam_of: Indices
    radiomics: Values
    volume_ml: Values

    def of(self, exams: Indices) -> Indices:
        """Indices of the crops of some exams, ascending."""
        return np.flatnonzero(np.isin(self.exam_of, exams)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Proposal:
    """What would have been looked at, had no reader drawn a region.

    Attributes:
        view: None where the region cannot be proposed, or looked at.
        dice: of the proposed and the drawn mask: 1 where they are the same.
    """

    view: RegionView | None
    dice: float


@dataclass(frozen=True, eq=False)
class Proposals:
    """One region of all exams, as it is proposed.

    Attributes:
        views: of the exams whose region can be proposed; `radiomics` and `volume_ml` are not
            numbers for the others, which have no crop.
        dice: (N,) of proposed and drawn mask; not a number where nobody drew.
    """

    views: Views
    dice: Values


@dataclass(frozen=True, eq=False)
class RegionalCohort(Examined):
    """Exams ready for training on regions.

    Attributes:
        exams: N of them.
        views: by region.
        recipe: how regions were looked at.
        measured_with: library, its version and the configuration's hash, of all vectors.
        analysis: what the labels are about.
        flow: who was left out on the way, and why.
        proposals: by region; empty where no reader drew anything.
    """

    exams: tuple[Exam, ...]
    views: Mapping[str, Views]
    recipe: CropRecipe
    measured_with: tuple[str, str, str]
    analysis: str = "infection"
    flow: Flow = field(default_factory=Flow)
    proposals: Mapping[str, Proposals] = field(default_factory=dict)


def save_views(
    folder: Path, views: Mapping[str, RegionView], proposals: Mapping[str, Proposal]
) -> str:
    """Keep the views of one exam in a cohort's folder; safe to be killed.

    Args:
        folder: of the cohort.
        views: of every region.
        proposals: of those that a reader drew.

    Returns:
        Their digest, which names the file.
    """
    vectors = [view.radiomics for view in views.values()]
    require_same(vectors)
    arrays: dict[str, NDArray[np.generic]] = {}
    for region, view in views.items():
        arrays |= _arrays(region, view)
    for region, each in proposals.items():
        arrays[f"{region}.dice"] = np.array([each.dice])
        if each.view is not None:
            arrays |= _arrays(f"{region}.{PROPOSED}", each.view)
    first = vectors[0]
    told = json.dumps([first.library, first.version, first.config_hash])
    # One entry: safetensors writes several in an order of its own, and names would differ.
    content = serialise_arrays(arrays, metadata={MEASURED_WITH: told})
    name = hashlib.sha256(content).hexdigest()
    if not views_path(folder, name).exists():
        write_bytes(views_path(folder, name), content)
    return name


def _arrays(name: str, view: RegionView) -> dict[str, NDArray[np.generic]]:
    return {
        f"{name}.crops": view.crops.astype(np.float16),
        f"{name}.radiomics": np.array(view.radiomics.values),
        f"{name}.volume_ml": np.array([view.volume_ml]),
    }


def views_path(folder: Path, name: str) -> Path:
    """Where a cohort's folder keeps the views of this digest."""
    return folder / VIEWS / f"{name}.safetensors"


def read_regional_cohort(folder: Path) -> RegionalCohort:
    """Read a cohort with all its views.

    Raises:
        BadCohort: it is not complete, was altered, or its vectors were not measured in one way.
    """
    with readable(folder):
        exams, recipe, facts = read_exams(folder, CropRecipe)
        try:
            read = [_read_views(folder, exam, recipe) for exam in exams]
            require_same([vector for _, vectors in read for vector in vectors.values()])
        except (SafetensorError, MixedVectors) as error:
            raise ValueError(str(error)) from error
        views = {region: _together(region, read) for region in REGIONS}
        proposals = {
            region: _proposals(region, read)
            for region in REGIONS
            if any(f"{region}.dice" in arrays for arrays, _ in read)
        }
    first = read[0][1][REGIONS[0]]
    return RegionalCohort(
        exams,
        views,
        recipe,
        (first.library, first.version, first.config_hash),
        str(facts["analysis"]),
        Flow.from_json(facts["flow"]),
        proposals,
    )


def _read_views(
    folder: Path, exam: Exam, recipe: CropRecipe
) -> tuple[dict[str, NDArray[np.generic]], dict[str, Vector]]:
    path = views_path(folder, exam.volume)
    if hashlib.sha256(path.read_bytes()).hexdigest() != exam.volume:
        raise ValueError(f"the views of exam {exam.exam} are not what was gathered")
    with safe_open(path, framework="numpy") as stored:
        arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        measured_with = json.loads(stored.metadata()[MEASURED_WITH])
    for region in REGIONS:
        if exam.columns.get(region) == DRAWN and f"{region}.dice" not in arrays:
            raise ValueError(f"it does not say how the {region} of exam {exam.exam} is proposed")
    names = recipe.radiomics.names
    vectors = {
        region: Vector(names, arrays[f"{region}.radiomics"], *measured_with) for region in REGIONS
    }
    return arrays, vectors


def _proposals(
    region: str, read: Sequence[tuple[Mapping[str, NDArray[np.generic]], Mapping[str, Vector]]]
) -> Proposals:
    """As proposed where a reader drew it; what nobody drew is a proposal already."""
    crops, rows, volumes, dice = [], [], [], []
    for arrays, vectors in read:
        name = f"{region}.{PROPOSED}" if f"{region}.dice" in arrays else region
        dice.append(float(arrays.get(f"{region}.dice", [np.nan])[0]))
        usual = arrays[f"{region}.crops"]
        crops.append(arrays.get(f"{name}.crops", usual[:0]))
        rows.append(arrays.get(f"{name}.radiomics", vectors[region].values * np.nan))
        volumes.append(float(arrays.get(f"{name}.volume_ml", [np.nan])[0]))
    return Proposals(_stacked(crops, rows, volumes), np.array(dice))


def _together(
    region: str, read: Sequence[tuple[Mapping[str, NDArray[np.generic]], Mapping[str, Vector]]]
) -> Views:
    return _stacked(
        [arrays[f"{region}.crops"] for arrays, _ in read],
        [vectors[region].values for _, vectors in read],
        [float(arrays[f"{region}.volume_ml"][0]) for arrays, _ in read],
    )


def _stacked(
    crops: Sequence[NDArray[np.generic]],
    radiomics: Sequence[NDArray[np.generic]],
    volumes_ml: Sequence[float],
) -> Views:
    return Views(
        crops=np.concatenate(crops).astype(np.float16),
        exam_of=np.repeat(np.arange(len(crops)), [len(each) for each in crops]).astype(np.int64),
        radiomics=np.stack(radiomics).astype(np.float64),
        volume_ml=np.array(volumes_ml),
    )
