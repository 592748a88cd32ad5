"""Verdicts on what the paper says: made-up figures on either side of each rule."""

from dataclasses import replace

import numpy as np
import pytest

from trainer.regional.claims import (
    CLEARLY,
    Claims,
    FusedAhead,
    compared,
    difference,
    pairs,
)
from trainer.regional.claims import told as claims_told
from trainer.regional.findings import (
    DRAWS,
    Findings,
    ImageFinding,
    Lead,
    drawn_patients,
    lead_of,
    telling,
    told,
)
from trainer.regional.patientwise import STRATEGIES
from trainer.regional.settings import RegionalConfig
from trainer.regional.table import METRICS, Row, best_model
from trainer.statistics import Interval, auroc, fold_summary

FINE, WIDE = "log-sigma-1-0-mm-3D", "log-sigma-2-0-mm-3D"
EXAMS = 100
MODELS = {
    "base": {"name": "compact-densenet-2d"},
    "fused": {"name": "compact-densenet-2d-aspp-radfusion"},
}
STEADY = np.array([0.01, -0.01, 0.0, 0.01, -0.01])
WILD = 30 * STEADY


def lead(low, high):
    return Lead(FINE, "original", (low + high) / 2, Interval(low, high))


def findings(lead):
    nothing = Interval(0.0, 0.0)
    return Findings(
        images=tuple(
            ImageFinding(region, image, 0.7, nothing, 3)
            for region in ("ventricles", "sublentiform")
            for image in ("original", FINE, WIDE)
        ),
        features=(),
        lead=lead,
        claims=Claims((), difference(0.3 + STEADY, EXAMS), difference(STEADY, EXAMS), {}),
    )


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.05, "holds"),
        (-0.001, 0.05, "open"),
        (-0.05, 0.001, "open"),
        (-0.05, -0.001, "does not hold"),
    ],
)
def test_the_finest_image_tells_most_where_its_interval_excludes_0(low, high, verdict):
    first, *_ = told(findings(lead(low, high)), "sublentiform")

    assert first.verdict == verdict
    assert f"{low:+.3f} to {high:+.3f}" in first.figures
    assert f"original 3, {FINE} 3, {WIDE} 3" in str(first)


def test_where_nothing_was_filtered_nothing_is_claimed():
    assert told(findings(None), "sublentiform")[0].verdict == "not asked"


def drawn(middle, spread, seed):
    return np.concatenate([[middle], np.random.default_rng(seed).normal(middle, spread, DRAWS)])


def test_the_finest_image_is_held_against_the_next_one():
    by_image = {
        "original": drawn(0.70, 0.01, 0), FINE: drawn(0.75, 0.01, 1), WIDE: drawn(0.72, 0.01, 2)
    }  # fmt: skip

    found = lead_of(by_image, (2.0, 1.0))

    assert (found.finest, found.next) == (FINE, WIDE)
    assert found.margin == pytest.approx(0.03)
    assert found.verdict == "holds"
    assert lead_of({**by_image, WIDE: drawn(0.74, 0.02, 2)}, (1.0, 2.0)).verdict == "open"
    assert lead_of({**by_image, FINE: drawn(0.60, 0.01, 1)}, (1.0, 2.0)).verdict == "does not hold"
    assert lead_of(by_image, ()) is None
    assert lead_of({FINE: by_image[FINE]}, (1.0,)) is None


def test_a_feature_tells_what_its_auroc_says_however_often_an_exam_counts():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    values = np.round(rng.normal(0, 1, (30, 4)) + labels[:, None] * [0, 1, -1, 0], 1)
    weights = rng.integers(0, 4, (3, 30))

    found = telling(values, labels, weights.astype(float))

    for draw, counts in enumerate(weights):
        many = np.repeat(np.arange(30), counts)
        for feature in range(4):
            area = auroc(labels[many], values[many, feature])
            assert found[draw, feature] == pytest.approx(max(area, 1 - area))


def test_patients_are_drawn_whole_and_both_labels_always():
    labels = np.array([0, 0, 1, 1, 1, 0])
    groups = np.array([7, 7, 3, 3, 9, 2])

    counts = drawn_patients(labels, groups, 0)

    assert counts.shape == (1 + DRAWS, 6)
    assert (counts[0] == 1).all()
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 2] == counts[:, 3]).all()
    assert (counts[:, [2, 4]].sum(axis=1) == 2).all()
    assert (counts[:, [0, 5]].sum(axis=1) == 2).all()
    assert counts[1:, 5].std() > 0


