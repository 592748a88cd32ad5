"""ASPP, and what it is fused with."""

import pytest
import torch

from worker.nets import build_planar
from worker.nets.fusion import ASPP, BadRadiomics, IdleRates

FUSED = "compact-mobilenetv3-aspp-radfusion"


def test_the_pyramid_keeps_the_map_s_size():
    with torch.inference_mode():
        mixed = ASPP(12, 5, (2, 4, 6)).eval()(torch.rand(2, 12, 7, 7))

    assert mixed.shape == (2, 5, 7, 7)


def test_the_pyramid_of_the_issue_has_1_3_rates_and_pooling_of_256_channels(parameters):
    branches = 960 * 256 * (1 + 3 * 9 + 1)
    projection = 5 * 256 * 256
    norms = 6 * 2 * 256

    assert parameters(ASPP(960, 256, (2, 4, 6))) == branches + projection + norms


@pytest.mark.parametrize("rate", [1, 2, 4, 6])
def test_a_branch_sees_exactly_the_places_at_its_rate(rate):
    branch = ASPP(1, 1, (rate,)).eval().branches[1]
    centre = torch.zeros(1, 1, 13, 13)
    centre[..., 6, 6] = 1

    with torch.inference_mode():
        seen = branch[0](centre)[0, 0].nonzero()

    assert {tuple((each - 6).tolist()) for each in seen} == {
        (y, x) for y in (-rate, 0, rate) for x in (-rate, 0, rate)
    }


def test_every_place_hears_of_the_mean():
    """A rate never reaches beyond itself: what else changes came by the pooled branch."""
    aspp = ASPP(1, 4, (1,)).eval()
    dark, lit = torch.zeros(1, 1, 7, 7), torch.zeros(1, 1, 7, 7)
    lit[..., 0, 0] = 5

    with torch.inference_mode():
        change = (aspp.image_pooling(lit) - aspp.image_pooling(dark)).abs().sum()
        far = (aspp(lit) - aspp(dark))[..., 4:, 4:]

    assert change > 0
    assert far.any()
    torch.testing.assert_close(far, far[..., :1, :1].expand_as(far))


@pytest.mark.parametrize(("side", "idle"), [(7, "12, 18"), (13, "18"), (6, "6, 12, 18")])
def test_rates_that_touch_the_centre_only_are_refused_with_the_map_s_size(side, idle):
    with pytest.raises(IdleRates, match=rf"rates {idle} on a map of side {side}:.*below {side}"):
        ASPP(3, 2, (6, 12, 18)).eval()(torch.rand(1, 3, side, side))


def test_the_shorter_side_decides():
    with pytest.raises(IdleRates, match="rates 6 on a map of side 5"):
        ASPP(3, 2, (2, 6)).eval()(torch.rand(1, 3, 5, 9))


def test_a_network_for_crops_too_small_says_so():
    network = build_planar(FUSED).eval()

    with pytest.raises(IdleRates, match="rates 4, 6 on a map of side 3"):
        network(torch.rand(1, 3, 96, 96), torch.zeros(1, 30))

    finer = build_planar(FUSED, dilated=True, aspp_rates=[1, 2, 4]).eval()
    assert finer(torch.rand(1, 3, 96, 96), torch.zeros(1, 30)).shape == (1, 2)


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, "none"), (torch.zeros(3, 12), r"a \(3, 12\)"), (torch.zeros(30), r"a \(30,\)")],
)
def test_features_that_are_not_as_many_as_the_network_weighs_are_refused(given, found, crops):
    images, _ = crops
    with pytest.raises(BadRadiomics, match=rf"found {found}.*expected \(3, 30\)"):
        build_planar(FUSED).eval()(images, given)


def test_both_branches_reach_the_logits_and_are_trained():
    torch.manual_seed(0)
    network = build_planar(FUSED)
    images = torch.randn(4, 3, 224, 224, requires_grad=True)
    radiomics = torch.randn(4, 30, requires_grad=True)

    network(images, radiomics).square().sum().backward()

    assert images.grad.any()
    assert radiomics.grad.any()
    idle = [name for name, each in network.named_parameters() if not each.grad.any()]
    assert idle == []


def test_dropout_blanks_radiomics_in_training_and_nothing_in_service():
    torch.manual_seed(0)
    branch = build_planar(FUSED).radiomics
    features = torch.ones(1, 30)

    drawn = {tuple(branch(features)[0].tolist()) for _ in range(5)}
    branch.eval()
    served = {tuple(branch(features)[0].tolist()) for _ in range(5)}

    assert (len(drawn), len(served)) == (5, 1)


def test_the_paper_s_classifier_has_64_radiomic_values_and_128_fused():
    found = build_planar("mobilenetv3-large-aspp-radfusion").state_dict()

    assert found["radiomics.0.weight"].shape == (64, 30)
    assert found["fusion.0.weight"].shape == (128, 256 + 64)
    assert found["head.weight"].shape == (2, 128)
