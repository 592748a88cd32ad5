"""The maps of one volume: what the ReLUs of a changed volume have to know.

Maps are flattened to (voxels, channels), the layout in which a 1x1x1 convolution is a product of
matrices. At 240 x 260 x 260 a DenseNet-121 keeps 1.9 GB in float32 and half of it in bfloat16.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from worker.delta.boxes import POOL, STEM, TRANSITION, Size
from worker.delta.folding import Folded


@dataclass(frozen=True, eq=False)
class BlockMaps:
    """Maps of one dense block.

    Attributes:
        shape: voxels along each axis.
        features: (V, C) all features, in the order in which the layers add them.
        bottlenecks: for each layer (V, B), what its second ReLU sees.
    """

    shape: Size
    features: Tensor
    bottlenecks: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Baseline:
    """Maps of one volume.

    Attributes:
        shape: of the volume.
        voxels: (V + 1,) float32, flattened; the last is 0 and stands for everything outside.
        stem_shape: of the map after the first convolution.
        stem: float32 (V + 1, F), what the first ReLU sees; the last row is 0 likewise.
        blocks: one per dense block.
        output: the contrast of outputs.
    """

    shape: Size
    voxels: Tensor
    stem_shape: Size
    stem: Tensor
    blocks: tuple[BlockMaps, ...]
    output: float


def compute_baseline(network: Folded, volume: Tensor, dtype: torch.dtype) -> Baseline:
    """Run a network once over a volume and keep its maps.

    Args:
        network: on the device of the volume.
        volume: float32 (X, Y, Z).
        dtype: that maps are kept in; they are computed in float32.
    """
    shape = _size(volume.shape)
    stem_shape = STEM.outputs(shape)
    batch = volume[None, None].contiguous(memory_format=torch.channels_last_3d)
    stem = convolve(batch, network.stem, network.stem_shift, STEM.stride, STEM.padding)
    pooled = functional.max_pool3d(stem.relu(), POOL.kernel, POOL.stride, POOL.padding)
    features, size = flat(pooled), POOL.outputs(stem_shape)
    blocks = []
    for number, layers in enumerate(network.blocks):
        maps = torch.cat(
            [features, features.new_empty(len(features), sum(len(each.grow) for each in layers))], 1
        )
        channels, bottlenecks = features.shape[1], []
        for layer in layers:
            before = torch.addcmul(layer.shift, maps[:, :channels], layer.scale).relu_()
            bottleneck = torch.addmm(layer.squeeze_shift, before, layer.squeeze)
            bottlenecks.append(bottleneck.to(dtype, copy=True))
            grown = convolve(unflat(bottleneck.relu_(), 1, size), layer.grow, None, 1, 1)
            maps[:, channels : channels + len(layer.grow)] = flat(grown)
            channels += len(layer.grow)
        blocks.append(BlockMaps(size, maps.to(dtype), tuple(bottlenecks)))
        if number < len(network.transitions):
            transition = network.transitions[number]
            before = torch.addcmul(transition.shift, maps, transition.scale).relu_()
            mean = functional.avg_pool3d(
                unflat(before, 1, size), TRANSITION.kernel, TRANSITION.stride
            )
            features, size = flat(mean) @ transition.squeeze, TRANSITION.outputs(size)
    last = torch.addcmul(network.shift, maps, network.scale).relu_().mean(0)
    return Baseline(
        shape,
        functional.pad(volume.flatten(), (0, 1)),
        stem_shape,
        functional.pad(flat(stem), (0, 0, 0, 1)),
        tuple(blocks),
        float(last @ network.head) + network.head_shift,
    )


def convolve(
    batch: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    """A 3D convolution; on CPUs by oneDNN, which PyTorch leaves aside for single small maps.

    A CPU that does not compute in bfloat16 computes in float32 and rounds.
    """
    if not computes_in(batch.dtype, batch.device):
        wide = convolve(batch.float(), weight.float(), bias, stride, padding)
        return wide.to(batch.dtype)
    if batch.device.type == "cpu":
        found: Tensor = torch.ops.aten.mkldnn_convolution(
            batch, weight, bias, [padding] * 3, [stride] * 3, [1] * 3, 1
        )
        return found
    with torch.backends.cudnn.flags(allow_tf32=False):  # ten bits would not be exact
        return functional.conv3d(batch, weight, bias, stride, padding)


def computes_in(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the hardware does, in bfloat16; where it does not, that costs time and saves none."""
    if dtype != torch.bfloat16:
        return True
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # oneDNN emulates it on any AVX-512, and PyTorch then says that it is supported.
    in_hardware = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cpu" and bool(in_hardware)


def flat(maps: Tensor) -> Tensor:
    """(N, C, X, Y, Z) as (N * voxels, C); no copy where channels lie last."""
    return maps.permute(0, 2, 3, 4, 1).reshape(-1, maps.shape[1])


def unflat(rows: Tensor, number: int, shape: Size) -> Tensor:
    """(N * voxels, C) as (N, C, X, Y, Z) with channels last; no copy."""
    return rows.view(number, *shape, -1).permute(0, 4, 1, 2, 3)


def _size(shape: torch.Size) -> Size:
    x, y, z = shape
    return x, y, z
