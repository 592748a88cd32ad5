"""Figures against naive implementations, other packages and published values."""

import math
import time

import numpy as np
import pytest
from scipy import integrate, special
from scipy import stats as scipy_stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import auc, roc_curve

from trainer.statistics import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    Comparison,
    auroc,
    bootstrap,
    brier,
    calibration,
    conformal_threshold,
    corrected_interval,
    cross_conformal,
    decision_curve,
    delong,
    delong_interval,
    fit_temperature,
    fold_summary,
    hanley_mcneil,
    operating_points,
    predictive_values,
    reliability,
    roc,
    roc_band,
    wilson,
)

Z = 1.959963984540054  # two-sided 95 %

# Twelve positives and ten negatives, with ties within and across classes.
LABELS = np.array([1] * 12 + [0] * 10)
NETWORK = np.concatenate(
    [
        [0.91, 0.83, 0.78, 0.78, 0.66, 0.62, 0.55, 0.51, 0.47, 0.40, 0.33, 0.12],
        [0.71, 0.55, 0.48, 0.42, 0.37, 0.33, 0.25, 0.21, 0.12, 0.05],
    ]
)
BERN = np.array([7, 5, 3, 9, 2, 6, 4, 2, 0, 5, 3, 1, 4, 2, 3, 1, 0, 2, 0, 1, 2, 0])

# The 109 CT scans of Hanley & McNeil 1982, table I: ratings 1 to 5 of 58 normal and 51 abnormal.
CT_LABELS = np.repeat([0, 1], [58, 51])
CT_RATINGS = np.repeat([1, 2, 3, 4, 5] * 2, [33, 6, 6, 11, 2, 3, 2, 2, 11, 33])

# Faghani et al. 2024, table 2.
PAPER_FOLDS = (0.8988, 0.8284, 0.8580, 0.8580, 0.8910)


def cohort(size=130, seed=0, separation=1.5, decimals=3):
    """Half positives; scores that are rounded, so that some tie."""
    random = np.random.default_rng(seed)
    labels = np.arange(size) % 2
    return labels, np.round(random.normal(separation * labels, 1), decimals)


def calibrated(size=4000, overconfidence=1.0):
    """Labels drawn with the probability that log odds state, before these are stretched."""
    random = np.random.default_rng(1)
    log_odds = random.normal(0, 2, size)
    labels = (random.random(size) < special.expit(log_odds)).astype(np.int64)
    return labels, overconfidence * log_odds


def rightly_ordered(labels, scores):
    """(positives, negatives): 1 where the positive is above, 1/2 where they tie."""
    positives, negatives = scores[labels == 1][:, None], scores[labels == 0][None, :]
    return (positives > negatives) + (positives == negatives) / 2


def delong_by_pairs(labels, one, other):
    """Variance of the difference from every pair, as DeLong et al. 1988 write it."""
    pairs = [rightly_ordered(labels, one), rightly_ordered(labels, other)]
    of_positives = np.cov([each.mean(axis=1) for each in pairs])
    of_negatives = np.cov([each.mean(axis=0) for each in pairs])
    covariance = of_positives / pairs[0].shape[0] + of_negatives / pairs[0].shape[1]
    return covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], covariance[0, 0]


def error_of(interval, area):
    """The standard error beneath an interval that is symmetric in logits."""
    width = special.logit(interval.high) - special.logit(interval.low)
    return width / (2 * Z) * area * (1 - area)


# AUROC and its interval


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_auroc_is_the_share_of_pairs_in_the_right_order(decimals):
    labels, scores = cohort(decimals=decimals)
    assert auroc(labels, scores) == pytest.approx(rightly_ordered(labels, scores).mean(), abs=1e-12)


