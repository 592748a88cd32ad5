"""ImageNet weights come from a file, fit or are refused, and run no code."""

import re

import pytest
import torch
from safetensors.torch import save_file

from worker.nets import BadWeights, build_planar, load_imagenet
from worker.nets.densenet import DenseNet
from worker.nets.mobilenet import MobileNetV3

SMALL = {"growth_rate": 4, "block_config": (2, 2), "init_features": 8}
NEW_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))([12]\.)")


@pytest.fixture
def teacher():
    """A network of 1000 classes with a past, of a size for tests."""
    torch.manual_seed(1)
    network = DenseNet(**SMALL, classes=1000)
    for _ in range(3):
        network(torch.randn(2, 3, 64, 64))
    return network.eval()


@pytest.fixture
def pupil():
    return build_planar("compact-densenet-2d", **SMALL).eval()


def old_names(state):
    """As torchvision's files of 2017 have them: dots in names, and no counters."""
    return {
        NEW_NAME.sub(r"\1.\2", name): each
        for name, each in state.items()
        if not name.endswith("num_batches_tracked")
    }


def save(state, path):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization="2017" not in path.name)
    return path


@pytest.mark.parametrize("name", ["new.pth", "new.safetensors", "old-2017.pth"])
def test_all_but_the_head_of_1000_classes_is_taken(name, teacher, pupil, tmp_path):
    state = teacher.state_dict()
    head = pupil.classifier.weight.clone()
    path = save(old_names(state) if "old" in name else state, tmp_path / name)

    load_imagenet(pupil, path)

    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(pupil.last_map(images), teacher.last_map(images))
    assert torch.equal(pupil.classifier.weight, head)


def test_old_names_do_have_dots(teacher):
    assert "features.denseblock1.denselayer1.norm.1.weight" in old_names(teacher.state_dict())


def test_a_fused_network_takes_the_backbone_only(teacher, tmp_path):
    fused = build_planar("compact-densenet-2d-aspp-radfusion", **SMALL)
    before = {name: each.clone() for name, each in fused.state_dict().items()}

    load_imagenet(fused, save(teacher.state_dict(), tmp_path / "w.pth"))

    after, taught = fused.state_dict(), teacher.state_dict()
    for name, old in before.items():
        expected = taught[name] if name.startswith("features.") else old
        assert torch.equal(after[name], expected) or name.endswith("num_batches_tracked")


def test_mobilenet_keeps_its_hidden_layer_from_imagenet(tmp_path):
    teacher, pupil = MobileNetV3(0.25, classes=1000), build_planar("compact-mobilenetv3")
    head = pupil.classifier[3].weight.clone()

    load_imagenet(pupil, save(teacher.state_dict(), tmp_path / "w.pth"))

    assert torch.equal(pupil.classifier[0].weight, teacher.classifier[0].weight)
    assert torch.equal(pupil.features[16][0].weight, teacher.features[16][0].weight)
    assert torch.equal(pupil.classifier[3].weight, head)


def test_weights_of_the_undilated_network_fit_the_dilated(teacher, tmp_path):
    dilated = build_planar("compact-densenet-2d", **SMALL, dilated=True)

    load_imagenet(dilated, save(teacher.state_dict(), tmp_path / "w.pth"))

    assert torch.equal(dilated.features.conv0.weight, teacher.features.conv0.weight)


def without(state, end):
    return {name: each for name, each in state.items() if not name.endswith(end)}


def wider(state):
    return {**state, "features.conv0.weight": torch.zeros(64, 3, 7, 7)}


def longer(state):
    return {**state, "features.denseblock2.denselayer3.conv1.weight": torch.zeros(1)}


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (
            lambda state: without(state, "norm5.weight"),
            r"found \d+ tensors, without 1 of the network's, such as features\.norm5\.weight",
        ),
        (
            wider,
            r"found features\.conv0\.weight of shape \(64, 3, 7, 7\), expected \(8, 3, 7, 7\)",
        ),
        (longer, r"1 tensors that the network does not have, such as .*denselayer3\.conv1"),
        (lambda state: {"state_dict": state, "epoch": 3}, "found 'state_dict', a dict"),
        (lambda state: [state], "found a list, expected a state dict"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    spoil, complaint, teacher, pupil, tmp_path
):
    before = {name: each.clone() for name, each in pupil.state_dict().items()}
    path = save(spoil(dict(teacher.state_dict())), tmp_path / "w.pth")

    with pytest.raises(BadWeights, match=complaint) as refusal:
        load_imagenet(pupil, path)

    assert "take the state dict of torchvision's network" in str(refusal.value)
    assert all(torch.equal(each, before[name]) for name, each in pupil.state_dict().items())


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_refused(name, content, pupil, tmp_path):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BadWeights, match=f"{name}: found .*expected a state dict"):
        load_imagenet(pupil, tmp_path / name)


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_a_missing_file_is_named(name, pupil, tmp_path):
    with pytest.raises(BadWeights, match=rf"{name}: found no readable file \(No such file"):
        load_imagenet(pupil, tmp_path / name)


class Bomb:
    """Would leave a trace where it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def test_code_in_a_file_is_not_run(pupil, tmp_path):
    torch.save({"features.conv0.weight": Bomb(tmp_path / "trace")}, tmp_path / "w.pth")

    with pytest.raises(BadWeights, match="more than tensors") as refusal:
        load_imagenet(pupil, tmp_path / "w.pth")

    assert not (tmp_path / "trace").exists()
    assert "weights_only" not in str(refusal.value)
