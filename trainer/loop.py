"""The training loop of one fold: an independent job that survives being killed.

Everything that is random in an epoch is drawn from the seed, the fold and the number of the epoch,
so a fold that goes on from its last checkpoint ends with the weights it would have had anyway (bit
for bit on a CPU; 3D pooling on CUDA is not deterministic).
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from monai.networks.nets.densenet import DenseNet
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from torch import Generator, Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from trainer.augment import augment
from trainer.cohort import Cohort
from trainer.settings import FitConfig, SpeedConfig, TrainingConfig
from trainer.statistics import auroc
from worker import nets
from worker.bundle import Reference
from worker.ensemble import mahalanobis

Indices = NDArray[np.int64]
Values = NDArray[np.float64]
Weights = dict[str, Tensor]

JUDGED_TOGETHER: Final = 8
# Seeds of folds and epochs must not meet: no fold has so many epochs.
EPOCHS_PER_FOLD: Final = 100_000


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training part brought.

    Attributes:
        epoch: counted from 0.
        loss: mean over the steps.
        learning_rate: of the last step.
        validation_loss: of the held-out exams, unvaried.
        auroc: of the held-out exams.
        ema_auroc: the same by the moving average of the weights.
        seconds: it took.
    """

    epoch: int
    loss: float
    learning_rate: float
    validation_loss: float
    auroc: float
    ema_auroc: float
    seconds: float