def test_auroc_of_separated_classes_is_one_and_of_equal_scores_a_half():
    assert auroc([0, 0, 1], [1.0, 2.0, 3.0]) == 1.0
    assert auroc([0, 0, 1], [2.0, 2.0, 2.0]) == 0.5


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_delong_from_ranks_is_delong_from_all_pairs(decimals):
    labels, one = cohort(decimals=decimals)
    other = np.round(one + np.random.default_rng(3).normal(0, 1, one.size), decimals)
    variance, variance_of_one = delong_by_pairs(labels, one, other)

    found = delong(labels, one, other)

    assert found.difference == pytest.approx(auroc(labels, one) - auroc(labels, other))
    assert found.interval.high - found.difference == pytest.approx(Z * math.sqrt(variance))
    assert found.difference - found.interval.low == pytest.approx(Z * math.sqrt(variance))
    expected = 2 * scipy_stats.norm.sf(abs(found.difference) / math.sqrt(variance))
    assert found.p_value == pytest.approx(expected)
    interval = delong_interval(labels, one)
    assert error_of(interval, found.auroc_one) == pytest.approx(math.sqrt(variance_of_one))


def test_the_ct_ratings_have_the_interval_that_pauc_gives_them():
    # pauc 0.2.2, ci_auc(ROC(CT_LABELS, CT_RATINGS), method="delong"), without transformation.
    low, high = 0.8329523276581718, 0.9533897953979471

    area = auroc(CT_LABELS, CT_RATINGS)
    error = error_of(delong_interval(CT_LABELS, CT_RATINGS), area)

    assert area == pytest.approx((low + high) / 2)
    assert round(area, 3) == 0.893  # Hanley & McNeil 1982
    assert error == pytest.approx((high - low) / (2 * Z))


def test_two_scores_compare_as_in_mlstatkit():
    # MLstatkit 0.1.91, Delong_test(LABELS, NETWORK, BERN), which states z of the second less the
    # first; pauc 0.2.2, compare(), has p 0.8883 and the interval -0.1869 to 0.1619.
    z, p_value, variance = 0.1404785366848005, 0.8882819095667793, 0.007917718855218856

    found = delong(LABELS, NETWORK, BERN)

    assert found.auroc_one == pytest.approx(0.7791666666666667)
    assert found.auroc_other == pytest.approx(0.7916666666666666)
    assert found.difference == pytest.approx(-z * math.sqrt(variance))
    assert found.p_value == pytest.approx(p_value)
    assert round(found.interval.low, 4) == -0.1869
    assert round(found.interval.high, 4) == 0.1619


def test_the_order_of_cases_and_the_unit_of_scores_change_nothing():
    shuffled = np.random.default_rng(0).permutation(LABELS.size)
    moved = delong(LABELS[shuffled], np.exp(9 * NETWORK[shuffled]), BERN[shuffled])
    assert moved.interval.low == pytest.approx(delong(LABELS, NETWORK, BERN).interval.low)


def test_an_interval_of_a_high_area_stays_below_one():
    labels, scores = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([1, 2, 3, 5, 4, 6, 7, 8])
    variance, _ = delong_by_pairs(labels, scores, np.zeros(8))

    found = delong_interval(labels, scores)

    assert 15 / 16 + Z * math.sqrt(variance) > 1  # where it would end without the logit
    assert 0 < found.low < 15 / 16 < found.high < 1


def test_a_wider_level_is_a_wider_interval():
    narrow, wide = (delong_interval(LABELS, NETWORK, level) for level in (0.9, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        pytest.param([0, 0, 1, 1], [1, 2, 3, 4], id="separated"),
        pytest.param([1, 1, 0, 0], [1, 2, 3, 4], id="separated the wrong way"),
        pytest.param([0, 0, 1, 1], [5, 5, 5, 5], id="all alike"),
        pytest.param([0, 0, 0, 1], [1, 2, 3, 2.5], id="a single positive"),
    ],
)
def test_an_area_without_variance_has_no_interval(labels, scores):
    assert delong_interval(labels, scores) is None


def test_scores_that_rank_alike_do_not_differ_and_have_no_p_value():
    found = delong(LABELS, NETWORK, 2 * NETWORK + 1)
    assert found == Comparison(found.auroc_one, found.auroc_one, 0.0, None, None)


