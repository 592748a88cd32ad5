"""How an ensemble is fitted: every number in one place, stored in the bundle it made.

The defaults are those of Faghani et al., AJNR 2024;45:439, where the paper gives them; what it
leaves open is marked. Values come from a TOML file and from the environment, which wins:
MONRO_TRAINER_FIT__FIRST_EPOCHS=20 sets `first_epochs` of the section `[fit]`.
"""

import os
import tomllib
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from listener.complaint import Path as Place
from listener.complaint import explain_named, explain_no_json
from listener.errors import BadSettings
from worker.occlusion import OcclusionSpec
from worker.preprocess import PAPER_RECIPE, Recipe

PREFIX: Final = "MONRO_TRAINER_"
# Names of the same prefix that gathering/dicomweb.py reads.
OTHERS: Final = ("MONRO_TRAINER_DICOMWEB_",)


class Section(BaseModel):
    """A part of the configuration; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkConfig(Section):
    """What every member is.

    Attributes:
        name: known to worker/nets.
        config: its arguments.
    """

    name: str = "densenet121"
    config: dict[str, Any] = Field(default_factory=dict)


class FitConfig(Section):
    """How members are optimised.

    Attributes:
        folds: members of the ensemble.
        seed: of folds, first weights, order and augmentation.
        batch_size: exams per step.
        learning_rate: of AdamW, at the start of each period.
        weight_decay: of AdamW.
        schedule: the paper says "ran for 450 epochs, followed by a restart interval of 200
            epochs". `cosine-then-restarts` reads it as one period and then restarts every
            `restart_epochs`; `restarts` as restarts every `restart_epochs` within `first_epochs`;
            `cosine` is one period only.
        first_epochs: length of the first period.
        restart_epochs: length of the periods that follow.
        restarts: how many follow; for `cosine-then-restarts` only.
        ema_decay: of the moving average of the weights, per step.
        honest: which weights are shipped: those of the last epoch or their moving average. The
            epoch that is best on the fold it is reported on flatters, and is reported beside.
    """

    folds: int = Field(default=5, ge=2)
    seed: int = 0
    batch_size: int = Field(default=4, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    schedule: Literal["cosine-then-restarts", "restarts", "cosine"] = "cosine-then-restarts"
    first_epochs: int = Field(default=450, ge=1)
    restart_epochs: int = Field(default=200, ge=1)
    restarts: int = Field(default=1, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    honest: Literal["last", "ema"] = "ema"

    @property
    def epochs(self) -> int:
        """Passes over the training part of a fold."""
        more = self.restarts * self.restart_epochs
        return self.first_epochs + (more if self.schedule == "cosine-then-restarts" else 0)


class AugmentationConfig(Section):
    """How exams are varied; the paper names the kinds and no numbers.

    All of them keep the outside of the head exactly 0.

    Attributes:
        probability: of each kind, for each exam.
        intensity_shift: largest offset, on the scale (0, 1].
        histogram_points: fewest and most control points of the histogram shift.
        bias_coefficient: largest coefficient of the bias field's Legendre polynomials.
        bias_degree: their highest degree.
        flip: probability that left and right are swapped.
        rotate_degrees: largest rotation about each axis.
        scale: largest relative change of size along each axis.
        translate_mm: largest shift along each axis.
        noise: standard deviation of Gaussian noise.
        blank: probability that a few boxes are set to 0, as the occlusion map will do: a network
            that has never met a blank box takes its edges for signs. Not in the paper.
        blank_boxes: most boxes per exam.
        blank_edges: shortest and longest edge of a box, in voxels.
    """

    probability: float = Field(default=0.3, ge=0, le=1)
    intensity_shift: float = Field(default=0.1, ge=0)
    histogram_points: tuple[int, int] = (5, 15)
    bias_coefficient: float = Field(default=0.1, ge=0)
    bias_degree: int = Field(default=3, ge=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    rotate_degrees: float = Field(default=10.0, ge=0)
    scale: float = Field(default=0.1, ge=0, lt=1)
    translate_mm: float = Field(default=8.0, ge=0)
    noise: float = Field(default=0.05, ge=0)
    blank: float = Field(default=0.0, ge=0, le=1)
    blank_boxes: int = Field(default=4, ge=1)
    blank_edges: tuple[int, int] = (4, 11)


class SpeedConfig(Section):
    """What makes training faster or smaller; each can be switched off.

    Attributes:
        device: "auto" takes a CUDA device where there is one.
        autocast: bfloat16 for convolutions; "auto" on CUDA only. A CPU without bfloat16 in hardware
            is ten times slower with it.
        channels_last: memory order of 3D convolutions.
        compile: torch.compile of the step; "auto" on CUDA only.
        cohort_on_device: keep all volumes in the device's memory; "auto" where half of it is free.
        recompute: keep only the inputs of layers for the backward pass and compute the rest again:
            half as much memory or less for a third more time, and the same weights.
        threads: of each fold on a CPU; the weights must not depend on how many cores there are.
    """

    device: str = "auto"
    autocast: Literal["auto", "on", "off"] = "auto"
    channels_last: bool = True
    compile: Literal["auto", "on", "off"] = "auto"
    cohort_on_device: Literal["auto", "on", "off"] = "auto"
    recompute: bool = False
    threads: int = Field(default=1, ge=1)


class StatementConfig(Section):
    """What turns log odds into a statement.

    Attributes:
        sensitivity: that the lower threshold keeps. At most 1 - 0.19 is within reach where 19 % of
            the positives have a normal MRI.
        specificity: that the upper threshold keeps.
        missed_positives: share of positives that the conformal set may miss.
        missed_negatives: share of negatives that the conformal set may miss.
        ood_limit: percentile beyond which a study is called out of distribution. It is a mean over
            the members of percentiles among some tens of cases each: nearer to 100, one case that
            one member finds stranger still would let anything pass.
    """

    sensitivity: float = Field(default=0.75, gt=0, lt=1)
    specificity: float = Field(default=0.95, gt=0, lt=1)
    missed_positives: float = Field(default=0.3, gt=0, lt=1)
    missed_negatives: float = Field(default=0.1, gt=0, lt=1)
    ood_limit: float = Field(default=97.0, gt=0, le=100)


class BundleConfig(Section):
    """What the bundle is, beside its weights.

    Attributes:
        name: also of its folder.
        version: semantic; raised whenever the bundle changes.
        statement: what every report made with it must say.
        intended_input: in words.
        description: one paragraph.
        data_source: what it was trained on, in words, without patients' identities.
        occlusion: how maps are to be made.
    """

    name: str = "fistula"
    version: str = "1.0.0"
    statement: str = "Trained on a research cohort: not validated for clinical use."
    intended_input: str = "sagittal contrast-enhanced T1 of the whole head"
    description: str = "Five 3D DenseNets after Faghani et al., AJNR 2024;45:439."
    data_source: str = "a cohort gathered by python -m trainer gather"
    occlusion: OcclusionSpec = OcclusionSpec(mode="paper", patch=(12, 13, 13), stride=(12, 13, 13))


class Layered(BaseSettings):
    """A configuration from a TOML file and from the environment, which wins."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, whose content arrives as arguments."""
        return env_settings, init_settings


