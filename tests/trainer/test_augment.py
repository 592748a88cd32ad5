"""Variations never touch the outside of the head."""

import pytest
import torch
from torch import Generator

from trainer.augment import augment, blank, mirror, recontrast, shift


@pytest.fixture
def batch():
    """Two heads of even shape, 0 outside."""
    voxels = torch.zeros(2, 1, 24, 26, 26)
    voxels[..., 6:18, 5:20, 4:22] = 0.2 + 0.6 * torch.rand(
        2, 1, 12, 15, 18, generator=Generator().manual_seed(0)
    )
    return voxels


def generator(seed=1):
    return Generator().manual_seed(seed)


def test_contrast_changes_inside_and_nothing_outside(batch):
    varied = recontrast(batch, generator())

    assert torch.equal(varied > 0, batch > 0)
    assert varied.max() <= 1
    assert not torch.equal(varied, batch)


def test_a_shift_moves_the_head_and_brings_in_zeros(batch):
    moved = shift(batch, generator())

    assert torch.isclose(moved.sum(), batch.sum())
    assert not torch.equal(moved, batch)


def test_mirroring_swaps_left_and_right_only(batch):
    mirrored = mirror(batch.repeat(20, 1, 1, 1, 1), generator())

    for case, original in zip(mirrored, batch.repeat(20, 1, 1, 1, 1), strict=True):
        assert torch.equal(case, original) or torch.equal(case, original.flip(1))
    assert not torch.equal(mirrored, batch.repeat(20, 1, 1, 1, 1))


def test_blank_boxes_are_zero_and_the_rest_is_as_before(batch):
    blanked = blank(batch, 1.0, generator())

    lost = (blanked != batch).sum()
    assert 0 < lost < batch.count_nonzero()
    assert (blanked[blanked != batch] == 0).all()


def test_without_probability_nothing_is_blanked(batch):
    assert torch.equal(blank(batch, 0.0, generator()), batch)


def test_the_same_seed_varies_alike_and_leaves_the_original(batch):
    before = batch.clone()

    once, again = (augment(batch, 0.5, generator(5)) for _ in range(2))

    assert torch.equal(once, again)
    assert torch.equal(batch, before)