@pytest.mark.parametrize(
    ("area", "low", "high"), [(0.867, 0.80, 0.93), (0.80, 0.72, 0.88)], ids=["network", "Bern"]
)
def test_the_papers_areas_have_overlapping_intervals(area, low, high):
    margin = Z * hanley_mcneil(area, positives=66, negatives=63)
    assert (round(area - margin, 2), round(area + margin, 2)) == (low, high)


def test_one_fold_of_the_paper_is_known_to_seven_in_fifty():
    assert round(Z * hanley_mcneil(0.867, positives=13, negatives=13), 2) == 0.14


def test_hanley_mcneil_holds_for_exponential_scores():
    """Positives exponential of rate b, negatives of rate 1: two positives beat one negative."""
    area, rate = 0.8, 0.25  # 1 / (1 + rate)
    both, _ = integrate.quad(lambda x: math.exp(-2 * rate * x) * math.exp(-x), 0, np.inf)
    neither, _ = integrate.quad(
        lambda x: (1 - math.exp(-x)) ** 2 * rate * math.exp(-rate * x), 0, np.inf
    )
    variance = area * (1 - area) + 4 * (both - area**2) + 9 * (neither - area**2)
    assert hanley_mcneil(area, 5, 10) == pytest.approx(math.sqrt(variance / 50))


# Bootstrap


def test_the_bootstrap_is_scipys_where_each_patient_has_one_exam():
    labels, scores = cohort(size=60)
    reference = scipy_stats.bootstrap(
        (labels, scores),
        lambda truth, values: rightly_ordered(truth, values).mean(),
        paired=True,
        vectorized=False,
        n_resamples=500,
        method="BCa",
        rng=np.random.default_rng(5),
    ).confidence_interval

    found = bootstrap(labels, scores, auroc, np.arange(60), repeats=500, seed=5)

    assert found.low == pytest.approx(reference.low, abs=1e-12)
    assert found.high == pytest.approx(reference.high, abs=1e-12)


def test_a_patient_with_every_exam_twice_is_still_one_patient():
    labels, scores = cohort(size=40)
    once = bootstrap(labels, scores, auroc, np.arange(40), repeats=200)
    twice = bootstrap(
        np.tile(labels, 2), np.tile(scores, 2), auroc, np.tile(np.arange(40), 2), repeats=200
    )
    assert twice.low == pytest.approx(once.low)
    assert twice.high == pytest.approx(once.high)


def test_a_difference_of_two_scores_is_bootstrapped_as_delong_has_it():
    labels, one = cohort(size=200)
    other = one + np.random.default_rng(3).normal(0, 1.5, one.size)

    def difference(truth, values):
        return auroc(truth, values[:, 0]) - auroc(truth, values[:, 1])

    found = bootstrap(labels, np.stack([one, other], axis=1), difference, np.arange(200))
    expected = delong(labels, one, other).interval

    assert found.low == pytest.approx(expected.low, abs=0.012)
    assert found.high == pytest.approx(expected.high, abs=0.012)


def test_draws_that_miss_a_class_are_drawn_again():
    found = bootstrap([1, 1, 0, 0, 0], [0.9, 0.3, 0.5, 0.2, 0.1], auroc, range(5), repeats=300)
    assert 0 <= found.low < found.high <= 1


