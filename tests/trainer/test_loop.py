"""Folds learn, judge only what they have not seen, and do it again alike."""

import numpy as np
import pytest
import torch

from trainer.cohort import Cohort
from trainer.evaluate import auroc
from trainer.loop import cross_validate
from trainer.settings import FitSettings

SETTINGS = FitSettings(
    network_config={"init_features": 4, "growth_rate": 4, "block_config": (2, 2)},
    folds=2,
    epochs=6,
    batch_size=8,
    learning_rate=1e-2,
    erase=0.0,
)


@pytest.fixture(scope="module")
def cohort():
    """Forty patients with two volumes each; positives carry a bright ball."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 2)
    labels = groups % 2
    voxels = np.zeros((80, 20, 22, 22), dtype=np.float16)
    voxels[:, 3:17, 3:19, 3:19] = rng.uniform(0.3, 0.5, (80, 14, 16, 16))
    voxels[labels == 1, 8:13, 8:13, 8:13] = 0.95
    return Cohort(voxels, labels, groups)


@pytest.fixture(scope="module")
def folds(cohort):
    return cross_validate(cohort, SETTINGS, lambda epoch: None)


def test_unseen_cases_are_told_apart(cohort, folds):
    for fold in folds:
        assert auroc(cohort.labels[fold.held_out], fold.log_odds) > 0.9


def test_every_case_is_held_out_once_and_patients_stay_whole(cohort, folds):
    held_out = np.concatenate([fold.held_out for fold in folds])

    assert sorted(held_out) == list(range(len(cohort)))
    patients = [set(cohort.groups[fold.held_out]) for fold in folds]
    assert not patients[0] & patients[1]


def test_both_classes_are_in_every_fold_in_the_same_ratio(cohort, folds):
    for fold in folds:
        assert cohort.labels[fold.held_out].mean() == pytest.approx(0.5, abs=0.06)


def test_training_again_gives_the_same_weights(cohort, folds):
    again = cross_validate(cohort, SETTINGS, lambda epoch: None)

    for one, other in zip(folds, again, strict=True):
        assert one.weights.keys() == other.weights.keys()
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_the_reference_knows_its_cohort(folds):
    for fold in folds:
        assert (np.diff(fold.reference.distances) >= 0).all()
        assert fold.reference.distances.size == fold.held_out.size


def test_progress_names_every_epoch_of_every_fold(cohort):
    heard = []

    cross_validate(cohort, SETTINGS.model_copy(update={"epochs": 2}), heard.append)

    assert [(each.fold, each.epoch) for each in heard] == [(0, 0), (0, 1), (1, 0), (1, 1)]
