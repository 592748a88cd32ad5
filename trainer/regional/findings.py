"""Which features tell most, on which image, and which region tells more.

The paper reports that fine-scale filtered features are most discriminative, and that the ventricles
are clearly worse than the parenchyma below the lentiform nucleus. Whether that holds is said here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from trainer.folds import Folds
from trainer.regional.cohort import REGIONS, RegionalCohort
from trainer.regional.run import RegionalRun
from trainer.regional.table import IN_SERVICE, Row
from trainer.statistics import FoldSummary, fold_summary
from worker.radiomics.config import ORIGINAL, log_name

SHAPE: Final = "shape"
# Of AUROC, over the folds: half of what lies between a coin and the paper's accuracy.
CLEARLY: Final = 0.1


@dataclass(frozen=True)
class ImageFinding:
    """What the features of one image tell of one region.

    Attributes:
        image: original, or Laplacian of Gaussian with its width.
        auroc: mean over the image's features, shape left out, of the AUROC that each reaches by
            itself on a training part, whichever way it points; mean over the parts.
        selected: how often one of its features was selected, over all outer folds.
    """

    region: str
    image: str
    auroc: float
    selected: int


@dataclass(frozen=True)
class FeatureFinding:
    """A feature that was selected, and in how many outer folds."""

    region: str
    feature: str
    folds: int


@dataclass(frozen=True)
class Findings:
    """All of them, and whether the paper's hold.

    Attributes:
        finest_tells_most: of all images the one filtered at the finest scale tells most in the
            decisive region, and of the filtered ones most is selected from it.
        difference: of AUROC of patients between the decisive region and the other, mean over the
            models, by outer fold.
        decisive_clearly_better: whether its mean is more than CLEARLY.
    """

    images: tuple[ImageFinding, ...]
    features: tuple[FeatureFinding, ...]
    finest_tells_most: bool
    difference: FoldSummary
    decisive_clearly_better: bool


def find(run: RegionalRun, cohort: RegionalCohort, folds: Folds, rows: tuple[Row, ...]) -> Findings:
    """Look at a finished run."""
    features = tuple(
        FeatureFinding(region, feature, count)
        for region in REGIONS
        for feature, count in _selected(run, region).most_common()
    )
    images = tuple(_images(run, cohort, folds))
    difference = fold_summary(_differences(run, rows))
    return Findings(
        images=images,
        features=features,
        finest_tells_most=_finest_tells_most(
            [each for each in images if each.region == run.config.bundle.decisive], cohort
        ),
        difference=difference,
        decisive_clearly_better=difference.mean > CLEARLY,
    )


def told(found: Findings, decisive: str) -> tuple[str, str]:
    """Both findings in words."""
    holds = {True: "holds", False: "does not hold"}
    best = max((each for each in found.images if each.region == decisive), key=lambda e: e.auroc)
    return (
        f"fine-scale filtered features tell most: {holds[found.finest_tells_most]} "
        f"({decisive}: best image {best.image}, mean AUROC of a feature {best.auroc:.3f})",
        f"{decisive} clearly better: {holds[found.decisive_clearly_better]} (AUROC of patients "
        f"higher by {found.difference.mean:.3f} ± {found.difference.sd:.3f}, mean of all models)",
    )


def _selected(run: RegionalRun, region: str) -> Counter[str]:
    """Features by how many outer folds selected them; models that fuse them select the same."""
    found: Counter[str] = Counter()
    for fold in range(run.config.fit.folds):
        chosen = (run.members[region, model][fold].selected for model in run.config.models)
        found.update({name for each in chosen if each is not None for name in each.names})
    return found


def _images(run: RegionalRun, cohort: RegionalCohort, folds: Folds) -> list[ImageFinding]:
    names = cohort.recipe.radiomics.names
    found = []
    for region in REGIONS:
        selected = Counter[str]()
        for name, count in _selected(run, region).items():
            selected[_image(name)] += count
        values = cohort.views[region].radiomics
        parts = [folds.train(number) for number in range(len(folds))]
        tell = np.mean([_telling(values[part], cohort.labels[part]) for part in parts], axis=0)
        for image in dict.fromkeys(map(_image, names)):
            mine = [_image(name) == image and SHAPE not in name.split("_") for name in names]
            found.append(ImageFinding(region, image, float(tell[mine].mean()), selected[image]))
    return found


def _telling(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(features,) AUROC of each by itself, 0.5 to 1, whichever way it points."""
    ranks = stats.rankdata(values, axis=0)
    positives = int(labels.sum())
    above = ranks[labels == 1].sum(axis=0) - positives * (positives + 1) / 2
    area = above / (positives * (len(labels) - positives))
    found: np.ndarray = np.maximum(area, 1 - area)
    return found


def _image(feature: str) -> str:
    """The image that a feature is of; the library's names hold no other underscore.

    >>> _image("log-sigma-1-0-mm-3D_glcm_Contrast")
    'log-sigma-1-0-mm-3D'
    """
    return feature.split("_", maxsplit=1)[0]


def _finest_tells_most(images: list[ImageFinding], cohort: RegionalCohort) -> bool:
    if not cohort.recipe.radiomics.log_sigmas_mm:
        return False
    finest = log_name(min(cohort.recipe.radiomics.log_sigmas_mm))
    filtered = [each for each in images if each.image != ORIGINAL]
    return (
        max(images, key=lambda each: each.auroc).image == finest
        and max(filtered, key=lambda each: each.selected).image == finest
    )


def _differences(run: RegionalRun, rows: tuple[Row, ...]) -> list[float]:
    """By outer fold: AUROC of patients in the decisive region less that in the others."""
    decisive = run.config.bundle.decisive
    by_region: Mapping[bool, list[tuple[float, ...]]] = {True: [], False: []}
    for row in rows:
        area = row.figures["auroc"]
        if row.strategy == IN_SERVICE and area is not None:
            by_region[row.region == decisive].append(area.values)
    difference = np.mean(by_region[True], axis=0) - np.mean(by_region[False], axis=0)
    return [float(each) for each in difference]
