"""What the network sees is upright, centred, and 0 outside of the head, whatever came in."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from worker.preprocess import DEMO_RECIPE, NoHead, Recipe, canonical, head_mask, prepare

SPACING_MM = 3.0
MARK = (0, 1, 2)  # right, anterior, superior: the axes along which the bright mark lies off centre


def head(seed=0):
    """A noisy head with bone and brain, and a bright mark to the right, front and top."""
    axes = [np.arange(-n, n + 1) * SPACING_MM for n in (31, 38, 38)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((x / 76) ** 2 + (y / 93) ** 2 + ((z - 5) / 80) ** 2)
    neck = (np.hypot(x, y + 20) < 45) & (z < 0)
    signal = np.select([radius < 0.85, radius < 0.92, (radius < 1) | neck], [100, 20, 60], 0)
    signal = np.where((x - 30) ** 2 + (y - 40) ** 2 + (z - 45) ** 2 < 15**2, 220, signal)
    noise = np.abs(np.random.default_rng(seed).normal(0, 3, signal.shape))
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    return (signal + noise).astype(np.float32), affine


def seen_otherwise(voxels, affine, order, signs):
    """The same head stored with its axes in another order and direction."""
    affine = affine[:, [*order, 3]]
    voxels = voxels.transpose(order)
    for axis, sign in enumerate(signs):
        if sign < 0:
            affine = affine.copy()
            affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
            affine[:3, axis] *= -1
            voxels = np.flip(voxels, axis)
    return voxels, affine


def tilted(affine, degrees):
    """The same grid, turned about the axis from right to left."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    return turn @ affine


def where_bright(prepared):
    """RAS mm of the middle of what is brightest."""
    index = ndimage.center_of_mass(prepared.voxels > 0.9)
    return (prepared.affine @ (*index, 1))[:3]


def test_the_mark_stays_where_it_is_in_the_patient():
    prepared = prepare(*head(), DEMO_RECIPE)

    assert prepared.voxels.shape == (60, 65, 65)
    np.testing.assert_allclose(where_bright(prepared), (30, 40, 45), atol=2)


def test_axes_run_to_right_anterior_superior():
    prepared = prepare(*head(), DEMO_RECIPE)

    middle = (np.array(prepared.voxels.shape) - 1) / 2
    bright = np.array(ndimage.center_of_mass(prepared.voxels > 0.9))
    assert (bright[list(MARK)] > middle[list(MARK)] + 2).all()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_storage_order_and_direction_change_nothing(order):
    expected = prepare(*head(), DEMO_RECIPE)

    for signs in itertools.product((1, -1), repeat=3):
        stored = seen_otherwise(*head(), order, signs)
        prepared = prepare(*stored, DEMO_RECIPE)
        np.testing.assert_allclose(prepared.affine, expected.affine, atol=1e-9)
        np.testing.assert_allclose(prepared.voxels, expected.voxels, atol=1e-3)


@pytest.mark.parametrize("degrees", [-25, 8, 40])
def test_an_oblique_scan_is_reordered_but_not_rotated(degrees):
    voxels, affine = head()

    straight = prepare(voxels, affine, DEMO_RECIPE)
    oblique = prepare(voxels, tilted(affine, degrees), DEMO_RECIPE)

    np.testing.assert_allclose(oblique.voxels, straight.voxels, atol=1e-3)
    np.testing.assert_allclose(oblique.affine, tilted(straight.affine, degrees), atol=1e-6)


def test_outside_is_exactly_zero_and_inside_never_is():
    voxels, affine = head()
    prepared = prepare(voxels, affine, DEMO_RECIPE)

    radius = radii_of(prepared)
    assert (prepared.voxels[radius > 1.25] == 0).all()
    assert (prepared.voxels[radius < 0.95] > 0).all()
    assert prepared.voxels.max() <= 1


def radii_of(prepared):
    """Distance from the middle of the head, 1 at its surface; above the neck only."""
    index = np.indices(prepared.voxels.shape).reshape(3, -1)
    x, y, z = prepared.affine[:3, :3] @ index + prepared.affine[:3, 3:]
    radius = np.sqrt((x / 76) ** 2 + (y / 93) ** 2 + ((z - 5) / 80) ** 2)
    return np.where(z > 5, radius, 1.1).reshape(prepared.voxels.shape)


def test_values_survive_storage_as_float16():
    voxels = prepare(*head(), DEMO_RECIPE).voxels

    assert voxels.dtype == np.float32
    np.testing.assert_array_equal(voxels, voxels.astype(np.float16))


def test_the_neck_is_cut_rather_than_the_vertex():
    low = Recipe(spacing_mm=(4.0, 4.0, 4.0), shape=(60, 65, 30))
    prepared = prepare(*head(), low)

    margin = round(low.vertex_margin_mm / 4)
    assert not prepared.voxels[:, :, -margin + 1 :].any()
    assert prepared.voxels[:, :, -margin - 2].any()
    assert prepared.voxels[:, :, 0].any()
    np.testing.assert_allclose(where_bright(prepared), (30, 40, 45), atol=2)


def test_the_head_is_centred_wherever_it_lay_in_the_scan():
    voxels, affine = head()
    moved = np.roll(np.pad(voxels, 8), (6, -5), axis=(0, 1))
    x, y, _ = ndimage.center_of_mass(prepare(moved, affine, DEMO_RECIPE).voxels > 0)
    expected = ndimage.center_of_mass(prepare(voxels, affine, DEMO_RECIPE).voxels > 0)

    assert (x, y) == pytest.approx(expected[:2], abs=0.6)


def test_brightness_of_the_scanner_does_not_matter():
    voxels, affine = head()

    once, ninefold = (prepare(gain * voxels, affine, DEMO_RECIPE) for gain in (1, 9))

    np.testing.assert_allclose(once.voxels, ninefold.voxels, atol=1e-3)


def test_a_brighter_vessel_does_not_darken_the_brain():
    voxels, affine = head()
    brighter = np.where(voxels > 200, 4 * voxels, voxels)

    before, after = prepare(voxels, affine, DEMO_RECIPE), prepare(brighter, affine, DEMO_RECIPE)

    assert np.median(after.voxels[after.voxels > 0]) == pytest.approx(
        np.median(before.voxels[before.voxels > 0]), abs=0.01
    )


def test_a_coarser_grid_averages_rather_than_skips():
    voxels, affine = head()
    striped = voxels.copy()
    striped[::2] = 0  # every other sagittal plane is missing

    smooth = prepare(striped, affine, Recipe(spacing_mm=(12.0, 12.0, 12.0), shape=(20, 22, 22)))

    brain = smooth.voxels[8:12, 8:14, 10:14]
    assert brain.std() / brain.mean() < 0.1


def test_a_single_bright_speck_is_not_part_of_the_head():
    voxels, affine = head()
    voxels[1:3, 1:3, 1:3] = 200  # a ghost in the corner

    mask, _ = head_mask(*canonical(voxels, affine))

    assert not mask[:3, :3, :3].any()
    assert mask.any()


def test_an_even_volume_has_no_head():
    with pytest.raises(NoHead, match="equally bright"):
        prepare(np.ones((20, 20, 20), dtype=np.float32), np.eye(4), DEMO_RECIPE)
