"""Each figure of an evaluation is what it says, and is measured on exams not seen before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainer.bern import BernItems
from trainer.reporting.evaluate import evaluate_bundle, evaluate_run
from trainer.statistics import auroc, delong
from trainer.subject import Heads, NotComparable
from worker.ensemble import conformal_set
from worker.occlusion import explain
from worker.preprocess import Prepared, Recipe


def unwatched(done, total):
    """Progress that nobody watches."""


def test_the_honest_weights_come_first_and_the_best_stand_beside(run, cohort, evaluation):
    assert [each.kind for each in evaluation.weights] == ["ema", "last", "best"]
    for weights in evaluation.weights:
        areas = [auroc(cohort.labels[f.held_out], f.log_odds[weights.kind]) for f in run.folds]
        assert weights.summary.values == pytest.approx(areas)
        assert weights.summary.sd == pytest.approx(np.std(areas, ddof=1))
        odds, _ = run.out_of_fold(weights.kind, len(cohort))
        assert weights.pooled == auroc(cohort.labels, odds)
    assert evaluation.discrimination.auroc == evaluation.weights[0].pooled
    assert evaluation.weights[2].summary.mean > evaluation.weights[0].summary.mean


def test_each_exam_is_calibrated_by_the_temperature_of_its_member(run, cohort, evaluation):
    odds, fold_of = run.out_of_fold("ema", len(cohort))
    temperatures = np.array(evaluation.operation.temperatures)

    assert len(temperatures) == len(run.folds)
    expected = 1 / (1 + np.exp(-odds / temperatures[fold_of]))
    assert evaluation.scores.after == pytest.approx(expected)
    # Members were made ever more over-confident.
    assert temperatures[4] > 2 * temperatures[0]


def test_a_run_leaves_the_calibration_of_its_ensemble_unverified(evaluation):
    assert evaluation.ensemble_calibration == "unverified"
    honestly = {each.name: each.measured_honestly for each in evaluation.calibration}
    assert honestly == {
        "before temperature scaling": True,
        "after, fitted to these exams": False,
        "after, each patient left out": True,
    }


def test_temperature_scaling_mends_the_slope(evaluation):
    before, _, after = (each.figures for each in evaluation.calibration)

    assert before.slope < 0.7
    assert abs(after.slope - 1) < abs(before.slope - 1)


def test_a_map_is_made_by_the_member_that_had_not_seen_the_exam(run, cohort, monkeypatch):
    explained = []

    def note(members, prepared, *others):
        explained.append((prepared.voxels, members.networks))
        return explain(members, prepared, *others)

    monkeypatch.setattr("trainer.reporting.maps.explain", note)
    evaluate_run(run, cohort, 4, unwatched)

    place = {voxels.tobytes(): index for index, voxels in enumerate(cohort.voxels)}
    folds = set()
    for voxels, (network,) in explained:
        index = place[voxels.astype(np.float16).tobytes()]
        fold = next(fold for fold in run.folds if index in fold.held_out)
        state = network.state_dict()
        assert all(torch.equal(state[name], each) for name, each in fold.weights("ema").items())
        folds.add(fold.number)
    assert len(folds) > 1


def test_no_more_positives_are_mapped_than_asked_for_and_the_worst_errors(run, cohort, evaluation):
    ended = []

    found = evaluate_run(run, cohort, 3, lambda done, total: ended.append((done, total)))

    assert found.maps.averaged == 3
    assert ended[-1][0] == ended[-1][1] == len(ended) <= 3 + 6
    assert evaluation.maps.averaged == 2
    assert [case.label for case in found.maps.worst] == [1, 1, 1, 0, 0, 0]
    lowest = np.sort(found.scores.after[cohort.labels == 1])[:3]
    assert [case.probability for case in found.maps.worst[:3]] == pytest.approx(lowest)


def test_without_maps_the_gallery_remains(external):
    assert external.maps.mean is None
    assert external.maps.example is None
    assert len(external.maps.worst) == 6


def test_bern_scores_with_missing_items_are_compared_at_both_ends(cohort, evaluation):
    scored = np.array([exam.bern_range is not None for exam in cohort.exams])
    ends = np.array([exam.bern_range for exam in cohort.exams if exam.bern_range is not None])
    odds = evaluation.scores.log_odds[scored]

    found = evaluation.bern

    assert (found.exams, found.unscored) == (79, 1)
    assert found.ranged == np.count_nonzero(ends[:, 0] != ends[:, 1]) == 6
    positive = cohort.labels[scored] == 1
    low, high = ends.T
    worst, best = np.where(positive, low, high), np.where(positive, high, low)
    for row, bern in zip(found.rows, (worst, best), strict=True):
        assert row.comparison == delong(cohort.labels[scored], odds, bern)


def test_bern_scores_without_gaps_are_compared_once(run, cohort):
    known = tuple(
        replace(exam, bern=BernItems(), given_bern=3 + 2 * exam.label) for exam in cohort.exams
    )
    complete = replace(cohort, exams=known)
    facts = dict(run.facts) | {"cohort_fingerprint": complete.fingerprint}

    found = evaluate_run(replace(run, facts=facts), complete, 0, unwatched).bern

    assert [row.reading for row in found.rows] == ["all items known"]
    assert found.ranged == 0


def test_subgroups_of_fewer_than_five_of_a_class_get_no_auroc(evaluation):
    groups = {(each.stratum, each.level): each for each in evaluation.subgroups}

    assert groups["Scanner", "Maker Two"].exams == 4
    assert groups["Scanner", "Maker Two"].auroc is None
    assert 0 < groups["Sex", "female"].auroc <= 1
    assert groups["tilt", "no"].exams == 16
    assert groups["Field strength", "unknown"].exams == 40


def test_positives_of_a_kind_of_leak_are_compared_with_all_negatives(cohort, evaluation):
    slow = next(each for each in evaluation.subgroups if each.level == "slow")
    positives = np.array([exam.leak == "slow" for exam in cohort.exams])
    chosen = positives | (cohort.labels == 0)

    assert slow.exams == chosen.sum()
    assert slow.auroc == auroc(cohort.labels[chosen], evaluation.scores.log_odds[chosen])


def test_a_run_is_not_judged_on_another_cohort(run, relabelled):
    with pytest.raises(NotComparable, match="trained on another cohort"):
        evaluate_run(run, relabelled, 0, unwatched)


def test_a_bundle_is_judged_by_what_the_service_would_say(ensemble, cohort, external):
    said = [
        ensemble.predict(Prepared(voxels.astype(np.float32), np.eye(4))) for voxels in cohort.voxels
    ]

    assert external.scores.after == pytest.approx([each.probability for each in said])
    assert external.discrimination.auroc == auroc(cohort.labels, external.scores.after)
    bands = [each.band.value for each, label in zip(said, cohort.labels, strict=True) if label]
    assert external.statements[0].bands == {
        band: bands.count(band) for band in ("suggested", "not suggested", "undetermined")
    }
    batch = ensemble.batch(cohort.voxels.astype(np.float32))
    for number, member in enumerate(external.members):
        assert member.auroc == auroc(cohort.labels, ensemble.member_logits(number, batch))


def test_the_sets_of_a_bundle_are_its_own(ensemble, cohort, external):
    positives = external.scores.after[cohort.labels == 1]
    sets = [conformal_set(each, ensemble.bundle) for each in positives]

    found = external.conformal.positives

    assert found.covered == np.mean(["suggested" in each for each in sets])
    assert found.both == np.mean([len(each) == 2 for each in sets])
    assert found.promised == pytest.approx(0.7)
    assert found.single + found.both + found.empty == pytest.approx(1)


def test_another_cohort_measures_the_calibration_of_the_ensemble(external):
    assert external.ensemble_calibration == "measured"
    assert not external.same_cohort
    assert [each.name for each in external.calibration] == [
        "ensemble without temperatures",
        "ensemble as shipped",
    ]


def test_the_cohort_that_trained_a_bundle_does_not_measure_it(ensemble, cohort, monkeypatch):
    monkeypatch.setattr("trainer.reporting.evaluate.seen_in_training", lambda *_: 1)

    found = evaluate_bundle(Heads(ensemble, cohort), 0, unwatched)

    assert found.same_cohort
    assert found.ensemble_calibration == "unverified"


def test_a_cohort_prepared_otherwise_is_refused(ensemble, cohort):
    other = Recipe(spacing_mm=(8.0, 8.0, 8.0), shape=cohort.recipe.shape)

    with pytest.raises(NotComparable, match="another recipe"):
        evaluate_bundle(Heads(ensemble, replace(cohort, recipe=other)), 0, unwatched)
