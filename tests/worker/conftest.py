"""A bundle small enough to make anew for every test run; its members are untrained."""

import numpy as np
import pytest
import torch

from tests.worker.region_study import (  # noqa: F401
    analysis,
    estimated_regions,
    judged_regions,
    phantom,
    region_bundle,
    study,
)
from trainer.export import Content, write_bundle
from trainer.operation import Operation
from trainer.settings import TrainingConfig
from worker import nets
from worker.bundle import NOT_SUGGESTED, SUGGESTED, Reference
from worker.occlusion import OcclusionSpec
from worker.preprocess import Recipe

TOY_CONFIG = {"init_features": 4, "growth_rate": 4, "block_config": (2, 2)}
TOY = TrainingConfig(
    preparation=Recipe(spacing_mm=(10.0, 10.0, 10.0), shape=(24, 26, 26)),
    network={"name": "compact-densenet", "config": TOY_CONFIG},
    bundle={
        "name": "toy",
        "version": "1.2.3",
        "occlusion": OcclusionSpec(mode="paper", patch=(5, 6, 6), stride=(5, 6, 6)),
        "statement": "Untrained: no clinical meaning.",
        "intended_input": "anything",
        "description": "A toy.",
        "data_source": "nothing",
    },
)
TRAINED_ON = {
    "epochs": 0,
    "exams": 0,
    "patients": 0,
    "positives": 0,
    "cohort_fingerprint": "none",
    "folds_sha256": "none",
}


def toy_member(seed):
    """Random weights with lively batch statistics, and a random cohort."""
    torch.manual_seed(seed)
    shape = TOY.preparation.shape
    network = nets.build("compact-densenet", **TOY_CONFIG)
    for _ in range(20):
        network(torch.rand(4, 1, *shape))
    features = nets.features(network, torch.rand(1, 1, *shape)).shape[1]
    reference = Reference(
        mean=np.zeros(features),
        precision=np.eye(features),
        distances=np.sort(np.random.default_rng(seed).uniform(0, 20, 50)),
    )
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return weights, reference


def export_toy(folder, members=2):
    """Write the toy bundle to a folder."""
    weights, references = zip(*(toy_member(seed) for seed in range(members)), strict=True)
    temperatures = tuple(1.5 + seed for seed in range(members))
    operation = Operation(temperatures, 0.3, 0.7, {SUGGESTED: 0.6, NOT_SUGGESTED: 0.6})
    write_bundle(folder, Content(TOY, weights, references, operation, TRAINED_ON), {}, "none")
    return folder


@pytest.fixture(autouse=True)
def _same_random_weights():
    """What a test draws does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture
def toy_folder(tmp_path):
    """A toy bundle that a test may damage."""
    return export_toy(tmp_path / "toy")
