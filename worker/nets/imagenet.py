"""ImageNet weights for networks of 2D crops, from a file that the user brings.

monro ships none. The files are those that torchvision downloads, densenet201-c1103571.pth or
mobilenet_v3_large-5c1a4163.pth, or the same state dict as safetensors.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from listener.errors import MonroError
from worker.nets.planar import Planar

# torchvision's DenseNet files of 2017 say denselayer1.norm.1 where modules are called norm1 now,
# since names of modules may no longer hold dots (pytorch/vision pull request 474).
OLD_NAME: Final = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
# A counter that files of 2017 do not have, and that no network here reads.
COUNTER: Final = "num_batches_tracked"
BACKBONE: Final = "features."


class BadWeights(MonroError):
    """A file of weights that does not fit a network: what was found, what was expected."""

    def __init__(self, path: Path, found: str, expected: str) -> None:
        super().__init__(path, found, expected)
        self.path, self.found, self.expected = path, found, expected

    def __str__(self) -> str:
        return (
            f"weights {self.path}: found {self.found}, expected {self.expected}; take the state "
            "dict of torchvision's network of the same kind and size, as .safetensors or .pth"
        )


def load_imagenet(network: Planar, path: Path) -> None:
    """Fill all of a network that ImageNet can teach; the rest stays as it is.

    The head of 1000 classes is left out, and so is what torchvision does not have: ASPP, the
    radiomics branch and what they meet in.

    Args:
        network: filled in place.
        path: a state dict, .safetensors or .pth. Nothing in a .pth is run.

    Raises:
        BadWeights: the file cannot be read, or does not fit; the network is unchanged.
    """
    found = {OLD_NAME.sub(r"\1\2", name): each for name, each in _read(path).items()}
    wanted = {
        name: each
        for name, each in network.state_dict().items()
        if not name.startswith(network.fresh) and not name.endswith(COUNTER)
    }
    _check(path, found, wanted)
    network.load_state_dict({name: found[name] for name in wanted}, strict=False)


def _read(path: Path) -> Mapping[str, Tensor]:
    expected = "a state dict"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadWeights(path, f"no readable file ({error.strerror or error})", expected) from error
    except SafetensorError as error:
        raise BadWeights(path, f"no safetensors ({error})", expected) from error
    # torch's own message recommends to run the code in the file.
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise BadWeights(path, "more than tensors, or a damaged file", expected) from None
    if not isinstance(content, dict):
        raise BadWeights(path, f"a {type(content).__name__}", expected)
    for name, each in content.items():
        if not isinstance(each, Tensor):
            raise BadWeights(path, f"{name!r}, a {type(each).__name__}", expected)
    return content


def _check(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    if missing := [name for name in wanted if name not in found]:
        raise BadWeights(
            path,
            f"{len(found)} tensors, without {len(missing)} of the network's, such as {missing[0]}",
            f"its {len(wanted)} names",
        )
    surplus = [
        name
        for name in found
        if name.startswith(BACKBONE) and name not in wanted and not name.endswith(COUNTER)
    ]
    if surplus:
        raise BadWeights(
            path,
            f"{len(surplus)} tensors that the network does not have, such as {surplus[0]}",
            f"its {len(wanted)} names",
        )
    for name, each in wanted.items():
        if found[name].shape != each.shape:
            raise BadWeights(
                path, f"{name} of shape {tuple(found[name].shape)}", f"{tuple(each.shape)}"
            )