def test_the_same_seed_gives_the_same_interval():
    first, again, other = (
        bootstrap(LABELS, NETWORK, auroc, range(22), repeats=100, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    "scores", [[1, 2, 3, 4, 5, 6], [7] * 6], ids=["classes separated", "scores alike"]
)
def test_draws_that_do_not_vary_have_no_interval(scores):
    assert bootstrap([0, 0, 0, 1, 1, 1], scores, auroc, range(6), repeats=50) is None


def test_two_exams_of_one_patient_are_no_two_patients():
    with pytest.raises(ValueError, match="1 patients with positive and 3 with negative"):
        bootstrap([1, 1, 0, 0, 0], [5, 4, 3, 2, 1], auroc, [7, 7, 1, 2, 3])


def test_a_statistic_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        bootstrap(LABELS, NETWORK, lambda *_: math.nan, range(22), repeats=10)


def test_two_thousand_draws_of_a_cohort_take_less_than_three_seconds():
    labels, scores = cohort(size=130)
    begun = time.process_time()
    bootstrap(labels, scores, auroc, np.arange(130), repeats=2000)
    roc_band(labels, scores, np.arange(130), np.linspace(0, 1, 101), repeats=2000)
    assert time.process_time() - begun < 3


# The curve


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_the_curve_is_scikit_learns(decimals):
    labels, scores = cohort(decimals=decimals)
    rates, sensitivity, thresholds = roc_curve(labels, scores, drop_intermediate=False)

    found = roc(labels, scores)

    np.testing.assert_allclose(found.false_positive_rate, rates)
    np.testing.assert_allclose(found.sensitivity, sensitivity)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    area = auc(found.false_positive_rate, found.sensitivity)
    assert area == pytest.approx(auroc(labels, scores))


def test_the_band_is_the_percentile_of_curves_of_drawn_patients():
    labels, scores = cohort(size=60, decimals=1)
    grid = np.linspace(0.05, 0.95, 7)
    drawn = []
    for rows in np.random.default_rng(4).integers(60, size=(80, 60)):
        rates, sensitivity, _ = roc_curve(labels[rows], scores[rows], drop_intermediate=False)
        drawn.append(np.interp(grid, rates, sensitivity))

    low, high = roc_band(labels, scores, np.arange(60), grid, repeats=80, seed=4)

    np.testing.assert_allclose(low, np.percentile(drawn, 2.5, axis=0))
    np.testing.assert_allclose(high, np.percentile(drawn, 97.5, axis=0))


# Folds


def test_the_papers_spread_is_the_one_divided_by_five():
    found = fold_summary(PAPER_FOLDS)

    assert found.mean == pytest.approx(0.86684)
    assert found.sd == pytest.approx(0.0285, abs=5e-5)
    assert found.sd_ddof0 == pytest.approx(0.02545, abs=5e-6)  # 0.0254 in the paper, cut off
    assert (found.ddof, found.values) == (1, PAPER_FOLDS)


def test_overlapping_training_sets_widen_the_interval_of_the_mean():
    # By hand: t(0.975, 4) = 2.776445; sd 0.028455; 1/5 + 26/103 = 0.452427.
    margin = 2.776445 * 0.028455 * math.sqrt(0.452427)

    found = corrected_interval(PAPER_FOLDS, train_size=103, test_size=26)

    assert found.low == pytest.approx(0.86684 - margin, abs=1e-5)
    assert found.high == pytest.approx(0.86684 + margin, abs=1e-5)


@pytest.mark.parametrize("values", [[], [0.9], [0.9, math.nan]])
def test_a_spread_needs_two_finite_values(values):
    with pytest.raises(ValueError, match="at least two finite values"):
        fold_summary(values)
    with pytest.raises(ValueError, match="at least two finite values"):
        corrected_interval(values, 100, 25)


# Proportions and operating points


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # these four: Newcombe, Stat Med 1998;17:857
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (27, 252, 0.075, 0.151),  # these two: design/science.md A4
        (15, 82, 0.114, 0.280),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_gives_published_limits(hits, of, low, high):
    found = wilson(hits, of)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))


@pytest.mark.parametrize("hits", range(8))
def test_wilson_inverts_the_score_test(hits):
    found = wilson(hits, 7)
    reference = scipy_stats.binomtest(hits, 7).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