class Learner:
    """One member on its way: network, moving average, optimiser, and the cohort's volumes."""

    def __init__(
        self, cohort: Cohort, train: Indices, held_out: Indices, number: int, config: TrainingConfig
    ) -> None:
        self.config, self.number = config, number
        self.train, self.held_out = train, held_out
        self.device = choose_device(config.speed)
        self.volumes = _Volumes(cohort, config.speed, self.device)
        self.labels = torch.from_numpy(cohort.labels).to(self.device)
        self.spacing_mm = cohort.recipe.spacing_mm
        torch.manual_seed(_seed(config.fit, number))
        self.network = nets.build(config.network.name, **config.network.config).to(self.device)
        if not config.speed.channels_last:
            self.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.average = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(config.fit.ema_decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            config.fit.learning_rate,
            weight_decay=config.fit.weight_decay,
        )
        self.criterion = torch.nn.CrossEntropyLoss(weight=self._class_weights())
        self.best: Weights = {}
        self.history: list[Epoch] = []
        self._step = self._compiled()

    def epochs(self) -> Iterator[Epoch]:
        """Train from where this learner stands to the end, yielding each epoch that ended."""
        for number in range(len(self.history), self.config.fit.epochs):
            start = time.monotonic()
            losses = list(self.steps(number))
            mean_loss = float(torch.stack(losses).mean())
            yield self._judged(number, mean_loss, start)

    def steps(self, epoch: int) -> Iterator[Tensor]:
        """Train on every exam once, in shuffled batches; yields the loss of each step.

        A last incomplete batch is left out: it would upset batch normalisation.
        """
        fit = self.config.fit
        generator = Generator(self.device).manual_seed(_seed(fit, self.number, epoch))
        order = torch.randperm(
            len(self.train), generator=Generator().manual_seed(_seed(fit, self.number, epoch))
        ).numpy()
        steps = max(1, len(self.train) // fit.batch_size)
        self.network.train()
        for step in range(steps):
            rate = learning_rate(fit, epoch + step / steps)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            chosen = self.train[order[step * fit.batch_size : (step + 1) * fit.batch_size]]
            yield self._step(chosen, generator)

    def log_odds(self, network: torch.nn.Module, indices: Indices) -> Values:
        """(N,) uncalibrated log odds of exams as they are, in float32 as the worker computes."""
        return self._judge(network, indices)[1]

    def reference(self, network: torch.nn.Module) -> Reference:
        """Mean and precision of the exams trained on; distances of those that were not."""
        covariance = LedoitWolf().fit(self._judge(network, self.train)[0])
        mean, precision = covariance.location_, covariance.precision_
        unseen = self._judge(network, self.held_out)[0]
        return Reference(mean, precision, np.sort(mahalanobis(unseen, mean, precision)))

    def state(self) -> dict[str, Any]:
        """All that going on needs."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best": self.best,
            "history": [vars(epoch) for epoch in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to where a learner stood."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best = dict(state["best"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def weights(self) -> dict[str, Weights]:
        """The three sets of weights, on the host: "best", "last" and "ema"."""
        average = self.average.module
        kinds = {
            "best": self.best,
            "last": self.network.state_dict(),
            "ema": average.state_dict(),
        }
        return {kind: _on_host(weights) for kind, weights in kinds.items()}

    def _compiled(self) -> Callable[[Indices, Generator], Tensor]:
        """The step, with its forward pass compiled where that pays."""
        forward: Callable[[Tensor], Tensor] = self.network
        if self.config.speed.recompute:
            forward = recomputing(self.network)
        elif _switched(self.config.speed.compile, self.device.type == "cuda"):
            forward = torch.compile(self.network)
        autocast = _switched(self.config.speed.autocast, self.device.type == "cuda")

        def step(chosen: Indices, generator: Generator) -> Tensor:
            volumes = augment(
                self.volumes.batch(chosen), self.config.augmentation, self.spacing_mm, generator
            )
            with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
                logits = forward(self._laid_out(volumes))
            loss: Tensor = self.criterion(logits.float(), self.labels[chosen])
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            self.average.update_parameters(self.network)
            return loss.detach()

        return step

    def _judged(self, number: int, loss: float, start: float) -> Epoch:
        """Close an epoch: judge the held-out exams, and remember the best weights."""
        odds = self.log_odds(self.network, self.held_out)
        labels = self.labels[self.held_out].cpu().numpy()
        found = Epoch(
            epoch=number,
            loss=loss,
            learning_rate=self.optimiser.param_groups[0]["lr"],
            validation_loss=float(np.mean(np.logaddexp(0, odds) - labels * odds)),
            auroc=auroc(labels, odds),
            ema_auroc=auroc(labels, self.log_odds(self.average.module, self.held_out)),
            seconds=round(time.monotonic() - start, 3),
        )
        if not self.history or found.auroc > max(epoch.auroc for epoch in self.history):
            self.best = _on_host(self.network.state_dict())
        self.history.append(found)
        return found

    def _judge(self, network: torch.nn.Module, indices: Indices) -> tuple[Values, Values]:
        """Features (N, F) and log odds (N,)."""
        assert isinstance(network, DenseNet)
        network.eval()
        pooled, odds = [], []
        with torch.inference_mode():
            for start in range(0, len(indices), JUDGED_TOGETHER):
                volumes = self.volumes.batch(indices[start : start + JUDGED_TOGETHER])
                each = nets.features(network, self._laid_out(volumes))
                pooled.append(each.double().cpu().numpy())
                odds.append(nets.log_odds(network, each).double().cpu().numpy())
        return np.concatenate(pooled), np.concatenate(odds)

    def _laid_out(self, volumes: Tensor) -> Tensor:
        if not self.config.speed.channels_last:
            return volumes
        return volumes.contiguous(memory_format=torch.channels_last_3d)

    def _class_weights(self) -> Tensor:
        """Inverse class ratio of the training part."""
        counts = np.bincount(self.labels[self.train].cpu().numpy(), minlength=2)
        weights = counts.sum() / (2 * counts)
        return torch.tensor(weights, dtype=torch.float32, device=self.device)


class _Volumes:
    """The cohort's volumes, in the device's memory where they fit."""

    def __init__(self, cohort: Cohort, speed: SpeedConfig, device: torch.device) -> None:
        self._device = device
        voxels = torch.from_numpy(cohort.voxels)
        fits = device.type == "cpu" or voxels.nbytes < torch.cuda.mem_get_info(device)[0] / 2
        self._voxels = voxels.to(device) if _switched(speed.cohort_on_device, fits) else voxels

    def batch(self, indices: Indices) -> Tensor:
        """(N, 1, X, Y, Z) float32 on the device."""
        chosen = self._voxels[torch.from_numpy(indices).to(self._voxels.device)]
        return chosen.to(self._device, non_blocking=True).float()[:, None]


def learning_rate(fit: FitConfig, epoch: float) -> float:
    """The rate at a moment of training: half a cosine down to 0 within each period.

    Args:
        fit: names the schedule and its periods.
        epoch: from 0; fractions are moments within an epoch.

    >>> paper = FitConfig()
    >>> [round(learning_rate(paper, epoch), 6) for epoch in (0, 225, 449.99, 450, 550)]
    [0.001, 0.0005, 0.0, 0.001, 0.0005]
    >>> restarts = FitConfig(schedule="restarts")
    >>> [round(learning_rate(restarts, epoch), 6) for epoch in (0, 100, 200, 400, 450)]
    [0.001, 0.0005, 0.001, 0.001, 0.000854]
    """
    if fit.schedule == "restarts":
        share = epoch % fit.restart_epochs / fit.restart_epochs
    elif epoch < fit.first_epochs or fit.schedule == "cosine":
        share = epoch / fit.first_epochs
    else:
        share = (epoch - fit.first_epochs) % fit.restart_epochs / fit.restart_epochs
    return fit.learning_rate * (1 + math.cos(math.pi * share)) / 2


def recomputing(network: DenseNet) -> Callable[[Tensor], Tensor]:
    """A forward pass whose parts keep nothing but their inputs.

    Each of them runs twice per step, and so do its updates of the running statistics: with a
    momentum of 1 - sqrt(1 - m), two updates by the same batch are one of momentum m.
    """
    parts = _parts(network)
    for module in network.features.modules():
        if isinstance(module, torch.nn.BatchNorm3d) and module.momentum is not None:
            module.momentum = 1 - math.sqrt(1 - module.momentum)

    def forward(batch: Tensor) -> Tensor:
        for part in parts:
            again = torch.is_grad_enabled()
            batch = checkpoint(part, batch, use_reentrant=False) if again else part(batch)
        logits: Tensor = network.class_layers(batch)
        return logits

    return forward


def _parts(network: DenseNet) -> list[torch.nn.Module]:
    """The stem, each dense layer, each transition and the last norm, in order."""
    stem: list[torch.nn.Module] = []
    parts: list[torch.nn.Module] = []
    for name, child in network.features.named_children():
        if name.startswith("denseblock"):
            parts += child.children()
        elif parts:
            parts.append(child)
        else:
            stem.append(child)
    return [torch.nn.Sequential(*stem), *parts]


def choose_device(speed: SpeedConfig) -> torch.device:
    """The device that a configuration asks for."""
    if speed.device != "auto":
        return torch.device(speed.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _switched(setting: str, auto: bool) -> bool:
    return auto if setting == "auto" else setting == "on"


def _seed(fit: FitConfig, number: int, epoch: int = EPOCHS_PER_FOLD - 1) -> int:
    """A seed of its own for each epoch of each fold, and for the first weights."""
    return (fit.seed * 1000 + number) * EPOCHS_PER_FOLD + epoch


def _on_host(weights: Mapping[str, Tensor]) -> Weights:
    """A copy of a state dict, in plain order: safetensors holds no other."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
