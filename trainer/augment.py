"""Light variations of a batch that keep the outside of the head exactly 0.

All take and return a (N, 1, X, Y, Z) float32 batch and draw from the generator given.
"""

from typing import Final

import torch
from torch import Generator, Tensor

from worker.preprocess import DARKEST

MAX_SHIFT: Final = 2  # voxels: the head's outline places a head to within about one
MAX_GAIN: Final = 0.15
MAX_GAMMA: Final = 0.15
NOISE: Final = 0.01
MAX_BOXES: Final = 4
BOX: Final = (4, 11)  # voxels, the range of a box's edges


def augment(batch: Tensor, erase: float, generator: Generator) -> Tensor:
    """Mirror, shift, vary contrast, and with probability `erase` blank a few boxes."""
    batch = mirror(batch, generator)
    batch = shift(batch, generator)
    batch = recontrast(batch, generator)
    return blank(batch, erase, generator)


def mirror(batch: Tensor, generator: Generator) -> Tensor:
    """Swap left and right of half of the cases."""
    chosen = torch.rand(len(batch), generator=generator) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1, 1), batch.flip(2), batch)


def shift(batch: Tensor, generator: Generator) -> Tensor:
    """Move each case by up to MAX_SHIFT voxels; what enters is 0."""
    offsets = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (len(batch), 3), generator=generator)
    size = batch.shape[2:]
    padded = torch.nn.functional.pad(batch, [MAX_SHIFT] * 6)
    starts = (offsets + MAX_SHIFT).tolist()
    return torch.stack(
        [
            case[:, x : x + size[0], y : y + size[1], z : z + size[2]]
            for case, (x, y, z) in zip(padded, starts, strict=True)
        ]
    )


def recontrast(batch: Tensor, generator: Generator) -> Tensor:
    """Vary brightness, gamma and noise within the head."""
    inside = batch > 0
    gain, gamma = torch.rand((2, len(batch), 1, 1, 1, 1), generator=generator) * 2 - 1
    noise = torch.randn(batch.shape, generator=generator) * NOISE
    varied = (1 + MAX_GAIN * gain) * batch ** (1 + MAX_GAMMA * gamma) + noise
    return torch.where(inside, varied.clamp(DARKEST, 1), 0)


def blank(batch: Tensor, probability: float, generator: Generator) -> Tensor:
    """Set a few boxes to 0, as the occlusion map will.

    A network that has never met a blank box takes its edges for signs, and the map would show
    that surprise rather than the evidence.
    """
    batch = batch.clone()
    for case in batch:
        if torch.rand((), generator=generator) < probability:
            for _ in range(int(torch.randint(1, MAX_BOXES + 1, (), generator=generator))):
                case[(slice(None), *_box(case.shape[1:], generator))] = 0
    return batch


def _box(shape: torch.Size, generator: Generator) -> tuple[slice, ...]:
    edges = torch.randint(*BOX, (3,), generator=generator).tolist()
    starts = (torch.rand(3, generator=generator) * torch.tensor(shape)).int().tolist()
    return tuple(slice(start, start + edge) for start, edge in zip(starts, edges, strict=True))
