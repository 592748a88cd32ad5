"""Many boxes, a batch at a time: on the threads of a CPU, or as many as fit a device's memory."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from worker.delta.boxes import Box
from worker.delta.engine import DeltaEngine

log = logging.getLogger(__name__)

# What a CPU thread works on at a time should not leave its cache by much.
CPU_BYTES: Final = 32e6


def compute(
    engine: DeltaEngine, boxes: Sequence[Box], caps: Sequence[int] | None, device_bytes: float
) -> Iterator[NDArray[np.float64]]:
    """Blank each box on its own; see `DeltaEngine.deltas`.

    Args:
        engine: of one network and volume.
        boxes: all of them.
        caps: see there.
        device_bytes: that a batch may take on a device other than the CPU. Where even that is not
            to be had, batches are halved.

    Yields:
        float64 (n,) for the next n boxes, in their order. Closing the iterator stops the work.
    """
    if not boxes:
        return
    on_cpu = engine.device.type == "cpu"
    room = (CPU_BYTES if on_cpu else device_bytes) / engine.bytes_per_box(boxes)
    number = max(1, int(room))
    if on_cpu:
        yield from _on_threads(engine, boxes, caps, number)
    else:
        yield from _on_device(engine, boxes, caps, number)


def _on_threads(
    engine: DeltaEngine, boxes: Sequence[Box], caps: Sequence[int] | None, number: int
) -> Iterator[NDArray[np.float64]]:
    """One batch per thread: they share the volume's maps, and none waits for another."""
    batches = [boxes[start : start + number] for start in range(0, len(boxes), number)]
    with (
        _single_threaded() as threads,
        ThreadPoolExecutor(threads, "occlusion", torch.set_num_threads, (1,)) as pool,
    ):
        # Alone: it compiles, where that is asked for, for a thread of the pool.
        yield pool.submit(engine.deltas, batches[0], caps).result().numpy()
        waiting = [pool.submit(engine.deltas, batch, caps) for batch in batches[1:]]
        try:
            for each in waiting:
                yield each.result().numpy()
        finally:
            for each in waiting:
                each.cancel()


def _on_device(
    engine: DeltaEngine, boxes: Sequence[Box], caps: Sequence[int] | None, number: int
) -> Iterator[NDArray[np.float64]]:
    start = 0
    while start < len(boxes):
        found = None
        try:
            found = engine.deltas(boxes[start : start + number], caps)
        except torch.OutOfMemoryError:
            if number == 1:
                raise
        if found is None:  # outside of the clause above, which holds on to what fills the memory
            number //= 2
            log.warning("the device's memory is full; %d occlusions at a time from here", number)
            torch.cuda.empty_cache()
            continue
        yield found.numpy()
        start += number


@contextmanager
def _single_threaded() -> Iterator[int]:
    """Threads that PyTorch may use, while each single operation is left with one."""
    threads = torch.get_num_threads()
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
