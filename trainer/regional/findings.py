"""Which features tell most, and on which image.

The paper reports that fine-scale filtered features are most discriminative. Whether that holds is
said here, by a rule that was settled before any run was judged by it: by all patients, features of
the finest filtered image tell more, on average, than those of any other image, and the interval of
the margin over the next one, with patients drawn anew, lies above 0. What models and regions are
worth is in claims.py.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.regional.claims import Claims, Told, Verdict, compared
from trainer.regional.claims import told as claims_told
from trainer.regional.cohort import REGIONS, RegionalCohort
from trainer.regional.run import RegionalRun
from trainer.regional.table import Row
from trainer.statistics import Interval
from worker.radiomics.config import log_name

SHAPE: Final = "shape"
DRAWS: Final = 2000
TAILS: Final = (2.5, 97.5)

Values: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class ImageFinding:
    """What the features of one image tell of one region.

    Attributes:
        image: original, or Laplacian of Gaussian with its width.
        auroc: mean over the image's features, shape left out, of the AUROC that each reaches by
            itself on all exams, whichever way it points.
        interval: of it, patients drawn.
        selected: how often one of its features was selected, over all outer folds.
    """

    region: str
    image: str
    auroc: float
    interval: Interval
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
        margin: mean AUROC of a feature of the finest, less that of the next.
        interval: of the margin, patients drawn.
    """

    finest: str
    next: str
    margin: float
    interval: Interval

    @property
    def verdict(self) -> Verdict:
        """Whether the finest tells most."""
        if self.interval.low > 0:
            return "holds"
        return "does not hold" if self.interval.high < 0 else "open"


@dataclass(frozen=True)
class Findings:
    """All of them.

    Attributes:
        lead: None where nothing was filtered.
        claims: on models and regions.
    """

    images: tuple[ImageFinding, ...]
    features: tuple[FeatureFinding, ...]
    lead: Lead | None
    claims: Claims


def find(run: RegionalRun, cohort: RegionalCohort, rows: tuple[Row, ...]) -> Findings:
    """Look at a finished run."""
    features = tuple(
        FeatureFinding(region, feature, count)
        for region in REGIONS
        for feature, count in _selected(run, region).most_common()
    )
    weights = drawn_patients(cohort.labels, cohort.groups, run.config.fit.seed)
    told_by = {region: _by_image(cohort, region, weights) for region in REGIONS}
    images = tuple(
        ImageFinding(region, image, float(each[0]), _interval(each), _count(run, region, image))
        for region, found in told_by.items()
        for image, each in found.items()
    )
    return Findings(
        images=images,
        features=features,
        lead=lead_of(told_by[run.config.bundle.decisive], cohort.recipe.radiomics.log_sigmas_mm),
        claims=compared(run.config, rows, len(cohort)),
    )


def told(found: Findings, decisive: str) -> tuple[Told, ...]:
    """Every finding of the paper in words, with what it rests on."""
    return _finest(found, decisive), *claims_told(found.claims, decisive)


def _finest(found: Findings, decisive: str) -> Told:
    claim, lead = "fine-scale filtered features tell most", found.lead
    if lead is None:
        return Told(claim, "not asked", "nothing was filtered")
    images = {each.image: each for each in found.images if each.region == decisive}
    counts = ", ".join(f"{name} {each.selected}" for name, each in images.items())
    return Told(
        claim,
        lead.verdict,
        f"{decisive}: mean AUROC of a feature {images[lead.finest].auroc:.3f} on {lead.finest} and "
        f"{images[lead.next].auroc:.3f} on {lead.next}; margin {lead.margin:+.3f}, 95 % interval "
        f"{lead.interval.low:+.3f} to {lead.interval.high:+.3f}, patients drawn; features "
        f"selected: {counts}",
    )


def lead_of(by_image: dict[str, Values], sigmas_mm: tuple[float, ...]) -> Lead | None:
    """The finest image against the next, or None where there are not two.

    Args:
        by_image: (1 + draws,) mean AUROC of a feature, by all exams first.
        sigmas_mm: widths of the filters.
    """
    if not sigmas_mm:
        return None
    name = log_name(min(sigmas_mm))
    others = {image: each for image, each in by_image.items() if image != name}
    if not others:
        return None
    runner_up = max(others, key=lambda image: float(others[image][0]))
    margin = by_image[name] - others[runner_up]
    return Lead(name, runner_up, float(margin[0]), _interval(margin))


def drawn_patients(labels: Labels, groups: Labels, seed: int) -> Values:
    """(1 + DRAWS, exams) how often each exam counts: once, then as its patient was drawn.

    Positive and negative patients are drawn apart, so that both are always there. The label of a
    patient is that of the first exam.
    """
    patients, first = np.unique(groups, return_index=True)
    rng = np.random.default_rng(seed)
    counts = np.zeros((DRAWS, len(patients)))
    for label in (0, 1):
        mine = np.flatnonzero(labels[first] == label)
        counts[:, mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), DRAWS)
    place = np.searchsorted(patients, groups)
    return np.concatenate([np.ones((1, len(labels))), counts[:, place]])


def telling(values: Values, labels: Labels, weights: Values) -> Values:
    """(draws, features) AUROC of each by itself, 0.5 to 1, whichever way it points.

    Args:
        values: (exams, features).
        labels: (exams,).
        weights: (draws, exams) how often each exam counts.
    """
    positive = labels == 1
    one, other = weights[:, positive], weights[:, ~positive]
    pairs = one.sum(axis=1) * other.sum(axis=1)
    found = np.empty((len(weights), values.shape[1]))
    for place, column in enumerate(values.T):
        apart = column[positive][:, None] - column[~positive][None]
        area = ((one @ ((np.sign(apart) + 1) / 2)) * other).sum(axis=1) / pairs
        found[:, place] = np.maximum(area, 1 - area)
    return found


def _by_image(cohort: RegionalCohort, region: str, weights: Values) -> dict[str, Values]:
    """(1 + draws,) mean AUROC of a feature of each image."""
    names = cohort.recipe.radiomics.names
    values = cohort.views[region].radiomics
    found = {}
    for image in dict.fromkeys(map(_image, names)):
        mine = [_image(name) == image and SHAPE not in name.split("_") for name in names]
        found[image] = telling(values[:, mine], cohort.labels, weights).mean(axis=1)
    return found


def _interval(drawn: Values) -> Interval:
    """Of what was found by all exams first, and then by each draw (percentiles)."""
    low, high = np.percentile(drawn[1:], TAILS)
    return Interval(float(low), float(high))


def _selected(run: RegionalRun, region: str) -> Counter[str]:
    """Features by how many outer folds selected them; models that fuse them select the same."""
    found: Counter[str] = Counter()
    for fold in range(run.config.fit.folds):
        chosen = (run.members[region, model][fold].selected for model in run.config.models)
        found.update({name for each in chosen if each is not None for name in each.names})
    return found


def _count(run: RegionalRun, region: str, image: str) -> int:
    return sum(count for name, count in _selected(run, region).items() if _image(name) == image)


def _image(feature: str) -> str:
    """The image that a feature is of; the library's names hold no other underscore.

    >>> _image("log-sigma-1-0-mm-3D_glcm_Contrast")
    'log-sigma-1-0-mm-3D'
    """
    return feature.split("_", maxsplit=1)[0]
