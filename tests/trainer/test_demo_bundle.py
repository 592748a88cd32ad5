"""The committed demo bundle keeps what its model card promises.

The full figures come from `python -m trainer probe`; here a few phantoms that no member has
seen must show the same, within what so few can show.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from trainer.phantom import OVERT, draw_case, render
from trainer.pointing import localise, planted_cases, sign_lift
from trainer.statistics import auroc
from worker.bundle import load_volume_bundle
from worker.ensemble import Band, Ensemble
from worker.occlusion import OcclusionSpec
from worker.preprocess import DEMO_RECIPE, prepare

FOLDER = Path(__file__).parents[2] / "deploy" / "bundles" / "fistula-demo"
SYNTHETIC = "Trained on synthetic phantoms only: no clinical meaning."
UNSEEN = 3_000_000  # far from the seeds of training and of the recorded figures


@pytest.fixture(scope="module")
def ensemble():
    return Ensemble(load_volume_bundle(FOLDER))


@pytest.fixture(scope="module")
def metadata():
    return json.loads((FOLDER / "configs" / "metadata.json").read_text())


def predict(ensemble, case):
    phantom = render(case)
    return ensemble.predict(prepare(phantom.voxels, phantom.affine, ensemble.bundle.recipe))


def test_it_is_small_and_says_that_it_means_nothing(ensemble):
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())

    assert size < 12e6
    assert ensemble.bundle.statement == SYNTHETIC
    assert SYNTHETIC in (FOLDER / "docs" / "README.md").read_text()
    assert json.loads((FOLDER / "manifest.json").read_text())["statement"] == SYNTHETIC
    assert len(ensemble.bundle.members) == 5
    assert ensemble.bundle.recipe == DEMO_RECIPE


def test_its_card_names_the_command_that_made_it(metadata):
    assert metadata["made_with"] in (FOLDER / "docs" / "README.md").read_text()
    assert metadata["made_with"].startswith("python -m trainer fit")


def test_the_recorded_figures_pass_the_bars(metadata):
    figures = metadata["eval_metrics"]

    assert figures["visible_signs_cases"] == 60
    assert figures["visible_signs_auroc"] >= 0.9
    assert figures["all_cases"] == 200
    assert figures["all_auroc"] >= 0.8


def test_unseen_phantoms_are_told_apart(ensemble):
    labels = np.arange(12) % 2
    found = [
        predict(ensemble, draw_case(UNSEEN + number, bool(label), spectrum=OVERT))
        for number, label in enumerate(labels)
    ]

    assert auroc(labels, np.array([each.probability for each in found])) >= 0.85
    wrong = {1: Band.NOT_SUGGESTED, 0: Band.SUGGESTED}
    mistaken = [
        each for each, label in zip(found, labels, strict=True) if each.band is wrong[label]
    ]
    assert len(mistaken) <= 2


@pytest.mark.parametrize("sign", ["sinus", "dura"])
def test_the_map_points_at_a_planted_sign(ensemble, sign):
    case = next(planted_cases(sign, 1))
    coarse = OcclusionSpec(mode="paper", patch=(10, 11, 11), stride=(10, 11, 11))  # quick

    found = localise(Ensemble(dataclasses.replace(ensemble.bundle, occlusion=coarse)), case, sign)

    assert found.pair.hit
    assert found.pair.energy > 1.3 * found.chance
    assert found.alone.energy > 1.2 * found.chance


@pytest.mark.parametrize("seed", [2024, 5_000_001])  # the first is the one that `make demo` sends
def test_the_map_that_a_reader_sees_is_strongest_where_the_signs_lie(ensemble, seed):
    case = draw_case(seed, positive=True, spectrum=OVERT)

    assert sign_lift(ensemble, case) > 1.5


def test_noise_is_out_of_distribution(ensemble):
    rng = np.random.default_rng(0)
    healthy = render(draw_case(UNSEEN, positive=False), 4.0)
    scrambled = np.where(healthy.clean > 100, rng.uniform(0, 1000, healthy.clean.shape), 0)

    prediction = ensemble.predict(
        prepare(scrambled.astype(np.float32), healthy.affine, ensemble.bundle.recipe)
    )

    assert prediction.ood_percentile > ensemble.bundle.ood_limit
    assert prediction.band is Band.UNDETERMINED
