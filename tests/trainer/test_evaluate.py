"""Numbers that turn logits into statements."""

import numpy as np
import pytest

from trainer.evaluate import auroc, conformal_threshold, fit_temperature, operation
from trainer.settings import FitSettings


def cohort(overconfidence=1.0, size=4000):
    """Labels drawn with the probability that the logits state, before they are stretched."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 2, size)
    labels = (rng.random(size) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)
    return labels, overconfidence * log_odds


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(overconfidence):
    assert fit_temperature(*cohort(overconfidence)) == pytest.approx(overconfidence, rel=0.07)


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    assert auroc(np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4])) == 0.75


def test_thresholds_keep_the_sensitivity_and_specificity_asked_for():
    labels, log_odds = cohort()
    found = operation(labels, log_odds, FitSettings(sensitivity=0.9, specificity=0.8))

    probability = 1 / (1 + np.exp(-log_odds / found.temperature))
    assert found.threshold_low <= found.threshold_high
    assert (probability[labels == 1] >= found.threshold_low).mean() == pytest.approx(0.9, abs=0.01)
    assert (probability[labels == 0] < found.threshold_high).mean() == pytest.approx(0.8, abs=0.01)


def test_conformal_sets_miss_no_more_than_allowed_in_each_class():
    labels, log_odds = cohort(size=20000)
    fitting, fresh = slice(None, 1000), slice(1000, None)
    settings = FitSettings(missed_positives=0.3, missed_negatives=0.1)
    found = operation(labels[fitting], log_odds[fitting], settings)

    probability = 1 / (1 + np.exp(-log_odds[fresh] / found.temperature))
    positive = labels[fresh] == 1
    missed_positives = (1 - probability[positive] > found.conformal["suggested"]).mean()
    missed_negatives = (probability[~positive] > found.conformal["not suggested"]).mean()
    assert missed_positives == pytest.approx(0.3, abs=0.05)
    assert missed_negatives == pytest.approx(0.1, abs=0.04)


def test_too_few_cases_leave_no_label_out():
    assert conformal_threshold(np.array([0.1, 0.2]), missed=0.1) == 1.0