@pytest.mark.parametrize(("hits", "of"), [(0, 0), (3, 2), (-1, 2)])
def test_a_proportion_that_does_not_exist_is_refused(hits, of):
    with pytest.raises(ValueError, match=f"{hits} of {of} cases"):
        wilson(hits, of)


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("target", [0.0, 0.5, 1 - 0.3, 0.9, 1.0])
def test_an_operating_point_is_the_best_of_all_thresholds_that_reach_the_target(target, decimals):
    labels, scores = cohort(size=40, decimals=decimals)
    positives, negatives = scores[labels == 1], scores[labels == 0]
    every = [math.inf, *scores]
    rates = [(np.mean(positives >= each), np.mean(negatives < each)) for each in every]

    by_sensitivity, by_specificity = operating_points(labels, scores, [target])

    assert by_sensitivity.sensitivity >= target - 1e-9
    assert by_specificity.specificity >= target - 1e-9
    assert by_sensitivity.specificity == max(r[1] for r in rates if r[0] >= target - 1e-9)
    assert by_specificity.sensitivity == max(r[0] for r in rates if r[1] >= target - 1e-9)
    for point in (by_sensitivity, by_specificity):
        at = math.inf if point.threshold is None else point.threshold
        assert point.sensitivity == np.mean(positives >= at)
        assert point.specificity == np.mean(negatives < at)
        assert point.specificity_interval == wilson(round(point.specificity * 20), 20)
        assert point.sensitivity_interval == wilson(round(point.sensitivity * 20), 20)


def test_where_a_negative_scores_highest_full_specificity_calls_nobody():
    *_, point = operating_points([0, 1, 1], [3.0, 1.0, 2.0], [1.0])
    assert (point.threshold, point.sensitivity, point.specificity) == (None, 0.0, 1.0)


@pytest.mark.parametrize("target", [-0.1, 1.1, math.nan])
def test_a_target_that_is_no_share_is_refused(target):
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        operating_points(LABELS, NETWORK, [target])


def test_predictive_values_are_those_of_a_counted_table():
    # 1000 people: 100 ill of whom 90 called, 900 well of whom 180 called.
    (found,) = predictive_values(0.9, 0.8, [0.1])
    assert (found.ppv, found.npv) == (pytest.approx(90 / 270), pytest.approx(720 / 730))


def test_predictive_values_of_calls_that_never_happen_do_not_exist():
    (nobody,) = predictive_values(0.0, 1.0, [0.3])
    (everybody,) = predictive_values(1.0, 0.0, [0.3])
    assert (nobody.ppv, everybody.npv) == (None, None)


def test_net_benefit_counts_false_alarms_at_the_odds_of_the_threshold():
    # Of 10 cases, 4 positive: at 0.2, 3 hits and 2 alarms: 3/10 - 2/10 x 0.2/0.8.
    labels = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    stated = [0.9, 0.5, 0.2, 0.1, 0.6, 0.3, 0.1, 0.1, 0.05, 0.0]

    (found,) = decision_curve(labels, stated, [0.2])

    assert found.model == pytest.approx(0.25)
    assert found.treat_all == pytest.approx(0.4 - 0.6 / 4)
    assert found.treat_none == 0


def test_examining_all_is_worth_nothing_where_the_threshold_is_the_prevalence():
    labels, log_odds = calibrated(size=400)
    (found,) = decision_curve(labels, special.expit(log_odds), [labels.mean()])
    assert found.treat_all == pytest.approx(0, abs=1e-12)
    assert found.model > 0


@pytest.mark.parametrize("threshold", [-0.1, 1.0, math.nan])
def test_a_threshold_without_odds_is_refused(threshold):
    with pytest.raises(ValueError, match="0 to below 1"):
        decision_curve([0, 1], [0.1, 0.9], [threshold])


# Calibration


@pytest.mark.parametrize("overconfidence", [0.02, 0.5, 1.0, 3.0, 40.0])
def test_slope_and_intercept_are_scikit_learns_without_penalty(overconfidence):
    labels, log_odds = calibrated(size=300, overconfidence=overconfidence)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000)
    reference.fit(log_odds[:, None] / overconfidence, labels)

    found = calibration(labels, log_odds + 0.3 * overconfidence)

    slope = reference.coef_[0, 0]
    assert found.slope * overconfidence == pytest.approx(slope, rel=1e-5)
    assert found.intercept == pytest.approx(reference.intercept_[0] - 0.3 * slope, abs=1e-5)


