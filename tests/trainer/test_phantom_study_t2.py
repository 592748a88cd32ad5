"""An axial T2 as DICOM: headers of a routine 2D spin echo, the same head, and its regions."""

import subprocess

import nibabel
import numpy as np
import pydicom
import pytest

from listener.selection import Weighting, contrast_evidence, weighting
from listener.series import read_series_facts
from tests.tools import program
from trainer.infection import draw_infection
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import NOBODY, study_of, write_axial, write_regions, write_slices
from trainer.phantom_t2 import SLICES, render_t2
from trainer.scanner import T2_SCANNERS
from worker.volume import read_volume

PIXELS = 64
HEAD = draw_case(21, positive=True, spectrum=OVERT)


@pytest.fixture(scope="module")
def phantom():
    case = draw_infection(21, positive=True, head=HEAD)
    return render_t2(case, PIXELS, plan_deg=(9.0, -4.0, 5.0))


@pytest.fixture(scope="module")
def written(phantom, tmp_path_factory):
    return write_axial(phantom, NOBODY, tmp_path_factory.mktemp("t2"))


def test_headers_are_those_of_an_axial_t2(written):
    slices = [pydicom.dcmread(path) for path in written]

    assert len(slices) == SLICES
    for each in slices:
        assert (each.RepetitionTime, each.EchoTime, each.SliceThickness) == (4000, 100, 5)
        assert (each.MRAcquisitionType, each.ScanningSequence) == ("2D", "SE")
        assert "ContrastBolusAgent" not in each
        assert "CONTRAST" not in each.StudyDescription
        assert str(each.PatientName).startswith("PHANTOM^")
        assert each.PatientOrientation == ["L", "P"]


def test_the_listener_takes_it_for_an_axial_unenhanced_head_that_is_no_t1(written):
    facts = read_series_facts(written[0], len(written))

    assert facts.plane == "axial"
    assert weighting(facts) is Weighting.T2
    assert contrast_evidence(facts) is None
    assert facts.slice_step == pytest.approx(5.5)


def test_read_back_it_is_the_same_volume_at_the_same_place(phantom, written):
    volume = read_volume(written)

    np.testing.assert_array_equal(volume.voxels, phantom.voxels)
    np.testing.assert_allclose(volume.affine, phantom.affine, atol=1e-3)


def test_the_first_slice_is_the_lowest_and_its_first_pixel_right_anterior(phantom, written):
    first, last = (pydicom.dcmread(written[at]) for at in (0, -1))

    assert first.ImagePositionPatient[2] < last.ImagePositionPatient[2]
    assert first.SliceLocation < last.SliceLocation
    np.testing.assert_array_equal(first.pixel_array, phantom.voxels[::-1, ::-1, 0].T)


def test_the_same_case_writes_the_same_bytes(phantom, written, tmp_path):
    again = write_axial(phantom, NOBODY, tmp_path)

    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_one_study_holds_both_looks_of_one_head(phantom, tmp_path):
    t1 = render(HEAD, 4.0)
    enhanced = write_slices(t1, NOBODY, tmp_path / "t1")
    axial = write_axial(phantom, NOBODY, tmp_path / "t2", study_of(t1))

    one, other = (pydicom.dcmread(each[0]) for each in (enhanced, axial))
    for keyword in ("StudyInstanceUID", "StudyDescription", "PatientID", "FrameOfReferenceUID"):
        assert one[keyword].value == other[keyword].value
    for keyword in ("SeriesInstanceUID", "SeriesNumber", "SOPInstanceUID", "SeriesDescription"):
        assert one[keyword].value != other[keyword].value


@pytest.mark.parametrize("scanner", T2_SCANNERS, ids=lambda each: each.model)
def test_each_scanner_writes_twelve_bits_that_read_back(phantom, scanner, tmp_path):
    seen = render_t2(phantom.case, PIXELS, scanner, slices=range(8, 12))

    paths = write_axial(seen, NOBODY, tmp_path)

    stored = [pydicom.dcmread(path).pixel_array.max() for path in paths]
    assert 300 < max(stored) < 4096
    np.testing.assert_allclose(read_volume(paths).voxels, seen.voxels, rtol=1e-6)


def test_regions_are_masks_on_the_grid_of_the_volume(phantom, written, tmp_path):
    write_regions(phantom, tmp_path)

    volume = read_volume(written)
    for name in ("ventricles", "sublentiform"):
        image = nibabel.load(tmp_path / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj) > 0, getattr(phantom, name))
        assert image.shape == volume.voxels.shape
        np.testing.assert_allclose(image.affine, volume.affine, atol=1e-3)


def test_regions_are_the_same_bytes_again(phantom, tmp_path):
    for name in ("one", "other"):
        write_regions(phantom, tmp_path / name)

    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_the_validator_finds_no_error(written):
    dciodvfy = program("dciodvfy", "dicom3tools")
    done = subprocess.run([dciodvfy, written[9]], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()

    assert "MRImage" in lines
    assert [line for line in lines if line.startswith("Error")] == []
