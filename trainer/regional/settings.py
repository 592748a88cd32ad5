"""How an ensemble of regions is fitted: every number in one place, stored in the bundle it made.

The abstract of Cüce et al., Front Med 2025;12:1659653 names the networks and the design; the
numbers are our reading. Values come from a TOML file that says `analysis = "infection"`, and from
the environment, as in trainer/settings.py.
"""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from trainer.settings import (
    Layered,
    NetworkConfig,
    Section,
    SpeedConfig,
    StatementConfig,
    TrainingConfig,
    layered,
    read_config,
    read_toml,
)
from worker.crops import PAPER_CROPS, CropRecipe


class RegionalFitConfig(Section):
    """How networks of regions are optimised and chosen (regional/nested.py).

    Attributes:
        folds: outer ones, each of which judges once; as many members has the ensemble.
        inner_folds: parts of a training part that choose; they never see the outer fold.
        seed: of folds, first weights, order and augmentation.
        batch_size: crops per step.
        learning_rates: of AdamW; where there are several, the inner folds choose.
        epochs: passes over the training part, in half a cosine; the same.
        weight_decay: of AdamW.
    """

    folds: int = Field(default=5, ge=2)
    inner_folds: int = Field(default=4, ge=2)
    seed: int = 0
    batch_size: int = Field(default=16, ge=2)
    learning_rates: tuple[float, ...] = Field(default=(3e-4, 1e-3), min_length=1)
    epochs: tuple[int, ...] = Field(default=(40, 80), min_length=1)
    weight_decay: float = Field(default=0.01, ge=0)


class FeaturesConfig(Section):
    """How handcrafted features are chosen, within training parts only (regional/selection.py).

    Attributes:
        most_common: a feature that has one value in more than this share of exams is left out.
        correlation: of two features that correlate more, the more telling one stays.
        numbers: how many may be selected; the inner folds choose, by a classifier of features.
        penalty_c: inverse strength of that classifier's L2 penalty: some 80 patients do not settle
            30 weights.
    """

    most_common: float = Field(default=0.95, gt=0, lt=1)
    correlation: float = Field(default=0.95, gt=0, le=1)
    numbers: tuple[int, ...] = Field(default=(5, 10, 20, 30), min_length=1)
    penalty_c: float = Field(default=0.1, gt=0)


class CropAugmentationConfig(Section):
    """How crops are varied.

    Attributes:
        flip: probability that left and right are swapped.
        shift: largest shift along rows and along columns, as a share of the side.
        brightness: largest offset, in deviations of the brain's signal.
        contrast: largest relative change.
    """

    flip: float = Field(default=0.5, ge=0, le=1)
    shift: float = Field(default=0.05, ge=0, lt=0.5)
    brightness: float = Field(default=0.1, ge=0)
    contrast: float = Field(default=0.1, ge=0, lt=1)


class RegionalStatementConfig(StatementConfig):
    """What turns log odds into a statement on an acute infection.

    A missed bacterial meningitis or herpes encephalitis kills within days, while whoever is
    suspected of one is punctured and treated anyway: so few positives may be called "not
    suggested", and more negatives than for a fistula may be called "suggested".

    Attributes:
        sensitivity: that the lower threshold keeps, on regions as drawn and as proposed.
        specificity: that the upper threshold keeps, on both.
        missed_positives: share of positives that the conformal set may miss; no more than the
            lower threshold may.
        missed_negatives: share of negatives that the conformal set may miss.
        ood_limit: percentile beyond which a study is called out of distribution.
    """

    sensitivity: float = Field(default=0.95, gt=0, lt=1)
    specificity: float = Field(default=0.90, gt=0, lt=1)
    missed_positives: float = Field(default=0.05, gt=0, lt=1)


class RegionalBundleConfig(Section):
    """What the bundle is, beside its weights.

    Attributes:
        name: also of its folder.
        version: semantic; raised whenever the bundle changes.
        statement: what every report made with it must say.
        intended_input: in words.
        description: one paragraph.
        data_source: what it was trained on, in words, without patients' identities.
        decisive: region whose probability is that of the finding.
    """

    name: str = "infection"
    version: str = "1.0.0"
    statement: str = "Trained on a research cohort: not validated for clinical use."
    intended_input: str = "axial T2 of the whole head"
    description: str = "Networks of regions after Cüce et al., Front Med 2025;12:1659653."
    data_source: str = "a cohort gathered by python -m trainer gather"
    decisive: Literal["ventricles", "sublentiform"] = "sublentiform"


class PlanarConfig(NetworkConfig):
    """What every member of a row is.

    Attributes:
        name: known to worker/nets.
        config: its arguments.
        imagenet: file of torchvision's ImageNet weights to begin with, .pth or .safetensors; none
            ships with monro. Without one, first weights are random.
    """

    imagenet: Path | None = None


INFECTION: Final = "infection"

# The four of Cüce et al.: two bases, and both with ASPP and radiomics.
PAPER_MODELS: Final = {
    "DenseNet": PlanarConfig(name="densenet201"),
    "MobileNetV3": PlanarConfig(name="mobilenetv3-large"),
    "DenseASPP-RadFusion": PlanarConfig(name="densenet201-aspp-radfusion"),
    "MobileASPP-RadFusion": PlanarConfig(name="mobilenetv3-large-aspp-radfusion"),
}


class RegionalConfig(Layered):
    """Everything that decides what comes out of a cohort of regions.

    Attributes:
        analysis: whose rules choose the series, and what the labels are about.
        preparation: how regions are looked at.
        models: rows of the table, by their name in it.
        fit: how they are optimised and chosen.
        features: how handcrafted features are chosen.
        augmentation: how crops are varied.
        speed: device, and threads of each process on a CPU; the rest is not used.
        statement: thresholds and conformal sets.
        bundle: words of the bundle.
    """

    analysis: Literal["infection"] = INFECTION
    preparation: CropRecipe = PAPER_CROPS
    models: dict[str, PlanarConfig] = Field(default=PAPER_MODELS, min_length=1)
    fit: RegionalFitConfig = RegionalFitConfig()
    features: FeaturesConfig = FeaturesConfig()
    augmentation: CropAugmentationConfig = CropAugmentationConfig()
    speed: SpeedConfig = SpeedConfig()
    statement: RegionalStatementConfig = RegionalStatementConfig()
    bundle: RegionalBundleConfig = RegionalBundleConfig()


def read_any_config(path: Path | None, analysis: str) -> TrainingConfig | RegionalConfig:
    """The configuration of the analysis that a file names.

    Args:
        path: of a TOML file; without one, the paper's configuration.
        analysis: that is meant where no file says so.

    Raises:
        BadSettings: the file cannot be read, or a value is unknown or out of range.
    """
    asked = {} if path is None else read_toml(path)
    if asked.get("analysis", analysis) != INFECTION:
        return read_config(path)
    return layered(RegionalConfig, asked, path)
