"""A study that cannot be judged is refused with the one reason a radiologist can act on."""

import pickle
import re
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import MRImageStorage, generate_uid

from listener.series import SeriesFacts, read_series_facts
from worker.quality import (
    Reason,
    UnusableStudy,
    check_headers,
    check_volume,
    checks_table,
)
from worker.volume import Slice, Volume, read_volume

SPACING_MM = 2.0


def field(size_mm=(192, 240, 240)):
    """Coordinates in mm (R, A, S) of the voxel centres of a box around the origin."""
    axes = [(np.arange(int(n / SPACING_MM)) + 0.5) * SPACING_MM - n / 2 for n in size_mm]
    return np.meshgrid(*axes, indexing="ij")


def head(noise=3.0):
    """Scalp, dark bone, brain and neck, as large as an adult's."""
    x, y, z = field()
    radius = np.sqrt((x / 76) ** 2 + (y / 93) ** 2 + ((z - 15) / 85) ** 2)
    neck = (np.hypot(x, y + 20) < 50) & (z < 0)
    signal = np.select([radius < 0.85, radius < 0.92, (radius < 1) | neck], [100, 20, 60], 0)
    return noisy(signal, noise)


def noisy(signal, noise):
    """With Rician noise, as magnitude images have it."""
    rng = np.random.default_rng(3)
    real, imaginary = rng.normal(0, noise, (2, *signal.shape))
    return np.hypot(signal + real, imaginary).astype(np.float32)


def volume_of(voxels):
    """Sagittal slices of SPACING_MM, from the patient's left to the right."""
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    slices = tuple(
        Slice(
            sop_uid=generate_uid(),
            sop_class_uid=MRImageStorage,
            frame=None,
            instance_number=at + 1,
            position=np.array([-SPACING_MM * at, 0.0, 0.0]),
            row=np.array([0.0, 1.0, 0.0]),
            column=np.array([0.0, 0.0, -1.0]),
            orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
            row_spacing=SPACING_MM,
            column_spacing=SPACING_MM,
            thickness_mm=SPACING_MM,
            rows=voxels.shape[2],
            columns=voxels.shape[1],
        )
        for at in range(len(voxels))
    )
    return Volume(voxels, affine, slices, planes=voxels)


@pytest.fixture(scope="module")
def whole():
    return head()


def refusal(check, subject):
    with pytest.raises(UnusableStudy) as caught:
        check(subject, "fistula")
    return caught.value


def test_a_whole_head_passes(whole):
    check_volume(volume_of(whole), "fistula")


def test_a_whole_head_passes_in_a_noisy_scan():
    check_volume(volume_of(head(noise=15.0)), "fistula")


# --- the outline of the head ---


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (np.s_[30:, :, :], "left side"),
        (np.s_[:-30, :, :], "right side"),
        (np.s_[:, 30:, :], "back"),
        (np.s_[:, :-40, :], "front"),
        (np.s_[:, :, :-25], "top"),
    ],
)
def test_a_head_that_is_cut_off_is_refused_by_its_side(whole, cut, words):
    error = refusal(check_volume, volume_of(whole[cut]))
    assert error.reason is Reason.PARTIAL_HEAD
    assert words in error.found


def test_cut_ears_and_a_cut_neck_do_no_harm(whole):
    check_volume(volume_of(whole[10:-10, :, 30:]), "fistula")


def test_a_head_without_its_base_is_refused(whole):
    error = refusal(check_volume, volume_of(whole[:, :, 50:]))
    assert error.reason is Reason.PARTIAL_HEAD
    assert "below the top of the head" in error.found


def test_a_field_of_view_smaller_than_a_head_is_refused_with_its_size(whole):
    error = refusal(check_volume, volume_of(whole[:, 30:-30, 30:-30]))
    assert error.reason is Reason.PARTIAL_HEAD
    assert "192 x 120 x 120 mm" in error.found


def bottle(radius_mm):
    x, y, z = field()
    return 100.0 * (np.sqrt(x**2 + y**2 + z**2) < radius_mm)


