"""The axial T2 of a synthetic head: the look of T2, the head of the T1, and known regions."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from trainer.infection import draw_infection
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_t2 import FIELD_MM, MATRIX, SLICES, render_t2

PIXELS = 96  # quick; cohorts are made at 256
WITH_REGIONS = range(6, 14)  # slices that hold ventricles or lentiform nuclei


@pytest.fixture(scope="module")
def infected():
    """A patient with a strong effect, and the same head without."""
    case = draw_infection(3, positive=True)
    strong = dataclasses.replace(
        case.usual, dimming=0.08, grain=9.0, spaces=case.usual.spaces + 6, space_mm=1.2
    )
    return dataclasses.replace(case, shown=strong)


@pytest.fixture(scope="module")
def phantom(infected):
    return render_t2(infected, PIXELS)


@pytest.fixture(scope="module")
def healthy(infected):
    return render_t2(infected.healthy(), PIXELS)


def middle_mm(mask, affine):
    return (affine @ (*np.argwhere(mask).mean(axis=0), 1))[:3]


def test_the_grid_is_that_of_a_routine_axial_t2(phantom):
    assert (MATRIX, FIELD_MM / MATRIX) == (256, 0.9)
    assert phantom.voxels.shape == (PIXELS, PIXELS, SLICES)
    spacing = np.linalg.norm(phantom.affine[:3, :3], axis=0)
    np.testing.assert_allclose(spacing, (FIELD_MM / PIXELS, FIELD_MM / PIXELS, 5.5))


def test_the_same_case_paints_the_same_picture(phantom, infected):
    assert render_t2(infected, PIXELS).voxels.tobytes() == phantom.voxels.tobytes()


def test_fluid_is_bright_and_white_matter_darker_than_grey(healthy):
    brightness = {}
    for name in ("ventricles", "sublentiform"):
        mask = ndimage.binary_erosion(getattr(healthy, name), np.ones((3, 3, 1)))
        brightness[name] = np.median(healthy.clean[mask])
    # Two fingers' breadth above the ventricles there is nothing but white matter.
    roof = np.flatnonzero(healthy.ventricles.any(axis=(0, 1)))[-1] + 2
    half = PIXELS // 2
    white = np.median(healthy.clean[half + 12 : half + 16, half - 8 : half + 8, roof])

    assert brightness["ventricles"] > 1.8 * brightness["sublentiform"]
    assert white < brightness["sublentiform"]


def test_voxels_are_whole_grey_values_of_twelve_bits(phantom):
    np.testing.assert_array_equal(phantom.voxels, np.rint(phantom.voxels))
    assert 0 <= phantom.voxels.min() < 300 < phantom.voxels.max() < 4096


def test_regions_lie_where_they_belong_and_have_their_size(phantom):
    ml = abs(np.linalg.det(phantom.affine[:3, :3])) / 1000

    assert 4 < phantom.ventricles.sum() * ml < 16
    assert 5 < phantom.sublentiform.sum() * ml < 13
    assert not (phantom.ventricles & phantom.sublentiform).any()
    ventricles = middle_mm(phantom.ventricles, phantom.affine)
    below = middle_mm(phantom.sublentiform, phantom.affine)
    assert abs(ventricles[0]) < 6
    assert abs(below[0]) < 6
    assert 15 < ventricles[2] - below[2] < 35


def test_infection_changes_the_two_regions_and_the_spaces_between_them_only(phantom, healthy):
    np.testing.assert_array_equal(phantom.ventricles, healthy.ventricles)
    changed = np.abs(phantom.clean - healthy.clean) > 1.0

    assert changed[phantom.sublentiform].mean() > 0.5
    assert changed[phantom.ventricles].mean() > 0.5
    # A space begins in the box and runs up into the nucleus above it, no further than 16 mm.
    reach = np.ones((5, 5, 7), dtype=bool)
    near = ndimage.binary_dilation(phantom.sublentiform | phantom.ventricles, reach)
    assert not changed[~near].any()


def test_the_ventricles_lose_a_third_as_much_signal(infected, healthy):
    without_grain = dataclasses.replace(infected.shown, grain=infected.usual.grain)
    dimmed = render_t2(dataclasses.replace(infected, shown=without_grain), PIXELS)

    inner = healthy.clean > 0.97 * np.percentile(healthy.clean[healthy.ventricles], 95)
    where = inner & healthy.ventricles
    lost = 1 - dimmed.clean[where].mean() / healthy.clean[where].mean()
    assert lost == pytest.approx(0.08 / 3, abs=0.002)


def test_another_look_of_the_same_head_has_its_ventricles_at_the_same_place():
    head = draw_case(12, positive=True, spectrum=OVERT)
    t1 = render(head, 2.0)
    t2 = render_t2(draw_infection(12, positive=False, head=head), 128)

    inner = ndimage.binary_erosion(t2.ventricles, np.ones((3, 3, 1)))
    where = np.linalg.inv(t1.affine) @ t2.affine @ np.c_[np.argwhere(inner), np.ones(inner.sum())].T
    seen = ndimage.map_coordinates(t1.clean, where[:3], order=1)
    brain = np.median(t1.clean[t1.clean > 200])
    assert (seen < 0.6 * brain).mean() > 0.9
    beside = where[:3] + np.array([[0], [0], [12.0]])
    assert (ndimage.map_coordinates(t1.clean, beside, order=1) < 0.6 * brain).mean() < 0.1


def test_a_turned_stack_shows_the_same_head_at_the_same_place(infected):
    straight, turned = (
        render_t2(infected, PIXELS, plan_deg=each) for each in ((0, 0, 0), (8, 5, -6))
    )

    for name in ("ventricles", "sublentiform"):
        one, other = (middle_mm(getattr(each, name), each.affine) for each in (straight, turned))
        np.testing.assert_allclose(one, other, atol=2.5)  # slices are 5.5 mm apart
    assert np.rad2deg(np.arccos(turned.affine[2, 2] / 5.5)) == pytest.approx(9.4, abs=0.2)


def test_some_slices_are_those_of_the_whole(phantom, infected):
    part = render_t2(infected, PIXELS, slices=range(6, 9))

    np.testing.assert_array_equal(part.clean, phantom.clean[..., 6:9])
    np.testing.assert_allclose(part.affine @ (0, 0, 0, 1), phantom.affine @ (0, 0, 6, 1))


# --- what the cohort holds for whoever learns from it ---


def fluid_and_grain(seed):
    """Mean of fluid, and deviation of a fine and a coarse scale (LoG, mm), in both regions."""
    phantom = render_t2(draw_infection(seed, positive=seed % 2 == 1), 128, slices=WITH_REGIONS)
    pixel_mm = FIELD_MM / 128
    scales = {
        name: ndimage.gaussian_laplace(phantom.voxels, (mm / pixel_mm, mm / pixel_mm, 0))
        for name, mm in (("fine", 1), ("coarse", 4))
    }
    found = {}
    for region in ("ventricles", "sublentiform"):
        mask = getattr(phantom, region)
        values = phantom.voxels[mask]
        found[region, "fluid"] = values[values >= np.percentile(values, 90)].mean()
        found |= {(region, name): each[mask].std() for name, each in scales.items()}
    return found


def test_the_fine_scale_below_the_lentiform_nucleus_tells_most():
    found = [fluid_and_grain(seed) for seed in range(60)]
    positive = np.arange(60) % 2 == 1

    auroc = {}
    for feature in found[0]:
        area = roc_auc_score(positive, [each[feature] for each in found])
        auroc[feature] = max(area, 1 - area)  # fluid darkens

    assert auroc["sublentiform", "fine"] > 0.75
    assert auroc["ventricles", "fine"] < 0.70
    assert auroc["ventricles", "fluid"] < 0.70
    assert auroc["sublentiform", "fine"] > auroc["sublentiform", "fluid"]
    assert auroc["sublentiform", "fine"] > auroc["sublentiform", "coarse"] + 0.1
