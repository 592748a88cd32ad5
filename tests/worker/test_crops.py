"""Crops and features of regions, on volumes where the answer is known."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from worker.crops import CropRecipe, look, paste
from worker.quality import Reason, UnusableStudy
from worker.radiomics.config import Radiomics
from worker.scene import Scene

QUICK = Radiomics(families=("firstorder",), min_voxels=1)
RECIPE = CropRecipe(fewest_pixels=50, margin=4, side=64, radiomics=QUICK)
SHAPE = (80, 90, 6)
UNITS = ("brain", "middle")


def scene_of(voxels, spacing=(1.0, 1.0, 5.0)):
    grids = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in voxels.shape), indexing="ij")
    level = np.zeros_like(voxels)
    return Scene(voxels, np.diag([*spacing, 1.0]), 1.0, *grids, level, 2.5)


@pytest.fixture
def voxels():
    return np.random.default_rng(0).normal(1, 0.2, SHAPE).astype(np.float32)


@pytest.fixture
def mask():
    region = np.zeros(SHAPE, dtype=bool)
    region[30:50, 40:50, 2:4] = True
    region[30:34, 40:44, 4] = True  # 16 pixels
    return region


def test_each_slice_that_holds_enough_of_the_region_gives_a_crop(voxels, mask):
    view = look(scene_of(voxels), mask, RECIPE)

    assert [each.slice for each in view.places] == [2, 3]
    assert view.crops.shape == (2, 3, 64, 64)
    assert view.volume_ml == pytest.approx(416 * 5 / 1000)


def test_crops_are_the_same_after_rounding_to_half_precision(voxels, mask):
    crops = look(scene_of(voxels), mask, RECIPE).crops

    np.testing.assert_array_equal(crops, crops.astype(np.float16))


def test_a_radiologist_sees_right_on_the_left_and_front_on_top(voxels, mask):
    voxels[48, 41, 2] = 50  # far right, and far back within the region
    image = look(scene_of(voxels), mask, RECIPE).crops[0, 0]

    row, column = np.unravel_index(image.argmax(), image.shape)
    assert row > 32
    assert column < 32


def test_outside_of_the_region_the_second_channel_is_empty(voxels, mask):
    empty = look(scene_of(voxels), mask, RECIPE).crops[:, 1] == 0

    # The square is 28 mm wide, the region 20 by 10.
    assert empty.mean() == pytest.approx(1 - 200 / 28**2, abs=0.06)


def test_the_square_is_square_in_millimetres(voxels, mask):
    place = look(scene_of(voxels, (1.0, 0.5, 5.0)), mask, RECIPE).places[0]

    assert place.sides == (28.0, 56.0)
    assert place.centre == (39.5, 44.5)


def test_brightness_and_contrast_of_the_scanner_do_not_matter(voxels, mask):
    one = look(scene_of(voxels), mask, RECIPE).crops
    other = look(scene_of(3 * voxels + 7), mask, RECIPE).crops

    np.testing.assert_allclose(one, other, atol=2e-3)


def test_edges_are_measured_in_millimetres_whatever_the_pixels(mask):
    """Of the slice x^2 + 2 y^2 in mm the second derivatives add up to 6 everywhere."""
    x, y, _ = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    for spacing in ((1.0, 1.0, 5.0), (1.0, 0.5, 5.0), (0.5, 1.0, 5.0)):
        bowl = (x * spacing[0]) ** 2 + 2 * (y * spacing[1]) ** 2
        view = look(scene_of(bowl.astype(np.float32), spacing), mask, RECIPE)

        middle = view.crops[0, 2, 24:40, 24:40]
        np.testing.assert_allclose(
            middle, -6 / bowl.std(), rtol=0.2
        )  # evened out as a coil's field


def test_fluid_in_the_middle_of_the_head_does_not_move_the_unit_of_crops(voxels, mask):
    flooded = voxels.copy()
    flooded[:10, :40] = 2.5  # ventricles twice as wide, say
    by = {each: CropRecipe(50, 4, 64, radiomics=QUICK, scaled_by=each) for each in UNITS}

    moved = {
        each: np.abs(
            look(scene_of(flooded), mask, recipe).crops[0, 0, 20:44, 20:44]
            - look(scene_of(voxels), mask, recipe).crops[0, 0, 20:44, 20:44]
        ).mean()
        for each, recipe in by.items()
    }

    assert moved["brain"] < 0.05
    assert moved["middle"] > 0.2


def test_a_recipe_that_says_nothing_means_the_middle_of_the_head():
    assert TypeAdapter(CropRecipe).validate_python({"side": 96}).scaled_by == "middle"


def test_what_is_cut_out_can_be_put_back_in_its_place(mask):
    x, y, _ = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    smooth = np.sin(x / 9) + np.cos(y / 7)
    view = look(scene_of(smooth.astype(np.float32)), mask, RECIPE)

    found = paste(view.crops[:, 0], view.places, SHAPE)

    expected = (smooth - smooth.mean()) / smooth.std()
    inside = mask & np.isin(np.arange(SHAPE[2]), [2, 3])
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.02)
    assert not found[..., 4].any()
    assert not found[:20].any()


def test_a_region_without_a_slice_to_look_at_is_refused(voxels, mask):
    mask[:, :, 2:4] = False

    with pytest.raises(UnusableStudy, match="16 pixels of the region") as refusal:
        look(scene_of(voxels), mask, RECIPE)

    assert refusal.value.reason is Reason.NO_REGION


def test_features_are_those_of_the_whole_region_where_brain_is_one(voxels, mask):
    found = look(scene_of(voxels), mask, RECIPE).radiomics

    mean = found.values[found.names.index("original_firstorder_Mean")]
    assert mean == pytest.approx(voxels[mask].mean())
