import numpy as np
import pytest

from trainer.regional.patientwise import (
    Slices,
    Thresholds,
    figures,
    halfway,
    scale_of,
    thresholds,
)

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


def test_thresholds_lie_halfway_between_both_labels_however_many_there_are_of_each(slices):
    odds = np.array([-3.0, -1.0, -0.5, -0.5, 2.0, 4.0])
    labels = np.array([0, 0, 0, 0, 1, 1])

    assert halfway(labels, odds) == pytest.approx((3 - 1.25) / 2)
    assert halfway(labels, odds + 7) == pytest.approx(halfway(labels, odds) + 7)
    assert thresholds(slices).patient == pytest.approx(((-1 + 3) / 2 + (-0.5 - 2) / 2) / 2)


def test_a_network_that_tells_nothing_calls_about_half_of_them():
    rng = np.random.default_rng(0)
    for _ in range(20):
        odds, labels = rng.normal(3, 2, 40), rng.permutation(np.arange(40) % 2)
        assert 0.2 < (odds >= halfway(labels, odds)).mean() < 0.8


def test_how_many_are_called_positive_is_told(slices):
    found = figures(slices, Thresholds(0.7, 10.0))

    assert (found["slice"].called, found["mean_logit"].called) == (3, 0)


def test_the_threshold_of_one_network_means_the_same_in_the_units_of_another():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    truth = labels + rng.normal(0, 0.7, 80)
    inner, outer = 2 * truth - 5, 0.5 * truth + 9  # the same judgement, in other log odds
    at = Thresholds(*[halfway(labels, scale_of(labels, inner).units(inner))] * 2)

    moved = at.on(scale_of(labels, outer))

    np.testing.assert_array_equal(
        outer >= moved.patient, inner >= at.on(scale_of(labels, inner)).patient
    )
    assert moved.patient == pytest.approx(halfway(labels, outer))


def test_a_network_that_says_the_same_of_everything_still_has_a_threshold():
    scale = scale_of(np.array([0, 1]), np.array([2.0, 2.0]))

    assert Thresholds(0.0, 0.0).on(scale).patient == 2.0
