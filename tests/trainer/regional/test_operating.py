"""Thresholds that keep what was asked for on regions as drawn and as proposed."""

import numpy as np
import pytest

from trainer.regional.operating import (
    DRAWN,
    ELSEWHERE,
    PROPOSED,
    SHIPPED,
    OutOfFold,
    fitted,
    kept,
    kept_figures,
)
from trainer.regional.settings import RegionalStatementConfig

TARGETS = RegionalStatementConfig()
EXAMS = 200


def judged(signal, shift=0.0, seed=0):
    """Two hundred exams in five folds; log odds of positives lie `signal` higher."""
    rng = np.random.default_rng(seed)
    exams = np.arange(EXAMS)
    labels = exams % 2
    odds = rng.normal(0, 1, EXAMS) + signal * (labels - 0.5) + shift
    return OutOfFold(exams, labels, odds, exams // 2 % 5)


def test_both_kinds_of_regions_keep_what_was_asked_for():
    drawn, proposed = judged(3.0), judged(1.5, shift=-0.5, seed=1)
    alone, together = fitted(drawn, None, TARGETS), fitted(drawn, proposed, TARGETS)

    for found in kept(drawn, proposed, together, TARGETS):
        if found.thresholds == SHIPPED:
            assert found.sensitivity >= TARGETS.sensitivity
            assert found.specificity >= TARGETS.specificity
    broken = {each.regions: each for each in kept(drawn, proposed, alone, TARGETS)[::2]}
    assert broken[DRAWN].sensitivity >= TARGETS.sensitivity
    assert broken[PROPOSED].sensitivity < TARGETS.sensitivity - 0.02
    assert together.conformal["suggested"] > alone.conformal["suggested"]


def test_thresholds_of_other_folds_flatter_nobody():
    """Where nothing can be told, thresholds that have seen a patient do better by him."""
    gains = []
    for seed in range(20):
        drawn = judged(0.0, seed=seed)
        shipped, elsewhere = kept(drawn, None, fitted(drawn, None, TARGETS), TARGETS)
        assert (shipped.thresholds, elsewhere.thresholds) == (SHIPPED, ELSEWHERE)
        gains.append(shipped.sensitivity - elsewhere.sensitivity)

    assert np.mean(gains) > 0


def test_a_fold_s_own_exams_decide_nothing_about_it():
    drawn = judged(2.0)
    first = drawn.fold_of == 0
    spoilt = OutOfFold(
        drawn.exams, np.where(first, 1 - drawn.labels, drawn.labels), drawn.log_odds, drawn.fold_of
    )
    one, other = (kept(each, None, fitted(each, None, TARGETS), TARGETS)[1] for each in (
        drawn, spoilt
    ))  # fmt: skip

    # Whoever of the first fold was right is wrong now; of the rest little changes.
    assert other.sensitivity < one.sensitivity - 0.1


def test_proposals_of_one_label_change_nothing():
    drawn, proposed = judged(2.0), judged(2.0)
    negatives = proposed.part(proposed.labels == 0)

    assert fitted(drawn, negatives, TARGETS) == fitted(drawn, None, TARGETS)
    found = kept(drawn, negatives, fitted(drawn, None, TARGETS), TARGETS)
    assert {each.regions for each in found} == {DRAWN}


def test_the_card_names_region_way_and_thresholds():
    drawn, proposed = judged(2.0), judged(1.0, seed=1)
    found = kept(drawn, proposed, fitted(drawn, proposed, TARGETS), TARGETS)

    card = kept_figures(found, "sublentiform")

    assert len(card) == 16
    assert card["sublentiform_sensitivity"] >= 0.95
    assert card["sublentiform_proposed_other_folds_specificity"] == pytest.approx(0.9, abs=0.05)


def test_few_positives_may_be_called_not_suggested():
    assert TARGETS.sensitivity == 0.95
    assert TARGETS.missed_positives <= 1 - TARGETS.sensitivity + 1e-9
