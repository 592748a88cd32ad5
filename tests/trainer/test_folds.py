"""No patient is on both sides, and what was drawn stays drawn."""

import dataclasses
import json

import numpy as np
import pytest

from trainer.cohort import BadCohort, Cohort
from trainer.folds import FOLDS, draw_folds, read_folds, settle_folds


def test_every_exam_is_held_out_once_and_patients_stay_whole(toy_cohort):
    folds = draw_folds(toy_cohort, 5, seed=3)

    assert sorted(np.concatenate(folds.held_out)) == list(range(len(toy_cohort)))
    for number, held_out in enumerate(folds.held_out):
        assert not set(toy_cohort.groups[held_out]) & set(toy_cohort.groups[folds.train(number)])


def test_both_classes_are_in_every_fold_in_the_same_ratio(toy_cohort):
    for held_out in draw_folds(toy_cohort, 5, seed=3).held_out:
        assert toy_cohort.labels[held_out].mean() == pytest.approx(0.5, abs=0.1)


def test_folds_are_drawn_once_and_then_read(tmp_path, toy_cohort):
    once = settle_folds(tmp_path, toy_cohort, 5, seed=0)
    again = settle_folds(tmp_path, toy_cohort, 5, seed=99)

    assert once.sha256 == again.sha256
    for one, other in zip(once.held_out, again.held_out, strict=True):
        assert np.array_equal(one, other)


def test_folds_do_not_depend_on_the_order_of_exams_in_memory(tmp_path, toy_cohort):
    settled = settle_folds(tmp_path, toy_cohort, 5, seed=0)
    order = np.random.default_rng(1).permutation(len(toy_cohort))
    shuffled = Cohort(
        tuple(toy_cohort.exams[place] for place in order),
        toy_cohort.voxels[order],
        toy_cohort.recipe,
    )

    names = [
        {shuffled.exams[place].exam for place in fold}
        for fold in read_folds(tmp_path, shuffled).held_out
    ]
    assert names == [{toy_cohort.exams[place].exam for place in fold} for fold in settled.held_out]


def altered(folder, change):
    content = json.loads((folder / FOLDS).read_text())
    change(content["folds"])
    (folder / FOLDS).write_text(json.dumps(content))


def move_one(folds):
    folds[1].append(folds[0].pop())


def test_altered_folds_are_refused(tmp_path, toy_cohort):
    settle_folds(tmp_path, toy_cohort, 5, seed=0)
    altered(tmp_path, move_one)

    with pytest.raises(BadCohort, match="altered"):
        read_folds(tmp_path, toy_cohort)


def test_folds_with_a_right_hash_that_leak_are_refused_too(tmp_path, toy_cohort):
    """As a hand-written split would: the hash is right, the patient is on both sides."""
    settle_folds(tmp_path, toy_cohort, 5, seed=0)
    strangers = tuple(
        dataclasses.replace(exam, patient=toy_cohort.exams[0].patient)
        for exam in toy_cohort.exams[:10]
    )
    merged = Cohort(strangers + toy_cohort.exams[10:], toy_cohort.voxels, toy_cohort.recipe)

    with pytest.raises(BadCohort, match="in other folds as well"):
        read_folds(tmp_path, merged)


def test_folds_of_another_cohort_are_refused(tmp_path, toy_cohort):
    settle_folds(tmp_path, toy_cohort, 5, seed=0)
    fewer = Cohort(toy_cohort.exams[:-2], toy_cohort.voxels[:-2], toy_cohort.recipe)

    with pytest.raises(BadCohort, match="not there"):
        read_folds(tmp_path, fewer)


def test_another_number_of_folds_is_refused(tmp_path, toy_cohort):
    settle_folds(tmp_path, toy_cohort, 5, seed=0)

    with pytest.raises(BadCohort, match="has 5 folds, and 4 are asked for"):
        settle_folds(tmp_path, toy_cohort, 4, seed=0)


def test_too_few_patients_are_said_by_label(tmp_path, toy_cohort):
    few = Cohort(toy_cohort.exams[:6], toy_cohort.voxels[:6], toy_cohort.recipe)

    with pytest.raises(BadCohort, match="2 negative patients do not fill 5 folds"):
        settle_folds(tmp_path, few, 5, seed=0)
