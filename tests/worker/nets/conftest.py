"""What tests of networks share."""

import pytest
import torch

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def crops():
    """Three crops and their radiomic features."""
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, 224, 224, generator=drawn), torch.randn(3, 30, generator=drawn)


@pytest.fixture
def norm():
    """Names of a BatchNorm's tensors."""
    return lambda name: [f"{name}.{part}" for part in NORM]


@pytest.fixture
def parameters():
    """How many parameters a network has."""
    return lambda network: sum(each.numel() for each in network.parameters())


@pytest.fixture
def filled():
    """A network in double precision, in evaluation mode, with waves for weights.

    Anybody can fill a network of the same names so, torchvision's too.
    """

    def fill(network):
        network.double().eval()
        for number, (name, each) in enumerate(network.state_dict().items()):
            wave = torch.sin(0.7 * torch.arange(each.numel()).double() + number)
            if each.ndim > 1:  # a layer's weights keep the size of what it passes on
                each.copy_(wave.reshape(each.shape) * (3 / each[0].numel()) ** 0.5)
            elif each.ndim == 1:
                each.copy_(wave / 2 + name.endswith(("weight", "running_var")))
        return network

    return fill


@pytest.fixture
def wave():
    """A crop of 64 x 96 in double precision."""
    return torch.sin(0.01 * torch.arange(3 * 64 * 96).double() ** 1.1).reshape(1, 3, 64, 96)