@pytest.mark.parametrize(
    "voxels",
    [
        np.zeros((96, 120, 120), dtype=np.float32),
        np.random.default_rng(1).random((96, 120, 120)).astype(np.float32),
        np.abs(np.random.default_rng(1).normal(size=(96, 120, 120))).astype(np.float32),
        noisy(bottle(45), 3.0),
    ],
    ids=["nothing", "even noise", "normal noise", "a small bottle"],
)
def test_what_is_no_head_is_refused(voxels):
    assert refusal(check_volume, volume_of(voxels)).reason is Reason.NOT_HEAD


def test_a_limb_that_runs_through_the_images_is_refused():
    x, y, _ = field()
    knee = noisy(100.0 * (np.hypot(x, y) < 60), 3.0)
    assert refusal(check_volume, volume_of(knee)).reason is Reason.PARTIAL_HEAD


# --- slices ---


def moved(volume, at, by_mm):
    """The same volume with every slice from `at` on moved in LPS."""
    slices = [
        replace(piece, position=piece.position + by_mm) if number >= at else piece
        for number, piece in enumerate(volume.slices)
    ]
    return replace(volume, slices=tuple(slices))


def test_a_missing_slice_is_refused_with_its_place(whole):
    error = refusal(check_volume, moved(volume_of(whole), 40, (-SPACING_MM, 0, 0)))
    assert error.reason is Reason.UNEVEN_SLICES
    assert "slices 40 and 41 at a distance of 4.00 mm" in error.found
    assert "2.00 mm apart" in error.found


def test_rounded_positions_are_even_enough(whole):
    check_volume(moved(volume_of(whole), 40, (0.01, 0.01, 0)), "fistula")


def test_slices_shifted_sideways_are_refused(whole):
    error = refusal(check_volume, moved(volume_of(whole), 40, (0, 1.0, 0)))
    assert error.reason is Reason.UNEVEN_SLICES
    assert "sideways by 1.00 mm" in error.found


def test_two_slices_at_one_position_are_refused(whole):
    error = refusal(check_volume, moved(volume_of(whole), 40, (SPACING_MM, 0, 0)))
    assert error.reason is Reason.DUPLICATE_POSITIONS
    assert error.found == "1 of 96 slices at a position that another slice has"


def test_few_slices_are_refused_with_their_number(whole):
    error = refusal(check_volume, volume_of(whole[:6]))
    assert error.reason is Reason.TOO_FEW_SLICES
    assert error.found == "6 slices"


def test_one_slice_is_refused_and_breaks_nothing(whole):
    assert refusal(check_volume, volume_of(whole[:1])).reason is Reason.TOO_FEW_SLICES


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"row_spacing": 3.0}, "pixels of 3.0 mm"),
        ({"column_spacing": 2.6}, "pixels of 2.6 mm"),
    ],
)
def test_coarse_pixels_are_refused_with_their_size(whole, changes, words):
    volume = volume_of(whole)
    slices = tuple(replace(piece, **changes) for piece in volume.slices)
    error = refusal(check_volume, replace(volume, slices=slices))
    assert (error.reason, error.found) == (Reason.THICK_SLICES, words)


def test_thick_slices_are_refused_with_their_thickness(whole):
    volume = volume_of(whole)
    slices = tuple(replace(piece, position=piece.position * 2.5) for piece in volume.slices)
    error = refusal(check_volume, replace(volume, slices=slices))
    assert (error.reason, error.found) == (Reason.THICK_SLICES, "slices of 5.0 mm")


# --- headers ---

ENHANCED = SeriesFacts(
    study_uid="1.2",
    series_uid="1.2.1",
    sop_class=MRImageStorage,
    instances=176,
    description="SAG T1 SPACE",
    contrast_agent="Gadavist",
    pixel_spacing=(1.0, 1.0),
    slice_thickness=1.0,
)


def test_a_fine_series_with_contrast_passes():
    check_headers(ENHANCED, "fistula")


def test_a_series_of_unknown_spacing_is_left_to_its_pixels():
    check_headers(replace(ENHANCED, pixel_spacing=None, slice_thickness=None), "fistula")


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"contrast_agent": ""}, Reason.NO_CONTRAST, "no contrast agent in the header"),
        ({"description": "SAG T1 PRE"}, Reason.NO_CONTRAST, "acquired without contrast"),
        ({"slice_thickness": 5.0}, Reason.THICK_SLICES, "slices of 5.0 mm"),
        ({"spacing_between": 3.3}, Reason.THICK_SLICES, "slices of 3.3 mm"),
        ({"pixel_spacing": (1.0, 3.0)}, Reason.THICK_SLICES, "pixels of 3.0 mm"),
        ({"instances": 20}, Reason.TOO_FEW_SLICES, "20 slices"),
    ],
)
def test_headers_refuse_what_needs_no_pixels(changes, reason, words):
    error = refusal(check_headers, replace(ENHANCED, **changes))
    assert error.reason is reason
    assert words in error.found


