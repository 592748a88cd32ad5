"""Networks of whole volumes by name (first analysis)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from monai.networks.nets.densenet import DenseNet
from torch import Tensor

from worker.nets.classes import CLASSES, NEGATIVE, POSITIVE

# Arguments of MONAI's DenseNet by name of the network.
NETWORKS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # Faghani et al. 2024: 11.2 M parameters, meant for 1 mm volumes.
        "densenet121": {
            "init_features": 64,
            "growth_rate": 32,
            "block_config": (6, 12, 24, 16),
        },
        # 0.1 M parameters: 7 ms a forward at 60 x 65 x 65 on two CPU cores.
        "compact-densenet": {"init_features": 16, "growth_rate": 8, "block_config": (4, 4, 4)},
    }
)


def arguments(name: str, **config: Any) -> dict[str, Any]:
    """What MONAI's DenseNet is to be called with: 1 channel in, 2 logits out.

    Args:
        name: of the network.
        config: what differs from it.

    Raises:
        KeyError: no network of that name.
    """
    if name not in NETWORKS:
        raise KeyError(f"no network is called {name!r}; known: {', '.join(sorted(NETWORKS))}")
    chosen = {**NETWORKS[name], **config}
    block_config = tuple(chosen.pop("block_config"))
    io = {"spatial_dims": 3, "in_channels": 1, "out_channels": CLASSES}
    return {**io, "block_config": block_config, **chosen}


def build(name: str, **config: Any) -> DenseNet:
    """Build a network by name: 1 channel in, 2 logits (negative, positive) out.

    Raises:
        KeyError: no network of that name.
    """
    network = DenseNet(**arguments(name, **config))
    # 2.6 times faster 3D convolutions on CPUs; the numbers differ in the last bit only.
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return network


def features(network: DenseNet, batch: Tensor) -> Tensor:
    """The (N, F) vector that the last layer weighs; feed it to `log_odds`."""
    pooled: Tensor = network.class_layers[:-1](network.features(batch))
    return pooled


def log_odds(network: DenseNet, pooled: Tensor) -> Tensor:
    """The (N,) log odds of the positive class, uncalibrated: the logit of its softmax."""
    logits: Tensor = network.class_layers[-1](pooled)
    return logits[:, POSITIVE] - logits[:, NEGATIVE]
