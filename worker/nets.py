"""Networks by name. A bundle names its network; it never brings code."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import torch
from monai.networks.nets.densenet import DenseNet
from torch import Tensor

# Index of each class in the two outputs.
NEGATIVE: Final = 0
POSITIVE: Final = 1


def densenet121(**config: Any) -> DenseNet:
    """The network of Faghani et al. 2024: 11.2 M parameters, meant for 1 mm volumes."""
    return _densenet(64, 32, (6, 12, 24, 16), **config)


def compact_densenet(
    init_features: int = 16,
    growth_rate: int = 8,
    block_config: Sequence[int] = (4, 4, 4),
    **config: Any,
) -> DenseNet:
    """A DenseNet of about 0.1 M parameters: 7 ms a forward at 60 x 65 x 65 on two CPU cores."""
    return _densenet(init_features, growth_rate, tuple(block_config), **config)


NETWORKS: Final[Mapping[str, Callable[..., DenseNet]]] = MappingProxyType(
    {"densenet121": densenet121, "compact-densenet": compact_densenet}
)


def build(name: str, **config: Any) -> DenseNet:
    """Build a network by name: 1 channel in, 2 logits (negative, positive) out.

    Raises:
        KeyError: no network of that name.
    """
    if name not in NETWORKS:
        raise KeyError(f"no network is called {name!r}; known: {', '.join(sorted(NETWORKS))}")
    network = NETWORKS[name](**config)
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


def _densenet(
    init_features: int, growth_rate: int, block_config: tuple[int, ...], **config: Any
) -> DenseNet:
    return DenseNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=2,
        init_features=init_features,
        growth_rate=growth_rate,
        block_config=block_config,
        **config,
    )
