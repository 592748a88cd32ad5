"""MobileNetV3-Large as torchvision has it.

Names, shapes and counts were checked against torchvision 0.29.2 itself: with its weights, this
network gives the same logits, gradients and running statistics to the last bit.
"""

import pytest
import torch
from torch import nn

from worker.nets.mobilenet import LARGE, MobileNetV3, divisible


def test_with_1000_classes_it_has_torchvision_s_5_483_032_parameters(parameters):
    assert parameters(MobileNetV3(classes=1000)) == 5_483_032


def test_its_tensors_are_named_as_torchvision_s_are(norm):
    def convolution(name):
        return [f"{name}.0.weight", *norm(f"{name}.1")]

    expected = convolution("features.0")
    channels = 16
    for number, row in enumerate(LARGE, start=1):
        parts = ["convolution"] * (2 if row.expanded != channels else 1)
        parts += ["squeeze"] * row.squeezes + ["convolution"]
        for part, kind in enumerate(parts):
            name = f"features.{number}.block.{part}"
            expected += (
                convolution(name)
                if kind == "convolution"
                else [f"{name}.{fc}.{tensor}" for fc in ("fc1", "fc2") for tensor in NEURON]
            )
        channels = row.out
    expected += convolution("features.16")
    expected += [f"classifier.{layer}.{tensor}" for layer in (0, 3) for tensor in NEURON]

    assert list(MobileNetV3().state_dict()) == expected


NEURON = ("weight", "bias")


def test_its_tensors_have_torchvision_s_shapes():
    found = MobileNetV3(classes=1000).state_dict()

    assert {name: tuple(found[name].shape) for name in SHAPES} == SHAPES


SHAPES = {
    "features.0.0.weight": (16, 3, 3, 3),
    "features.1.block.0.0.weight": (16, 1, 3, 3),
    "features.4.block.2.fc1.weight": (24, 72, 1, 1),
    "features.4.block.2.fc2.bias": (72,),
    "features.5.block.1.0.weight": (120, 1, 5, 5),
    "features.5.block.2.fc1.weight": (32, 120, 1, 1),
    "features.7.block.0.0.weight": (240, 40, 1, 1),
    "features.15.block.3.0.weight": (160, 960, 1, 1),
    "features.16.0.weight": (960, 160, 1, 1),
    "classifier.0.weight": (1280, 960),
    "classifier.3.weight": (1000, 1280),
}


def test_its_norms_are_those_it_was_trained_with():
    norms = [each for each in MobileNetV3().modules() if isinstance(each, nn.BatchNorm2d)]

    assert {(each.eps, each.momentum) for each in norms} == {(0.001, 0.01)}


def test_it_computes_what_torchvision_s_computes(filled, wave):
    # From torchvision 0.29.2: mobilenet_v3_large(width_mult=0.25, num_classes=3).
    expected = [-7.316875, 22.418795, -19.727241]

    with torch.inference_mode():
        logits = filled(MobileNetV3(0.25, classes=3))(wave)

    assert logits[0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("dilated", "side"), [(False, 7), (True, 14)])
def test_a_crop_of_224_gives_a_map_of_7_and_dilated_of_14(dilated, side, crops):
    images, _ = crops
    with torch.inference_mode():
        last = MobileNetV3(width=0.25, dilated=dilated).eval().last_map(images)

    assert last.shape == (3, 240, side, side)


def test_dilated_it_computes_the_same_where_nothing_squeezes(filled, wave):
    """Squeeze and excitation looks at the whole map, which is denser when dilated."""
    plain, dilated = MobileNetV3(0.25), MobileNetV3(0.25, dilated=True)
    for network in (plain, dilated):
        for each in network.features:
            if hasattr(each, "block") and len(each.block) == 4:
                each.block[2] = nn.Identity()

    with torch.inference_mode():
        coarse, fine = filled(plain).last_map(wave), filled(dilated).last_map(wave)

    torch.testing.assert_close(fine[..., ::2, ::2], coarse)


def test_dropout_blanks_hidden_values_in_training_and_nothing_in_service():
    torch.manual_seed(0)
    network, last = MobileNetV3(0.25), torch.ones(1, 240, 7, 7)

    assert not torch.equal(network.vector(last, None), network.vector(last, None))
    network.eval()
    assert torch.equal(network.vector(last, None), network.vector(last, None))


@pytest.mark.parametrize(("channels", "expected"), [(16, 16), (3, 8), (10, 16), (11, 16), (28, 32)])
def test_channels_are_multiples_of_8_that_lose_at_most_a_tenth(channels, expected):
    assert divisible(channels) == expected


def test_its_parts_are_trained_alike():
    """A layer whose gradient vanished would be a layer that was left out."""
    torch.manual_seed(0)
    network = MobileNetV3(0.25, dropout=0)
    network(torch.randn(8, 3, 96, 96)).square().sum().backward()

    idle = [name for name, each in network.named_parameters() if not each.grad.any()]
    assert idle == []