def test_calibration_of_two_values_is_that_of_a_fourfold_table():
    # At log odds 1: 30 positive, 10 negative; at -1: 5 and 25. Woolf's variance of a log odds
    # ratio, 1/30 + 1/10 + 1/5 + 1/25, belongs to twice the slope.
    labels = np.repeat([1, 0, 1, 0], [30, 10, 5, 25])
    log_odds = np.repeat([1.0, -1.0], [40, 30])
    above, below = math.log(3), math.log(0.2)
    margin = Z * math.sqrt(1 / 30 + 1 / 10 + 1 / 5 + 1 / 25) / 2

    found = calibration(labels, log_odds)

    assert found.slope == pytest.approx((above - below) / 2)
    assert found.intercept == pytest.approx((above + below) / 2)
    assert found.slope_interval.high - found.slope == pytest.approx(margin)
    assert found.intercept - found.intercept_interval.low == pytest.approx(margin)


def test_probabilities_that_mean_what_they_say_are_found_to():
    found = calibration(*calibrated())
    assert found.slope_interval.low < 1 < found.slope_interval.high
    assert found.intercept_interval.low < 0 < found.intercept_interval.high
    shift = found.intercept_at_slope_1_interval
    assert shift.low < 0 < shift.high


def test_calibration_in_the_large_is_the_shift_that_was_put_in():
    labels, log_odds = calibrated()
    right, high = calibration(labels, log_odds), calibration(labels, log_odds + 0.7)
    assert high.intercept_at_slope_1 == pytest.approx(right.intercept_at_slope_1 - 0.7)


def test_calibration_in_the_large_of_a_constant_is_its_distance_from_the_prevalence():
    found = calibration([1, 0, 0, 0], [0.5] * 4)
    assert found.intercept_at_slope_1 == pytest.approx(math.log(1 / 3) - 0.5)
    margin = Z / math.sqrt(4 * 0.25 * 0.75)
    assert found.intercept_at_slope_1_interval.high == pytest.approx(
        found.intercept_at_slope_1 + margin
    )


@pytest.mark.parametrize(
    "log_odds",
    [
        pytest.param([-2, -1, 1, 2], id="separated"),
        pytest.param([2, 1, -1, -2], id="separated the wrong way"),
        pytest.param([-2, 1, 1, 2], id="separated but for a tie"),
        pytest.param([1, 1, 1, 1], id="all alike"),
    ],
)
def test_classes_that_log_odds_part_have_no_slope(log_odds):
    found = calibration([0, 0, 1, 1], log_odds)
    assert (found.slope, found.slope_interval) == (None, None)
    assert (found.intercept, found.intercept_interval) == (None, None)
    assert math.isfinite(found.intercept_at_slope_1)
    assert found.brier >= 0


def test_certainty_everywhere_leaves_the_shift_without_an_interval():
    assert calibration([0, 1], [-900.0, 900.0]).intercept_at_slope_1_interval is None


def test_brier_is_the_mean_squared_error():
    assert brier([1, 0, 1], [0.8, 0.3, 0.1]) == pytest.approx((0.04 + 0.09 + 0.81) / 3)


def test_reliability_bins_are_scikit_learns_quantiles():
    labels, log_odds = calibrated(size=130)
    stated = np.round(special.expit(log_odds), 2)
    observed, predicted = calibration_curve(labels, stated, n_bins=7, strategy="quantile")

    rows = reliability(labels, stated, bins=7)

    assert [row.mean_predicted for row in rows] == pytest.approx(predicted.tolist())
    assert [row.observed for row in rows] == pytest.approx(observed.tolist())
    assert sum(row.count for row in rows) == 130
    assert rows[0].interval == wilson(round(rows[0].observed * rows[0].count), rows[0].count)


def test_like_probabilities_share_a_bin():
    rows = reliability([0, 1, 1, 0, 1], [0.4] * 5, bins=10)
    assert [(row.count, row.observed) for row in rows] == [(5, 0.6)]


