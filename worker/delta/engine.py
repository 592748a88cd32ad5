"""The change of a network's output when boxes of its input are blanked, carried layer by layer.

Of a linear layer, the change of the output is the layer, without its bias, on the change of the
input. Of a ReLU that saw `u` and sees `u + du`, it is

    relu(u + du) - relu(u) = max(du, -u) + min(u, 0)

which subtracts no two large numbers, and therefore is as good in bfloat16 as bfloat16 is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from monai.networks.nets.densenet import DenseNet
from torch import Tensor
from torch.nn import functional

from worker.delta.baseline import compute_baseline, convolve, flat, unflat
from worker.delta.boxes import DENSE, POOL, STEM, TRANSITION, Box, Boxes, Size
from worker.delta.folding import Folded, fold
from worker.delta.kernels import kernels

SECOND_MINUS_FIRST: Final = (-1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Change:
    """Changes of a map: nothing outside of the boxes.

    Attributes:
        boxes: where.
        rows: (N * volume, C) what.
    """

    boxes: Boxes
    rows: Tensor


class DeltaEngine:
    """A network and one volume, ready to tell what blanking a box would change.

    Attributes:
        output: the contrast of outputs for the volume as it is.
        device: where the volume lies.
    """

    def __init__(
        self,
        network: DenseNet,
        volume: Tensor,
        contrast: Sequence[float] = SECOND_MINUS_FIRST,
        dtype: torch.dtype = torch.float32,
        fill: float = 0.0,
        fuse: bool = False,
    ) -> None:
        """Run the network once.

        Args:
            network: MONAI's 3D DenseNet of any size, in evaluation mode, on the volume's device.
            volume: float32 (X, Y, Z).
            contrast: weight of each output in the figure whose change is told.
            dtype: of changes and kept maps: float32, or bfloat16 for half the memory and, where the
                hardware has it, a multiple of the speed.
            fill: what blanked voxels are set to.
            fuse: compile the element-wise work, which takes a while and pays from some hundred
                boxes of a large volume on.

        Raises:
            CannotFold: the method is not exact for this network.
        """
        self._network = fold(network, contrast)
        self.device, self._dtype, self._fill = volume.device, dtype, fill
        self._kernels = kernels(volume.device, fuse)
        with torch.inference_mode():
            self._maps = compute_baseline(self._network, volume, dtype)
        self._layers = _in_dtype(self._network, dtype)
        self.output = self._maps.output

    @property
    def blocks(self) -> int:
        """Dense blocks, and so caps, of the network."""
        return len(self._network.blocks)

    def bytes_per_box(self, boxes: Sequence[Box]) -> int:
        """Memory that the changes of one of these boxes take at a time, roughly."""
        bounds = torch.tensor(boxes, dtype=torch.int64)
        maps, most = self._maps, 0
        reached = Boxes.covering(bounds[..., 0], bounds[..., 1], maps.shape)
        reached = reached.seen_by(STEM, maps.stem_shape).seen_by(POOL, maps.blocks[0].shape)
        for number, (block, layers) in enumerate(
            zip(maps.blocks, self._layers.blocks, strict=True)
        ):
            if number > 0:
                reached = reached.seen_by(TRANSITION, block.shape)
            for _ in layers:
                reached = reached.seen_by(DENSE, block.shape)
            # The buffer of the block, what the last layer makes of it, and two bottlenecks.
            channels = 2 * block.features.shape[1] + 2 * layers[-1].squeeze.shape[1]
            most = max(most, reached.volume * channels * self._dtype.itemsize)
        return most

    def deltas(self, boxes: Sequence[Box], caps: Sequence[int] | None = None) -> Tensor:
        """Blank each box on its own.

        Args:
            boxes: N of them, [low, high) along each axis, in voxels; what lies beyond the volume
                is ignored.
            caps: per block, the voxels by which a box may grow there; the change beyond is dropped,
                and the result no longer exact. None drops nothing.

        Returns:
            float64 (N,), on the CPU: output with the box blanked minus `output`.
        """
        if caps is not None and len(caps) != self.blocks:
            raise ValueError(f"{len(caps)} caps for a network of {self.blocks} dense blocks")
        bounds = torch.tensor(boxes, dtype=torch.int64)
        patches = Boxes.covering(bounds[..., 0], bounds[..., 1], self._maps.shape)
        with torch.inference_mode():
            change = self._through_stem(patches, bounds)
            for number in range(self.blocks):
                cap = len(self._layers.blocks[number]) if caps is None else caps[number]
                change = self._through_block(number, change, cap)
                if number < len(self._network.transitions):
                    change = self._through_transition(number, change)
            return self._at_head(change).double().cpu()

    def _through_stem(self, patches: Boxes, bounds: Tensor) -> Change:
        """First convolution, ReLU and max-pooling; always in float32, it costs next to nothing."""
        maps = self._maps
        convolved = patches.seen_by(STEM, maps.stem_shape)
        looked_at = convolved.looked_at(STEM)
        voxels = maps.voxels[looked_at.rows_of_map(maps.shape, self.device)]
        blanked = self._blanked(looked_at, bounds)
        change = torch.where(blanked, self._fill - voxels, 0)
        delta = flat(
            convolve(
                unflat(change[:, None], len(patches), looked_at.size),
                self._network.stem, None, STEM.stride, 0,
            )
        )  # fmt: skip
        pooled = convolved.seen_by(POOL, maps.blocks[0].shape)
        windows = pooled.looked_at(POOL)
        at = windows.rows_of_map(maps.stem_shape, self.device)
        changed = functional.pad(delta, (0, 0, 0, 1))[windows.rows_of(convolved, self.device)]
        # Beyond the map both are 0, which no maximum of ReLUs minds.
        after = unflat((maps.stem[at] + changed).relu_(), len(patches), windows.size)
        maximum = flat(functional.max_pool3d(after, POOL.kernel, POOL.stride))
        before = unflat(maps.stem[at].relu_(), len(patches), windows.size)
        usual = flat(functional.max_pool3d(before, POOL.kernel, POOL.stride))
        return Change(pooled, (maximum - usual).to(self._dtype))

    def _blanked(self, looked_at: Boxes, bounds: Tensor) -> Tensor:
        """(N * volume,) whether a voxel is one of those blanked; they are within the volume."""
        inside: Tensor | None = None
        for axis, size in enumerate(looked_at.size):
            at = looked_at.starts[:, axis, None] + torch.arange(size)
            low = bounds[:, axis, 0, None].clamp(min=0)
            high = bounds[:, axis, 1, None].clamp(max=self._maps.shape[axis])
            layout = [len(looked_at), 1, 1, 1]
            layout[axis + 1] = size
            each = ((at >= low) & (at < high)).view(layout)
            inside = each if inside is None else inside & each
        assert inside is not None
        return inside.flatten().to(self.device)

    def _through_block(self, number: int, change: Change, cap: int) -> Change:
        """All layers of a dense block; each writes its own channels of one buffer."""
        maps, layers = self._maps.blocks[number], self._layers.blocks[number]
        steps = [change.boxes]
        for place in range(len(layers)):
            reached = steps[-1].seen_by(DENSE, maps.shape) if place < cap else steps[-1]
            steps.append(reached)
        frame, device = steps[-1], self.device
        # The row after the last stays 0: it stands for everything beyond the frame.
        buffer = torch.zeros(
            len(frame) * frame.volume + 1, maps.features.shape[1], dtype=self._dtype, device=device
        )
        channels = change.rows.shape[1]
        in_frame = change.boxes.rows_of(frame, device)
        buffer[:, :channels].index_copy_(0, in_frame, change.rows)
        at = change.boxes.rows_of_map(maps.shape, device)
        for place, layer in enumerate(layers):
            here, next_ = steps[place], steps[place + 1]
            active = self._kernels.scaled_change(
                buffer[:, :channels], in_frame, maps.features[:, :channels], at,
                layer.scale, layer.shift,
            )  # fmt: skip
            squeezed = torch.empty(
                len(active) + 1, layer.squeeze.shape[1], dtype=self._dtype, device=device
            )
            torch.mm(active, layer.squeeze, out=squeezed[:-1])
            squeezed[-1] = 0
            if next_ is not here:
                in_frame = next_.rows_of(frame, device)
                at = next_.rows_of_map(maps.shape, device)
            active = self._kernels.change(
                squeezed, next_.rows_of(here, device), maps.bottlenecks[place], at
            )
            grown = convolve(unflat(active, len(frame), next_.size), layer.grow, None, 1, 1)
            more = len(layer.grow)
            buffer[:, channels : channels + more].index_copy_(0, in_frame, flat(grown))
            channels += more
        return Change(frame, buffer)

    def _through_transition(self, number: int, change: Change) -> Change:
        """ReLU, mean over 2x2x2 and 1x1x1 convolution."""
        maps, transition = self._maps.blocks[number], self._layers.transitions[number]
        shape = self._maps.blocks[number + 1].shape
        pooled = change.boxes.seen_by(TRANSITION, shape)
        looked_at = pooled.looked_at(TRANSITION)
        mean = self._kernels.mean_change(
            change.rows,
            _in_eights(looked_at.rows_of(change.boxes, self.device), len(pooled), pooled.size),
            maps.features,
            _in_eights(looked_at.rows_of_map(maps.shape, self.device), len(pooled), pooled.size),
            transition.scale,
            transition.shift,
        )
        return Change(pooled, mean @ transition.squeeze)

    def _at_head(self, change: Change) -> Tensor:
        """ReLU, mean over the map and contrast of outputs: (N,) float32."""
        maps = self._maps.blocks[-1]
        at = change.boxes.rows_of_map(maps.shape, self.device)
        sums = self._kernels.summed_change(
            change.rows[:-1].view(len(change.boxes), change.boxes.volume, -1),
            maps.features,
            at.view(len(change.boxes), -1),
            self._network.scale,
            self._network.shift,
        )
        return sums @ self._network.head / len(maps.features)


def _in_eights(rows: Tensor, number: int, size: Size) -> Tensor:
    """(8, N * voxels): rows of a map twice as fine, by the place within each 2x2x2."""
    x, y, z = size
    fine = rows.view(number, x, 2, y, 2, z, 2)
    return fine.permute(2, 4, 6, 0, 1, 3, 5).reshape(8, -1)


def _in_dtype(network: Folded, dtype: torch.dtype) -> Folded:
    """The same with its products of matrices and 3x3x3 convolutions in another precision."""
    blocks = tuple(
        tuple(
            type(layer)(
                layer.scale,
                layer.shift,
                layer.squeeze.to(dtype),
                layer.squeeze_shift,
                layer.grow.to(dtype),
            )
            for layer in block
        )
        for block in network.blocks
    )
    transitions = tuple(
        type(each)(each.scale, each.shift, each.squeeze.to(dtype)) for each in network.transitions
    )
    return Folded(
        network.stem,
        network.stem_shift,
        blocks,
        transitions,
        network.scale,
        network.shift,
        network.head,
        network.head_shift,
    )
