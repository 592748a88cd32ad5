"""A DenseNet as what it computes: linear parts, and scales and shifts before each ReLU.

In evaluation, a batch normalisation is a scale and a shift per channel. One that follows a
convolution is folded into it; one that precedes a ReLU on the block's own features stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from monai.networks.nets.densenet import DenseNet
from torch import Tensor, nn

CHANNELS_LAST: Final = torch.channels_last_3d


class CannotFold(ValueError):
    """A network that this engine is not exact for: why, and what would be."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a dense block: BN, ReLU, 1x1x1 convolution, BN, ReLU, 3x3x3 convolution.

    Attributes:
        scale: (C,) of the first normalisation.
        shift: (C,) likewise.
        squeeze: (C, B) the 1x1x1 convolution with the second normalisation's scale.
        squeeze_shift: (B,) shift of the second normalisation.
        grow: (G, B, 3, 3, 3) the 3x3x3 convolution.
    """

    scale: Tensor
    shift: Tensor
    squeeze: Tensor
    squeeze_shift: Tensor
    grow: Tensor


@dataclass(frozen=True, eq=False)
class Transition:
    """BN, ReLU, mean over 2x2x2, 1x1x1 convolution: linear, so the mean may come first."""

    scale: Tensor
    shift: Tensor
    squeeze: Tensor


@dataclass(frozen=True, eq=False)
class Folded:
    """A DenseNet that was taken apart.

    Attributes:
        stem: (F, 1, 7, 7, 7) first convolution with the scale of its normalisation.
        stem_shift: (F,).
        blocks: of layers.
        transitions: between the blocks, one fewer.
        scale: (C,) of the last normalisation.
        shift: (C,) likewise.
        head: (C,) weights of the contrast of outputs.
        head_shift: its bias.
    """

    stem: Tensor
    stem_shift: Tensor
    blocks: tuple[tuple[Layer, ...], ...]
    transitions: tuple[Transition, ...]
    scale: Tensor
    shift: Tensor
    head: Tensor
    head_shift: float


def fold(network: DenseNet, contrast: Sequence[float]) -> Folded:
    """Take a network apart, in float32.

    Args:
        network: 3D, one input channel, in evaluation mode.
        contrast: weight of each output: (-1, 1) is the second minus the first.

    Raises:
        CannotFold: it is another network, trains, or normalises by anything but running statistics.
    """
    _require(network, len(contrast))
    features: Any = network.features
    scale, shift = _scale_and_shift(features.norm0)
    weights = features.conv0.weight.detach().float() * scale.view(-1, 1, 1, 1, 1)
    blocks = [part for name, part in features.named_children() if name.startswith("denseblock")]
    transitions = [part for name, part in features.named_children() if name.startswith("trans")]
    last_scale, last_shift = _scale_and_shift(features.norm5)
    out: Any = network.class_layers.out
    weight_of = torch.tensor(contrast, dtype=torch.float32, device=out.weight.device)
    return Folded(
        stem=weights.contiguous(memory_format=CHANNELS_LAST),
        stem_shift=shift,
        blocks=tuple(tuple(_layer(each.layers) for each in block) for block in blocks),
        transitions=tuple(_transition(each) for each in transitions),
        scale=last_scale,
        shift=last_shift,
        head=weight_of @ out.weight.detach().float(),
        head_shift=float(weight_of @ out.bias.detach().float()),
    )


def _layer(layers: Any) -> Layer:
    scale, shift = _scale_and_shift(layers.norm1)
    second, second_shift = _scale_and_shift(layers.norm2)
    squeeze = layers.conv1.weight.detach().float()[:, :, 0, 0, 0] * second[:, None]
    grow = layers.conv2.weight.detach().float().contiguous(memory_format=CHANNELS_LAST)
    return Layer(scale, shift, squeeze.T.contiguous(), second_shift, grow)


def _transition(part: Any) -> Transition:
    scale, shift = _scale_and_shift(part.norm)
    squeeze = part.conv.weight.detach().float()[:, :, 0, 0, 0]
    return Transition(scale, shift, squeeze.T.contiguous())


def _scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a normalisation does to each channel: x -> scale * x + shift."""
    assert isinstance(norm, nn.BatchNorm3d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    return scale.float(), (norm.bias.detach() - norm.running_mean * scale).float()


def _require(network: DenseNet, outputs: int) -> None:
    """Refuse what the method is not exact for."""
    if not isinstance(network, DenseNet):
        raise CannotFold(f"a {type(network).__name__}; only MONAI's DenseNet is understood")
    if network.training:
        raise CannotFold("a network that trains, whose normalisation follows the batch; call eval")
    first: Any = network.features.conv0
    out: Any = network.class_layers.out
    if not isinstance(first, nn.Conv3d) or first.in_channels != 1:
        raise CannotFold("a network for other inputs than 3D volumes of one channel")
    if out.out_features != outputs:
        raise CannotFold(f"{out.out_features} outputs; the contrast weighs {outputs}")
    for name, part in network.named_modules():
        kind = type(part).__name__
        if "norm" in name.rpartition(".")[2] and not _normalises_alike(part):
            raise CannotFold(
                f"{kind} at {name}: only batch normalisation with running statistics leaves the "
                "change local; a normalisation over the volume spreads it everywhere"
            )
        if "relu" in name.rpartition(".")[2] and not isinstance(part, nn.ReLU):
            raise CannotFold(f"{kind} at {name}: only ReLU is understood")


def _normalises_alike(part: nn.Module) -> bool:
    """Whether a normalisation is one scale and shift per channel, whatever the volume."""
    return isinstance(part, nn.BatchNorm3d) and part.track_running_stats and part.affine
