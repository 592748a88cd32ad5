"""The occlusion map is what a full recomputation says, position by position."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors import safe_open

from worker import occlusion
from worker.bundle import load_bundle
from worker.delta import parallel
from worker.ensemble import Ensemble
from worker.occlusion import Effort, OcclusionMap, OcclusionSpec, explain
from worker.preprocess import Prepared

SPEC = OcclusionSpec(mode="paper", patch=(5, 6, 6), stride=(5, 6, 6))


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
    spec = OcclusionSpec(mode="paper", patch=(7, 7, 7), stride=(7, 7, 7))
    voxels = np.zeros_like(prepared.voxels)
    voxels[-1, -1, -1] = 1.0

    found = explain(ensemble, Prepared(voxels, prepared.affine), spec, ignore)

    assert found.delta.shape == (4, 4, 4)
    assert np.argwhere(found.delta).tolist() == [[3, 3, 3]]


def test_progress_runs_to_the_end(ensemble, prepared):
    heard = []

    explain(ensemble, prepared, SPEC, lambda done, total: heard.append((done, total)))

    assert heard[0] == (0, 160)
    assert heard[-1] == (160, 160)
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
    assert calls == [0, calls[1]]
    assert 0 < calls[1] < 160


def test_the_map_can_be_read_as_numbers(ensemble, prepared, tmp_path):
    found = explain(ensemble, prepared, SPEC, ignore)
    path = tmp_path / "map.safetensors"
    path.write_bytes(found.serialised())

    with safe_open(path, "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("delta"), found.delta)
        np.testing.assert_array_equal(file.get_tensor("spread"), found.spread)
        np.testing.assert_array_equal(file.get_tensor("affine"), found.affine)
        assert file.metadata() == {"how": "mode paper, exact"}


def test_the_volume_itself_is_left_alone(ensemble, prepared):
    before = prepared.voxels.copy()

    explain(ensemble, prepared, SPEC, ignore)

    np.testing.assert_array_equal(prepared.voxels, before)


def test_paper_mode_is_exact_and_says_so(ensemble, prepared):
    found = explain(ensemble, prepared, SPEC, ignore)

    assert found.error is None
    assert found.how == "mode paper, exact"


def test_capped_mode_tells_how_far_it_is_from_the_exact_map(ensemble, prepared):
    exact = explain(ensemble, prepared, SPEC, ignore)
    tight = dataclasses.replace(SPEC, mode="capped", caps=(1, 0))

    found = explain(ensemble, prepared, tight, ignore)

    assert found.delta.shape == exact.delta.shape
    differences = np.abs(found.delta - exact.delta)
    assert 0 < found.error.largest <= differences.max() + 1e-6
    assert found.error.largest > differences.mean()
    assert found.error.positions == 12
    assert f"up to {found.error.largest:.2g} log odds" in found.how


def test_usual_caps_cost_hardly_anything(ensemble, prepared):
    found = explain(ensemble, prepared, dataclasses.replace(SPEC, mode="capped"), ignore)

    assert found.error.relative < 0.01


def test_bfloat16_is_measured_too(ensemble, prepared):
    found = explain(ensemble, prepared, SPEC, ignore, Effort(dtype=torch.bfloat16))

    assert 1e-5 < found.error.relative < 0.1
    assert found.how.startswith("mode paper, bfloat16: differs from the exact map by up to")


def test_preview_is_exact_on_a_grid_half_as_fine(ensemble, prepared):
    preview = dataclasses.replace(SPEC, mode="preview")
    coarse = OcclusionSpec("paper", (10, 12, 12), (10, 12, 12))

    found = explain(ensemble, prepared, preview, ignore)

    expected = explain(ensemble, prepared, coarse, ignore)
    np.testing.assert_array_equal(found.delta, expected.delta)
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert found.positions == 3 * 3 * 3
    assert found.error.relative > 0.1  # boxes eight times as large do more


class Clock:
    """Every look at it costs a second."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1
        return self.now


def test_a_map_that_would_take_too_long_is_made_in_a_quicker_mode(
    ensemble, prepared, monkeypatch, caplog
):
    monkeypatch.setattr(occlusion, "time", Clock())
    monkeypatch.setattr(parallel, "CPU_BYTES", 1)  # one position at a time

    found = explain(ensemble, prepared, SPEC, ignore, Effort(seconds=100))

    # 160 effects at a second each are too many, in preview only 36 are left.
    assert found.spec.mode == "preview"
    assert found.asked.mode == "paper"
    assert "mode preview (mode paper would have taken too long)" in found.how
    assert caplog.messages == [
        "a paper map would take too long; capped instead",
        "a capped map would take too long; preview instead",
    ]


def test_the_quickest_mode_is_not_given_up(ensemble, prepared, monkeypatch):
    monkeypatch.setattr(occlusion, "time", Clock())
    monkeypatch.setattr(parallel, "CPU_BYTES", 1)

    found = explain(ensemble, prepared, SPEC, ignore, Effort(seconds=1e-9))

    assert found.spec.mode == "preview"
    assert np.abs(found.delta).max() > 0


def test_enough_time_leaves_the_mode_alone(ensemble, prepared):
    found = explain(ensemble, prepared, SPEC, ignore, Effort(seconds=1e9))

    assert found.spec == found.asked == SPEC


def plain_map(delta):
    """A map of 2-voxel patches over 20 mm, its grid a tilted one."""
    affine = np.array([[0, -20.0, 0, 7], [20.0, 0, 0, -5], [0, 0, 20.0, 11], [0, 0, 0, 1]])
    shape = tuple(2 * n for n in delta.shape)
    spec = OcclusionSpec("paper", (2, 2, 2), (2, 2, 2))
    return OcclusionMap(
        delta, np.zeros_like(delta), affine, spec, spec, "float32", shape, delta.size, delta.size,
        None,
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
