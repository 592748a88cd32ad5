"""What is told of an input is what was recorded of the cohort: drift is not of our own making."""

from pathlib import Path

import numpy as np
import pytest

from listener.monitoring.drift import references
from worker.appearance import of_head, spreads
from worker.bundle import load_bundle
from worker.card import card_of

BUNDLES = Path(__file__).parents[2] / "deploy" / "bundles"


def test_a_head_that_is_brighter_larger_or_smoother_is_told_apart():
    noise = np.random.default_rng(0).uniform(0.2, 0.6, (20, 20, 20)).astype(np.float32)
    head = np.zeros_like(noise)
    head[5:15, 5:15, 5:15] = noise[5:15, 5:15, 5:15]
    usual = of_head(head)

    assert of_head(head * 1.5)["mean intensity"] > 1.4 * usual["mean intensity"]
    assert of_head(noise)["share of the grid that is head"] == 1
    smooth = np.where(head > 0, np.float32(0.4), 0)
    assert of_head(smooth)["mean step between neighbours"] < 0.01
    assert usual["mean step between neighbours"] > 0.1


def test_float16_as_cohorts_keep_it_and_float32_as_workers_have_it_give_the_same_numbers():
    voxels = np.random.default_rng(0).uniform(0, 1, (9, 9, 9)).astype(np.float16)

    assert of_head(voxels) == pytest.approx(of_head(voxels.astype(np.float32)))


def test_shares_are_of_the_parts_that_values_fall_into():
    values = [{"slices": float(value)} for value in (3, 3, 3, 3, 4, 4, 5, 2, 3, 3)]
    spread = spreads(values)["slices"]

    assert spread.edges == (3.0, 4.0, 5.0)
    assert spread.share == (0.1, 0.6, 0.2, 0.1)
    assert sum(spread.share) == pytest.approx(1)


@pytest.mark.parametrize("name", ["fistula-demo", "infection-demo"])
def test_monitoring_can_compare_with_every_number_of_a_demo_bundle(name):
    card = card_of(load_bundle(BUNDLES / name))

    found = references(card)
    assert found.keys() == {
        "ood_percentile",
        "score",
        *(f"input {each}" for each in card["inputs"]),
    }
    assert card["inputs"]
