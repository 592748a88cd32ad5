"""Members agree on a probability, or say how much they do not."""

import dataclasses

import numpy as np
import pytest
import torch

from worker.bundle import NOT_SUGGESTED, SUGGESTED, load_bundle
from worker.ensemble import Band, Ensemble, band, conformal_set, mahalanobis
from worker.preprocess import Prepared
from worker.seal import BadBundle


@pytest.fixture
def bundle(toy_folder):
    return load_bundle(toy_folder)


def volume(shape, seed=0):
    voxels = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return Prepared(voxels, np.eye(4))


def test_the_probability_is_the_mean_of_calibrated_members(bundle):
    ensemble = Ensemble(bundle)
    prepared = volume(bundle.recipe.shape)

    prediction = ensemble.predict(prepared)

    odds = ensemble.logits(ensemble.batch(prepared.voxels[None]))[:, 0]
    expected = 1 / (1 + np.exp(-odds / np.array(bundle.temperatures)))
    assert prediction.members == pytest.approx(tuple(expected), abs=1e-6)
    assert prediction.probability == pytest.approx(expected.mean(), abs=1e-6)
    assert prediction.disagreement == pytest.approx(expected.std(), abs=1e-6)
    assert len(set(prediction.members)) == 2


def test_the_same_volume_gives_the_same_prediction(bundle):
    ensemble = Ensemble(bundle)
    prepared = volume(bundle.recipe.shape)

    assert ensemble.predict(prepared) == Ensemble(bundle).predict(prepared)


def test_a_strange_volume_is_further_out_than_a_familiar_one(bundle):
    ensemble = Ensemble(bundle)
    familiar = ensemble.predict(volume(bundle.recipe.shape))
    strange = Prepared(100 * volume(bundle.recipe.shape).voxels, np.eye(4))

    found = ensemble.predict(strange)

    assert 0 <= familiar.ood_percentile < found.ood_percentile <= 100
    assert found.band is Band.UNDETERMINED


def test_logits_are_rows_of_members_and_columns_of_cases(bundle):
    ensemble = Ensemble(bundle)

    logits = ensemble.logits(torch.rand(3, 1, *bundle.recipe.shape))

    assert logits.shape == (2, 3)


def test_distance_is_counted_in_the_cohort_s_own_deviations():
    precision = np.diag([1.0, 0.25])  # deviations 1 and 2

    distances = mahalanobis(np.array([[3.0, 0.0], [0.0, 4.0]]), np.zeros(2), precision)

    assert distances.tolist() == [3.0, 2.0]


@pytest.mark.parametrize(
    ("conformal", "probability", "labels"),
    [
        ({SUGGESTED: 0.4, NOT_SUGGESTED: 0.4}, 0.9, {SUGGESTED}),
        ({SUGGESTED: 0.4, NOT_SUGGESTED: 0.4}, 0.1, {NOT_SUGGESTED}),
        ({SUGGESTED: 0.4, NOT_SUGGESTED: 0.4}, 0.5, set()),
        ({SUGGESTED: 0.8, NOT_SUGGESTED: 0.8}, 0.5, {SUGGESTED, NOT_SUGGESTED}),
    ],
)
def test_a_label_stays_in_the_set_unless_its_class_seldom_looks_so(
    bundle, conformal, probability, labels
):
    changed = dataclasses.replace(bundle, conformal=conformal)

    assert conformal_set(probability, changed) == labels


ONE, NONE, BOTH = frozenset({SUGGESTED}), frozenset(), frozenset({SUGGESTED, NOT_SUGGESTED})


@pytest.mark.parametrize(
    ("probability", "percentile", "labels", "expected"),
    [
        (0.70, 50, ONE, Band.SUGGESTED),  # p >= high
        (0.69, 50, ONE, Band.UNDETERMINED),
        (0.30, 50, ONE, Band.UNDETERMINED),
        (0.29, 50, ONE, Band.NOT_SUGGESTED),  # p < low
        (0.95, 97.0, ONE, Band.SUGGESTED),  # at the limit, not beyond it
        (0.95, 97.1, ONE, Band.UNDETERMINED),
        (0.95, 50, NONE, Band.UNDETERMINED),
        (0.05, 50, BOTH, Band.UNDETERMINED),
    ],
)
def test_the_band_follows_the_wording_rule(bundle, probability, percentile, labels, expected):
    assert band(probability, percentile, labels, bundle) is expected


def test_weights_of_another_network_are_refused(bundle):
    network = dataclasses.replace(bundle.network, config={})

    with pytest.raises(BadBundle, match="do not fit"):
        Ensemble(dataclasses.replace(bundle, network=network))
