"""One network of crops, trained slice by slice.

Everything that is random is drawn from the seed: the same seed gives the same weights, bit for bit
on a CPU with the same number of threads.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from trainer.regional.settings import CropAugmentationConfig, PlanarConfig
from worker.nets import Planar, build_planar, load_imagenet

Values = NDArray[np.float64]
Labels = NDArray[np.int64]

JUDGED_TOGETHER = 64
WITHIN = 1
"""Channel that holds the image within the region and 0 beside it (worker/crops.py)."""


@dataclass(frozen=True)
class Schedule:
    """How a network is optimised.

    Attributes:
        learning_rate: of AdamW at the start; falls to 0 in half a cosine.
        epochs: passes over the crops.
        batch_size: crops per step.
        weight_decay: of AdamW.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    weight_decay: float


@dataclass(frozen=True, eq=False)
class Lesson:
    """Crops to learn from, or to judge.

    Attributes:
        crops: float16 (M, 3, side, side).
        radiomics: (M, K) z-scored features of each crop's exam; None where the network takes none.
    """

    crops: NDArray[np.float16]
    radiomics: Values | None

    def batch(
        self, chosen: NDArray[np.int64], device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        """(N, 3, side, side) and (N, K), float32 on the device."""
        images = torch.from_numpy(self.crops[chosen]).to(device).float()
        if self.radiomics is None:
            return images, None
        return images, torch.from_numpy(self.radiomics[chosen]).to(device).float()


def train(
    network: PlanarConfig,
    lesson: Lesson,
    labels: Labels,
    schedule: Schedule,
    augmentation: CropAugmentationConfig,
    seed: int,
    device: torch.device,
) -> Planar:
    """Train a new network, from ImageNet's weights where its row names a file of them.

    Args:
        network: what it is.
        lesson: M crops.
        labels: (M,) of their exams; both labels weigh the same, however many crops they have.
        schedule: how.
        augmentation: how crops are varied.
        seed: of first weights, order, variation and dropout.
        device: to train on.

    Raises:
        BadWeights: the file of ImageNet's weights does not fit.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        learner = build_planar(network.name, **network.config)
        if network.imagenet is not None:
            load_imagenet(learner, network.imagenet)
        learner = learner.to(device).train()
        optimiser = torch.optim.AdamW(
            learner.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        counts = np.bincount(labels, minlength=2)
        weight = torch.tensor(counts.sum() / (2 * counts), dtype=torch.float32, device=device)
        criterion = torch.nn.CrossEntropyLoss(weight=weight)
        truth = torch.from_numpy(labels).to(device)
        generator = Generator().manual_seed(seed)
        steps = max(1, len(labels) // schedule.batch_size)
        for step in range(schedule.epochs * steps):
            if step % steps == 0:
                order = torch.randperm(len(labels), generator=generator).numpy()
            for group in optimiser.param_groups:
                share = step / (schedule.epochs * steps)
                group["lr"] = schedule.learning_rate * (1 + math.cos(math.pi * share)) / 2
            # A last incomplete batch is left out: it would upset batch normalisation.
            begin = step % steps * schedule.batch_size
            chosen = order[begin : begin + schedule.batch_size]
            images, radiomics = lesson.batch(chosen, device)
            logits = learner(_laid_out(vary(images, augmentation, generator)), radiomics)
            loss = criterion(logits, truth[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        _settle(learner, lesson, schedule.batch_size, device)
    return learner.eval()


def judge(network: Planar, lesson: Lesson, device: torch.device) -> tuple[Values, Values]:
    """(M, F) vectors that the last layer weighs, and (M,) log odds, of crops as they are."""
    network.eval()
    vectors, odds = [], []
    with torch.inference_mode():
        for start in range(0, len(lesson.crops), JUDGED_TOGETHER):
            chosen = np.arange(start, min(start + JUDGED_TOGETHER, len(lesson.crops)))
            images, radiomics = lesson.batch(chosen, device)
            found = network.features_of(_laid_out(images), radiomics)
            vectors.append(found.double().cpu().numpy())
            odds.append(network.log_odds(found).double().cpu().numpy())
    return np.concatenate(vectors), np.concatenate(odds)


def vary(images: Tensor, config: CropAugmentationConfig, generator: Generator) -> Tensor:
    """Flip, shift and re-light each crop on its own; beyond its edge a crop goes on as it ends.

    Args:
        images: (N, 3, side, side).
        config: how much.
        generator: of everything random, on the CPU.
    """
    count, channels, side, _ = images.shape

    def drawn() -> Tensor:
        return torch.rand(count, generator=generator)

    def shifted() -> Tensor:
        pixels = ((2 * drawn() - 1) * config.shift * side).round().long()
        return (torch.arange(side) + pixels[:, None]).clamp(0, side - 1)

    rows, columns = shifted(), shifted()
    flipped = drawn() < config.flip
    columns = torch.where(flipped[:, None], side - 1 - columns, columns)
    at = torch.arange(count)[:, None, None, None]
    channel = torch.arange(channels)[None, :, None, None]
    moved = images[at, channel, rows[:, None, :, None], columns[:, None, None, :]]
    scale = 1 + (2 * drawn() - 1) * config.contrast
    offset = ((2 * drawn() - 1) * config.brightness).to(moved.device)[:, None, None]
    varied = moved * scale.to(moved.device)[:, None, None, None]
    varied[:, 0] += offset
    varied[:, WITHIN] += offset * (moved[:, WITHIN] != 0)
    return varied


def _settle(network: Planar, lesson: Lesson, batch_size: int, device: torch.device) -> None:
    """Take the statistics of batch normalisation anew, over all crops by the final weights.

    Running averages of few steps still remember the first weights: those of MobileNetV3 move by a
    hundredth a step.
    """
    norms = [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches
    with torch.no_grad():
        for chosen in np.array_split(
            np.arange(len(lesson.crops)), max(1, len(lesson.crops) // batch_size)
        ):
            images, radiomics = lesson.batch(chosen, device)
            network(_laid_out(images), radiomics)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def _laid_out(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