# --- the refusal itself ---


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_is_a_code_with_a_meaning_that_dicom_can_carry(reason):
    assert re.fullmatch(r"REASON(-[A-Z]+)+", reason.value)
    assert 10 < len(reason.meaning) <= 64


def test_a_refusal_reads_as_a_sentence_and_survives_pickling():
    error = UnusableStudy(Reason.TOO_FEW_SLICES, "6 slices", "at least 40 slices")
    expected = "Too few slices for a whole head: found 6 slices; needed at least 40 slices."
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == expected
    assert (copy.reason, copy.found, copy.needed) == (error.reason, error.found, error.needed)


def test_the_checks_print_as_a_table():
    rows = checks_table("fistula")
    assert rows[0][0] == "REASON-NO-CONTRAST"
    for code, meaning, needed in rows:
        assert Reason(code).meaning == meaning
        assert needed[0].islower() or needed.startswith("MR ")
        assert not needed.endswith(".")


def test_every_reason_is_in_the_table_with_what_is_needed():
    assert {code for code, _meaning, _needed in checks_table("fistula")} == {
        each.value for each in Reason
    }


# --- real series ---


def with_contrast(path, folder):
    """A copy of one file that names a contrast agent."""
    dataset = pydicom.dcmread(path)
    dataset.ContrastBolusAgent = "Gadobutrol"
    dataset.save_as(folder / path.name)
    return folder / path.name


def test_the_real_mprage_is_refused_for_want_of_contrast(shared_data):
    facts = read_series_facts(shared_data / "philips_mprage_sag" / "1301_0001.dcm", 170)
    assert refusal(check_headers, facts).reason is Reason.NO_CONTRAST


def test_the_real_mprage_passes_once_it_names_an_agent(shared_data, tmp_path):
    originals = sorted((shared_data / "philips_mprage_sag").iterdir())
    copies = [with_contrast(path, tmp_path) for path in originals]
    check_headers(read_series_facts(copies[0], len(copies)), "fistula")
    check_volume(read_volume(copies), "fistula")


@pytest.mark.parametrize("folder", ["5_anat-T1w", "6_anat-T1w_norm"])
def test_a_real_enhanced_series_passes_once_it_names_an_agent(shared_data, tmp_path, folder):
    (original,) = (shared_data / "siemens_xa30_enh_t1_sag" / folder).iterdir()
    assert refusal(check_headers, read_series_facts(original, 1)).reason is Reason.NO_CONTRAST
    copy = with_contrast(original, tmp_path)
    check_headers(read_series_facts(copy, 1), "fistula")
    check_volume(read_volume([copy]), "fistula")


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (np.s_[:6], Reason.TOO_FEW_SLICES),
        (np.s_[:80], Reason.PARTIAL_HEAD),
        (np.s_[:130], Reason.PARTIAL_HEAD),
        (np.s_[35:], Reason.PARTIAL_HEAD),
        ([*range(60), *range(61, 170)], Reason.UNEVEN_SLICES),
        ([*range(170), 60], Reason.DUPLICATE_POSITIONS),
    ],
    ids=["six slices", "half a head", "no right side", "no left side", "a gap", "one twice"],
)
def test_parts_of_the_real_mprage_are_refused(shared_data, kept, reason):
    paths = np.array(sorted((shared_data / "philips_mprage_sag").iterdir()))
    assert refusal(check_volume, read_volume(list(paths[kept]))).reason is reason


def test_the_real_perfusion_is_refused_as_coarse(shared_data):
    paths = list((shared_data / "philips_enh_pcasl").iterdir())
    assert refusal(check_volume, read_volume(paths)).reason is Reason.THICK_SLICES


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_six_slices_of_a_real_head_are_refused_as_too_few(shared_data):
    paths = sorted((shared_data / "odd" / "frag").glob("5001*.dcm"))
    assert len(paths) == 6
    assert refusal(check_volume, read_volume(paths)).reason is Reason.TOO_FEW_SLICES
