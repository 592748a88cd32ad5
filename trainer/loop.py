"""Cross-validation: each fold trains one member and judges the cases it has not seen."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch
from monai.networks.nets.densenet import DenseNet
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.model_selection import StratifiedGroupKFold
from torch import Generator, Tensor

from trainer.augment import augment
from trainer.cohort import Cohort
from trainer.settings import FitSettings
from worker import nets
from worker.bundle import Reference
from worker.ensemble import mahalanobis

Indices: TypeAlias = NDArray[np.int64]

POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, eq=False)
class Fold:
    """One trained member.

    Attributes:
        weights: its state dict.
        held_out: cases it has not been trained on.
        log_odds: (held out,) uncalibrated.
        reference: how its cohort looks to it.
    """

    weights: dict[str, Tensor]
    held_out: Indices
    log_odds: NDArray[np.float64]
    reference: Reference


@dataclass(frozen=True)
class Epoch:
    """Where training stands, for a progress display."""

    fold: int
    epoch: int
    loss: float


def cross_validate(
    cohort: Cohort,
    settings: FitSettings,
    on_epoch: Callable[[Epoch], None],
    processes: int = 1,
) -> list[Fold]:
    """Train one member per fold; the same cohort and settings give the same members.

    Folds are stratified by label and keep each patient whole. The last epoch's weights are kept:
    picking the best epoch on the fold it is reported on would flatter.

    Args:
        cohort: to learn from.
        settings: how.
        on_epoch: told of every epoch that ends, here in the calling process.
        processes: folds trained at a time, each on one thread: the weights must not depend on
            the number of cores.
    """
    context = multiprocessing.get_context("forkserver")
    ended = context.SimpleQueue()
    with ProcessPoolExecutor(processes, context, _start, (cohort, settings, ended)) as pool:
        folds = [pool.submit(_fold, number) for number in range(settings.folds)]
        for _ in range(settings.folds * settings.epochs):
            while ended.empty():
                _raise_first(folds)
                time.sleep(POLL_SECONDS)
            on_epoch(ended.get())
        return [fold.result() for fold in folds]


def split(cohort: Cohort, settings: FitSettings) -> list[tuple[Indices, Indices]]:
    """The cases to train on and the cases held out, per fold."""
    splitter = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed)
    return list(splitter.split(cohort.labels, cohort.labels, cohort.groups))


def _raise_first(folds: list[Future[Fold]]) -> None:
    """Pass on what stopped a fold."""
    for fold in folds:
        if fold.done():
            fold.result()


class _Task:
    """What every fold needs, handed once to each process of the pool."""

    cohort: Cohort
    settings: FitSettings
    ended: "multiprocessing.SimpleQueue[Epoch]"


def _start(
    cohort: Cohort, settings: FitSettings, ended: "multiprocessing.SimpleQueue[Epoch]"
) -> None:
    torch.set_num_threads(1)
    _Task.cohort, _Task.settings, _Task.ended = cohort, settings, ended


def _fold(number: int) -> Fold:
    cohort, settings = _Task.cohort, _Task.settings
    train, held_out = split(cohort, settings)[number]
    torch.manual_seed(settings.seed * 1000 + number)
    network = nets.build(settings.network, **settings.network_config)
    for epoch, loss in _epochs(network, cohort, train, settings, number):
        _Task.ended.put(Epoch(number, epoch, loss))
    network.eval()
    seen, _ = _judge(network, cohort, train)
    unseen, log_odds = _judge(network, cohort, held_out)
    return Fold(network.state_dict(), held_out, log_odds, _reference(seen, unseen))


def _epochs(
    network: DenseNet, cohort: Cohort, train: Indices, settings: FitSettings, number: int
) -> Iterator[tuple[int, float]]:
    """Train, yielding the number and mean loss of each epoch."""
    generator = Generator().manual_seed(settings.seed * 1000 + number)
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = settings.epochs * (len(train) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    criterion = torch.nn.CrossEntropyLoss(weight=_class_weights(cohort.labels[train]))
    for epoch in range(settings.epochs):
        losses = []
        network.train()
        for indices in _batches(train, settings.batch_size, generator):
            volumes = augment(_volumes(cohort, indices), settings.erase, generator)
            loss = criterion(
                network(volumes.contiguous(memory_format=torch.channels_last_3d)),
                torch.from_numpy(cohort.labels[indices]),
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        yield epoch, float(np.mean(losses))


def _batches(train: Indices, size: int, generator: Generator) -> Iterator[Indices]:
    """All cases once, shuffled; a last incomplete batch would upset batch normalisation."""
    order = train[torch.randperm(len(train), generator=generator).numpy()]
    for start in range(0, len(order) - size + 1, size):
        yield order[start : start + size]


def _class_weights(labels: Indices) -> Tensor:
    """Inverse class ratio."""
    counts = np.bincount(labels, minlength=2)
    return torch.tensor(counts.sum() / (2 * counts), dtype=torch.float32)


def _volumes(cohort: Cohort, indices: Indices) -> Tensor:
    return torch.from_numpy(cohort.voxels[indices].astype(np.float32))[:, None]


def _judge(
    network: DenseNet, cohort: Cohort, indices: Indices
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features (N, F) and log odds (N,) of cases, without augmentation."""
    pooled, odds = [], []
    with torch.inference_mode():
        for start in range(0, len(indices), 16):
            volumes = _volumes(cohort, indices[start : start + 16])
            each = nets.features(network, volumes.contiguous(memory_format=torch.channels_last_3d))
            pooled.append(each.double().numpy())
            odds.append(nets.log_odds(network, each).double().numpy())
    return np.concatenate(pooled), np.concatenate(odds)


def _reference(seen: NDArray[np.float64], unseen: NDArray[np.float64]) -> Reference:
    """Mean and precision of the cases trained on; distances of those that were not."""
    covariance = LedoitWolf().fit(seen)
    mean, precision = covariance.location_, covariance.precision_
    return Reference(mean, precision, np.sort(mahalanobis(unseen, mean, precision)))
