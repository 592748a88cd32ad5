"""The occlusion map is what a full recomputation says, position by position."""

import numpy as np
import pytest
import torch

from worker.bundle import load_bundle
from worker.ensemble import Ensemble
from worker.occlusion import OcclusionMap, OcclusionSpec, explain
from worker.preprocess import Prepared

SPEC = OcclusionSpec(mode="exact", patch=(5, 6, 6), stride=(5, 6, 6))


def ignore(done, total):
    """Progress that nobody watches."""


@pytest.fixture
def ensemble(toy_folder):
    return Ensemble(load_bundle(toy_folder))


@pytest.fixture
def prepared():
    """A lopsided blob, 10 mm voxels, somewhere in the room."""
    voxels = np.zeros((24, 26, 26), dtype=np.float32)
    voxels[3:17, 6:25, 4:26] = np.random.default_rng(0).random((14, 19, 22), dtype=np.float32)
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    affine[:3, 3] = (-100, -140, -90)
    return Prepared(voxels, affine)


def test_every_effect_equals_a_forward_with_the_patch_set_to_zero(ensemble, prepared):
    found = explain(ensemble, prepared, SPEC, ignore)

    baseline = ensemble.logits(torch.from_numpy(prepared.voxels)[None, None])[:, 0]
    for at in np.ndindex(found.delta.shape):
        occluded = prepared.voxels.copy()
        start = np.array(at) * SPEC.stride
        end = start + SPEC.patch
        occluded[start[0] : end[0], start[1] : end[1], start[2] : end[2]] = 0
        effects = baseline - ensemble.logits(torch.from_numpy(occluded)[None, None])[:, 0]
        assert found.delta[at] == pytest.approx(effects.mean(), abs=2e-5)
        assert found.spread[at] == pytest.approx(effects.std(), abs=2e-5)
    assert np.abs(found.delta).max() > 1e-3


def test_positions_that_are_zero_already_are_skipped_and_exactly_zero(ensemble, prepared):
    found = explain(ensemble, prepared, SPEC, ignore)

    assert found.positions == 5 * 5 * 5
    assert found.computed == np.count_nonzero(found.delta) == 4 * 4 * 5
    assert (found.delta[4] == 0).all()
    assert (found.spread[4] == 0).all()


def test_the_same_study_gives_the_same_map_bit_for_bit(ensemble, prepared):
    once, again = (explain(ensemble, prepared, SPEC, ignore) for _ in range(2))

    assert once.delta.tobytes() == again.delta.tobytes()
    assert once.spread.tobytes() == again.spread.tobytes()


def test_the_patches_reach_the_far_edges(ensemble, prepared):
    spec = OcclusionSpec(mode="exact", patch=(7, 7, 7), stride=(7, 7, 7))
    voxels = np.zeros_like(prepared.voxels)
    voxels[-1, -1, -1] = 1.0

    found = explain(ensemble, Prepared(voxels, prepared.affine), spec, ignore)

    assert found.delta.shape == (4, 4, 4)
    assert np.argwhere(found.delta).tolist() == [[3, 3, 3]]


def test_progress_runs_to_the_end(ensemble, prepared):
    heard = []

    explain(ensemble, prepared, SPEC, lambda done, total: heard.append((done, total)))

    assert heard[0] == (0, 80)
    assert heard[-1] == (80, 80)
    assert heard == sorted(heard)


def test_raising_from_progress_cancels(ensemble, prepared):
    class LeaseLost(Exception):
        pass

    calls = []

    def cancel(done, total):
        calls.append(done)
        if done > 0:
            raise LeaseLost

    with pytest.raises(LeaseLost):
        explain(ensemble, prepared, SPEC, cancel)
    assert len(calls) == 2


def test_the_volume_itself_is_left_alone(ensemble, prepared):
    before = prepared.voxels.copy()

    explain(ensemble, prepared, SPEC, ignore)

    np.testing.assert_array_equal(prepared.voxels, before)


def plain_map(delta):
    """A map of 2-voxel patches over 20 mm, its grid a tilted one."""
    affine = np.array([[0, -20.0, 0, 7], [20.0, 0, 0, -5], [0, 0, 20.0, 11], [0, 0, 0, 1]])
    shape = tuple(2 * n for n in delta.shape)
    return OcclusionMap(
        delta, np.zeros_like(delta), affine, "exact", (2, 2, 2), (2, 2, 2), shape,
        delta.size, delta.size, None,
    )  # fmt: skip


def test_sampling_at_patch_centres_returns_their_values():
    delta = np.random.default_rng(1).random((3, 4, 5), dtype=np.float32)
    found = plain_map(delta)
    index = np.moveaxis(np.indices(delta.shape), 0, -1)

    ras = index @ found.affine[:3, :3].T + found.affine[:3, 3]

    np.testing.assert_allclose(found.sample(ras), delta, atol=1e-6)


def test_sampling_is_linear_between_centres():
    delta = np.zeros((3, 3, 3), dtype=np.float32)
    delta[1, 1, 1] = 8
    found = plain_map(delta)

    halfway = (found.affine @ (1.5, 1, 1, 1))[:3]
    corner = (found.affine @ (1.5, 0.5, 1.5, 1))[:3]

    np.testing.assert_allclose(found.sample(np.stack([halfway, corner])), [4, 1], atol=1e-5)


def test_sampling_goes_on_to_the_faces_and_is_zero_beyond():
    found = plain_map(np.ones((2, 2, 2), dtype=np.float32))

    face, beyond = ((found.affine @ (x, 0, 0, 1))[:3] for x in (-0.49, -0.51))

    assert found.sample(face) == 1
    assert found.sample(beyond) == 0


def test_grid_affine_points_at_patch_centres_in_the_patient(ensemble, prepared):
    found = explain(ensemble, prepared, SPEC, ignore)

    # The patch at (1, 0, 2) covers voxels 5..9, 0..5 and 12..17.
    expected = (prepared.affine @ (7, 2.5, 14.5, 1))[:3]
    np.testing.assert_allclose((found.affine @ (1, 0, 2, 1))[:3], expected)
