"""Features of a region: where they come from, which way is up, and what is refused."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from flash_radiomics.imageoperations import getLoGImage
from scipy import ndimage

from worker.radiomics.config import PAPER_RADIOMICS, Radiomics
from worker.radiomics.extraction import UnusableRegion, extract, laplacian_of_gaussian
from worker.radiomics.vector import MixedVectors, Vector, require_same

SPACING_MM = (0.9, 1.1, 5.0)
GREY = Radiomics(families=("firstorder",))
FEW = Radiomics(log_sigmas_mm=(1.0, 2.5))


def textured(shape=(60, 56, 20), seed=0):
    """Noise as smooth as tissue, with an ellipsoid in it that lies off centre."""
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    voxels = 300 + 300 * ndimage.gaussian_filter(noise, (2, 2, 0.5))
    middle = np.array(shape) * (0.45, 0.55, 0.5)
    radius = np.array(shape) * (0.2, 0.16, 0.25)
    place = (np.indices(shape).T - middle) / radius
    return voxels.astype(np.float32), (np.square(place).sum(-1) < 1).T


def measured(voxels, spacing_mm, mask, config):
    vector = extract(voxels, spacing_mm, mask, config)
    return dict(zip(vector.names, vector.values.tolist(), strict=True))


# --- what comes out ---


def test_the_papers_features_are_those_of_pyradiomics_on_six_images():
    voxels, mask = textured()
    vector = extract(voxels, SPACING_MM, mask, PAPER_RADIOMICS)

    assert len(vector.values) == 14 + 6 * 93
    assert vector.names == PAPER_RADIOMICS.names
    assert vector.names[0] == "original_shape_Elongation"
    assert vector.names[-1] == "log-sigma-5-0-mm-3D_ngtdm_Strength"
    assert np.isfinite(vector.values).all()
    assert (vector.library, vector.config_hash) == ("flash-radiomics", PAPER_RADIOMICS.config_hash)
    assert vector.version.startswith("1.0.0 (SimpleITK ")


def test_nothing_is_written_beside_the_vector(tmp_path, monkeypatch, capfd):
    # The library's own extractor leaves an HDF5 file with image and mask in the working folder.
    monkeypatch.chdir(tmp_path)
    voxels, mask = textured()
    extract(voxels, SPACING_MM, mask, FEW)

    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_volume_and_the_mask_stay_as_they_were():
    voxels, mask = textured()
    before = voxels.copy(), mask.copy()
    extract(voxels, SPACING_MM, mask, FEW)

    np.testing.assert_array_equal(voxels, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_bins_of_a_width_begin_at_its_multiples():
    voxels = np.full((8, 8, 4), 24.0, dtype=np.float32)
    voxels[:4] = 26.0
    mask = np.ones(voxels.shape, dtype=bool)
    by_width = replace(GREY, bin_width=25.0, bin_count=None)

    assert measured(voxels, SPACING_MM, mask, by_width)["original_firstorder_Uniformity"] == 0.5
    shifted = measured(voxels + 1, SPACING_MM, mask, by_width)  # from 25, the bin's lower edge
    assert shifted["original_firstorder_Uniformity"] == 1.0


# --- which way is up ---


def test_the_diameters_of_a_box_lie_in_the_planes_they_are_named_after():
    mask = np.zeros((30, 20, 12), dtype=bool)
    mask[4:24, 5:11, 3:6] = True
    voxels = np.random.default_rng(0).normal(0, 1, mask.shape).astype(np.float32)
    found = measured(voxels, (0.5, 1.0, 4.0), mask, Radiomics(families=("shape",)))

    # The surface runs through the middles of the outermost voxels' faces, which bevels all edges:
    # one side of a diagonal is a whole one, the other a voxel shorter. x: 10, y: 6, z: 12 mm.
    def diagonal(a, a_step, b, b_step):
        return max(np.hypot(a, b - b_step), np.hypot(a - a_step, b))

    planes = {
        "Slice": diagonal(10, 0.5, 6, 1.0),  # axial: x and y
        "Column": diagonal(10, 0.5, 12, 4.0),  # coronal: x and z
        "Row": diagonal(6, 1.0, 12, 4.0),  # sagittal: y and z
    }
    for name, expected in planes.items():
        assert found[f"original_shape_Maximum2DDiameter{name}"] == pytest.approx(expected, rel=1e-5)
    assert found["original_shape_VoxelVolume"] == pytest.approx(20 * 6 * 3 * 2.0)


@pytest.mark.parametrize(("axis", "seen"), [(0, True), (1, True), (2, False)])
def test_texture_within_slices_does_not_see_what_changes_between_them(axis, seen):
    stripes = np.expand_dims(np.arange(12) % 2, [other for other in range(3) if other != axis])
    voxels = np.broadcast_to(stripes, (12, 12, 12)).astype(np.float32)
    mask = np.ones(voxels.shape, dtype=bool)
    config = Radiomics(families=("glcm",), bin_count=2)
    within = measured(voxels, SPACING_MM, mask, config)
    in_space = measured(voxels, SPACING_MM, mask, replace(config, in_plane=False))

    assert (within["original_glcm_Contrast"] > 0) == seen
    assert in_space["original_glcm_Contrast"] > 0


# --- Laplacian of Gaussian ---


@pytest.mark.parametrize(
    ("spacing_mm", "width_mm"),
    [((1.0, 1.0, 1.0), 4.0), ((0.8, 1.1, 1.6), 4.0), ((0.9, 0.9, 5.0), 8.0)],
)
@pytest.mark.parametrize("sigma_mm", [1.0, 2.0, 3.0])
def test_a_gaussian_blob_is_answered_as_calculus_says(spacing_mm, width_mm, sigma_mm):
    # ITK approximates the Gaussian by exponentials, less well where a voxel is wider than it.
    tolerance = 0.01 if sigma_mm >= max(spacing_mm) else 0.03
    shape, height = (81, 61, 49), 100.0
    middle = np.array([40, 30, 24])
    mm = (np.indices(shape).T - middle) * spacing_mm
    squared = np.square(mm).sum(-1).T
    voxels = (height * np.exp(-squared / 2 / width_mm**2)).astype(np.float32)
    mask = squared <= (1.5 * width_mm) ** 2
    config = Radiomics(original=False, log_sigmas_mm=(sigma_mm,), families=("firstorder",))
    found = measured(voxels, spacing_mm, mask, config)

    # A Gaussian of s, smoothed by one of sigma, is one of sqrt(s^2 + sigma^2).
    wide = width_mm**2 + sigma_mm**2
    blurred = height * (width_mm**2 / wide) ** 1.5 * np.exp(-squared / 2 / wide)
    expected = sigma_mm**2 * blurred * (squared / wide**2 - 3 / wide)
    peak = expected.min()
    assert peak == expected[tuple(middle)] < -4
    for name, value in (("Minimum", peak), ("Mean", expected[mask].mean())):
        measure = found[f"log-sigma-{sigma_mm:.0f}-0-mm-3D_firstorder_{name}"]
        assert measure == pytest.approx(value, abs=-tolerance * peak)


def test_the_filter_is_that_of_the_library():
    voxels, _ = textured()
    image = SimpleITK.GetImageFromArray(voxels.transpose(2, 1, 0))
    image.SetSpacing(SPACING_MM)
    ((theirs, name, _),) = getLoGImage(image, None, sigma=[2.5])

    assert name == "log-sigma-2-5-mm-3D"
    ours = laplacian_of_gaussian(voxels.transpose(2, 1, 0), SPACING_MM, 2.5)
    np.testing.assert_array_equal(ours, SimpleITK.GetArrayFromImage(theirs))


@pytest.mark.parametrize("sigma_mm", [1.0, 2.5])
def test_only_the_surroundings_that_matter_are_filtered(sigma_mm):
    voxels, _ = textured((160, 150, 30))
    mask = np.zeros(voxels.shape, dtype=bool)
    mask[70:84, 60:76, 12:16] = True
    config = Radiomics(original=False, log_sigmas_mm=(sigma_mm,))
    found = extract(voxels, SPACING_MM, mask, config)

    whole = laplacian_of_gaussian(voxels.transpose(2, 1, 0), SPACING_MM, sigma_mm)
    expected = extract(whole.transpose(2, 1, 0), SPACING_MM, mask, Radiomics())
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5, atol=1e-7)


def test_features_stay_the_same_where_air_is_put_around_the_volume():
    voxels, mask = textured()
    config = Radiomics()
    around = ((3, 5), (4, 1), (2, 6))
    wider = extract(np.pad(voxels, around), SPACING_MM, np.pad(mask, around), config)

    assert wider.values.tobytes() == extract(voxels, SPACING_MM, mask, config).values.tobytes()


# --- the same again ---

SCRIPT = """
import sys
import numpy as np
from worker.radiomics.config import Radiomics
from worker.radiomics.extraction import extract
voxels, mask = np.load(sys.argv[1]), np.load(sys.argv[2])
config = Radiomics(log_sigmas_mm=(1.0, 2.5))
print(extract(voxels, (0.9, 1.1, 5.0), mask, config).values.tobytes().hex())
"""


def test_the_same_bytes_come_out_again_whatever_else_runs():
    voxels, mask = textured()
    once = extract(voxels, SPACING_MM, mask, FEW).values.tobytes()
    with ThreadPoolExecutor(4) as pool:
        beside = list(
            pool.map(lambda _: extract(voxels, SPACING_MM, mask, FEW).values.tobytes(), range(6))
        )

    assert set(beside) == {once}


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_same_bytes_come_out_in_another_process_of_any_number_of_threads(tmp_path, threads):
    voxels, mask = textured()
    np.save(tmp_path / "voxels.npy", voxels)
    np.save(tmp_path / "mask.npy", mask)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT,
            str(tmp_path / "voxels.npy"),
            str(tmp_path / "mask.npy"),
        ],
        env=os.environ | dict.fromkeys(names, threads),
        capture_output=True,
        text=True,
        check=True,
    )

    once = extract(voxels, SPACING_MM, mask, FEW).values.tobytes()
    assert bytes.fromhex(ended.stdout) == once


# --- what is refused ---


def spoilt(what):
    voxels, mask = textured()
    spacing_mm, config = SPACING_MM, FEW
    match what:
        case "empty":
            mask = np.zeros_like(mask)
        case "small":
            mask = np.zeros_like(mask)
            mask[20:24, 20:24, 8:11] = True
        case "hole":
            voxels[3, 2, 1] = np.nan
        case "shape":
            mask = mask[:-1]
        case "labels":
            mask = mask.astype(np.uint8)
        case "spacing":
            spacing_mm = (0.9, 0.9, 0.0)
        case "thin":
            voxels, mask = voxels[:, :, 8:11], mask[:, :, 8:11]
        case "scattered":
            mask = (np.indices(mask.shape) % 2 == 0).all(0)
        case "levels":
            bins = float(np.ptp(voxels[mask])) / 300
            config = Radiomics(families=("glszm",), bin_width=bins, bin_count=None)
    return voxels, spacing_mm, mask, config


REFUSALS = {
    "empty": "found 0 voxels, expected at least 64; draw the region anew",
    "small": "found 48 voxels, expected at least 64",
    "hole": "found 1 voxels of the volume without a finite value, expected a number in each",
    "shape": r"found a volume of shape \(60, 56, 20\) and a mask of bool, shape \(59, 56, 20\)",
    "labels": "a mask of uint8.*expected a mask of bool",
    "spacing": r"found voxels \(0.9, 0.9, 0.0\) mm apart, expected three distances above 0 mm",
    "thin": r"found a volume of \(60, 56, 3\) voxels, expected at least \(4, 4, 4\)",
    "scattered": "found no value of original_glcm_.*draw it anew",
    "levels": "found 300 grey levels in original, expected at most 256; configure wider bins",
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_measured_is_refused_with_a_reason(what):
    with pytest.raises(UnusableRegion, match=REFUSALS[what]) as refusal:
        extract(*spoilt(what))

    assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)


def test_a_refusal_of_the_library_becomes_ours():
    voxels, spacing_mm, mask, _ = spoilt("scattered")

    with pytest.raises(UnusableRegion, match="no value of ngtdm of original"):
        extract(voxels, spacing_mm, mask, Radiomics(families=("ngtdm",), in_plane=False))


def test_a_region_in_one_slice_and_one_without_contrast_have_features():
    voxels, mask = textured()
    mask[:, :, :10] = mask[:, :, 11:] = False

    assert np.isfinite(extract(voxels, SPACING_MM, mask, FEW).values).all()
    flat = measured(np.full_like(voxels, 7), SPACING_MM, mask, Radiomics())
    assert flat["original_firstorder_Entropy"] == pytest.approx(0, abs=1e-12)
    assert flat["original_glcm_Contrast"] == 0


# --- configurations and origins ---


def test_the_hash_of_a_configuration_is_the_same_on_every_machine():
    assert PAPER_RADIOMICS.config_hash == (
        "e1678482ea3bd467a8168f3cf193c7c89e91a23e2867ba5a430eb33a1022a4ff"
    )
    assert Radiomics(log_sigmas_mm=(1, 2, 3, 4, 5)).config_hash == PAPER_RADIOMICS.config_hash


def test_every_setting_changes_the_hash():
    changes = (
        {"original": False},
        {"log_sigmas_mm": (1.0,)},
        {"families": ("glcm",)},
        {"bin_width": 5.0, "bin_count": None},
        {"bin_count": 16},
        {"in_plane": False},
        {"min_voxels": 100},
    )
    hashes = {replace(PAPER_RADIOMICS, **change).config_hash for change in changes}

    assert len(hashes | {PAPER_RADIOMICS.config_hash}) == len(changes) + 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bin_width": 5.0}, "found bin_width 5.0 and bin_count 32; give one of them"),
        ({"bin_count": None}, "found bin_width None and bin_count None; give one of them"),
        ({"bin_count": 0}, "above 0"),
        ({"log_sigmas_mm": (1.0, -1.0)}, "give widths above 0 mm"),
        ({"log_sigmas_mm": (1.0, 1)}, "name each only once"),
        ({"families": ()}, "nothing to measure"),
        ({"original": False, "families": ("glcm",)}, "nothing to measure"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Radiomics(**settings)


@pytest.mark.parametrize(
    "changed", [{"library": "pictologics"}, {"version": "1.0.1"}, {"config_hash": "0"}]
)
def test_vectors_of_another_origin_are_never_mixed(changed):
    vector = Vector(("a",), np.zeros(1), "flash-radiomics", "1.0.0", "f")
    (what, found), *_ = changed.items()

    with pytest.raises(MixedVectors, match=f"feature vector 3: found {what} {found}, expected"):
        require_same([vector, vector, replace(vector, **changed)])
    require_same([])
