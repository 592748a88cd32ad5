"""A run on disk: what `fit` leaves behind, fold by fold.

    run/
      config.json              the whole configuration
      run.json                 fingerprint of the cohort, hash of the folds, versions, command
      fold_0/metrics.csv       one line per epoch, exactly once
             checkpoint.pt     where it goes on after having been killed; gone when it is done
             predictions.csv   log odds of the exams it has not been trained on
             best.safetensors  last.safetensors  ema.safetensors
             reference.safetensors   how its cohort looks to it
             fold.json         written last: the fold is done

All files are replaced in one step, so a fold may be killed at any moment and started again.
"""

import csv
import fcntl
import io
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as serialise_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from listener.errors import MonroError
from trainer.cohort import Cohort, Examined, write_json
from trainer.folds import Folds
from trainer.loop import Epoch, Learner
from trainer.settings import Layered, TrainingConfig
from worker.bundle import Reference

CONFIG: Final = "config.json"
RUN: Final = "run.json"
DONE: Final = "fold.json"
CHECKPOINT: Final = "checkpoint.pt"
METRICS: Final = "metrics.csv"
PREDICTIONS: Final = "predictions.csv"
REFERENCE: Final = "reference.safetensors"
KINDS: Final = ("best", "last", "ema")
DISTRIBUTIONS: Final = ("monro", "torch", "monai", "numpy", "scipy", "scikit-learn")

Values = NDArray[np.float64]
ConfigOfRun = TypeVar("ConfigOfRun", bound=BaseModel)


class BadRun(MonroError):
    """A run folder that does not serve: what was found, and what to do."""

    def __init__(self, folder: Path, found: str, remedy: str) -> None:
        super().__init__(folder, found, remedy)
        self.folder, self.found, self.remedy = folder, found, remedy

    def __str__(self) -> str:
        return f"run {self.folder}: {self.found}; {self.remedy}"


@dataclass(frozen=True, eq=False)
class FoldResult:
    """One trained member.

    Attributes:
        number: of the fold.
        folder: where it lies.
        held_out: indices of the exams it was not trained on.
        log_odds: of those, uncalibrated: "best", "last" and "ema" -> (held out,).
        metrics: its epochs.
        reference: how the cohort looks to the honest weights.
    """

    number: int
    folder: Path
    held_out: NDArray[np.int64]
    log_odds: Mapping[str, Values]
    metrics: tuple[Epoch, ...]
    reference: Reference

    @property
    def best_epoch(self) -> int:
        """The first epoch of the highest validation AUROC."""
        return max(self.metrics, key=lambda epoch: (epoch.auroc, -epoch.epoch)).epoch

    def weights(self, kind: str) -> dict[str, Tensor]:
        """A state dict: "best", "last" or "ema"."""
        return dict(load_tensors(self.folder / f"{kind}.safetensors"))


@dataclass(frozen=True, eq=False)
class Run:
    """All folds of one training.

    Attributes:
        folder: where it lies.
        config: how it was trained.
        facts: content of run.json.
        folds: its members, in order.
    """

    folder: Path
    config: TrainingConfig
    facts: Mapping[str, Any]
    folds: tuple[FoldResult, ...]

    @property
    def cohort_fingerprint(self) -> str:
        """Of the cohort it was trained on."""
        return str(self.facts["cohort_fingerprint"])

    @property
    def folds_sha256(self) -> str:
        """Of the partition it was trained on."""
        return str(self.facts["folds_sha256"])

    def out_of_fold(self, kind: str, exams: int) -> tuple[Values, NDArray[np.int64]]:
        """Log odds of every exam by the member that had not seen it, and that member's number."""
        odds, fold_of = np.full(exams, np.nan), np.full(exams, -1, dtype=np.int64)
        for fold in self.folds:
            odds[fold.held_out], fold_of[fold.held_out] = fold.log_odds[kind], fold.number
        return odds, fold_of


def start_run(folder: Path, cohort: Examined, folds: Folds, config: Layered, command: str) -> None:
    """Write down what a run is; what is written already must be the same run.

    Raises:
        BadRun: the folder holds a run of another configuration or cohort.
    """
    facts = {"cohort_fingerprint": cohort.fingerprint, "folds_sha256": folds.sha256}
    wanted = config.model_dump(mode="json")
    if not (folder / RUN).exists():
        write_json(folder / CONFIG, wanted)
        write_json(folder / RUN, facts | {"command": command, "environment": environment()})
        return
    if _without_speed(json.loads((folder / CONFIG).read_bytes())) != _without_speed(wanted):
        raise BadRun(folder, "it was started with another configuration", "name a new folder")
    written = json.loads((folder / RUN).read_bytes())
    for name, value in facts.items():
        if written.get(name) != value:
            found = f"it was started with another {name.split('_')[0]}"
            raise BadRun(folder, found, "name a new folder")


def fit_fold(
    folder: Path,
    cohort: Cohort,
    folds: Folds,
    number: int,
    config: TrainingConfig,
    on_epoch: Callable[[Epoch], None],
) -> None:
    """Train one member, or go on where it was killed; does nothing when it is done.

    Args:
        folder: of the run.
        cohort: to learn from.
        folds: its partition.
        number: which fold is held out.
        config: how.
        on_epoch: told of every epoch that ends.

    Raises:
        BadRun: another process is at work on this fold.
    """
    place = folder / f"fold_{number}"
    with _alone(folder, number):
        if is_done(folder, number):
            return
        learner = Learner(cohort, folds.train(number), folds.held_out[number], number, config)
        _resume(learner, place)
        for epoch in learner.epochs():
            _write(place / CHECKPOINT, _serialised(learner.state()))
            _write_metrics(place, learner.history)
            on_epoch(epoch)
        _finish(place, learner, cohort, config)


