"""Grad-CAM on networks where the answer is known."""

import pytest
import torch
from torch import nn

from worker import gradcam
from worker.nets import NEGATIVE, POSITIVE, Planar, build_planar
from worker.nets.planar import pool


class Glass(Planar):
    """Its map is the image in cells of 8 x 8; red speaks for the finding, green against it."""

    fresh = ()

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.AvgPool2d(8))
        self.classifier = nn.Linear(3, 2)
        with torch.no_grad():
            self.classifier.weight.copy_(torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]]))

    def vector(self, last_map, radiomics):
        return pool(last_map)

    def logits(self, vector):
        return self.classifier(vector)


@pytest.fixture
def crops():
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def squares(**places):
    """A black crop of 64 x 64 with one cell of 8 x 8 lit in each of the colours given."""
    images = torch.zeros(1, 3, 64, 64)
    for colour, (row, column) in places.items():
        channel = ("red", "green", "blue").index(colour)
        images[0, channel, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    return images


def test_what_speaks_for_the_finding_is_hot_in_its_place_and_nothing_else_is():
    heat = gradcam.heat(Glass().eval(), squares(red=(1, 5), green=(6, 2), blue=(3, 3)))

    assert heat.shape == (1, 64, 64)
    # Weight 2 for the finding, spread over 8 x 8 cells; the corners of the cell's inner half
    # already mix with its neighbours.
    assert heat[0, 11:13, 43:45].min() == pytest.approx(2 / 64, rel=0.25)
    assert (heat[0].argmax() // 64, heat[0].argmax() % 64) == (11, 43)
    assert not heat[0, 24:].any()
    assert not heat[0, :, :32].any()


def test_what_speaks_against_it_cools_where_both_are():
    both = squares(red=(2, 2)) + 0.5 * squares(green=(2, 2))

    only = gradcam.heat(Glass().eval(), squares(red=(2, 2)))
    cooled = gradcam.heat(Glass().eval(), both)

    torch.testing.assert_close(cooled, only * (2 - 0.5) / 2)


def test_a_shift_of_both_logits_changes_nothing():
    shifted = Glass().eval()
    with torch.no_grad():
        shifted.classifier.weight += 5

    images = squares(red=(1, 1), blue=(4, 4))
    torch.testing.assert_close(gradcam.heat(shifted, images), gradcam.heat(Glass().eval(), images))


def test_channels_are_weighed_as_a_whole():
    """A head that looks at one corner makes its channel hot wherever it is lit."""

    class Corner(Glass):
        def vector(self, last_map, radiomics):
            return last_map[:, :, 0, 0]

    heat = gradcam.heat(Corner().eval(), squares(red=(4, 4)))

    torch.testing.assert_close(heat, gradcam.heat(Glass().eval(), squares(red=(4, 4))))


def test_on_a_densenet_it_is_the_class_activation_map(crops):
    """Zhou et al., CVPR 2016: with one layer behind the mean, both are the same."""
    network = build_planar("compact-densenet-2d").eval()
    with torch.no_grad():
        last = network.last_map(crops)
        # As much speaks for the finding as against it: orthogonal to the mean response.
        mean = last.mean((0, 2, 3))
        slope = torch.linspace(-1, 1, network.channels)
        network.classifier.weight[NEGATIVE] = 0
        network.classifier.weight[POSITIVE] = slope - mean * (slope @ mean) / (mean @ mean)
        weights = network.classifier.weight[POSITIVE] - network.classifier.weight[NEGATIVE]
        coarse = torch.einsum("c,nchw->nhw", weights, last).relu() / 49
        expected = nn.functional.interpolate(
            coarse[:, None], (224, 224), mode="bilinear", align_corners=False
        )[:, 0]

    assert 0 < (expected > 0).float().mean() < 1
    torch.testing.assert_close(gradcam.heat(network, crops), expected, atol=1e-7, rtol=1e-4)


def test_frozen_members_have_maps_and_gain_no_gradients(crops):
    torch.manual_seed(0)
    network = build_planar("compact-mobilenetv3-aspp-radfusion").eval().requires_grad_(False)
    with torch.no_grad():
        heat = gradcam.heat(network, crops, torch.zeros(2, 30))

    assert heat.shape == (2, 224, 224)
    assert heat.min() >= 0
    assert heat.any()
    assert not heat.requires_grad
    assert all(each.grad is None for each in network.parameters())


def test_a_crop_s_map_does_not_depend_on_its_neighbours(crops):
    torch.manual_seed(0)
    network = build_planar("compact-densenet-2d-aspp-radfusion").eval()
    radiomics = torch.randn(2, 30)
    together = gradcam.heat(network, crops, radiomics)
    alone = gradcam.heat(network, crops[1:], radiomics[1:])

    assert alone.any()
    torch.testing.assert_close(together[1:], alone, atol=1e-6, rtol=1e-3)
