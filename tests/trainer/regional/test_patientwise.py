import numpy as np
import pytest

from trainer.regional.patientwise import Slices, Thresholds, best_threshold, figures, thresholds

ZERO = Thresholds(0.0, 0.0)


@pytest.fixture
def slices():
    """Patient 0 negative: one slice wrong. 1 negative: right. 2 positive: two of three right,
    and the wrong one is very wrong. 3 positive: right.
    """
    exam_of = np.array([0, 0, 0, 1, 2, 2, 2, 3])
    odds = np.array([-1.0, -1.0, 0.5, -2.0, 1.0, 1.0, -5.0, 3.0])
    return Slices(np.array([0, 0, 1, 1])[exam_of], odds, exam_of)


def test_strategies_differ_as_they_should(slices):
    found = figures(slices, ZERO)

    assert found["slice"].accuracy == 6 / 8
    assert found["strict"].accuracy == 2 / 4
    assert found["majority"].accuracy == 1.0
    assert found["mean_logit"].accuracy == 3 / 4


def test_a_strict_figure_ranks_nobody(slices):
    assert figures(slices, ZERO)["strict"].auroc is None


def test_precision_recall_and_f1_are_of_the_calls(slices):
    found = figures(slices, ZERO)["strict"]

    assert (found.precision, found.recall, found.f1) == (1 / 2, 1 / 2, 1 / 2)


def test_precision_is_0_where_nothing_is_called_positive(slices):
    found = figures(slices, Thresholds(10.0, 10.0))["mean_logit"]

    assert (found.precision, found.recall, found.f1) == (0, 0, 0)
    assert found.accuracy == 0.5


def test_half_of_the_slices_is_no_majority():
    exam_of = np.array([0, 0, 1, 1])
    slices = Slices(np.array([0, 1])[exam_of], np.array([1.0, -1.0, 1.0, 1.0]), exam_of)

    assert figures(slices, ZERO)["majority"].accuracy == 1.0


def test_thresholds_call_both_labels_right_most_evenly(slices):
    odds = np.array([-3.0, -1.0, -0.5, 1.0, 2.0, 4.0])
    labels = np.array([0, 0, 0, 0, 1, 1])

    assert best_threshold(labels, odds) == 1.5
    assert best_threshold(labels, odds + 7) == 8.5
    assert thresholds(slices).patient == 1.25
