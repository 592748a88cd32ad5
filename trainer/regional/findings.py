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
            itself on an outer training part, whichever way it points; by part. These parts share
            most of their exams, so that they differ by less than new patients would.
        selected: how often one of its features was selected, over all outer folds.
    """

    region: str
    image: str
    auroc: FoldSummary
    selected: int


@dataclass(frozen=True)
class FeatureFinding:
    """A feature that was selected, and in how many outer folds."""

    region: str
    feature: str
    folds: int


@dataclass(frozen=True)
class Lead:
    """How far the finest filtered image is ahead of the others in the decisive region.

    Attributes:
        finest: of the filtered images.
        next: of the other images the one whose features tell most.
        margin: mean AUROC of a feature of the finest, less that of the next, by training part.
        ahead: parts in which the finest tells more than every other image.
    """

    finest: str
    next: str
    margin: FoldSummary
    ahead: int

    @property
    def is_firm(self) -> bool:
        """Whether it is ahead in every part, by more than parts differ."""
        return self.ahead == len(self.margin.values) and self.margin.mean > self.margin.sd


@dataclass(frozen=True)
class Findings:
    """All of them, and whether the paper's hold.

    Attributes:
        lead: None where nothing was filtered.
        finest_tells_most: of all images the one filtered at the finest scale tells most in the
            decisive region, and of the filtered ones most is selected from it.
        difference: of AUROC of patients between the decisive region and the other, mean over the
            models, by outer fold.
        decisive_clearly_better: whether its mean is more than CLEARLY.
    """

    images: tuple[ImageFinding, ...]
    features: tuple[FeatureFinding, ...]
    lead: Lead | None
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
    deciding = [each for each in images if each.region == run.config.bundle.decisive]
    lead = _lead(deciding, cohort)
    return Findings(
        images=images,
        features=features,
        lead=lead,
        finest_tells_most=lead is not None and _tells_most(lead, deciding),
        difference=difference,
        decisive_clearly_better=difference.mean > CLEARLY,
    )


def told(found: Findings, decisive: str) -> tuple[str, str]:
    """Both findings in words, with what they rest on."""
    holds = {True: "holds", False: "does not hold"}
    return (
        f"fine-scale filtered features tell most: {_finest(found, decisive)}",
        f"{decisive} clearly better: {holds[found.decisive_clearly_better]} (AUROC of patients "
        f"higher by {found.difference.mean:.3f} ± {found.difference.sd:.3f}, mean of all models)",
    )


def _finest(found: Findings, decisive: str) -> str:
    lead = found.lead
    if lead is None:
        return "not asked, since nothing was filtered"
    images = {each.image: each for each in found.images if each.region == decisive}
    verdict = "holds" if found.finest_tells_most else "does not hold"
    if found.finest_tells_most and not lead.is_firm:
        verdict = "holds, but not firmly"
    counts = ", ".join(f"{name} {each.selected}" for name, each in images.items())
    return (
        f"{verdict} ({decisive}: mean AUROC of a feature {_mean_sd(images[lead.finest].auroc)} on "
        f"{lead.finest} and {_mean_sd(images[lead.next].auroc)} on {lead.next}; margin "
        f"{_mean_sd(lead.margin)} over {len(lead.margin.values)} training parts, ahead in "
        f"{lead.ahead}; selected features: {counts})"
    )


def _mean_sd(summary: FoldSummary) -> str:
    return f"{summary.mean:.3f} ± {summary.sd:.3f}"


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
        tell = np.stack([_telling(values[part], cohort.labels[part]) for part in parts])
        for image in dict.fromkeys(map(_image, names)):
            mine = [_image(name) == image and SHAPE not in name.split("_") for name in names]
            by_part = fold_summary(tell[:, mine].mean(axis=1).tolist())
            found.append(ImageFinding(region, image, by_part, selected[image]))
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


def _lead(images: list[ImageFinding], cohort: RegionalCohort) -> Lead | None:
    """Of the images of one region."""
    if not cohort.recipe.radiomics.log_sigmas_mm:
        return None
    name = log_name(min(cohort.recipe.radiomics.log_sigmas_mm))
    finest = np.array(next(each.auroc.values for each in images if each.image == name))
    others = {each.image: np.array(each.auroc.values) for each in images if each.image != name}
    if not others:
        return None
    runner_up = max(others, key=lambda image: float(others[image].mean()))
    return Lead(
        finest=name,
        next=runner_up,
        margin=fold_summary((finest - others[runner_up]).tolist()),
        ahead=int(np.count_nonzero(finest > np.max(list(others.values()), axis=0))),
    )


def _tells_most(lead: Lead, images: list[ImageFinding]) -> bool:
    filtered = [each for each in images if each.image != ORIGINAL]
    most_selected = max(filtered, key=lambda each: each.selected)
    return lead.margin.mean > 0 and most_selected.image == lead.finest


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
