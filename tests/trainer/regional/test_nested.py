import dataclasses

import numpy as np
import torch

from tests.trainer.regional.conftest import TINY
from trainer.folds import split
from trainer.regional import nested
from trainer.regional.cohort import Views
from trainer.regional.nested import Material, fit_member
from trainer.regional.selection import choose
from trainer.regional.settings import RegionalConfig
from trainer.statistics import auroc

CPU = torch.device("cpu")
SHUFFLES, FEW = 20, 5
PATIENTS, FEATURES, PIXELS = 40, 200, 32
OF_NOISE = RegionalConfig(
    models={
        "fused": {
            "name": "compact-densenet-2d-aspp-radfusion",
            "config": {**TINY, "aspp_rates": (), "aspp_channels": 8, "radiomics_dropout": 0.0},
        }
    },
    fit={
        "folds": 2,
        "inner_folds": 2,
        "batch_size": 8,
        "learning_rates": (1e-2,),
        "epochs": (3,),
    },
    features={"numbers": (5, 10)},
)


def material_of(cohort, region="sublentiform", labels=None):
    labels = cohort.labels if labels is None else labels
    return Material(cohort.views[region], labels, cohort.groups)


def judged(material, config, model):
    """AUROC of patients over all outer folds, the mean of the folds."""
    found = []
    for number, held_out in enumerate(split(material.labels, material.groups, 2, 0)):
        member = fit_member(material, held_out, config.models[model], config, number, CPU)
        found.append(auroc(*member.slices.patients()))
    return float(np.mean(found))


def test_a_network_learns_what_there_is_to_learn(toy_regions, toy_regional_config):
    assert judged(material_of(toy_regions), toy_regional_config, "fused") > 0.9


def of_noise(shuffles, spoil=lambda _material: None):
    """Mean AUROC over patients of noise, whose labels are shuffled anew each time."""
    rng, found = np.random.default_rng(0), []
    for _ in range(shuffles):
        views = Views(
            rng.normal(0, 1, (PATIENTS, 3, PIXELS, PIXELS)).astype(np.float16),
            np.arange(PATIENTS),
            rng.normal(0, 1, (PATIENTS, FEATURES)),
            np.ones(PATIENTS),
        )
        labels = rng.permutation(np.arange(PATIENTS) % 2)
        material = Material(views, labels, np.arange(PATIENTS))
        spoil(material)
        found.append(judged(material, OF_NOISE, "fused"))
    return float(np.mean(found))


def near_a_coin(mean):
    return abs(mean - 0.5) < 0.06


def test_with_shuffled_labels_a_network_is_a_coin():
    assert near_a_coin(of_noise(SHUFFLES))


def test_a_network_whose_features_were_chosen_by_all_patients_would_be_noticed(monkeypatch):
    def spoil(material):
        monkeypatch.setattr(
            nested,
            "choose",
            lambda _values, _labels, most, limits: choose(
                material.views.radiomics, material.labels, most, limits
            ),
        )

    assert not near_a_coin(of_noise(FEW, spoil))


def test_nothing_of_the_outer_fold_decides_anything(toy_regions, toy_regional_config):
    held_out = split(toy_regions.labels, toy_regions.groups, 2, 0)[0]
    material = material_of(toy_regions)
    views = material.views
    crops, radiomics = views.crops.copy(), views.radiomics.copy()
    crops[views.of(held_out)] = 100
    radiomics[held_out] = 1e6
    labels = material.labels.copy()
    labels[held_out] = 1 - labels[held_out]
    spoilt = Material(
        dataclasses.replace(views, crops=crops, radiomics=radiomics), labels, material.groups
    )
    network = toy_regional_config.models["fused"]

    one = fit_member(material, held_out, network, toy_regional_config, 0, CPU)
    other = fit_member(spoilt, held_out, network, toy_regional_config, 0, CPU)

    assert one.at == other.at
    assert np.array_equal(one.choice.columns, other.choice.columns)
    assert np.array_equal(one.choice.mean, other.choice.mean)
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name]), name


def test_inner_folds_keep_patients_whole(toy_regions, toy_regional_config, monkeypatch):
    seen = []
    true = nested.split

    def watched(labels, groups, count, seed):
        folds = true(labels, groups, count, seed)
        seen.extend(set(groups[fold]) for fold in folds)
        return folds

    monkeypatch.setattr(nested, "split", watched)
    pairs = np.repeat(np.arange(20), 2)  # two exams of each patient
    material = Material(toy_regions.views["sublentiform"], pairs % 2, pairs)
    held_out = true(material.labels, material.groups, 2, 0)[0]
    fit_member(material, held_out, toy_regional_config.models["base"], toy_regional_config, 0, CPU)

    one, other = seen
    assert not one & other
    assert not (one | other) & set(material.groups[held_out])


def test_of_several_schedules_the_inner_folds_choose(toy_regions, toy_regional_config):
    fit = toy_regional_config.fit.model_copy(update={"learning_rates": (1e-7, 5e-3)})
    config = toy_regional_config.model_copy(update={"fit": fit})
    held_out = split(toy_regions.labels, toy_regions.groups, 2, 0)[0]

    member = fit_member(material_of(toy_regions), held_out, config.models["base"], config, 0, CPU)

    assert member.schedule.learning_rate == 5e-3