# Temperature


class Identity(ClassifierMixin, BaseEstimator):
    """A classifier whose log odds are its only feature, as scikit-learn wants it."""

    def fit(self, _features, labels):
        self.classes_ = np.unique(labels)
        return self

    def decision_function(self, features):
        return features[:, 0]

    def predict(self, features):
        return (features[:, 0] > 0).astype(int)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_the_temperature_is_scikit_learns(overconfidence):
    labels, log_odds = calibrated(size=300, overconfidence=overconfidence)
    features = log_odds[:, None]
    frozen = FrozenEstimator(Identity().fit(features, labels))
    reference = CalibratedClassifierCV(frozen, method="temperature").fit(features, labels)

    temperature = fit_temperature(labels, log_odds)

    stated = special.expit(log_odds / temperature)
    np.testing.assert_allclose(stated, reference.predict_proba(features)[:, 1], atol=1e-6)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(overconfidence):
    found = fit_temperature(*calibrated(overconfidence=overconfidence))
    assert found == pytest.approx(overconfidence, rel=0.07)


def test_no_temperature_nearby_fits_better():
    labels, log_odds = calibrated(size=50)
    best = fit_temperature(labels, log_odds)

    def cross_entropy(temperature):
        stated = special.expit(log_odds / temperature)
        return -np.mean(np.where(labels == 1, np.log(stated), np.log1p(-stated)))

    assert cross_entropy(best) < min(cross_entropy(best * 1.01), cross_entropy(best / 1.01))


def test_without_an_optimum_the_temperature_is_exactly_a_limit():
    assert fit_temperature([0, 1], [-1.0, 2.0]) == LOWEST_TEMPERATURE
    assert fit_temperature([0, 1], [2.0, -1.0]) == HIGHEST_TEMPERATURE


def test_log_odds_of_zero_have_no_temperature():
    with pytest.raises(ValueError, match="no temperature changes that"):
        fit_temperature([0, 1], [0.0, 0.0])


# Conformal sets


def mondrian_by_p_values(labels, stated, fold_of, missed):
    """Sets as Vovk defines them: the labels whose p-value is above what may be missed.

    The p-value of a label is the share of its class in the other folds, the case itself
    included, that conforms no better. `missed` is in percent, to stay with whole numbers.
    """
    sets = []
    for probability, fold in zip(stated, fold_of, strict=True):
        kept = set()
        for label in (0, 1):
            others = [
                p if label == 0 else 1 - p
                for y, p, f in zip(labels, stated, fold_of, strict=True)
                if y == label and f != fold
            ]
            own = probability if label == 0 else 1 - probability
            conforming_no_better = 1 + sum(each >= own for each in others)
            if 100 * conforming_no_better > missed[label] * (len(others) + 1):
                kept.add(label)
        sets.append(kept)
    return sets


@pytest.mark.parametrize("missed", [{0: 10, 1: 10}, {0: 5, 1: 30}, {0: 60, 1: 70}, {0: 1, 1: 1}])
def test_mondrian_sets_are_those_of_p_values(missed):
    labels, scores = cohort(size=90, separation=1.0, decimals=1)
    stated = special.expit(scores - 0.5)
    fold_of = np.arange(90) // 18
    sets = mondrian_by_p_values(labels.tolist(), stated.tolist(), fold_of.tolist(), missed)

    found = cross_conformal(labels, stated, fold_of, missed[1] / 100, missed[0] / 100)

    for label, coverage in ((1, found.positives), (0, found.negatives)):
        own = [each for each, y in zip(sets, labels, strict=True) if y == label]
        sizes = [len(each) for each in own]
        assert coverage.count == len(own)
        assert coverage.promised == pytest.approx(1 - missed[label] / 100)
        assert coverage.covered == pytest.approx(np.mean([label in each for each in own]))
        assert coverage.interval == wilson(sum(label in each for each in own), len(own))
        shares = [sizes.count(size) / len(own) for size in (0, 1, 2)]
        assert [coverage.empty, coverage.single, coverage.both] == pytest.approx(shares)


