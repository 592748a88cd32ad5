"""A cohort of regions and a configuration small enough to train in a second."""

import numpy as np
import pytest

from trainer.cohort import Exam
from trainer.regional.cohort import REGIONS, RegionalCohort, Views
from trainer.regional.nested import Material, fit_member
from trainer.regional.run import DONE, RegionalRun, _read, _write
from trainer.regional.settings import RegionalConfig
from worker.crops import CropRecipe
from worker.radiomics.config import Radiomics
from worker.radiomics.extraction import LIBRARY, VERSION

SIDE = 64
MODEL = "fused"
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


def regions_of_toys(seed):
    """Forty patients; ventricles tell nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % 2
    exams = tuple(
        Exam(f"{number:016x}", f"{number:016x}", int(label), f"{1000 * seed + number:064x}")
        for number, label in enumerate(labels)
    )
    views = {
        region: toy_views(labels, signal, rng)
        for region, signal in zip(REGIONS, (0.0, 1.5), strict=True)
    }
    measured_with = (LIBRARY, VERSION, RECIPE.radiomics.config_hash)
    return RegionalCohort(exams, views, RECIPE, measured_with)


@pytest.fixture(scope="session")
def toy_regions():
    """A cohort to train on."""
    return regions_of_toys(0)


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


@pytest.fixture(scope="session")
def trained(toy_regions, toy_regional_config, tmp_path_factory):
    """One model on both regions, two outer folds."""
    folder = tmp_path_factory.mktemp("run")
    config = toy_regional_config.model_copy(
        update={"models": {MODEL: toy_regional_config.models[MODEL]}}
    )
    index = {exam.exam: place for place, exam in enumerate(toy_regions.exams)}
    # Exams alternate in label: each fold gets pairs.
    pairs = np.arange(len(toy_regions)) // 2
    members = {}
    for region in REGIONS:
        found = []
        for fold in range(2):
            material = Material(toy_regions.views[region], toy_regions.labels, toy_regions.groups)
            held_out = np.flatnonzero(pairs % 2 == fold)
            network = config.models[MODEL]
            member = fit_member(material, held_out, network, config, fold, "cpu")
            part = folder / region / MODEL / f"fold_{fold}"
            _write(part, member, toy_regions, None)
            assert (part / DONE).exists()
            found.append(_read(folder, part.relative_to(folder), toy_regions, index))
        members[region, MODEL] = tuple(found)
    facts = {"folds_sha256": "none", "environment": {}, "command": "none"}
    return RegionalRun(folder, config, facts, members)
