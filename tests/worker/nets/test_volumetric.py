"""Networks by name."""

import pytest
import torch

from worker import nets


def parameters(network):
    return sum(each.numel() for each in network.parameters())


def test_the_paper_s_network_has_11_2_million_parameters():
    assert parameters(nets.build("densenet121")) == pytest.approx(11.24e6, rel=0.01)


def test_the_compact_network_has_about_0_1_million():
    assert parameters(nets.build("compact-densenet")) == pytest.approx(0.1e6, rel=0.2)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(KeyError, match="no network is called 'resnet'; known: compact-densenet"):
        nets.build("resnet")


def test_log_odds_are_the_logit_of_the_softmax_probability():
    network = nets.build("compact-densenet").eval()
    batch = torch.rand(2, 1, 20, 22, 22)

    with torch.inference_mode():
        probability = network(batch).softmax(dim=1)[:, nets.POSITIVE]
        odds = nets.log_odds(network, nets.features(network, batch))

    torch.testing.assert_close(odds, torch.logit(probability), atol=1e-5, rtol=1e-4)


def test_a_case_is_judged_the_same_alone_and_in_company():
    network = nets.build("compact-densenet").eval()
    batch = torch.rand(3, 1, 20, 22, 22)

    with torch.inference_mode():
        together, alone = network(batch), network(batch[1:2])

    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)
