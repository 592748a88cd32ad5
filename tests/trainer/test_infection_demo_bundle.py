"""The committed demonstration bundle of the infection analysis, on heads that it has not seen."""

from pathlib import Path

import numpy as np
import pytest

from trainer.infection import draw_infection
from trainer.phantom_t2 import render_t2
from worker.bundle import RegionBundle, load_bundle
from worker.crops import look
from worker.region_ensemble import RegionEnsemble
from worker.regions import regions_of
from worker.scene import survey

FOLDER = Path(__file__).parents[2] / "deploy" / "bundles" / "infection-demo"
PIXELS = 128
SEEDS = range(900, 903)
PLAIN = 1.5


@pytest.fixture(scope="module")
def ensemble():
    bundle = load_bundle(FOLDER)
    assert isinstance(bundle, RegionBundle)
    return RegionEnsemble(bundle)


def scores(ensemble, seed, positive):
    phantom = render_t2(draw_infection(seed, positive, PLAIN), PIXELS)
    scene = survey(phantom.voxels, phantom.affine)
    found, _ = regions_of(scene, {})
    recipe = ensemble.bundle.recipe
    return ensemble.scores(
        {name: look(scene, found[name], recipe) for name in ensemble.bundle.regions}
    )


def test_it_is_small_and_says_what_it_is(ensemble):
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 8e6
    assert "no clinical meaning" in ensemble.bundle.statement
    assert ensemble.bundle.decisive == "sublentiform"
    assert [len(each.members) for each in ensemble.bundle.regions.values()] == [5, 5]


def test_heads_with_plain_signs_score_higher_than_the_same_heads_without(ensemble):
    gains = {name: [] for name in ensemble.bundle.regions}
    for seed in SEEDS:
        with_signs, without = (scores(ensemble, seed, positive) for positive in (True, False))
        for name, each in gains.items():
            each.append(with_signs[name].probability - without[name].probability)

    assert np.mean(gains["sublentiform"]) > 0.2
    assert np.mean(gains["sublentiform"]) > np.mean(gains["ventricles"]) + 0.1