def test_each_class_keeps_its_own_promise():
    labels, scores = cohort(size=3000, separation=1.0, decimals=9)
    found = cross_conformal(labels, special.expit(scores), np.arange(3000) % 5, 0.3, 0.1)
    assert found.positives.covered == pytest.approx(0.7, abs=0.03)
    assert found.negatives.covered == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(
    ("count", "missed", "rank"), [(9, 0.1, 9), (19, 0.05, 19), (99, 0.07, 93), (9, 0.7, 3)]
)
def test_a_conformal_threshold_is_the_value_of_the_corrected_rank(count, missed, rank):
    values = np.random.default_rng(0).permutation(np.arange(1, count + 1)) / 1000
    assert conformal_threshold(values, missed) == rank / 1000


def test_too_few_cases_leave_no_label_out():
    assert conformal_threshold([0.1, 0.2], missed=0.1) == 1.0


@pytest.mark.parametrize("missed", [0.0, 1.0, -1.0, math.nan])
def test_a_share_to_miss_lies_between_nothing_and_all(missed):
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_threshold([0.1], missed)


def test_a_single_fold_has_no_others_to_learn_from():
    with pytest.raises(ValueError, match="from 0 values"):
        cross_conformal([0, 1], [0.1, 0.9], [0, 0], 0.1, 0.1)


# Input that no figure can use

BOTH_CLASSES = {
    "auroc": auroc,
    "delong_interval": delong_interval,
    "delong": lambda labels, scores: delong(labels, scores, scores),
    "bootstrap": lambda labels, scores: bootstrap(labels, scores, auroc, range(len(labels))),
    "roc": roc,
    "roc_band": lambda labels, scores: roc_band(labels, scores, range(len(labels)), [0.5]),
    "operating_points": lambda labels, scores: operating_points(labels, scores, [0.9]),
    "calibration": calibration,
    "fit_temperature": fit_temperature,
    "cross_conformal": lambda y, p: cross_conformal(y, p, range(len(y)), 0.1, 0.1),
}
ANY_CLASS = {
    "brier": brier,
    "reliability": reliability,
    "decision_curve": lambda labels, stated: decision_curve(labels, stated, [0.5]),
}
EVERY = BOTH_CLASSES | ANY_CLASS


@pytest.mark.parametrize("figure", BOTH_CLASSES.values(), ids=BOTH_CLASSES)
@pytest.mark.parametrize("label", [0, 1])
def test_a_figure_of_two_classes_refuses_one(figure, label):
    with pytest.raises(ValueError, match="both classes"):
        figure([label] * 3, [0.1, 0.2, 0.3])


@pytest.mark.parametrize("figure", ANY_CLASS.values(), ids=ANY_CLASS)
def test_a_figure_of_probabilities_takes_one_class(figure):
    assert figure([1, 1], [0.5, 1.0])


@pytest.mark.parametrize("figure", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize(
    ("labels", "scores", "told"),
    [
        ([], [], "at least one case"),
        ([0, 1], [0.1, 0.2, 0.3], "one value per label"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "neither 0"),
        ([0, 1, 1], [0.1, math.nan, 0.3], "1 of 3 values are not finite"),
        ([0, 1, 1], [0.1, math.inf, 0.3], "1 of 3 values are not finite"),
    ],
)
def test_unusable_cases_are_refused_in_words(figure, labels, scores, told):
    with pytest.raises(ValueError, match=told):
        figure(labels, scores)


@pytest.mark.parametrize("figure", ANY_CLASS.values(), ids=ANY_CLASS)
def test_log_odds_given_for_probabilities_are_noticed(figure):
    with pytest.raises(ValueError, match="were log odds given"):
        figure([0, 1], [-2.0, 3.0])


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_in_percent_is_refused(level):
    with pytest.raises(ValueError, match=r"such as 0\.95"):
        wilson(1, 2, level)