class TrainingConfig(Layered):
    """Everything that decides what comes out of a cohort.

    Attributes:
        analysis: whose rules choose the series, and what the labels are about.
        preparation: how volumes are prepared.
        network: what every member is.
        fit: how members are optimised.
        augmentation: how exams are varied.
        speed: what makes it faster and must not change the result a reader would mind.
        statement: thresholds and conformal sets.
        bundle: words and occlusion map of the bundle.
    """

    analysis: str = "fistula"
    preparation: Recipe = PAPER_RECIPE
    network: NetworkConfig = NetworkConfig()
    fit: FitConfig = FitConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    speed: SpeedConfig = SpeedConfig()
    statement: StatementConfig = StatementConfig()
    bundle: BundleConfig = BundleConfig()


AnyConfig = TypeVar("AnyConfig", bound=Layered)


def read_config(path: Path | None) -> TrainingConfig:
    """Read a TOML file, or take the paper's configuration; the environment wins over both.

    Raises:
        BadSettings: the file cannot be read, or a value is unknown or out of range.
    """
    return layered(TrainingConfig, {} if path is None else read_toml(path), path)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a configuration file.

    Raises:
        BadSettings: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BadSettings(f"{path}: {error}; name a TOML file") from error


def layered(kind: type[AnyConfig], asked: dict[str, Any], path: Path | None) -> AnyConfig:
    """A configuration of the content of a file and the environment.

    Args:
        kind: of configuration.
        asked: content of the file.
        path: of the file, for the message.

    Raises:
        BadSettings: a value is unknown or out of range.
    """
    _refuse_unknown_names(kind)
    try:
        return kind(**asked)
    except ValidationError as error:
        raise explain_named(error, kind, partial(_called, path)) from None
    except SettingsError as error:
        raise explain_no_json(error, kind, PREFIX) from None


def _called(path: Path | None, place: Place) -> str:
    """What decided on a value: the variable that was given, or the file and where in it."""
    given = {name.upper() for name in os.environ}
    sections = [str(step) for step in place]
    variables = [f"{PREFIX}{'__'.join(sections[:end])}".upper() for end in range(len(place), 0, -1)]
    decisive = next((name for name in variables if name in given), None)
    if path is None or decisive:
        return decisive or variables[0]
    *tables, key = [step for step in place if isinstance(step, str)]
    entries = [f"entry {step + 1}" for step in place if isinstance(step, int)]
    where = f"[{'.'.join(tables)}] {key}" if tables else key
    return ", ".join([str(path), where, *entries])


def _refuse_unknown_names(kind: type[Layered]) -> None:
    """A misspelt name in the environment must not leave a default in force unnoticed."""
    sections = tuple(f"{PREFIX}{name}".upper() for name in kind.model_fields)
    for name in os.environ:
        known = name in sections or name.startswith((*(f"{each}__" for each in sections), *OTHERS))
        if name.startswith(PREFIX) and not known:
            raise BadSettings(f"unknown setting {name}; known are {', '.join(sections)}")
