"""A cohort on disk and in memory: prepared volumes with labels, without patients' identities.

    cohort/
      cohort.json              how volumes were prepared, who was left out and why, fingerprint
      exams.json               one entry per exam: label and facts
      folds.json               which exams are held out together (folds.py)
      volumes/<sha256>.npy     float16, content-addressed

An exam is one MRI examination of a patient, reduced to one prepared volume. All of a patient's
exams fall into the same fold.
"""

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from listener.errors import MonroError
from trainer.bern import BernItems, bern_score
from trainer.flow import Flow
from worker.crops import CropRecipe
from worker.preprocess import Recipe

COHORT: Final = "cohort.json"
EXAMS: Final = "exams.json"
VOLUMES: Final = "volumes"

Voxels = NDArray[np.float16]
AnyRecipe = TypeVar("AnyRecipe", Recipe, CropRecipe)


class BadCohort(MonroError):
    """A cohort folder that must not be trained on: what was found, and what to do."""

    def __init__(self, folder: Path, found: str, remedy: str) -> None:
        super().__init__(folder, found, remedy)
        self.folder, self.found, self.remedy = folder, found, remedy

    def __str__(self) -> str:
        return f"cohort {self.folder}: {self.found}; {self.remedy}"


@dataclass(frozen=True)
class Exam:
    """One de-identified MRI examination with its label.

    Attributes:
        exam: salted hash of the Study Instance UID.
        patient: salted hash of the patient's identifier.
        label: 1 positive, 0 negative.
        volume: sha256 that names the file of what was kept of the images: float16 voxels, or
            views of regions (regional/cohort.py).
        bern: items of the Bern score as far as they are known.
        given_bern: the score itself, where a reader gave it without its items.
        site: where it was acquired.
        scanner: manufacturer and model.
        field_tesla: field strength.
        sex: F, M, O or empty.
        age_years: at the exam; 90 for anybody older than 89.
        days_to_myelogram: from exam to myelogram.
        leak: slow (no epidural collection), fast (with one) or empty.
        columns: free columns of the label table that the user asked to keep.
    """

    exam: str
    patient: str
    label: int
    volume: str
    bern: BernItems = field(default_factory=BernItems)
    given_bern: int | None = None
    site: str = ""
    scanner: str = ""
    field_tesla: float | None = None
    sex: str = ""
    age_years: float | None = None
    days_to_myelogram: int | None = None
    leak: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def bern_range(self) -> tuple[int, int] | None:
        """Lowest and highest Bern score that the known items allow; None if nothing is known."""
        if self.bern != BernItems():
            return bern_score(self.bern)
        return None if self.given_bern is None else (self.given_bern, self.given_bern)


class Examined:
    """Who is in a cohort, whatever was kept of their images; cohorts build on it."""

    exams: tuple[Exam, ...]
    recipe: Recipe | CropRecipe
    analysis: str
    flow: Flow

    def __len__(self) -> int:
        """Number of exams."""
        return len(self.exams)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,), 1 for positive."""
        return np.array([exam.label for exam in self.exams], dtype=np.int64)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """(N,), one number per patient."""
        numbers = np.unique([exam.patient for exam in self.exams], return_inverse=True)[1]
        return np.asarray(numbers, dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over everything that training and evaluation look at."""
        return _fingerprint(self.exams, self.recipe, self.analysis)


@dataclass(frozen=True, eq=False)
class Cohort(Examined):
    """Exams ready for training.

    Attributes:
        exams: N of them.
        voxels: float16 (N, X, Y, Z) in the order of the exams; exact, since prepared volumes are
            rounded to float16.
        recipe: how they were prepared.
        analysis: what the labels are about.
        flow: who was left out on the way, and why.
    """

    exams: tuple[Exam, ...]
    voxels: Voxels
    recipe: Recipe
    analysis: str = "fistula"
    flow: Flow = field(default_factory=Flow)


