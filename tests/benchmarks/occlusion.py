"""What one position of an occlusion map costs, beside MONAI's and a plain forward pass.

`make bench-occlusion` prints one line of JSON per figure; what it was measured on goes to stderr.
The network is the paper's DenseNet-121 with random weights, the volume a phantom head at 1 mm. All
variants take turns in this process, so that whatever else the machine does strikes all of them.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
from monai.networks.nets.densenet import DenseNet
from monai.visualize import OcclusionSensitivity
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from trainer.phantom import draw_case, render
from worker import nets
from worker.delta.baseline import computes_in
from worker.delta.boxes import Box
from worker.delta.engine import DeltaEngine
from worker.delta.parallel import compute
from worker.occlusion import USUAL_CAP, Effort, OcclusionSpec, explain
from worker.preprocess import PAPER_RECIPE, Prepared, Recipe, prepare

PATCH: Final = (12, 13, 13)
MEMBERS: Final = 5
PHANTOM_MM: Final = 2.0
GPU_MAP_SECONDS: Final = 20.0
# What our own lines of the exact map are held against on a CPU with AMX.
GOALS: Final = {
    "float32_vs_monai": 8.0,
    "float32_vs_plain": 5.0,
    "bfloat16_vs_monai": 18.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns that each variant takes")
    parser.add_argument("--positions", type=int, default=8, help="of ours in each turn")
    parser.add_argument("--exact", type=int, default=24, help="positions recomputed in full")
    parser.add_argument("--divide", type=int, default=1, help="take a smaller volume, for a trial")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = Recipe(
        tuple(arguments.divide * mm for mm in PAPER_RECIPE.spacing_mm),  # type: ignore[arg-type]
        tuple(size // arguments.divide for size in PAPER_RECIPE.shape),  # type: ignore[arg-type]
    )
    phantom = render(draw_case(2024, positive=True), PHANTOM_MM)
    prepared = prepare(phantom.voxels, phantom.affine, recipe)
    spec = OcclusionSpec("paper", PATCH, PATCH)
    boxes = _active(prepared, spec)
    print(f"{_machine(device)}; {recipe.shape}, {len(boxes)} active positions", file=sys.stderr)
    if device.type == "cuda":
        _whole_map(prepared, spec, device)
    _positions(prepared, boxes, device, arguments)


def _positions(
    prepared: Prepared, boxes: Sequence[Box], device: torch.device, asked: argparse.Namespace
) -> None:
    """Cost and error per position."""
    network = random_member(0).to(device)
    volume = torch.from_numpy(prepared.voxels).to(device)
    chosen = [boxes[at] for at in np.linspace(0, len(boxes) - 1, asked.positions).astype(int)]
    plain, best, runtime = _plain(network, volume)
    exact = DeltaEngine(network, volume, fuse=True)
    variants: dict[str, Callable[[], Any]] = {
        "monai": _monai(network, volume, chosen[len(chosen) // 2]),
        "eager": lambda: plain(volume),
        "plain": lambda: best(volume),
        "float32": lambda: _ours(exact, chosen, None),
        "capped": lambda: _ours(exact, chosen, (USUAL_CAP,) * exact.blocks),
    }
    if computes_in(torch.bfloat16, device):
        half = DeltaEngine(network, volume, dtype=torch.bfloat16, fuse=True)
        variants["bfloat16"] = lambda: _ours(half, chosen, None)
    else:
        print("this hardware does not compute in bfloat16: not measured", file=sys.stderr)
    seconds = _in_turns(variants, asked.rounds, device)
    cost = {
        name: each / (len(chosen) if name in ("float32", "capped", "bfloat16") else 1)
        for name, each in seconds.items()
    }
    print(f"plain forward: {runtime}; eager {cost['eager']:.3f} s", file=sys.stderr)
    peers = {"monai": f"monai {version('monai')} OcclusionSensitivity", "plain": runtime}
    for ours in ("float32", "capped", "bfloat16"):
        for peer, words in peers.items():
            if ours in cost:
                name = f"{ours}_vs_{peer}"
                tell(
                    f"occlusion.{name}",
                    cost[ours],
                    "s/position",
                    words,
                    cost[peer],
                    GOALS.get(name),
                )
    flops = statistics.mean(_flops(lambda box=box: exact.deltas([box])) for box in chosen)
    whole = _flops(lambda: plain(volume))
    tell(
        "occlusion.float32_flops", flops / 1e9, "GFLOP/position", "plain forward", whole / 1e9, 8.0
    )
    _errors(exact, plain, volume, boxes, asked.exact)


def random_member(seed: int) -> DenseNet:
    """A DenseNet-121 with random weights whose activations neither die nor explode."""
    torch.manual_seed(seed)
    network = nets.build("densenet121")
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.bias, 0, 0.3)
            part.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(torch.rand(2, 1, 96, 104, 104))
    return network.eval().requires_grad_(False)


def tell(
    figure: str, value: float, unit: str, peer: str, peer_value: float, goal: float | None
) -> None:
    """One line: above 1, we are better."""
    line = {
        "figure": figure,
        "value": round(value, 4),
        "unit": unit,
        "peer": peer,
        "peer_value": round(peer_value, 4),
        "ratio": round(peer_value / value, 2),
        "goal": goal,
    }
    print(json.dumps(line), flush=True)


def _plain(
    network: DenseNet, volume: Tensor
) -> tuple[Callable[[Tensor], float], Callable[[Tensor], Any], str]:
    """A forward pass by PyTorch, one by the fastest runtime at hand, and its name."""

    def eager(each: Tensor) -> float:
        with torch.inference_mode():
            batch = each[None, None].contiguous(memory_format=torch.channels_last_3d)
            return float(network(batch)[0].diff())

    try:
        import openvino
    except ImportError:
        return eager, eager, f"torch {torch.__version__}, channels last"
    if volume.device.type != "cpu":
        return eager, eager, f"torch {torch.__version__}, channels last"
    converted = openvino.convert_model(network, example_input=volume[None, None])
    compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return eager, lambda each: compiled(each[None, None].numpy()), f"openvino {version('openvino')}"


def _monai(network: DenseNet, volume: Tensor, box: Box) -> Callable[[], Any]:
    """One position by MONAI: the bounding box leaves room for one patch."""
    peer = OcclusionSensitivity(
        network, PATCH, n_batch=1, verbose=False, mode=0.0, overlap=0.0, activate=False
    )
    edges = [(length - 1) // 2 for length in PATCH]
    bounds = [
        bound
        for (low, high), edge in zip(box, edges, strict=True)
        for bound in (low + edge, high - edge)
    ]
    return lambda: peer(volume[None, None], b_box=bounds)


def _ours(engine: DeltaEngine, boxes: Sequence[Box], caps: Sequence[int] | None) -> Any:
    return [*compute(engine, boxes, caps, Effort().memory_bytes)]


def _in_turns(
    variants: dict[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each; a first turn that warms up is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, work in variants.items():
            start = time.monotonic()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn > 0:
                seconds[name].append(time.monotonic() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def _errors(
    engine: DeltaEngine,
    plain: Callable[[Tensor], float],
    volume: Tensor,
    boxes: Sequence[Box],
    number: int,
) -> None:
    """Difference from whole forward passes, over the standard deviation of the effects."""
    rng = np.random.default_rng(0)
    chosen = [boxes[at] for at in rng.choice(len(boxes), min(number, len(boxes)), replace=False)]
    usual, expected = plain(volume), []
    for box in chosen:
        blanked = volume.clone()
        blanked[tuple(slice(*bounds) for bounds in box)] = 0
        expected.append(plain(blanked) - usual)
    found = np.concatenate(_ours(engine, chosen, None))
    relative = np.sqrt(np.mean((found - expected) ** 2)) / np.std(expected)
    words = f"{len(chosen)} whole forward passes in float32; allowed 1e-3"
    tell("occlusion.float32_rms_error", float(relative), "standard deviations", words, 1e-3, 1.0)


def _flops(work: Callable[[], Any]) -> float:
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            torch.ops.aten.mkldnn_convolution: lambda x, w, _b, *_, out_shape, **__: (
                conv_flop_count(x, w, out_shape)
            )
        },
    )
    with counter:
        work()
    return float(counter.get_total_flops())


def _whole_map(prepared: Prepared, spec: OcclusionSpec, device: torch.device) -> None:
    """The whole map of an ensemble on a GPU, beside MONAI's scaled from one position."""
    members = SimpleNamespace(networks=[random_member(seed).to(device) for seed in range(MEMBERS)])
    effort = Effort(dtype=torch.bfloat16, memory_bytes=4 * 2**30)
    explain(members, prepared, spec, lambda _done, _all: None, effort)
    torch.cuda.reset_peak_memory_stats()
    start = time.monotonic()
    found = explain(members, prepared, spec, lambda _done, _all: None, effort)
    seconds = time.monotonic() - start
    print(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB; {found.how}", file=sys.stderr)
    volume = torch.from_numpy(prepared.voxels).to(device)
    one = _monai(members.networks[0], volume, ((120, 132), (130, 143), (130, 143)))
    monai = _in_turns({"monai": one}, 3, device)["monai"] * found.positions * MEMBERS
    words = f"monai {version('monai')} OcclusionSensitivity, one position times all"
    tell("occlusion.map", seconds, "s", words, monai, monai / GPU_MAP_SECONDS)


def _active(prepared: Prepared, spec: OcclusionSpec) -> list[Box]:
    shape = prepared.voxels.shape
    positions = np.ndindex(spec.grid(shape))  # type: ignore[arg-type]
    return [
        spec.bounds(at)  # type: ignore[arg-type]
        for at in positions
        if prepared.voxels[spec.box(at)].any()  # type: ignore[arg-type]
    ]


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
