"""How fast one fold trains, beside a plain MONAI script of the same recipe: `make bench-train`.

Both train the same network on the same prepared volumes in this process, epoch by epoch in turns,
so that whatever else the machine does strikes both. Only training counts, no validation. The first
epoch of each is left out: it fills caches and compiles. One line of JSON per figure; what it was
measured on goes to stderr.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    RandAffined,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandHistogramShiftd,
    RandShiftIntensityd,
)

from trainer.cohort import Cohort, Exam, digest
from trainer.loop import Learner
from trainer.phantom import draw_case, render
from trainer.settings import NetworkConfig, TrainingConfig
from worker import nets
from worker.preprocess import DEMO_RECIPE, PAPER_RECIPE, Recipe, prepare

PEER = f"monai {version('monai')} CacheDataset + dictionary transforms, float32"
WORKERS = min(4, os.cpu_count() or 1)  # of the peer's DataLoader; tutorials take 2 to 4
PHANTOM_MM = 4.0  # what is in the volumes matters to neither


@dataclass(frozen=True)
class Setting:
    """What is measured on one kind of device."""

    figure: str
    network: NetworkConfig
    recipe: Recipe
    goal: float


# A CPU trains the compact network on volumes of the demo. At 1 mm the paper's network takes minutes
# a step on it; it is measured at 4 mm, where next to nothing but its convolutions costs time.
SETTINGS = {
    "cpu": (
        Setting(
            "train.vs_monai_script",
            NetworkConfig(name="compact-densenet"),
            DEMO_RECIPE,
            goal=1.5,
        ),
        Setting("train.densenet121.vs_monai_script", NetworkConfig(), DEMO_RECIPE, goal=1.5),
    ),
    "cuda": (Setting("train.vs_monai_script", NetworkConfig(), PAPER_RECIPE, goal=4.0),),
}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--volumes", type=int, default=32, help="per epoch")
    options.add_argument("--epochs", type=int, default=5, help="that count")
    options.add_argument("--figure", help="only this one")
    asked = options.parse_args()
    if asked.volumes % TrainingConfig().fit.batch_size:
        options.error("--volumes must fill whole batches: we leave an incomplete one out")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(_machine(device), file=sys.stderr)
    for setting in SETTINGS[device.type]:
        if asked.figure in (None, setting.figure):
            print(json.dumps(measure(setting, device, asked.volumes, asked.epochs)), flush=True)


def measure(
    setting: Setting, device: torch.device, volumes: int, epochs: int
) -> dict[str, str | float]:
    """One figure: volumes per second of either, and their ratio."""
    cohort = _cohort(setting.recipe, volumes)
    config = TrainingConfig(preparation=setting.recipe, network=setting.network)
    ours, peer = our_epochs(cohort, config), monai_epochs(cohort, config, device)
    seconds = [(_seconds(ours, device), _seconds(peer, device)) for _ in range(1 + epochs)]
    for one, other in seconds:
        print(f"{setting.figure}: {one:.2f} s an epoch, peer {other:.2f} s", file=sys.stderr)
    value, peer_value = (
        volumes / statistics.median(times) for times in zip(*seconds[1:], strict=True)
    )
    return {
        "figure": setting.figure,
        "value": round(value, 3),
        "unit": "volumes/s",
        "peer": PEER,
        "peer_value": round(peer_value, 3),
        "ratio": round(value / peer_value, 2),
        "goal": setting.goal,
    }


def our_epochs(cohort: Cohort, config: TrainingConfig) -> Iterator[None]:
    """Train for ever as `python -m trainer fit` does, on all cores; yields after each epoch."""
    everyone = np.arange(len(cohort))
    learner = Learner(cohort, everyone, everyone, number=0, config=config)
    for epoch in range(config.fit.epochs):
        torch.stack(list(learner.steps(epoch))).mean().item()
        yield


def monai_epochs(cohort: Cohort, config: TrainingConfig, device: torch.device) -> Iterator[None]:
    """Train for ever as MONAI's tutorials do; yields after each epoch."""
    fit = config.fit
    loader = DataLoader(
        CacheDataset(_items(cohort), _transforms(config), cache_rate=1.0, progress=False),
        batch_size=fit.batch_size,
        shuffle=True,
        num_workers=WORKERS,
        pin_memory=device.type == "cuda",
    )
    model = nets.build(config.network.name, **config.network.config)
    model = model.to(memory_format=torch.contiguous_format).to(device)  # as MONAI builds it
    loss_function = torch.nn.CrossEntropyLoss(weight=torch.ones(2, device=device))
    optimizer = torch.optim.AdamW(
        model.parameters(), fit.learning_rate, weight_decay=fit.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=fit.first_epochs)
    while True:
        model.train()
        epoch_loss = 0.0
        for batch_data in loader:
            inputs, labels = batch_data["image"].to(device), batch_data["label"].to(device)
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = loss_function(outputs, labels)
            loss.backward()
            optimizer.step()
            epoch_loss += loss.item()
        scheduler.step()
        yield


def _items(cohort: Cohort) -> list[dict[str, object]]:
    return [
        {"image": volume.astype(np.float32), "label": int(label)}
        for volume, label in zip(cohort.voxels, cohort.labels, strict=True)
    ]


def _transforms(config: TrainingConfig) -> Compose:
    """The same kinds and the same numbers as ours; the first two are cached."""
    chosen = config.augmentation
    voxels = [chosen.translate_mm / mm for mm in config.preparation.spacing_mm]
    turn = np.deg2rad(chosen.rotate_degrees)
    return Compose(
        [
            EnsureChannelFirstd(keys="image", channel_dim="no_channel"),
            EnsureTyped(keys="image"),
            RandFlipd(keys="image", prob=chosen.flip, spatial_axis=0),
            RandAffined(
                keys="image",
                prob=chosen.probability,
                rotate_range=(turn, turn, turn),
                scale_range=(chosen.scale,) * 3,
                translate_range=voxels,
                mode="bilinear",
                padding_mode="zeros",
            ),
            RandBiasFieldd(
                keys="image",
                prob=chosen.probability,
                degree=chosen.bias_degree,
                coeff_range=(0.0, chosen.bias_coefficient),
            ),
            RandHistogramShiftd(
                keys="image", prob=chosen.probability, num_control_points=chosen.histogram_points
            ),
            RandShiftIntensityd(
                keys="image", prob=chosen.probability, offsets=chosen.intensity_shift
            ),
            RandGaussianNoised(keys="image", prob=chosen.probability, std=chosen.noise),
        ]
    )


def _cohort(recipe: Recipe, volumes: int) -> Cohort:
    """Phantoms without the way through DICOM."""
    cases = [draw_case(seed, positive=seed % 2 == 1) for seed in range(volumes)]
    phantoms = [render(case, PHANTOM_MM) for case in cases]
    voxels = np.stack(
        [prepare(each.voxels, each.affine, recipe).voxels.astype(np.float16) for each in phantoms]
    )
    exams = tuple(
        Exam(f"{case.seed:016x}", f"{case.seed:016x}", int(case.positive), digest(volume))
        for case, volume in zip(cases, voxels, strict=True)
    )
    return Cohort(exams, voxels, recipe)


def _seconds(epochs: Iterator[None], device: torch.device) -> float:
    """The wall clock of the next epoch."""
    finish: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    finish()
    start = time.monotonic()
    next(epochs)
    finish()
    return time.monotonic() - start


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {WORKERS} loader workers for the peer"
    )


if __name__ == "__main__":
    main()
