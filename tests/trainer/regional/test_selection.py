import numpy as np
import pytest

from trainer.folds import split
from trainer.regional.cohort import Views
from trainer.regional.nested import Material, best_number
from trainer.regional.selection import choose, classifier_log_odds
from trainer.regional.settings import FeaturesConfig, RegionalConfig
from trainer.statistics import auroc

LIMITS = FeaturesConfig()
PATIENTS, FEATURES = 60, 300
SHUFFLES = 8


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_features_that_hardly_vary_are_never_chosen(rng):
    labels = np.arange(40) % 2
    values = np.stack([np.ones(40), np.where(np.arange(40) == 0, 1.0, 0.0), labels * 1.0], axis=1)
    values[:, 2] += rng.normal(0, 0.1, 40)

    assert choose(values, labels, 3, LIMITS).columns.tolist() == [2]


def test_of_two_features_that_say_the_same_the_more_telling_one_stays(rng):
    labels = np.arange(80) % 2
    telling = labels + rng.normal(0, 0.5, 80)
    echo = telling + rng.normal(0, 0.05, 80)
    other = rng.normal(0, 1, 80)
    values = np.stack([echo, other, telling], axis=1)
    strength = [abs(auroc(labels, column) - 0.5) for column in values.T]

    chosen = choose(values, labels, 3, LIMITS).columns.tolist()

    assert sorted(chosen) == sorted([1, int(np.argmax(strength))])


def test_a_second_telling_feature_goes_before_a_near_repetition(rng):
    labels = np.arange(200) % 2
    first = labels + rng.normal(0, 0.5, 200)
    repetition = first + rng.normal(0, 0.3, 200)
    second = 0.8 * labels + rng.normal(0, 0.6, 200)
    values = np.stack([first, repetition, second], axis=1)

    assert choose(values, labels, 2, LIMITS).columns.tolist() == [0, 2]


def test_scales_are_those_of_the_part_that_chose(rng):
    labels = np.arange(40) % 2
    values = rng.normal(5, 3, (40, 4)) + labels[:, None]

    choice = choose(values, labels, 2, LIMITS)
    scaled = choice.scaled(values, width=5)

    assert np.allclose(scaled[:, :2].mean(axis=0), 0)
    assert np.allclose(scaled[:, :2].std(axis=0), 1)
    assert not scaled[:, 2:].any()


def out_of_fold(values, labels, choose_among):
    """AUROC of features alone, out of fold; who chooses among what is the test's matter."""
    groups = np.arange(len(labels))
    config = RegionalConfig(fit={"inner_folds": 2}, features={"numbers": (5, 10)})
    material = Material(_views(values), labels, groups)
    odds = np.empty(len(labels))
    for held_out in split(labels, groups, 5, 0):
        part = np.setdiff1d(groups, held_out)
        inner = [
            (np.setdiff1d(part, part[fold]), part[fold])
            for fold in split(labels[part], groups[part], 2, 0)
        ]
        number = best_number(material, inner, config)
        seen = choose_among(part)
        choice = choose(values[seen], labels[seen], number, LIMITS)
        odds[held_out] = classifier_log_odds(
            values[part], labels[part], values[held_out], choice, LIMITS.penalty_c
        )
    return auroc(labels, odds)


def mean_over_shuffles(choose_among):
    rng = np.random.default_rng(1)
    found = []
    for _ in range(SHUFFLES):
        values = rng.normal(0, 1, (PATIENTS, FEATURES))
        found.append(out_of_fold(values, rng.permutation(np.arange(PATIENTS) % 2), choose_among))
    return float(np.mean(found))


def near_a_coin(mean):
    return abs(mean - 0.5) < 0.1


def test_with_shuffled_labels_features_alone_are_a_coin():
    assert near_a_coin(mean_over_shuffles(lambda part: part))


def test_a_selection_that_sees_the_judged_patients_would_be_noticed():
    everybody = np.arange(PATIENTS)

    assert not near_a_coin(mean_over_shuffles(lambda _part: everybody))


def _views(values):
    nothing = np.zeros((0, 3, 1, 1), dtype=np.float16)
    return Views(nothing, np.zeros(0, dtype=np.int64), values, np.ones(len(values)))
