"""Which exams are held out together: drawn once, written down, never drawn again.

Folds are stratified by label and keep each patient whole: an exam of a patient whom a member was
trained on tells nothing about how that member judges strangers.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from trainer.cohort import BadCohort, Examined, write_json

FOLDS: Final = "folds.json"

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Folds:
    """A partition of a cohort.

    Attributes:
        held_out: indices of the exams of each fold, ascending.
        sha256: digest of the partition, by the exams' names.
    """

    held_out: tuple[Indices, ...]
    sha256: str

    def train(self, number: int) -> Indices:
        """Indices of the exams that a fold is trained on: all that it does not hold out."""
        others = [fold for other, fold in enumerate(self.held_out) if other != number]
        return np.sort(np.concatenate(others))

    def __len__(self) -> int:
        """Number of folds."""
        return len(self.held_out)


def draw_folds(cohort: Examined, count: int, seed: int) -> Folds:
    """Draw folds: patients whole, labels in the same ratio.

    Raises:
        ValueError: fewer patients of a label than folds.
    """
    for label, name in ((0, "negative"), (1, "positive")):
        patients = len(set(cohort.groups[cohort.labels == label]))
        if patients < count:
            raise ValueError(f"{patients} {name} patients do not fill {count} folds")
    held_out = split(cohort.labels, cohort.groups, count, seed)
    return Folds(held_out, _digest(_names(cohort, held_out)))


def split(labels: Indices, groups: Indices, count: int, seed: int) -> tuple[Indices, ...]:
    """Indices of the exams that each fold holds out: patients whole, labels in the same ratio."""
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    parts = splitter.split(labels, labels, groups)
    return tuple(np.sort(part).astype(np.int64) for _, part in parts)


def settle_folds(folder: Path, cohort: Examined, count: int, seed: int) -> Folds:
    """The folds of a cohort's folder; drawn and written there the first time.

    Raises:
        BadCohort: what is written there is of another cohort, another number of folds, or was
            altered.
    """
    path = folder / FOLDS
    if not path.exists():
        _write(path, cohort, _drawn(folder, cohort, count, seed), seed)
    folds = read_folds(folder, cohort)
    if len(folds) != count:
        found = f"{FOLDS} has {len(folds)} folds, and {count} are asked for"
        raise BadCohort(folder, found, f"ask for {len(folds)}, or gather into a new folder")
    return folds


def read_folds(folder: Path, cohort: Examined) -> Folds:
    """The folds that were settled on.

    Raises:
        BadCohort: there are none, they are of another cohort, they leak, or they were altered.
    """
    remedy = f"remove {FOLDS} to draw anew; what was trained on the old ones cannot be compared"
    try:
        written = json.loads((folder / FOLDS).read_bytes())
        names = [list(map(str, fold)) for fold in written["folds"]]
        index = {exam.exam: number for number, exam in enumerate(cohort.exams)}
        held_out = tuple(np.array(sorted(index[name] for name in fold)) for fold in names)
    except (OSError, ValueError, TypeError) as error:
        raise BadCohort(folder, f"{FOLDS} cannot be read ({error})", remedy) from error
    except KeyError as error:
        raise BadCohort(folder, f"{FOLDS} names {error}, which is not there", remedy) from error
    if _digest(_names(cohort, held_out)) != written.get("sha256"):
        raise BadCohort(folder, f"{FOLDS} was altered: its hash does not fit", remedy)
    folds = Folds(held_out, str(written["sha256"]))
    if complaint := _leak(cohort, folds):
        raise BadCohort(folder, f"{FOLDS}: {complaint}", remedy)
    return folds


def _drawn(folder: Path, cohort: Examined, count: int, seed: int) -> Folds:
    try:
        return draw_folds(cohort, count, seed)
    except ValueError as error:
        raise BadCohort(
            folder, str(error), "gather more patients, or ask for fewer folds"
        ) from error


def _write(path: Path, cohort: Examined, folds: Folds, seed: int) -> None:
    write_json(
        path,
        {
            "fingerprint": cohort.fingerprint,
            "seed": seed,
            "sha256": folds.sha256,
            "folds": _names(cohort, folds.held_out),
        },
    )


def _names(cohort: Examined, held_out: tuple[Indices, ...]) -> list[list[str]]:
    return [sorted(cohort.exams[index].exam for index in fold) for fold in held_out]


def _digest(names: list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _leak(cohort: Examined, folds: Folds) -> str | None:
    """What is wrong with a partition, in words."""
    everything = np.sort(np.concatenate(folds.held_out))
    if not np.array_equal(everything, np.arange(len(cohort))):
        return "not every exam is held out exactly once"
    for number, held_out in enumerate(folds.held_out):
        shared = set(cohort.groups[held_out]) & set(cohort.groups[folds.train(number)])
        if shared:
            return f"{len(shared)} patients of fold {number} are in other folds as well"
    return None
