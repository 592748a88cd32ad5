"""DenseNet-201 as torchvision has it.

Names, shapes and counts were checked against torchvision 0.29.2 itself: with its weights, this
network gives the same logits, gradients and running statistics to the last bit.
"""

import pytest
import torch

from worker.nets.densenet import DenseNet

SMALL = {"growth_rate": 4, "block_config": (2, 2, 2, 2), "init_features": 8}


def test_with_1000_classes_it_has_torchvision_s_20_013_928_parameters(parameters):
    assert parameters(DenseNet(classes=1000)) == 20_013_928


def test_its_tensors_are_named_as_torchvision_s_are(norm):
    expected = ["features.conv0.weight", *norm("features.norm0")]
    for block, layers in enumerate((6, 12, 48, 32), start=1):
        for layer in range(1, layers + 1):
            inner = f"features.denseblock{block}.denselayer{layer}"
            expected += [*norm(f"{inner}.norm1"), f"{inner}.conv1.weight"]
            expected += [*norm(f"{inner}.norm2"), f"{inner}.conv2.weight"]
        if block < 4:
            between = f"features.transition{block}"
            expected += [*norm(f"{between}.norm"), f"{between}.conv.weight"]
    expected += [*norm("features.norm5"), "classifier.weight", "classifier.bias"]

    assert list(DenseNet().state_dict()) == expected


def test_its_tensors_have_torchvision_s_shapes():
    found = DenseNet(classes=1000).state_dict()

    assert {name: tuple(found[name].shape) for name in SHAPES} == SHAPES


SHAPES = {
    "features.conv0.weight": (64, 3, 7, 7),
    "features.denseblock1.denselayer1.norm1.weight": (64,),
    "features.denseblock3.denselayer23.conv1.weight": (128, 960, 1, 1),
    "features.denseblock3.denselayer23.conv2.weight": (32, 128, 3, 3),
    "features.denseblock3.denselayer27.norm1.running_mean": (1088,),
    "features.transition3.conv.weight": (896, 1792, 1, 1),
    "features.norm5.weight": (1920,),
    "classifier.weight": (1000, 1920),
}


def test_it_computes_what_torchvision_s_computes(filled, wave):
    # From torchvision 0.29.2: DenseNet(4, (2, 2, 2, 2), 8, num_classes=3).
    expected = [14.490229, -4.447173, -15.812351]

    with torch.inference_mode():
        logits = filled(DenseNet(**SMALL, classes=3))(wave)

    assert logits[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_crop_of_224_gives_a_map_of_7_without_negative_values(crops):
    images, _ = crops
    with torch.inference_mode():
        last = DenseNet(**SMALL).eval().last_map(images)

    assert last.shape[-2:] == (7, 7)
    assert last.min() == 0


def test_dilated_it_computes_the_same_and_more_between(filled):
    image = torch.rand(1, 3, 224, 224).double()
    plain, dilated = filled(DenseNet(**SMALL)), filled(DenseNet(**SMALL, dilated=True))

    with torch.inference_mode():
        coarse, fine = plain.last_map(image), dilated.last_map(image)

    assert fine.shape[-2:] == (13, 13)
    torch.testing.assert_close(fine[..., ::2, ::2], coarse)


def test_its_parts_are_trained_alike():
    """A layer whose gradient vanished would be a layer that was left out."""
    network = DenseNet(**SMALL)
    network(torch.randn(4, 3, 64, 64)).square().sum().backward()

    idle = [name for name, each in network.named_parameters() if not each.grad.any()]
    assert idle == []


def test_blocks_are_free_to_choose():
    with torch.inference_mode():
        last = DenseNet(4, (2, 3), 8).eval().last_map(torch.rand(1, 3, 64, 64))

    assert last.shape == (1, 8 // 2 + 2 * 4 // 2 + 3 * 4, 8, 8)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="blocks"):
        DenseNet(blocks=(2, 2))
