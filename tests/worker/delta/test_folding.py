"""A network that the method is not exact for is refused, with the reason."""

import pytest
import torch
from monai.networks.nets import resnet18
from monai.networks.nets.densenet import DenseNet

from worker.delta.folding import CannotFold, fold

CONTRAST = (-1.0, 1.0)
SMALL = {"init_features": 4, "growth_rate": 4, "block_config": (2, 2)}


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("instance", "InstanceNorm3d"), (("group", {"num_groups": 2}), "GroupNorm")],
)
def test_a_normalisation_over_the_volume(norm, kind):
    network = DenseNet(3, 1, 2, norm=norm, **SMALL).eval()

    with pytest.raises(CannotFold, match=rf"{kind} at features\.norm0.*running statistics"):
        fold(network, CONTRAST)


def test_a_batch_normalisation_without_running_statistics():
    norm = ("batch", {"track_running_stats": False})
    network = DenseNet(3, 1, 2, norm=norm, **SMALL).eval()

    with pytest.raises(CannotFold, match="running statistics"):
        fold(network, CONTRAST)


def test_another_activation():
    network = DenseNet(3, 1, 2, act="prelu", **SMALL).eval()

    with pytest.raises(CannotFold, match=r"PReLU at features\.relu0: only ReLU"):
        fold(network, CONTRAST)


def test_a_network_that_trains():
    with pytest.raises(CannotFold, match="call eval"):
        fold(DenseNet(3, 1, 2, **SMALL).train(), CONTRAST)


@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (3, 2)])
def test_other_inputs_than_volumes_of_one_channel(dims, channels):
    network = DenseNet(dims, channels, 2, **SMALL).eval()

    with pytest.raises(CannotFold, match="3D volumes of one channel"):
        fold(network, CONTRAST)


def test_a_contrast_of_other_outputs():
    with pytest.raises(CannotFold, match="3 outputs; the contrast weighs 2"):
        fold(DenseNet(3, 1, 3, **SMALL).eval(), CONTRAST)


def test_another_kind_of_network():
    network = resnet18(spatial_dims=3, n_input_channels=1, num_classes=2).eval()

    with pytest.raises(CannotFold, match="a ResNet; only MONAI's DenseNet"):
        fold(network, CONTRAST)


def test_folding_shares_nothing_that_a_later_change_could_reach():
    network = DenseNet(3, 1, 2, **SMALL).eval()
    folded = fold(network, CONTRAST)
    before = folded.blocks[0][0].grow.clone()

    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()

    assert torch.equal(folded.blocks[0][0].grow, before)
