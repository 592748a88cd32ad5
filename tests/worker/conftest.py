"""A bundle small enough to make anew for every test run; its members are untrained."""

import numpy as np
import pytest
import torch

from trainer.evaluate import Operation
from trainer.export import Model, export
from trainer.loop import Fold
from trainer.settings import FitSettings
from worker import nets
from worker.bundle import NOT_SUGGESTED, SUGGESTED, Reference
from worker.occlusion import OcclusionSpec
from worker.preprocess import Recipe

TOY_CONFIG = {"init_features": 4, "growth_rate": 4, "block_config": (2, 2)}
TOY = Model(
    name="toy",
    version="1.2.3",
    analysis="fistula",
    recipe=Recipe(spacing_mm=(10.0, 10.0, 10.0), shape=(24, 26, 26)),
    occlusion=OcclusionSpec(mode="exact", patch=(5, 6, 6), stride=(5, 6, 6)),
    statement="Untrained: no clinical meaning.",
    intended_input="anything",
    description="A toy.",
    data_source="nothing",
)


def toy_fold(seed):
    """A member with random weights and lively batch statistics, and a random cohort."""
    torch.manual_seed(seed)
    network = nets.build("compact-densenet", **TOY_CONFIG)
    for _ in range(20):
        network(torch.rand(4, 1, *TOY.recipe.shape))
    features = nets.features(network, torch.rand(1, 1, *TOY.recipe.shape)).shape[1]
    rng = np.random.default_rng(seed)
    reference = Reference(
        mean=np.zeros(features),
        precision=np.eye(features),
        distances=np.sort(rng.uniform(0, 20, 50)),
    )
    return Fold(network.state_dict(), np.arange(3), np.zeros(3), reference)


def export_toy(folder, members=2):
    """Write the toy bundle to a folder."""
    export(
        folder,
        TOY,
        FitSettings(network_config=TOY_CONFIG),
        [toy_fold(seed) for seed in range(members)],
        Operation(1.5, 0.3, 0.7, {SUGGESTED: 0.6, NOT_SUGGESTED: 0.6}),
        metrics={},
        command="none",
    )
    return folder


@pytest.fixture
def toy_folder(tmp_path):
    """A toy bundle that a test may damage."""
    return export_toy(tmp_path / "toy")
