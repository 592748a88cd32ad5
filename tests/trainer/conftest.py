"""A cohort and a configuration small enough to train in seconds."""

import numpy as np
import pytest

from trainer.bern import BernItems
from trainer.cohort import Cohort, Exam, digest
from trainer.folds import draw_folds
from trainer.run import fit_fold, read_run, start_run
from trainer.settings import TrainingConfig
from worker.occlusion import OcclusionSpec
from worker.preprocess import Recipe

RECIPE = Recipe(spacing_mm=(8.0, 8.0, 8.0), shape=(20, 22, 22))


def toy_exam(number, patient, label, volume):
    facts = {
        "site": "AB"[number % 2],
        "sex": "FM"[number % 2],
        "age_years": 30.0 + number % 40,
        "leak": ("slow" if number % 4 else "fast") if label else "",
        "bern": BernItems(bool(label), bool(label), 4.5, False, 5.5 - label, 6.0),
    }
    return Exam(f"{number:016x}", f"{patient:016x}", int(label), digest(volume), **facts)


@pytest.fixture(scope="session")
def toy_cohort():
    """Forty patients with two exams each; positives carry a bright ball."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 2)
    voxels = np.zeros((80, *RECIPE.shape), dtype=np.float16)
    voxels[:, 3:17, 3:19, 3:19] = rng.uniform(0.3, 0.5, (80, 14, 16, 16))
    voxels[patients % 2 == 1, 8:13, 8:13, 8:13] = 0.95
    exams = tuple(
        toy_exam(number, patient, patient % 2, volume)
        for number, (patient, volume) in enumerate(zip(patients, voxels, strict=True))
    )
    return Cohort(exams, voxels, RECIPE)


@pytest.fixture(scope="session")
def toy_config():
    """Two folds of a tiny network, six epochs, hardly any variation."""
    return TrainingConfig(
        preparation=RECIPE,
        network={
            "name": "compact-densenet",
            "config": {"init_features": 4, "growth_rate": 4, "block_config": (2, 2)},
        },
        fit={
            "folds": 2,
            "batch_size": 8,
            "learning_rate": 1e-2,
            "schedule": "cosine",
            "first_epochs": 6,
            "ema_decay": 0.8,
        },
        augmentation={"probability": 0.1},
        bundle={
            "name": "toy",
            "statement": "toy",
            "occlusion": OcclusionSpec("paper", (5, 6, 6), (5, 6, 6)),
        },
    )


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory, toy_cohort, toy_config):
    """Both folds of the tiny network after two epochs."""
    folder = tmp_path_factory.mktemp("run")
    short = toy_config.fit.model_copy(update={"first_epochs": 2})
    config = toy_config.model_copy(update={"fit": short})
    folds = draw_folds(toy_cohort, 2, seed=0)
    start_run(folder, toy_cohort, folds, config, "fit")
    for number in range(2):
        fit_fold(folder, toy_cohort, folds, number, config, lambda *_: None)
    return read_run(folder, toy_cohort)