@pytest.mark.parametrize(
    ("by_fold", "by", "verdict"),
    [
        (0.05 + STEADY, 0.0, "holds"),
        (0.05 + WILD, 0.0, "open"),
        (-0.05 + WILD, 0.0, "open"),
        (-0.05 + STEADY, 0.0, "does not hold"),
        (CLEARLY + 0.01 + STEADY, CLEARLY, "holds"),
        (CLEARLY - 0.005 + STEADY, CLEARLY, "open"),
        (CLEARLY - 0.05 + STEADY, CLEARLY, "does not hold"),
        (CLEARLY + 0.01 + WILD, CLEARLY, "open"),
    ],
)
def test_a_difference_is_judged_by_its_interval_and_by_what_is_asked_for(by_fold, by, verdict):
    assert difference(by_fold, EXAMS).verdict(by) == verdict


def rows(ahead, region_ahead=0.2, strict_ahead=0.2):
    """A table of two models; how far the fused and the decisive region are ahead."""
    base = 0.5 + STEADY
    for region, more in (("ventricles", 0.0), ("sublentiform", region_ahead)):
        for model in MODELS:
            for strategy in STRATEGIES:
                extra = strict_ahead if strategy == "strict" and more else more
                values = base[::-1] + extra + (ahead if model == "fused" else 0.0)
                figures = dict.fromkeys(METRICS, fold_summary(values.tolist()))
                if strategy == "strict":
                    figures["auroc"] = None
                yield Row(region, model, strategy, figures)


def claims_of(*ahead):
    return compared(RegionalConfig(models=MODELS), tuple(rows(*ahead)), EXAMS)


@pytest.mark.parametrize(
    ("ahead", "verdict"), [(0.05, "holds"), (WILD, "open"), (-0.05, "does not hold")]
)
def test_a_fused_model_is_held_against_its_own_base(ahead, verdict):
    claims = claims_of(ahead)

    assert {each.verdict for each in claims.fused} == {verdict}
    assert {(each.fused, each.base) for each in claims.fused} == {("fused", "base")}
    assert sum(each.metric == "auroc" for each in claims.fused) == 2 * 3
    first, *_ = claims_told(claims, "sublentiform")
    assert str(first).startswith(f"fused beats base on sublentiform: {verdict} (accuracy")


@pytest.mark.parametrize(
    ("region", "strict", "clearly", "confirmed"),
    [
        (0.2, 0.2, "holds", "holds"),
        (0.2, -0.2, "holds", "does not hold"),
        (0.05, 0.2, "does not hold", "holds"),
        (0.2, WILD, "holds", "open"),
    ],
)
def test_the_strict_way_confirms_the_region_or_it_does_not(region, strict, clearly, confirmed):
    claims = claims_of(0.0, region, strict)

    assert (claims.decisive_clearly_better, claims.strict_confirms) == (clearly, confirmed)
    *_, second, third = claims_told(claims, "sublentiform")
    assert (second.verdict, third.verdict) == (clearly, confirmed)
    assert set(claims.strict_by_model) == set(MODELS)


def test_every_fused_model_has_the_base_of_its_own_backbone():
    assert pairs(RegionalConfig()) == {
        "DenseASPP-RadFusion": "DenseNet",
        "MobileASPP-RadFusion": "MobileNetV3",
    }
    assert pairs(RegionalConfig(models={"fused": MODELS["fused"]})) == {}


def test_a_comparison_names_what_it_is_of():
    one = FusedAhead(
        "sublentiform", "fused", "base", "slice", "accuracy", difference(STEADY, EXAMS)
    )
    assert one.verdict == "open"
    assert str(one.difference).startswith("+0.000 ± 0.010, 95 % interval -")


def three_models(trained, with_features):
    """A run of three models with made-up rows: the base is best, then the second fused one."""
    models = {"base": 0.3, "fused": 0.1, "wider": 0.2}
    members = {
        (region, model): tuple(
            each if model in with_features else replace(each, selected=None) for each in found
        )
        for (region, _), found in trained.members.items()
        for model in models
    }
    config = trained.config.model_copy(update={"models": dict.fromkeys(models)})
    table = tuple(
        Row(region, model, strategy, dict.fromkeys(METRICS, fold_summary(0.5 + more + STEADY)))
        for region, _ in trained.members
        for model, more in models.items()
        for strategy in STRATEGIES
    )
    # In the other region, and by other strategies, it is the other way round.
    return replace(trained, config=config, members=members), tuple(
        row
        if (row.region, row.strategy) == ("sublentiform", "mean_logit")
        else replace(row, figures=dict.fromkeys(METRICS, fold_summary(1 - STEADY)))
        if row.model == "fused"
        else row
        for row in table
    )


def test_the_model_to_ship_is_the_best_of_those_that_take_features(trained):
    assert best_model(*three_models(trained, ("fused", "wider"))) == "wider"
    assert best_model(*three_models(trained, ("fused",))) == "fused"
    assert best_model(*three_models(trained, ())) == "base"
