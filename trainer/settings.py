"""How members are fitted: every number in one place.

Values come from the command line or from the environment (MONRO_TRAINER_EPOCHS=20); the defaults
made the committed demo bundle.
"""

from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class FitSettings(BaseSettings):
    """What decides the weights, beside the cohort.

    Attributes:
        network: name known to worker/nets.py.
        network_config: its arguments.
        folds: members of the ensemble.
        epochs: passes over each fold's training part.
        batch_size: cases per step.
        learning_rate: at the start; falls to 0 along half a cosine.
        weight_decay: of AdamW.
        erase: probability that a case is shown with a few boxes set to 0.
        seed: of folds, first weights, order and augmentation.
        sensitivity: that the lower threshold keeps. At most 1 - 0.19 is within reach when 19 % of
            the positives have a normal MRI.
        specificity: that the upper threshold keeps.
        missed_positives: share of positives that the conformal set may miss.
        missed_negatives: share of negatives that the conformal set may miss.
        ood_limit: percentile beyond which a study is called out of distribution.
    """

    model_config = SettingsConfigDict(env_prefix="MONRO_TRAINER_", extra="forbid", frozen=True)

    network: str = "compact-densenet"
    network_config: dict[str, Any] = Field(default_factory=dict)
    folds: int = Field(default=5, ge=2)
    epochs: int = Field(default=16, ge=1)
    batch_size: int = Field(default=8, ge=2)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    erase: float = Field(default=0.5, ge=0, le=1)
    seed: int = 0
    sensitivity: float = Field(default=0.75, gt=0, lt=1)
    specificity: float = Field(default=0.95, gt=0, lt=1)
    missed_positives: float = Field(default=0.3, gt=0, lt=1)
    missed_negatives: float = Field(default=0.1, gt=0, lt=1)
    ood_limit: float = Field(default=99.0, gt=0, le=100)
