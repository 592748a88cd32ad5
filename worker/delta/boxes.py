"""Boxes of voxels that a change can have reached, and where they lie in flattened maps.

All boxes of a batch have one size, so that each layer has one shape. Where the boxes of single
positions differ, by rounding or at the border, the largest of them is taken and moved into the
map: a box that is larger than needed is still exact, since the change in the rest of it is 0.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor

Size: TypeAlias = tuple[int, int, int]
Box: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

DIMS: Final = 3


@dataclass(frozen=True)
class Window:
    """How a convolution or a pooling looks at its input; the same along each axis."""

    kernel: int
    stride: int
    padding: int

    def outputs(self, shape: Size) -> Size:
        """Size of the output of a map of this size.

        >>> Window(kernel=7, stride=2, padding=3).outputs((240, 260, 260))
        (120, 130, 130)
        """
        x, y, z = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in shape)
        return x, y, z


STEM: Final = Window(kernel=7, stride=2, padding=3)
POOL: Final = Window(kernel=3, stride=2, padding=1)
DENSE: Final = Window(kernel=3, stride=1, padding=1)
TRANSITION: Final = Window(kernel=2, stride=2, padding=0)


@dataclass(frozen=True, eq=False)
class Boxes:
    """A batch of boxes of one size.

    Attributes:
        starts: int64 (N, 3), the lowest voxel of each box.
        size: voxels along each axis.
    """

    starts: Tensor
    size: Size

    @property
    def volume(self) -> int:
        """Voxels of one box."""
        x, y, z = self.size
        return x * y * z

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def covering(cls, low: Tensor, high: Tensor, shape: Size) -> "Boxes":
        """Boxes that cover [low, high), both (N, 3), within a map of this shape."""
        whole = torch.tensor(shape)
        low, high = torch.clamp(low, min=0), torch.minimum(high, whole)
        # A voxel that the last layer dropped has changed nothing: an idle box of one voxel.
        size = (high - low).amax(0).clamp(min=1)
        x, y, z = size.tolist()
        return cls(torch.minimum(low, whole - size), (x, y, z))

    def seen_by(self, window: Window, shape: Size) -> "Boxes":
        """The outputs that look at any voxel of these boxes.

        Args:
            window: of the layer.
            shape: of the output map.
        """
        first = self.starts + window.padding - window.kernel + 1
        last = self.starts + torch.tensor(self.size) - 1 + window.padding
        low = -torch.div(-first, window.stride, rounding_mode="floor")
        high = torch.div(last, window.stride, rounding_mode="floor") + 1
        return Boxes.covering(low, high, shape)

    def looked_at(self, window: Window) -> "Boxes":
        """The inputs that these outputs look at; they may lie beyond the input map."""
        x, y, z = (window.stride * (n - 1) + window.kernel for n in self.size)
        return Boxes(window.stride * self.starts - window.padding, (x, y, z))

    def rows_of_map(self, shape: Size, device: torch.device) -> Tensor:
        """Where the voxels of all boxes lie in one flattened map.

        Returns:
            (N * volume,) int64; voxels beyond the map lie in the row after its last.
        """
        x, y, z = shape
        return self._rows(self.starts, shape, torch.zeros(len(self), dtype=torch.int64), x * y * z,
                          device)  # fmt: skip

    def rows_of(self, frame: "Boxes", device: torch.device) -> Tensor:
        """Where the voxels of all boxes lie in the flattened boxes of a frame, each in its own.

        Returns:
            (N * volume,) int64; voxels beyond the frame lie in the row after its last.
        """
        offsets = torch.arange(len(self)) * frame.volume
        beyond = len(self) * frame.volume
        return self._rows(self.starts - frame.starts, frame.size, offsets, beyond, device)

    def _rows(
        self, starts: Tensor, shape: Size, offsets: Tensor, beyond: int, device: torch.device
    ) -> Tensor:
        starts = starts.to(device)
        rows = offsets.to(device)[:, None, None, None]
        inside: Tensor | None = None
        for axis in range(DIMS):
            at = starts[:, axis, None] + torch.arange(self.size[axis], device=device)
            within = (at >= 0) & (at < shape[axis])
            step = shape[1] * shape[2] if axis == 0 else shape[2] if axis == 1 else 1
            layout = [len(self), 1, 1, 1]
            layout[axis + 1] = self.size[axis]
            rows = rows + (at * step).view(layout)
            inside = within.view(layout) if inside is None else inside & within.view(layout)
        assert inside is not None
        return torch.where(inside, rows, beyond).flatten()
