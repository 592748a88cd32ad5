"""Variations never touch the outside of the head."""

import pytest
import torch
from monai.transforms import ShiftIntensity
from torch import Generator

from trainer.augment import (
    augment,
    bias_field,
    blank,
    histogram_shift,
    intensity_shift,
    mirror,
    move,
    moved,
    noise,
)
from trainer.settings import AugmentationConfig

CONFIG = AugmentationConfig(probability=1.0, blank=1.0)
SPACING_MM = (4.0, 4.0, 4.0)
WITHIN_HEAD = (bias_field, histogram_shift, intensity_shift, noise)


@pytest.fixture
def batch():
    """Two heads of uneven values, 0 outside."""
    voxels = torch.zeros(2, 1, 24, 26, 26)
    voxels[..., 6:18, 5:20, 4:22] = 0.2 + 0.6 * torch.rand(
        2, 1, 12, 15, 18, generator=Generator().manual_seed(0)
    )
    return voxels


def generator(seed=1):
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", WITHIN_HEAD)
def test_the_head_changes_and_its_outside_stays_zero(batch, kind):
    varied = kind(batch, CONFIG, generator())

    assert torch.equal(varied > 0, batch > 0)
    assert varied.max() <= 1
    assert not torch.equal(varied, batch)


def test_exams_of_a_batch_vary_each_in_its_own_way(batch):
    twice = batch[:1].repeat(2, 1, 1, 1, 1)
    for kind in WITHIN_HEAD:
        one, other = kind(twice, CONFIG, generator())
        assert not torch.equal(one, other)


def test_an_intensity_shift_is_the_same_for_the_whole_head(batch):
    varied = intensity_shift(batch, CONFIG, generator())

    for case, original in zip(varied, batch, strict=True):
        offset = (case - original)[original > 0]
        assert torch.allclose(offset, offset[0])
        assert abs(offset[0]) <= CONFIG.intensity_shift
        assert torch.allclose(
            ShiftIntensity(float(offset[0]))(original[original > 0]), case[original > 0]
        )


def test_a_histogram_shift_keeps_the_order_of_intensities(batch):
    varied = histogram_shift(batch, CONFIG, generator())

    for case, original in zip(varied, batch, strict=True):
        order = original[original > 0].argsort()
        assert (case[original > 0][order].diff() >= -1e-6).all()


def test_a_bias_field_is_smooth(batch):
    flat = torch.where(batch > 0, 0.4, 0.0)

    field = bias_field(flat, CONFIG, generator())[..., 6:18, 5:20, 4:22] / 0.4

    assert field.std() > 0.01
    assert max(field.diff(dim=dim).abs().max() for dim in (2, 3, 4)) < 0.2


def still(**changes):
    """Arguments of `moved` for one exam, with nothing but the changes."""
    usual = {
        "angles": torch.zeros(1, 3),
        "scales": torch.ones(1, 3),
        "shifts_mm": torch.zeros(1, 3),
    }
    return usual | {name: torch.tensor([value]) for name, value in changes.items()}


def test_a_shift_moves_the_head_by_millimetres():
    point = torch.zeros(1, 1, 24, 26, 26)
    point[0, 0, 12, 13, 13] = 1.0

    shifted = moved(point, **still(shifts_mm=[8.0, 0.0, -4.0]), spacing_mm=(4.0, 4.0, 2.0))

    assert shifted[0, 0, 10, 13, 15] == pytest.approx(1.0, abs=1e-3)


def test_a_larger_scale_shrinks_the_head():
    voxels = torch.zeros(1, 1, 24, 26, 26)
    voxels[..., 4:20, 11:15, 11:15] = 1.0

    shrunk = moved(voxels, **still(scales=[2.0, 1.0, 1.0]), spacing_mm=SPACING_MM)

    assert shrunk.sum() == pytest.approx(float(voxels.sum()) / 2, rel=0.01)


def test_uneven_voxels_are_turned_in_millimetres():
    voxels = torch.zeros(1, 1, 5, 40, 20)
    voxels[..., 2, 18:22, 4:16] = 1.0  # 4 mm x 24 mm at 1 x 2 mm

    turned = moved(voxels, **still(angles=[torch.pi / 2, 0.0, 0.0]), spacing_mm=(1.0, 1.0, 2.0))

    upright = turned[0, 0, 2] > 0.5
    assert upright.any(dim=1).sum() == 24
    assert upright.any(dim=0).sum() == 2


def test_heads_are_moved_each_in_its_own_way(batch):
    one, other = move(batch[:1].repeat(2, 1, 1, 1, 1), CONFIG, generator(), SPACING_MM)

    assert not torch.equal(one, other)
    assert min(one.min(), other.min()) >= 0


def test_mirroring_swaps_left_and_right_only(batch):
    many = batch.repeat(20, 1, 1, 1, 1)
    mirrored = mirror(many, 0.5, generator())

    pairs = list(zip(mirrored, many, strict=True))
    swapped = sum(torch.equal(case, original.flip(1)) for case, original in pairs)
    kept = sum(torch.equal(case, original) for case, original in pairs)
    assert swapped + kept == len(many)
    assert 5 < swapped < 35


def test_blank_boxes_are_zero_and_the_rest_is_as_before(batch):
    blanked = blank(batch, CONFIG, generator())

    lost = (blanked != batch).sum()
    assert 0 < lost < batch.count_nonzero()
    assert (blanked[blanked != batch] == 0).all()


def test_the_same_seed_varies_alike_and_leaves_the_original(batch):
    before = batch.clone()

    once, again = (augment(batch, CONFIG, SPACING_MM, generator(5)) for _ in range(2))

    assert torch.equal(once, again)
    assert torch.equal(batch, before)


def test_without_probability_an_exam_is_shown_as_it_is(batch):
    config = AugmentationConfig(probability=0, flip=0)

    assert torch.equal(augment(batch, config, SPACING_MM, generator()), batch)
