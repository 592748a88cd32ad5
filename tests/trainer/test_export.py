"""What the trainer writes, the worker loads."""

import json

import numpy as np
import pytest
import torch

from trainer.evaluate import Operation
from trainer.export import DEMO, SYNTHETIC, export, record_metrics
from trainer.loop import Fold
from trainer.settings import FitSettings
from worker import nets
from worker.bundle import NOT_SUGGESTED, SUGGESTED, Reference, load_bundle, member_weights
from worker.ensemble import Ensemble

CONFIG = {"init_features": 4, "growth_rate": 4, "block_config": (2, 2)}
OPERATION = Operation(2.0, 0.2, 0.6, {SUGGESTED: 0.7, NOT_SUGGESTED: 0.4})


def fold():
    network = nets.build("compact-densenet", **CONFIG)
    features = nets.features(network.eval(), torch.rand(1, 1, 24, 26, 26)).shape[1]
    reference = Reference(np.zeros(features), np.eye(features), np.arange(5.0))
    return Fold(network.state_dict(), np.arange(5), np.zeros(5), reference)


@pytest.fixture
def folds():
    return [fold(), fold()]


@pytest.fixture
def folder(tmp_path, folds):
    settings = FitSettings(network_config=CONFIG)
    export(tmp_path / "new", DEMO, settings, folds, OPERATION, {"cases": 5}, "a command")
    return tmp_path / "new"


def test_the_worker_loads_what_was_written(folder, folds):
    bundle = load_bundle(folder)

    assert bundle.recipe == DEMO.recipe
    assert bundle.occlusion == DEMO.occlusion
    assert bundle.temperature == 2.0
    assert (bundle.threshold_low, bundle.threshold_high) == (0.2, 0.6)
    assert bundle.statement == SYNTHETIC
    for weights, written in zip(member_weights(bundle), folds, strict=True):
        assert all(torch.equal(weights[name], written.weights[name]) for name in written.weights)
    assert Ensemble(bundle)


def test_nothing_in_it_can_carry_code(folder):
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}

    assert kinds == {"", ".json", ".md", ".safetensors"}


def test_recording_figures_changes_card_and_metadata_and_seals_anew(folder):
    before = load_bundle(folder)

    record_metrics(folder, {"auroc": 0.93})

    assert load_bundle(folder).weights_sha256 == before.weights_sha256
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert metadata["eval_metrics"] == {"cases": 5, "auroc": 0.93}
    assert "| auroc | 0.93 |" in (folder / "docs" / "README.md").read_text()


def test_a_bundle_is_never_overwritten(folder, folds):
    with pytest.raises(FileExistsError):
        export(folder, DEMO, FitSettings(network_config=CONFIG), folds, OPERATION, {}, "again")


def test_the_demo_says_that_it_means_nothing():
    assert SYNTHETIC == "Trained on synthetic phantoms only: no clinical meaning."
