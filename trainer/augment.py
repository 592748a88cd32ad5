"""Variations of a batch, on whatever device it lies; the outside of the head stays exactly 0.

All take and return a (N, 1, X, Y, Z) float32 batch and draw from the generator given, which lives
on the batch's device. The kinds are those that Faghani et al. 2024 name (intensity shift, histogram
shift, bias field, flip, affine, Gaussian noise), after MONAI's transforms of the same names; what
is the same for all voxels of an exam is computed for the whole batch at once.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn import functional

from trainer.settings import AugmentationConfig
from worker.preprocess import DARKEST


def augment(
    batch: Tensor,
    config: AugmentationConfig,
    spacing_mm: tuple[float, float, float],
    generator: Generator,
) -> Tensor:
    """Vary every exam of a batch, each kind with its own dice."""
    batch = mirror(batch, config.flip, generator)
    for kind in (
        partial(move, spacing_mm=spacing_mm),
        bias_field,
        histogram_shift,
        intensity_shift,
        noise,
    ):
        batch = _some(kind, batch, config, generator)
    return blank(batch, config, generator)


def _some(
    kind: Callable[[Tensor, AugmentationConfig, Generator], Tensor],
    batch: Tensor,
    config: AugmentationConfig,
    generator: Generator,
) -> Tensor:
    """Apply one kind to those exams that the dice choose."""
    chosen = (_uniform((len(batch),), generator) < config.probability).nonzero().flatten()
    if not len(chosen):
        return batch
    varied = kind(batch[chosen], config, generator)
    return batch.index_copy(0, chosen, varied)


def mirror(batch: Tensor, probability: float, generator: Generator) -> Tensor:
    """Swap left and right."""
    chosen = _uniform((len(batch), 1, 1, 1, 1), generator) < probability
    return torch.where(chosen, batch.flip(2), batch)


def move(
    batch: Tensor,
    config: AugmentationConfig,
    generator: Generator,
    spacing_mm: tuple[float, float, float],
) -> Tensor:
    """Rotate, scale and shift about the middle of the volume."""
    angles = _symmetric((len(batch), 3), generator) * math.radians(config.rotate_degrees)
    scales = 1 + _symmetric((len(batch), 3), generator) * config.scale
    shifts_mm = _symmetric((len(batch), 3), generator) * config.translate_mm
    return moved(batch, angles, scales, shifts_mm, spacing_mm)


def moved(
    batch: Tensor,
    angles: Tensor,
    scales: Tensor,
    shifts_mm: Tensor,
    spacing_mm: tuple[float, float, float],
) -> Tensor:
    """Batch as seen through an affine map of its own for each exam, trilinear; 0 beyond.

    Args:
        batch: (N, 1, X, Y, Z).
        angles: (N, 3) turns about x, then y, then z, in radians.
        scales: (N, 3); above 1 the head shrinks along that axis.
        shifts_mm: (N, 3); positive values move the head to lower indices.
        spacing_mm: of the voxels.
    """
    size_mm = torch.tensor(batch.shape[2:], device=batch.device) * torch.tensor(
        spacing_mm, device=batch.device
    )
    linear = _rotations(angles) * scales[:, None, :]
    # Grid coordinates run from -1 to 1 along each axis: half a size is 1.
    linear = linear * size_mm[None, None, :] / size_mm[None, :, None]
    offset = (2 * shifts_mm / size_mm)[:, :, None]
    # affine_grid counts axes from the last to the first.
    theta = torch.cat([linear.flip(1, 2), offset.flip(1)], dim=2)
    grid = functional.affine_grid(theta, list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, mode="bilinear", align_corners=False)


def bias_field(batch: Tensor, config: AugmentationConfig, generator: Generator) -> Tensor:
    """Multiply by exp of a smooth field: Legendre polynomials with random coefficients."""
    degree = config.bias_degree
    terms = [
        (i, j, k)
        for i in range(degree + 1)
        for j in range(degree + 1 - i)
        for k in range(degree + 1 - i - j)
    ]
    shape = (len(batch), degree + 1, degree + 1, degree + 1)
    coefficients = torch.zeros(shape, device=batch.device)
    drawn = _uniform((len(batch), len(terms)), generator) * config.bias_coefficient
    for number, (i, j, k) in enumerate(terms):
        coefficients[:, i, j, k] = drawn[:, number]
    x, y, z = (_legendre(size, degree, batch.device) for size in batch.shape[2:])
    field = torch.einsum("nijk,ix,jy,kz->nxyz", coefficients, x, y, z)
    return _within_head(batch * field.exp()[:, None], batch)


def histogram_shift(batch: Tensor, config: AugmentationConfig, generator: Generator) -> Tensor:
    """Bend the intensity scale: a monotone curve through points that were pushed about."""
    fewest, most = config.histogram_points
    points = fewest + int(_uniform((), generator).item() * (most - fewest + 1))
    fixed = torch.linspace(0, 1, points, device=batch.device)
    moved = fixed.repeat(len(batch), 1)
    for point in range(1, points - 1):
        share = _uniform((len(batch),), generator)
        moved[:, point] = torch.lerp(moved[:, point - 1], moved[:, point + 1], share)
    place = batch.clamp(0, 1) * (points - 1)
    below = place.long().clamp(max=points - 2)
    low, high = (
        torch.gather(moved, 1, (below + step).flatten(1)).view_as(batch) for step in (0, 1)
    )
    return _within_head(torch.lerp(low, high, place - below), batch)


def intensity_shift(batch: Tensor, config: AugmentationConfig, generator: Generator) -> Tensor:
    """Add one value to the whole head."""
    offsets = _symmetric((len(batch), 1, 1, 1, 1), generator) * config.intensity_shift
    return _within_head(batch + offsets, batch)


def noise(batch: Tensor, config: AugmentationConfig, generator: Generator) -> Tensor:
    """Add Gaussian noise of a strength of its own to each exam."""
    strengths = _uniform((len(batch), 1, 1, 1, 1), generator) * config.noise
    drawn = torch.randn(batch.shape, generator=generator, device=batch.device)
    return _within_head(batch + strengths * drawn, batch)


def blank(batch: Tensor, config: AugmentationConfig, generator: Generator) -> Tensor:
    """Set a few boxes to 0, as the occlusion map will."""
    if not config.blank:
        return batch
    batch = batch.clone()
    for case in batch:
        if _uniform((), generator).item() < config.blank:
            for _ in range(1 + int(_uniform((), generator).item() * config.blank_boxes)):
                case[(slice(None), *_box(case.shape[1:], config.blank_edges, generator))] = 0
    return batch


def _box(shape: torch.Size, edges: tuple[int, int], generator: Generator) -> tuple[slice, ...]:
    shortest, longest = edges
    lengths = shortest + (_uniform((3,), generator) * (longest - shortest + 1)).int().cpu()
    starts = (_uniform((3,), generator).cpu() * torch.tensor(shape)).int()
    return tuple(
        slice(start, start + length)
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    )


def _within_head(varied: Tensor, batch: Tensor) -> Tensor:
    """Keep values of the head within (0, 1], and everything outside at 0."""
    return torch.where(batch > 0, varied.clamp(DARKEST, 1), 0)


def _rotations(angles: Tensor) -> Tensor:
    """(N, 3, 3) turns about x, then y, then z, of (N, 3) angles in radians."""
    turned = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        cosine, sine = angles[:, axis].cos(), angles[:, axis].sin()
        turn = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
        turn[:, i, i], turn[:, i, j], turn[:, j, i], turn[:, j, j] = cosine, -sine, sine, cosine
        turned = turn @ turned
    return turned


def _legendre(size: int, degree: int, device: torch.device) -> Tensor:
    """(degree + 1, size) Legendre polynomials over [-1, 1], by Bonnet's recursion."""
    x = torch.linspace(-1, 1, size, device=device)
    rows = [torch.ones_like(x), x]
    for n in range(1, degree):
        rows.append(((2 * n + 1) * x * rows[n] - n * rows[n - 1]) / (n + 1))
    return torch.stack(rows[: degree + 1])


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _symmetric(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform in [-1, 1)."""
    return 2 * _uniform(shape, generator) - 1
