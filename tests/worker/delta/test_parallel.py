"""Batches are a matter of room, never of what comes out."""

import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from worker.delta import kernels, parallel
from worker.delta.engine import DeltaEngine
from worker.delta.parallel import compute

SHAPE = (30, 32, 34)


@pytest.fixture
def engine(densenet):
    return DeltaEngine(densenet(SHAPE, block_config=(2, 2, 2)), torch.rand(SHAPE))


@pytest.fixture
def boxes(places):
    return places(SHAPE, (6, 6, 6))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("room", [1, 5e5, 1e9])
def test_all_boxes_come_in_their_order(engine, boxes, monkeypatch, threads, room):
    expected = engine.deltas(boxes).numpy()
    monkeypatch.setattr(parallel, "CPU_BYTES", room)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = np.concatenate([*compute(engine, boxes, None, 1)])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.std())


def test_no_boxes_are_no_work(engine):
    assert list(compute(engine, [], None, 1)) == []


def test_closing_stops_the_work(engine, boxes, monkeypatch):
    monkeypatch.setattr(parallel, "CPU_BYTES", 1)
    asked = []

    def deltas(batch, _caps):
        asked.append(batch)
        time.sleep(0.001)
        return torch.zeros(1)

    monkeypatch.setattr(engine, "deltas", deltas)
    threads = torch.get_num_threads()

    parts = compute(engine, boxes * 100, None, 1)
    next(parts)
    next(parts)
    parts.close()

    assert len(asked) < len(boxes) * 50
    assert torch.get_num_threads() == threads


class SmallDevice:
    """Stands in for a GPU with room for so many boxes at a time."""

    device = SimpleNamespace(type="cuda")

    def __init__(self, room):
        self.room, self.batches = room, []

    def bytes_per_box(self, boxes):
        return 1

    def deltas(self, boxes, caps):
        if len(boxes) > self.room:
            raise torch.OutOfMemoryError
        self.batches.append(len(boxes))
        return torch.tensor(boxes, dtype=torch.float64)


def test_a_device_without_memory_is_asked_for_less():
    device = SmallDevice(room=3)

    found = np.concatenate([*compute(device, range(10), None, device_bytes=8)])

    assert found.tolist() == list(range(10))
    assert device.batches == [2] * 5


def test_a_device_without_room_for_one_says_so():
    with pytest.raises(torch.OutOfMemoryError):
        list(compute(SmallDevice(room=0), range(10), None, device_bytes=8))


# PyTorch's compiler imports a part of PyTorch that warns of itself.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler: nothing can be fused")
def test_fused_and_plain_work_say_the_same(densenet, places):
    network, volume, boxes = densenet(SHAPE), torch.rand(SHAPE), places(SHAPE, (6, 6, 6))

    fused = DeltaEngine(network, volume, fuse=True).deltas(boxes)
    plain = DeltaEngine(network, volume).deltas(boxes)

    assert kernels.kernels(torch.device("cpu"), fuse=True) is not kernels.PLAIN
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-4 * float(plain.std()))


def test_without_a_compiler_the_work_is_done_plainly(monkeypatch, caplog):
    def no_compiler(*_, **__):
        def fail(*_):
            raise RuntimeError("no working C++ compiler")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    kernels._fused.cache_clear()
    try:
        assert kernels.kernels(torch.device("cpu"), fuse=True) is kernels.PLAIN
    finally:
        kernels._fused.cache_clear()
    assert "not compiled" in caplog.text