def digest(voxels: Voxels) -> str:
    """The sha256 that names a volume: over its bytes and its shape."""
    content = f"{voxels.dtype} {voxels.shape} ".encode() + np.ascontiguousarray(voxels).tobytes()
    return hashlib.sha256(content).hexdigest()


def save_volume(folder: Path, voxels: Voxels) -> str:
    """Keep a volume in a cohort's folder, once; safe to be killed.

    Returns:
        Its digest, which names the file.
    """
    name = digest(voxels)
    path = volume_path(folder, name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(path)
        with partial.open("wb") as stream:
            np.save(stream, voxels)
        partial.rename(path)
    return name


def volume_path(folder: Path, name: str) -> Path:
    """Where a cohort's folder keeps the volume of this digest."""
    return folder / VOLUMES / f"{name}.npy"


def write_cohort(
    folder: Path, exams: Sequence[Exam], recipe: Recipe | CropRecipe, analysis: str, flow: Flow
) -> None:
    """Write what a cohort is, its volumes or views being there already."""
    ordered = sorted(exams, key=lambda exam: exam.exam)
    facts = {
        "analysis": analysis,
        "recipe": dataclasses.asdict(recipe),
        "fingerprint": _fingerprint(ordered, recipe, analysis),
        "flow": flow.to_json(),
    }
    write_json(folder / EXAMS, [dataclasses.asdict(exam) for exam in ordered])
    write_json(folder / COHORT, facts)


def read_cohort(folder: Path) -> Cohort:
    """Read a cohort with all its volumes.

    Raises:
        BadCohort: it is not complete, or was altered.
    """
    with readable(folder):
        exams, recipe, facts = read_exams(folder, Recipe)
        voxels = _read_volumes(folder, exams)
    return Cohort(exams, voxels, recipe, str(facts["analysis"]), Flow.from_json(facts["flow"]))


def analysis_of(folder: Path) -> str:
    """What the labels of a cohort are about.

    Raises:
        BadCohort: it is not complete.
    """
    with readable(folder):
        return str(json.loads((folder / COHORT).read_bytes())["analysis"])


def read_exams(
    folder: Path, kind: type[AnyRecipe]
) -> tuple[tuple[Exam, ...], AnyRecipe, dict[str, Any]]:
    """The exams of a cohort, its recipe, and the content of cohort.json.

    Args:
        folder: of the cohort.
        kind: of its recipe.

    Raises:
        ValueError: it is not what was written.
    """
    facts = json.loads((folder / COHORT).read_bytes())
    exams = TypeAdapter(tuple[Exam, ...]).validate_json((folder / EXAMS).read_bytes())
    if not exams:
        raise ValueError("it has no exam")
    recipe = TypeAdapter(kind).validate_python(facts["recipe"])
    if _fingerprint(exams, recipe, facts["analysis"]) != facts["fingerprint"]:
        raise ValueError(f"{EXAMS} was altered since {COHORT} was written")
    return exams, recipe, facts


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn what can go wrong in reading a cohort into BadCohort."""
    try:
        yield
    except (OSError, ValueError, KeyError, ValidationError) as error:
        again = "gather it again: python -m trainer gather"
        raise BadCohort(folder, f"cannot be read ({error})", again) from error


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step: a reader finds the old one or the new one."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """The same for any content; folders are made where they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    partial.write_bytes(content)
    partial.rename(path)


def _partial(path: Path) -> Path:
    """A name that no other process has, on this machine or another: in a pod everybody is PID 1."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")


def _read_volumes(folder: Path, exams: Sequence[Exam]) -> Voxels:
    volumes = [np.load(volume_path(folder, exam.volume), allow_pickle=False) for exam in exams]
    for exam, volume in zip(exams, volumes, strict=True):
        if digest(volume) != exam.volume:
            raise ValueError(f"the volume of exam {exam.exam} is not what was gathered")
    return np.stack(volumes)


def _fingerprint(exams: Sequence[Exam], recipe: Recipe | CropRecipe, analysis: str) -> str:
    facts = [analysis, dataclasses.asdict(recipe), [dataclasses.asdict(exam) for exam in exams]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
