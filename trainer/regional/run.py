"""A run on disk: every model on every region, fold by fold.

    run/
      config.json  run.json               as in trainer/run.py
      REGION/MODEL/fold_0/slices.csv      log odds of the slices it has not been trained on
                          weights.safetensors
                          reference.safetensors   how its cohort looks to it
                          fold.json       what inner folds chose; written last: the fold is done

A fold is fitted within a minute in the demo and within hours as in the paper: one that was killed
begins anew, those that are done stay.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as serialise_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from trainer.cohort import write_bytes, write_json
from trainer.folds import Folds, read_folds
from trainer.loop import choose_device
from trainer.pool import spread
from trainer.regional.cohort import REGIONS, RegionalCohort, read_regional_cohort
from trainer.regional.nested import Material, Member, fit_member
from trainer.regional.patientwise import Slices, Thresholds
from trainer.regional.settings import RegionalConfig
from trainer.run import BadRun, read_start
from worker.bundle import Reference, Selected
from worker.seal import sha256

SLICES: Final = "slices.csv"
WEIGHTS: Final = "weights.safetensors"
REFERENCE: Final = "reference.safetensors"
DONE: Final = "fold.json"


@dataclass(frozen=True)
class Errand:
    """What a process needs to fit one member."""

    cohort: Path
    run: Path
    config: RegionalConfig
    region: str
    model: str
    fold: int

    @property
    def place(self) -> Path:
        """Where it leaves what it found."""
        return self.run / self.region / self.model / f"fold_{self.fold}"


@dataclass(frozen=True, eq=False)
class MemberResult:
    """One member as it lies on disk.

    Attributes:
        place: where.
        slices: that it had not seen.
        at: thresholds of the inner folds.
        selected: its features; None where it takes none.
        learning_rate: that the inner folds chose.
        epochs: the same.
        imagenet_sha256: of the file of first weights; None where these were random.
    """

    place: Path
    slices: Slices
    at: Thresholds
    selected: Selected | None
    learning_rate: float
    epochs: int
    imagenet_sha256: str | None

    def weights(self) -> dict[str, Tensor]:
        """Its state dict."""
        return dict(load_tensors(self.place / WEIGHTS))

    def reference(self) -> Reference:
        """How the cohort looks to it."""
        return Reference(**load_arrays(self.place / REFERENCE))


@dataclass(frozen=True, eq=False)
class RegionalRun:
    """All members of one nested cross-validation.

    Attributes:
        folder: where it lies.
        config: how it was fitted.
        facts: content of run.json.
        members: by region and model, one per outer fold.
    """

    folder: Path
    config: RegionalConfig
    facts: Mapping[str, Any]
    members: Mapping[tuple[str, str], tuple[MemberResult, ...]]


def fit_regions(
    cohort: Path,
    run: Path,
    config: RegionalConfig,
    folds: Iterable[int],
    processes: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """Fit every member that is not done.

    Args:
        cohort: its folder; folds are settled there already.
        run: folder of the run, started already.
        config: how.
        folds: numbers of the outer folds whose members are wanted.
        processes: members at a time.
        on_progress: called with the members done and to do.

    Raises:
        ProcessDied: one did; run again to go on.
    """
    errands = [
        Errand(cohort, run, config, region, model, fold)
        for model in config.models
        for fold in sorted(folds)
        for region in REGIONS
    ]
    waiting = [errand for errand in errands if not (errand.place / DONE).exists()]
    done = len(errands) - len(waiting)
    on_progress(done, len(errands))
    for _ in spread(run_errand, waiting, processes):
        done += 1
        on_progress(done, len(errands))


def run_errand(errand: Errand) -> None:
    """Fit one member and write down what came of it."""
    config = errand.config
    device = choose_device(config.speed)
    if device.type == "cpu":
        torch.set_num_threads(config.speed.threads)
    cohort, folds = _opened(errand.cohort)
    material = Material(cohort.views[errand.region], cohort.labels, cohort.groups)
    # The same seed for all models and regions: they differ by what they see and are alone.
    seed = config.fit.seed * 1000 + errand.fold
    held_out = folds.held_out[errand.fold]
    network = config.models[errand.model]
    member = fit_member(material, held_out, network, config, seed, device)
    _write(errand.place, member, cohort, network.imagenet)


def read_regional_run(folder: Path, cohort: RegionalCohort) -> RegionalRun:
    """Read a finished run.

    Raises:
        BadRun: there is none, a member is not done, or it is of another cohort.
    """
    config, facts = read_start(folder, RegionalConfig, cohort.fingerprint)
    index = {exam.exam: place for place, exam in enumerate(cohort.exams)}
    members = {
        (region, model): tuple(
            _read(folder, Path(region, model, f"fold_{fold}"), cohort, index)
            for fold in range(config.fit.folds)
        )
        for region in REGIONS
        for model in config.models
    }
    return RegionalRun(folder, config, facts, members)


@cache
def _opened(folder: Path) -> tuple[RegionalCohort, Folds]:
    """A cohort and its folds; a process fits many members on it."""
    cohort = read_regional_cohort(folder)
    return cohort, read_folds(folder, cohort)


def _write(place: Path, member: Member, cohort: RegionalCohort, imagenet: Path | None) -> None:
    exams = [cohort.exams[index] for index in member.slices.exam_of]
    stream = io.StringIO(newline="")
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["exam", "label", "log_odds"])
    for exam, odds in zip(exams, member.slices.log_odds, strict=True):
        table.writerow([exam.exam, exam.label, repr(float(odds))])
    write_bytes(place / SLICES, stream.getvalue().encode())
    weights = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in member.network.state_dict().items()
    }
    write_bytes(place / WEIGHTS, serialise_tensors(weights))
    arrays = {name: np.ascontiguousarray(each) for name, each in vars(member.reference).items()}
    write_bytes(place / REFERENCE, serialise_arrays(arrays))
    write_json(
        place / DONE,
        {
            "selected": _selected(member, cohort),
            "thresholds": asdict(member.at),
            "learning_rate": member.schedule.learning_rate,
            "epochs": member.schedule.epochs,
            "imagenet_sha256": imagenet and sha256(imagenet.read_bytes()),
        },
    )


def _selected(member: Member, cohort: RegionalCohort) -> dict[str, list[Any]] | None:
    if member.choice is None:
        return None
    names = cohort.recipe.radiomics.names
    return {
        "names": [names[column] for column in member.choice.columns],
        "mean": member.choice.mean.tolist(),
        "deviation": member.choice.deviation.tolist(),
    }


def _read(
    folder: Path, part: Path, cohort: RegionalCohort, index: Mapping[str, int]
) -> MemberResult:
    place = folder / part
    if not (place / DONE).exists():
        raise BadRun(folder, f"{part} is not done", "go on with it: python -m trainer fit --all")
    try:
        facts = json.loads((place / DONE).read_bytes())
        with (place / SLICES).open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        exam_of: NDArray[np.int64] = np.array([index[row["exam"]] for row in rows], dtype=np.int64)
        odds = np.array([float(row["log_odds"]) for row in rows])
        return MemberResult(
            place=place,
            slices=Slices(cohort.labels[exam_of], odds, exam_of),
            at=Thresholds(**facts["thresholds"]),
            selected=TypeAdapter(Selected | None).validate_python(facts["selected"]),
            learning_rate=float(facts["learning_rate"]),
            epochs=int(facts["epochs"]),
            imagenet_sha256=facts.get("imagenet_sha256"),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, ValidationError) as error:
        raise BadRun(
            folder, f"{part} cannot be read ({error})", "remove it and fit again"
        ) from error
