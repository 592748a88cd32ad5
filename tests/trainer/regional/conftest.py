"""A cohort of regions and a configuration small enough to train in a second."""

import numpy as np
import pytest

from trainer.cohort import Exam
from trainer.regional.cohort import REGIONS, RegionalCohort, Views
from trainer.regional.settings import RegionalConfig
from worker.crops import CropRecipe
from worker.radiomics.config import Radiomics

SIDE = 64
RECIPE = CropRecipe(
    fewest_pixels=10,
    side=SIDE,
    radiomics=Radiomics(log_sigmas_mm=(1.0, 2.0), families=("firstorder",)),
)
TINY = {"growth_rate": 4, "block_config": (1, 1, 1, 1), "init_features": 8}
FUSED = {**TINY, "aspp_rates": (1,), "aspp_channels": 8}


def toy_views(labels, signal, rng):
    """Two crops an exam; a bright square and features of the finest image tell the label."""
    exam_of = np.repeat(np.arange(len(labels)), 2)
    crops = rng.normal(0, 1, (len(exam_of), 3, SIDE, SIDE)).astype(np.float16)
    crops[labels[exam_of] == 1, :, 16:48, 16:48] += np.float16(signal)
    names = RECIPE.radiomics.names
    radiomics = rng.normal(0, 1, (len(labels), len(names)))
    fine = [place for place, name in enumerate(names) if name.startswith("log-sigma-1-0")]
    radiomics[:, fine] += signal * labels[:, None]
    return Views(crops, exam_of, radiomics, np.full(len(labels), 10.0))


@pytest.fixture(scope="session")
def toy_regions():
    """Forty patients; ventricles tell nothing."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    exams = tuple(
        Exam(f"{number:016x}", f"{number:016x}", int(label), f"{number:064x}")
        for number, label in enumerate(labels)
    )
    views = {
        region: toy_views(labels, signal, rng)
        for region, signal in zip(REGIONS, (0.0, 1.5), strict=True)
    }
    measured_with = ("flash-radiomics", "1.0.0", RECIPE.radiomics.config_hash)
    return RegionalCohort(exams, views, RECIPE, measured_with)


@pytest.fixture(scope="session")
def toy_regional_config():
    """Two outer and two inner folds, one base network and one that fuses features."""
    return RegionalConfig(
        preparation=RECIPE,
        models={
            "base": {"name": "compact-densenet-2d", "config": TINY},
            "fused": {"name": "compact-densenet-2d-aspp-radfusion", "config": FUSED},
        },
        fit={
            "folds": 2,
            "inner_folds": 2,
            "batch_size": 8,
            "learning_rates": (5e-3,),
            "epochs": (4,),
        },
        features={"numbers": (3, 6)},
        bundle={"name": "toy-regions", "statement": "toy"},
    )
