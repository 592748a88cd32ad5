"""Numbers that turn logits into statements."""

from types import SimpleNamespace

import numpy as np
import pytest

from trainer.operation import left_out_probabilities, member_temperatures, operation

TARGETS = SimpleNamespace(
    sensitivity=0.9, specificity=0.8, missed_positives=0.3, missed_negatives=0.1
)


def cohort(overconfidence=(1.0, 1.0, 1.0), size=6000):
    """Labels drawn with the probability that the logits state, before each fold stretches them."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 2, size)
    labels = (rng.random(size) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)
    fold_of = np.arange(size) % len(overconfidence)
    return labels, log_odds * np.array(overconfidence)[fold_of], fold_of


def calibrated(found, log_odds, fold_of):
    return 1 / (1 + np.exp(-log_odds / np.array(found.temperatures)[fold_of]))


def test_each_member_has_its_own_overconfidence_undone():
    found = member_temperatures(*cohort(overconfidence=(0.5, 1.0, 3.0)))

    assert found == pytest.approx((0.5, 1.0, 3.0), rel=0.1)


def test_a_member_without_error_gets_the_temperature_of_all():
    labels, log_odds, fold_of = cohort(overconfidence=(2.0, 2.0, 2.0))
    lucky = fold_of == 1
    log_odds[lucky] = np.where(labels[lucky] == 1, 1.0, -1.0) * np.abs(log_odds[lucky])

    first, second, third = member_temperatures(labels, log_odds, fold_of)

    assert second < first  # pulled by its own luck, but not to 0
    assert second > 0.5
    assert third == pytest.approx(2.0, rel=0.1)


def test_members_without_any_error_are_left_as_they_are():
    labels, fold_of = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])

    assert member_temperatures(labels, np.array([-1.0, 2.0, -3.0, 1.0]), fold_of) == (1.0, 1.0)


def test_an_exam_owes_nothing_to_its_own_patients_labels():
    labels, log_odds, fold_of = (each[:60] for each in cohort())
    groups = np.arange(60) // 6  # two exams of a patient in each of three folds
    groups = groups * 3 + fold_of
    found = left_out_probabilities(labels, log_odds, fold_of, groups)
    theirs = groups == 4

    changed = left_out_probabilities(
        np.where(theirs, 1 - labels, labels), log_odds, fold_of, groups
    )

    assert theirs.sum() == 2
    assert changed[theirs] == pytest.approx(found[theirs], abs=1e-12)
    assert np.abs(changed - found)[(fold_of == 1) & ~theirs].max() > 1e-3


def test_thresholds_keep_the_sensitivity_and_specificity_asked_for():
    labels, log_odds, fold_of = cohort(overconfidence=(1.0, 2.0, 4.0))
    found = operation(labels, log_odds, fold_of, TARGETS)

    probability = calibrated(found, log_odds, fold_of)
    assert found.threshold_low <= found.threshold_high
    assert (probability[labels == 1] >= found.threshold_low).mean() == pytest.approx(0.9, abs=0.01)
    assert (probability[labels == 0] < found.threshold_high).mean() == pytest.approx(0.8, abs=0.01)


def test_conformal_sets_miss_no_more_than_allowed_in_each_class():
    labels, log_odds, fold_of = cohort(size=21000)
    fitting, fresh = slice(None, 1200), slice(1200, None)
    found = operation(labels[fitting], log_odds[fitting], fold_of[fitting], TARGETS)

    probability = calibrated(found, log_odds[fresh], fold_of[fresh])
    positive = labels[fresh] == 1
    missed_positives = (1 - probability[positive] > found.conformal["suggested"]).mean()
    missed_negatives = (probability[~positive] > found.conformal["not suggested"]).mean()
    assert missed_positives == pytest.approx(0.3, abs=0.05)
    assert missed_negatives == pytest.approx(0.1, abs=0.04)
