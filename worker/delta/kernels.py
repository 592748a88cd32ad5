"""The element-wise work between the linear layers, each a single pass over memory if compiled.

Rows are gathered, scaled, put through the ReLU and stored without a copy in between, as C++ on
CPUs and as Triton kernels on GPUs. Where there is no compiler the same lines run one by one, which
is slower and the same to rounding.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor

log = logging.getLogger(__name__)


def _of_relu(change: Tensor, before: Tensor) -> Tensor:
    """relu(before + change) - relu(before), without subtracting like numbers."""
    return torch.maximum(change, -before) + before.clamp(max=0)


def _scaled_change(
    delta: Tensor, rows: Tensor, maps: Tensor, at: Tensor, scale: Tensor, shift: Tensor
) -> Tensor:
    before = maps.index_select(0, at).float() * scale + shift
    return _of_relu(delta.index_select(0, rows).float() * scale, before).to(delta.dtype)


def _change(delta: Tensor, rows: Tensor, maps: Tensor, at: Tensor) -> Tensor:
    before = maps.index_select(0, at).float()
    return _of_relu(delta.index_select(0, rows).float(), before).to(delta.dtype)


def _mean_change(
    delta: Tensor, rows: Tensor, maps: Tensor, at: Tensor, scale: Tensor, shift: Tensor
) -> Tensor:
    total = None
    for place in range(8):
        before = maps.index_select(0, at[place]).float() * scale + shift
        each = _of_relu(delta.index_select(0, rows[place]).float() * scale, before)
        total = each if total is None else total + each
    assert total is not None
    return (total / 8).to(delta.dtype)


def _summed_change(delta: Tensor, maps: Tensor, at: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    before = maps[at].float() * scale + shift
    return _of_relu(delta.float() * scale, before).sum(1)


@dataclass(frozen=True)
class Kernels:
    """The element-wise functions, one by one or fused.

    Attributes:
        scaled_change: (rows, C) change of relu(scale * maps + shift).
        change: (rows, C) change of relu(maps).
        mean_change: the first, and its mean over eight rows each.
        summed_change: the first, summed over the voxels of each box.
    """

    scaled_change: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    change: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    mean_change: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    summed_change: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


PLAIN: Final = Kernels(_scaled_change, _change, _mean_change, _summed_change)


def kernels(device: torch.device, fuse: bool) -> Kernels:
    """The functions for a device; plain ones where compiling is not wanted or not possible."""
    return _fused(device.type) if fuse else PLAIN


@functools.cache
def _fused(device: str) -> Kernels:
    """Compiled for all shapes at once, and tried, since a machine without a compiler says so late.

    Whatever the compiler's trouble is, the plain functions do the same work.
    """
    fused = Kernels(
        *(torch.compile(getattr(PLAIN, each.name), dynamic=True) for each in fields(Kernels))
    )
    maps = torch.zeros(4, 6, device=device)
    at = torch.arange(3, device=device)
    try:
        with torch.inference_mode():
            fused.change(maps[:, :5], at, maps[:, :5], at)
    except Exception as error:  # noqa: BLE001 - of any kind: it comes from a C++ compiler
        log.warning("element-wise work is not compiled (%s), and slower", type(error).__name__)
        return PLAIN
    return fused
