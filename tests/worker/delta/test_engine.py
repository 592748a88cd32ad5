"""The engine says what whole forward passes in float64 say."""

import numpy as np
import pytest
import torch

from worker.delta.engine import DeltaEngine

# Shapes that halve with and without rest, maps that shrink to a voxel or two, and networks whose
# boxes stay small or fill their maps.
CASES = {
    "two blocks": ((24, 26, 26), (5, 6, 6), {}),
    "odd sizes": ((37, 41, 29), (6, 5, 7), {"block_config": (3, 2, 2)}),
    "four blocks": ((49, 51, 47), (7, 7, 7), {"block_config": (2, 3, 4, 2), "growth_rate": 8}),
    "one block": ((23, 31, 27), (4, 4, 4), {"block_config": (4,)}),
    "narrow bottlenecks": ((32, 32, 32), (8, 8, 8), {"bn_size": 1, "init_features": 6}),
    "dropout": ((24, 24, 24), (6, 6, 6), {"dropout_prob": 0.5}),
    "compact-densenet": (
        (60, 65, 65),
        (6, 7, 7),
        {"init_features": 16, "growth_rate": 8, "block_config": (4, 4, 4)},
    ),
}


def relative(found, expected):
    """Errors over the standard deviation of the deltas: largest, and root mean square."""
    errors = np.abs(np.asarray(found) - expected) / expected.std()
    return errors.max(), np.sqrt(np.mean(errors**2))


def engine_for(network, volume, device="cpu", **options):
    return DeltaEngine(network.to(device), volume.to(device), **options)


@pytest.mark.parametrize("case", CASES)
def test_it_is_exact_everywhere_one_by_one_and_together(case, densenet, naive, places, device):
    shape, patch, config = CASES[case]
    network, volume = densenet(shape, **config), torch.rand(shape)
    boxes = places(shape, patch)
    expected = naive(network.cpu(), volume, boxes)

    engine = engine_for(network, volume, device)
    alone = np.array([float(engine.deltas([box])[0]) for box in boxes])

    assert expected.std() > 1e-4
    assert relative(alone, expected)[0] < 1e-3
    assert relative(engine.deltas(boxes), expected)[0] < 1e-3


@pytest.mark.parametrize("seed", range(12))
def test_any_network_volume_and_box(seed, densenet, naive, device):
    """Drawn at random: shape, blocks, growth, and boxes from a voxel to most of the volume."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers(20, 44, 3))
    blocks = tuple(int(layers) for layers in rng.integers(1, 4, rng.integers(1, 4)))
    config = {
        "block_config": blocks,
        "growth_rate": int(rng.integers(2, 9)),
        "init_features": int(rng.integers(2, 6)) * 2,
    }
    network, volume = densenet(shape, seed, **config), torch.rand(shape)
    boxes = []
    for _ in range(10):
        low = [int(rng.integers(-3, size - 1)) for size in shape]
        high = [
            int(rng.integers(max(at, 0) + 1, size + 4)) for at, size in zip(low, shape, strict=True)
        ]
        boxes.append(tuple(zip([max(at, 0) for at in low], high, strict=True)))
    expected = naive(network.cpu(), volume, boxes)

    found = engine_for(network, volume, device).deltas(boxes)

    assert relative(found, expected)[0] < 1e-3


def test_the_output_itself_is_that_of_the_network(densenet, device):
    network, volume = densenet((24, 26, 26)), torch.rand(24, 26, 26)
    expected = float(network(volume[None, None])[0].diff())

    assert engine_for(network, volume, device).output == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "box", [((3, 9), (4, 11), (5, 12)), ((-2, 4), (-1, 5), (20, 31))], ids=["inside", "beyond"]
)
def test_other_contrasts_and_fills(box, densenet, device):
    network, volume = densenet((24, 26, 26)), torch.rand(24, 26, 26)
    blanked = volume.clone()
    blanked[tuple(slice(max(low, 0), high) for low, high in box)] = 0.7
    with torch.inference_mode():
        before, after = (network(each[None, None])[0] for each in (volume, blanked))

    engine = engine_for(network, volume, device, contrast=(1.0, 0.0), fill=0.7)

    assert float(engine.deltas([box])[0]) == pytest.approx(float(after[0] - before[0]), abs=1e-5)


def test_bfloat16_errs_by_little(densenet, naive, places, device):
    shape, patch, config = CASES["four blocks"]
    network, volume = densenet(shape, **config), torch.rand(shape)
    boxes = places(shape, patch)

    engine = engine_for(network, volume, device, dtype=torch.bfloat16)
    found = engine.deltas(boxes)

    _, root_mean_square = relative(found, naive(network.cpu(), volume, boxes))
    assert 1e-5 < root_mean_square < 5e-2


def test_blanking_what_is_blank_changes_exactly_nothing(densenet, device):
    volume = torch.rand(24, 26, 26)
    volume[:12] = 0
    engine = engine_for(densenet((24, 26, 26)), volume, device)

    found = engine.deltas([((0, 5), (0, 6), (0, 6)), ((6, 12), (7, 13), (20, 26))])

    assert found.tolist() == [0, 0]


def test_asking_again_gives_the_same_bits(densenet, places, device):
    shape, patch, config = CASES["odd sizes"]
    engine = engine_for(densenet(shape, **config), torch.rand(shape), device)
    boxes = places(shape, patch)

    first, again = engine.deltas(boxes), engine.deltas(boxes)

    assert torch.equal(first, again)


def test_caps_that_bind_nowhere_change_nothing(densenet, places, device):
    shape, patch, config = CASES["four blocks"]
    engine = engine_for(densenet(shape, **config), torch.rand(shape), device)
    boxes = places(shape, patch)

    assert torch.equal(engine.deltas(boxes, caps=(2, 3, 4, 2)), engine.deltas(boxes))


def test_the_tighter_the_caps_the_larger_the_error(densenet, naive, places, device):
    shape, patch, config = CASES["four blocks"]
    network, volume = densenet(shape, **config), torch.rand(shape)
    boxes = places(shape, patch)
    expected, engine = naive(network, volume, boxes), engine_for(network, volume, device)

    errors = [relative(engine.deltas(boxes, caps=(cap,) * 4), expected)[1] for cap in (4, 2, 1, 0)]

    assert errors == sorted(errors)
    assert errors[0] < 1e-3 < errors[-1]


def test_caps_for_another_number_of_blocks_are_refused(densenet):
    engine = engine_for(densenet((24, 24, 24)), torch.rand(24, 24, 24))

    with pytest.raises(ValueError, match="3 caps for a network of 2 dense blocks"):
        engine.deltas([((0, 5), (0, 5), (0, 5))], caps=(1, 1, 1))


def test_the_network_is_left_alone(densenet):
    network, volume = densenet((24, 24, 24)), torch.rand(24, 24, 24)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    engine_for(network, volume).deltas([((0, 5), (0, 5), (0, 5))])

    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
