"""The infection cohort is what a lab hands over: axial T2, regions drawn, and labels."""

import csv

import nibabel
import numpy as np
import pydicom
import pytest

from trainer.gathering.table import read_table
from trainer.scanner import T2_SCANNERS
from trainer.synthesize import FIRST_SEED as FISTULA_SEED
from trainer.synthesize import MOST_PATIENTS, FolderInUse
from trainer.synthesize_infection import (
    COLUMNS,
    FIRST_SEED,
    draw_infection_patient,
    synthesize_infection,
)
from worker.volume import read_volume

PIXELS = 64
PATIENTS = 4
SEED = 5


def written(folder, patients=PATIENTS):
    return synthesize_infection(folder, patients, SEED, 1.0, lambda *_: None, 2, PIXELS)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    table = written(folder)
    with table.open(newline="", encoding="utf-8") as file:
        return folder, list(csv.DictReader(file))


def test_every_patient_has_a_study_both_regions_and_a_row(cohort):
    folder, rows = cohort

    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(list((folder / "studies").iterdir())) == PATIENTS
    for number in range(PATIENTS):
        regions = sorted(path.name for path in (folder / "regions" / f"{number:04}").iterdir())
        assert regions == ["sublentiform.nii.gz", "ventricles.nii.gz"]


def test_the_table_says_what_the_headers_say_and_is_a_label_table(cohort):
    folder, rows = cohort

    assert len(read_table(folder / "labels.csv")) == PATIENTS
    for number, row in enumerate(rows):
        header = pydicom.dcmread(folder / "studies" / f"{number:04}" / "0001.dcm")
        assert row["patient"] == header.PatientID
        assert row["study"] == header.StudyInstanceUID
        assert row["scanner"] == f"{header.Manufacturer} {header.ManufacturerModelName}"
        assert f"{int(row['age_years']):03}Y" == header.PatientAge
        assert row["label"] == ("negative", "positive")[number % 2]


def test_regions_lie_on_the_grid_of_the_study(cohort):
    folder, _ = cohort

    volume = read_volume(sorted((folder / "studies" / "0001").iterdir()))
    image = nibabel.load(folder / "regions" / "0001" / "sublentiform.nii.gz")
    assert np.asarray(image.dataobj).any()
    assert image.shape == volume.voxels.shape
    np.testing.assert_allclose(image.affine, volume.affine, atol=1e-3)


def test_a_smaller_cohort_of_the_same_seed_is_the_beginning_of_a_larger_one(cohort, tmp_path):
    folder, _ = cohort

    written(tmp_path / "new", 1)

    for path in (tmp_path / "new" / "studies").rglob("*.dcm"):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path / "new")).read_bytes()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(FolderInUse, match=r"notes\.txt"):
        written(tmp_path)


def test_label_scanner_and_plan_are_unrelated():
    everyone = [draw_infection_patient(number, seed=0) for number in range(2000)]
    positive = np.array([each.case.positive for each in everyone])

    assert positive.mean() == 0.5
    for scanner in T2_SCANNERS:
        share = np.mean([each.scanner == scanner for each in everyone if each.case.positive])
        assert share == pytest.approx(1 / len(T2_SCANNERS), abs=0.04)
    plans = np.array([each.plan_deg for each in everyone])
    assert np.abs(plans.std(axis=0) - 2.0).max() < 0.2
    assert abs(np.corrcoef(positive, plans[:, 0])[0, 1]) < 0.07


def test_no_infection_cohort_shares_a_head_with_a_fistula_cohort():
    assert draw_infection_patient(0, seed=0).case.seed == FIRST_SEED
    assert FIRST_SEED > FISTULA_SEED + 1_000_000 * MOST_PATIENTS
