"""DenseNets of many shapes with lively weights, and the naive way to the truth."""

import copy
import itertools

import numpy as np
import pytest
import torch
from monai.networks.nets.densenet import DenseNet

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(scope="session")
def densenet():
    """Build a network whose normalisations all do something."""

    def build(shape, seed=0, **config):
        torch.manual_seed(seed)
        usual = {"init_features": 8, "growth_rate": 4, "block_config": (2, 2)}
        network = DenseNet(3, 1, 2, **{**usual, **config})
        for part in network.modules():
            if isinstance(part, torch.nn.BatchNorm3d):
                torch.nn.init.uniform_(part.weight, 0.5, 1.5)
                torch.nn.init.normal_(part.bias, 0, 0.3)
                part.momentum = 1.0
        network.train()
        with torch.no_grad():
            network(torch.rand(2, 1, *shape))
        return network.eval().requires_grad_(False)

    return build


@pytest.fixture(scope="session")
def naive():
    """Change of the second output minus the first, by whole forward passes in float64."""

    def deltas(network, volume, boxes):
        exact, found = copy.deepcopy(network).double(), []
        with torch.inference_mode():
            usual = exact(volume[None, None].double())[0].diff()
            for box in boxes:
                blanked = volume.clone().double()
                blanked[tuple(slice(*bounds) for bounds in box)] = 0
                found.append(float(exact(blanked[None, None])[0].diff() - usual))
        return np.array(found)

    return deltas


@pytest.fixture(scope="session")
def places():
    """Boxes at all corners and on all edges and faces of a volume, and some within."""

    def boxes(shape, patch, seed=0, within=6):
        rng = np.random.default_rng(seed)
        ends = [
            (0, int(rng.integers(1, size - length)), size - length)
            for size, length in zip(shape, patch, strict=True)
        ]
        starts = [*itertools.product(*ends)]
        starts += [tuple(int(rng.integers(size)) for size in shape) for _ in range(within)]
        return [
            tuple((low, low + length) for low, length in zip(start, patch, strict=True))
            for start in starts
        ]

    return boxes
