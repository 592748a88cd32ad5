"""A cohort is read as it was written, or not at all."""

import dataclasses
import json

import numpy as np
import pytest

from trainer.bern import BernItems
from trainer.cohort import (
    EXAMS,
    BadCohort,
    Exam,
    read_cohort,
    save_volume,
    volume_path,
    write_cohort,
)
from trainer.flow import Flow


@pytest.fixture
def folder(tmp_path, toy_cohort):
    for volume in toy_cohort.voxels[:6]:
        save_volume(tmp_path, volume)
    write_cohort(tmp_path, toy_cohort.exams[:6], toy_cohort.recipe, "fistula", Flow())
    return tmp_path


def test_what_was_written_is_read(folder, toy_cohort):
    cohort = read_cohort(folder)

    assert cohort.exams == toy_cohort.exams[:6]
    assert np.array_equal(cohort.voxels, toy_cohort.voxels[:6])
    assert cohort.recipe == toy_cohort.recipe
    assert cohort.labels.tolist() == [0, 0, 1, 1, 0, 0]
    assert cohort.groups.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_volume_is_kept_once(folder, toy_cohort):
    name = save_volume(folder, toy_cohort.voxels[0])

    assert name == toy_cohort.exams[0].volume
    assert len(list((folder / "volumes").iterdir())) == 6


def test_an_altered_volume_is_refused(folder, toy_cohort):
    np.save(volume_path(folder, toy_cohort.exams[0].volume), toy_cohort.voxels[1])

    with pytest.raises(BadCohort, match="not what was gathered"):
        read_cohort(folder)


def test_an_altered_label_is_refused(folder):
    exams = json.loads((folder / EXAMS).read_text())
    exams[0]["label"] = 1
    (folder / EXAMS).write_text(json.dumps(exams))

    with pytest.raises(BadCohort, match="altered since"):
        read_cohort(folder)


def test_a_folder_without_a_cohort_is_said(tmp_path):
    with pytest.raises(BadCohort, match="gather it again"):
        read_cohort(tmp_path)


def test_a_score_is_a_range_where_items_are_missing():
    exam = Exam("1", "2", 1, "3", bern=BernItems(True, None, 4.0, False, 5.1, 6.6))

    assert exam.bern_range == (4, 6)
    assert Exam("1", "2", 1, "3").bern_range is None
    assert Exam("1", "2", 1, "3", given_bern=7).bern_range == (7, 7)
    assert dataclasses.replace(exam, given_bern=9).bern_range == (4, 6)
