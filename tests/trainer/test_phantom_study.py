"""A phantom's DICOM study is complete, repeatable and the same head as its voxels."""

import json
import subprocess

import numpy as np
import pydicom
import pytest

from tests.tools import program
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import write_study
from worker.preprocess import DEMO_RECIPE, prepare
from worker.volume import read_volume


@pytest.fixture(scope="module")
def phantom():
    return render(draw_case(11, positive=True, spectrum=OVERT), spacing_mm=4.0)


@pytest.fixture(scope="module")
def written(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    return folder, write_study(phantom, folder)


def test_every_slice_is_there_and_says_what_it_is(phantom, written):
    slices = [pydicom.dcmread(path) for path in written[1]]

    assert len(slices) == phantom.voxels.shape[0]
    assert len({each.SOPInstanceUID for each in slices}) == len(slices)
    assert len({(each.StudyInstanceUID, each.SeriesInstanceUID) for each in slices}) == 1
    for each in slices:
        assert each.SOPInstanceUID.startswith("2.25.")
        assert each.Modality == "MR"
        assert each.BodyPartExamined == "BRAIN"
        assert each.ContrastBolusAgent
        assert str(each.PatientName).startswith("PHANTOM^")


def test_the_first_slice_is_the_rightmost_and_rows_run_down(phantom, written):
    first, last = (pydicom.dcmread(written[1][at]) for at in (0, -1))

    assert first.ImagePositionPatient[0] < 0 < last.ImagePositionPatient[0]  # LPS: left is plus
    np.testing.assert_array_equal(first.pixel_array, phantom.voxels[-1].T[::-1, ::-1])


def test_read_back_it_is_prepared_to_the_same_volume(phantom, written):
    volume = read_volume(written[1])

    direct = prepare(phantom.voxels, phantom.affine, DEMO_RECIPE)
    read = prepare(volume.voxels, volume.affine, DEMO_RECIPE)

    np.testing.assert_array_equal(read.voxels, direct.voxels)
    np.testing.assert_allclose(read.affine, direct.affine, atol=1e-9)


def test_the_same_case_writes_the_same_bytes(phantom, written, tmp_path):
    again = write_study(phantom, tmp_path)

    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written[1]]


def test_a_counterfactual_is_another_study_of_the_same_patient(phantom, written, tmp_path):
    other = write_study(render(phantom.case.only("dura"), spacing_mm=4.0), tmp_path)

    one, two = pydicom.dcmread(written[1][0]), pydicom.dcmread(other[0])
    assert one.PatientID == two.PatientID
    assert one.StudyInstanceUID != two.StudyInstanceUID
    assert one.SOPInstanceUID != two.SOPInstanceUID


def test_the_truth_lies_beside_the_study(phantom, written):
    facts = json.loads((written[0] / "truth.json").read_text())
    truth = np.load(written[0] / "truth.npy")

    assert facts["positive"]
    assert facts["shown"]["dura_mm"] == phantom.case.shown.dura_mm
    assert facts["study_uid"] == pydicom.dcmread(written[1][0]).StudyInstanceUID
    np.testing.assert_array_equal(facts["affine_ras_mm"], phantom.affine)
    assert truth.shape == phantom.voxels.shape
    assert truth.any()


def test_the_validator_finds_no_error(written):
    dciodvfy = program("dciodvfy", "dicom3tools")
    for path in (written[1][0], written[1][20]):
        done = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert "MRImage" in lines
        assert [line for line in lines if line.startswith("Error")] == []
