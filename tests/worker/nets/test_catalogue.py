"""Networks of 2D crops by name: what they all do alike."""

import json

import pytest
import torch

from worker import nets

COMPACT = sorted(name for name in nets.PLANAR_NETWORKS if name.startswith("compact"))
PAPER = {
    "densenet201",
    "mobilenetv3-large",
    "densenet201-aspp-radfusion",
    "mobilenetv3-large-aspp-radfusion",
}


@pytest.fixture(params=COMPACT)
def network(request):
    torch.manual_seed(0)
    return nets.build_planar(request.param).eval()


def test_the_paper_s_four_are_known_and_have_a_compact_one_each():
    assert PAPER | set(COMPACT) == set(nets.PLANAR_NETWORKS)
    assert len(COMPACT) == 4


def test_no_name_means_a_volume_s_network_too():
    assert not set(nets.PLANAR_NETWORKS) & set(nets.NETWORKS)


@pytest.mark.parametrize("name", sorted(nets.PLANAR_NETWORKS))
def test_a_crop_and_features_give_two_logits(name):
    network = nets.build_planar(name).eval()
    with torch.inference_mode():
        logits = network(torch.rand(1, 3, 224, 224), torch.zeros(1, 30))

    assert logits.shape == (1, 2)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["compact-densenet-2d", "compact-mobilenetv3"])
def test_a_base_network_takes_no_notice_of_features(name, crops):
    images, radiomics = crops
    network = nets.build_planar(name).eval()
    with torch.inference_mode():
        torch.testing.assert_close(network(images), network(images, radiomics), atol=0, rtol=0)


def test_a_crop_is_judged_the_same_twice_and_alone_and_in_company(network, crops):
    images, radiomics = crops
    with torch.inference_mode():
        together, again = network(images, radiomics), network(images, radiomics)
        alone = network(images[1:2], radiomics[1:2])

    torch.testing.assert_close(again, together, atol=0, rtol=0)
    torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=1e-4)


def test_log_odds_are_the_logit_of_the_softmax_probability(network, crops):
    images, radiomics = crops
    with torch.inference_mode():
        probability = network(images, radiomics).softmax(dim=1)[:, nets.POSITIVE]
        odds = network.log_odds(network.features_of(images, radiomics))

    torch.testing.assert_close(odds, torch.logit(probability), atol=1e-5, rtol=1e-4)


def test_the_steps_lead_to_the_logits(network, crops):
    images, radiomics = crops
    with torch.inference_mode():
        last = network.last_map(images)
        vector = network.vector(last, radiomics)
        torch.testing.assert_close(network.logits(vector), network(images, radiomics))

    assert last.ndim == 4
    assert vector.ndim == 2


@pytest.mark.parametrize("name", COMPACT)
def test_the_same_seed_gives_the_same_weights(name):
    def drawn():
        torch.manual_seed(7)
        return nets.build_planar(name).state_dict()

    first, second = drawn(), drawn()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_configuration_may_differ_in_backbone_and_fusion_at_once():
    network = nets.build_planar(
        "compact-densenet-2d-aspp-radfusion",
        block_config=[2, 2, 2, 2],
        aspp_rates=[1, 2],
        aspp_channels=8,
        radiomics=5,
    )

    assert network.last_map(torch.rand(2, 3, 224, 224)).shape == (2, 8, 7, 7)
    assert not hasattr(network.features.denseblock4, "denselayer3")
    assert network(torch.rand(2, 3, 224, 224), torch.rand(2, 5)).shape == (2, 2)


def test_building_leaves_the_table_as_it_was():
    before = {name: repr(each) for name, each in nets.PLANAR_NETWORKS.items()}
    nets.build_planar("compact-mobilenetv3-aspp-radfusion", aspp_rates=[1], width=0.5)

    assert {name: repr(each) for name, each in nets.PLANAR_NETWORKS.items()} == before


def test_fusion_is_refused_by_a_network_that_has_none():
    with pytest.raises(TypeError, match="aspp_rates"):
        nets.build_planar("compact-mobilenetv3", aspp_rates=[1])


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(KeyError, match="called 'resnet'; known: compact-densenet-2d, compact"):
        nets.build_planar("resnet")


@pytest.mark.parametrize("name", sorted(nets.PLANAR_NETWORKS))
def test_resolved_arguments_say_all_that_a_network_is(name):
    told = json.loads(json.dumps(nets.resolved(name)))
    usual, again = nets.build_planar(name), nets.build_planar(name, **told)

    assert {key: each.shape for key, each in usual.state_dict().items()} == {
        key: each.shape for key, each in again.state_dict().items()
    }
    assert ("aspp_rates" in told) == ("radfusion" in name)
    assert told.keys() & {"growth_rate", "width"}