def read_run(folder: Path, cohort: Cohort) -> Run:
    """Read a finished run.

    Raises:
        BadRun: there is none, a fold is not done, or it is of another cohort.
    """
    config, facts = read_start(folder, TrainingConfig, cohort.fingerprint)
    index = {exam.exam: place for place, exam in enumerate(cohort.exams)}
    folds = tuple(_read_fold(folder, number, index) for number in range(config.fit.folds))
    return Run(folder, config, facts, folds)


def read_start(
    folder: Path, kind: type[ConfigOfRun], fingerprint: str
) -> tuple[ConfigOfRun, dict[str, Any]]:
    """What `start_run` wrote: the configuration, and the content of run.json.

    Args:
        folder: of the run.
        kind: of its configuration.
        fingerprint: of the cohort that it must have been started with.

    Raises:
        BadRun: it cannot be read, or was started with another cohort.
    """
    try:
        config = kind.model_validate_json((folder / CONFIG).read_bytes())
        facts: dict[str, Any] = json.loads((folder / RUN).read_bytes())
    except (OSError, ValueError) as error:
        raise BadRun(folder, f"cannot be read ({error})", "fit first") from error
    if facts["cohort_fingerprint"] != fingerprint:
        raise BadRun(folder, "it was trained on another cohort", "name that one")
    return config, facts


def read_epochs(folder: Path, number: int) -> tuple[Epoch, ...]:
    """The epochs that a fold has behind it."""
    path = folder / f"fold_{number}" / METRICS
    if not path.exists():
        return ()
    with path.open(newline="") as stream:
        return tuple(
            Epoch(int(row.pop("epoch")), **{name: float(value) for name, value in row.items()})
            for row in csv.DictReader(stream)
        )


def is_taken(folder: Path, number: int) -> bool:
    """Whether some process is at work on a fold."""
    try:
        with _alone(folder, number):
            return False
    except BadRun:
        return True


def is_done(folder: Path, number: int) -> bool:
    """Whether a fold has been trained to its end."""
    return (folder / f"fold_{number}" / DONE).exists()


@contextmanager
def _alone(folder: Path, number: int) -> Iterator[None]:
    """Keep other processes away from a fold; a killed one keeps nobody away."""
    place = folder / f"fold_{number}"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for it, or stop it"
            raise BadRun(folder, f"fold {number} is being trained already", remedy) from error
        yield


def _resume(learner: Learner, place: Path) -> None:
    if (place / CHECKPOINT).exists():
        # weights_only: unpickling anything else would run code from the file.
        learner.restore(torch.load(place / CHECKPOINT, weights_only=True, map_location="cpu"))
        # Killed between the two writes, the metrics would lack the last epoch.
        _write_metrics(place, learner.history)


def _finish(place: Path, learner: Learner, cohort: Cohort, config: TrainingConfig) -> None:
    """Write what the fold found; its last file says that it is done."""
    columns: dict[str, Values] = {}
    for kind, weights in learner.weights().items():
        _write(place / f"{kind}.safetensors", serialise_tensors(weights))
        learner.network.load_state_dict(weights)
        columns[kind] = learner.log_odds(learner.network, learner.held_out)
        if kind == config.fit.honest:
            reference = vars(learner.reference(learner.network))
            arrays = {name: np.ascontiguousarray(each) for name, each in reference.items()}
            _write(place / REFERENCE, serialise_arrays(arrays))
    exams = [cohort.exams[index] for index in learner.held_out]
    rows = [
        [exam.exam, exam.label, *(repr(float(columns[kind][place])) for kind in KINDS)]
        for place, exam in enumerate(exams)
    ]
    _write(place / PREDICTIONS, _csv(["exam", "label", *KINDS], rows))
    write_json(place / DONE, {"epochs": len(learner.history)})
    (place / CHECKPOINT).unlink(missing_ok=True)


def _read_fold(folder: Path, number: int, index: Mapping[str, int]) -> FoldResult:
    place = folder / f"fold_{number}"
    if not is_done(folder, number):
        done = len(read_epochs(folder, number))
        remedy = f"go on with it: python -m trainer fit --fold {number}"
        raise BadRun(folder, f"fold {number} is not done ({done} epochs)", remedy)
    try:
        with (place / PREDICTIONS).open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        return FoldResult(
            number=number,
            folder=place,
            held_out=np.array([index[row["exam"]] for row in rows], dtype=np.int64),
            log_odds={kind: np.array([float(row[kind]) for row in rows]) for kind in KINDS},
            metrics=read_epochs(folder, number),
            reference=Reference(**load_arrays(place / REFERENCE)),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        remedy = f"remove fold_{number} and fit it again"
        raise BadRun(folder, f"fold {number} cannot be read ({error})", remedy) from error


def _write_metrics(place: Path, history: Sequence[Epoch]) -> None:
    if not history:
        return
    rows = [[repr(value) for value in vars(epoch).values()] for epoch in history]
    _write(place / METRICS, _csv(list(vars(history[0])), rows))


def _csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step, after its content is on the disk."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(path)


def _serialised(state: Mapping[str, Any]) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def _without_speed(config: dict[str, Any]) -> dict[str, Any]:
    """What must not change within a run: everything but how fast it goes."""
    return {name: value for name, value in config.items() if name != "speed"}


def environment() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {name: version(name) for name in DISTRIBUTIONS}
    return found | {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
