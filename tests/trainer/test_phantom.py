"""The same head with and without a sign, and never anything else between them."""

import dataclasses

import numpy as np
import pytest

from trainer.phantom import LIMITS_MM, OVERT, SIGNS, draw_case, render, visible_signs

SPACING_MM = 4.0  # quick; the phantoms that are learnt from are made at 2 mm


def severe(seed=3):
    """A case with every sign well above what separates healthy heads."""
    case = draw_case(seed, positive=True, spectrum=OVERT)
    return dataclasses.replace(
        case,
        shown=dataclasses.replace(
            case.usual,
            dura_mm=2.2,
            dura_gain=1.8,
            sinus_mm=6.0,
            sinus_round=True,
            subdural_mm=5.0,
            prepontine_mm=2.0,
            mamillopontine_mm=3.5,
            suprasellar_mm=1.5,
            pituitary_mm=9.5,
        ),
    )


def middle_mm(mask, phantom):
    """RAS mm of the middle of a mask."""
    return (phantom.affine @ (*np.argwhere(mask).mean(axis=0), 1))[:3]


def test_the_same_seed_paints_the_same_head():
    once, again = (render(draw_case(7, positive=True), SPACING_MM) for _ in range(2))

    assert once.voxels.tobytes() == again.voxels.tobytes()


def test_another_seed_paints_another_head():
    one, other = (render(draw_case(seed, positive=False), SPACING_MM) for seed in (1, 2))

    assert (one.voxels != other.voxels).mean() > 0.5


def test_voxels_are_whole_grey_values_of_twelve_bits():
    voxels = render(severe(), SPACING_MM).voxels

    np.testing.assert_array_equal(voxels, np.rint(voxels))
    assert 0 <= voxels.min() < 400 < voxels.max() < 4096


@pytest.mark.parametrize("sign", SIGNS)
def test_turning_one_sign_off_changes_that_sign_only(sign):
    case = severe()

    without = case.without(sign)

    changed = {
        size
        for size in dataclasses.asdict(case.shown)
        if getattr(case.shown, size) != getattr(without.shown, size)
    }
    assert changed == set(SIGNS[sign])


@pytest.fixture(scope="module")
def healthy():
    return render(severe().only(), 3.0)


@pytest.fixture(scope="module")
def planted():
    """The same head with each sign alone."""
    return {sign: render(severe().only(sign), 3.0) for sign in SIGNS}


@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_changes_a_small_part_of_the_head_and_leaves_the_rest_untouched(
    planted, healthy, sign
):
    seen = visible_signs(planted[sign], healthy)

    assert 5 < seen.sum() < 0.05 * seen.size
    untouched = planted[sign].clean == healthy.clean
    assert untouched.mean() > 0.9
    np.testing.assert_array_equal(planted[sign].voxels[untouched], healthy.voxels[untouched])


def test_signs_lie_where_they_belong(planted, healthy):
    middles = {
        sign: middle_mm(visible_signs(phantom, healthy), healthy)
        for sign, phantom in planted.items()
    }

    assert all(abs(middle[0]) < 8 for middle in middles.values())  # left and right alike
    assert middles["subdural"][2] > 25  # over the convexities
    assert middles["sinus"][2] > 10
    assert middles["cisterns"][2] < 0
    assert middles["pituitary"][2] < 0
    assert middles["pituitary"][1] > 5  # in front of the dorsum sellae


def test_a_negative_shows_no_sign():
    assert not draw_case(4, positive=False).overt


def test_about_a_fifth_of_the_positives_have_a_normal_mri():
    hidden = [not draw_case(seed, positive=True).overt for seed in range(2000)]

    assert np.mean(hidden) == pytest.approx(0.19, abs=0.03)


def test_a_positive_is_not_normal_when_that_is_ruled_out():
    assert all(draw_case(seed, positive=True, spectrum=OVERT).overt for seed in range(200))


def test_healthy_sizes_are_spread_as_in_the_90_normals_of_kang_2025():
    usual = [draw_case(seed, positive=False).usual for seed in range(3000)]

    assert np.mean([each.prepontine_mm <= 5.0 for each in usual]) == pytest.approx(0.53, abs=0.03)
    assert np.mean([each.mamillopontine_mm <= 6.5 for each in usual]) == pytest.approx(
        0.40, abs=0.03
    )
    assert np.mean([each.suprasellar_mm <= 4.0 for each in usual]) == pytest.approx(0.28, abs=0.03)


def test_sizes_stay_within_what_anatomy_leaves_room_for():
    for seed in range(500):
        shown = draw_case(seed, positive=True).shown
        for size, (low, high) in LIMITS_MM.items():
            assert low <= getattr(shown, size) <= high
