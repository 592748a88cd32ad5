"""The calibration of a bundle in service, fitted anew to exams that were labelled since.

Weights stay. One factor on all temperatures is fitted to the probability that the service reports,
the mean over all members, and then the thresholds and conformal sets. So the calibration of the
ensemble is no longer unverified: it is measured here, each patient judged with a factor that owes
nothing to that patient.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ValidationError
from scipy import optimize, special

from trainer.cohort import Examined
from trainer.compare import FEWEST
from trainer.export import CannotExport, rewrite_operation
from trainer.operation import Labels, Operation, Values, limits
from trainer.settings import StatementConfig
from trainer.statistics import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, brier
from trainer.subject import Subject, require_fit, seen_in_training
from worker.bundle import Bundle
from worker.seal import METADATA

# Cross-entropies this close are equal: where the sharpest does as well, there is no optimum.
NO_DIFFERENCE: Final = 1e-6


class CannotRecalibrate(CannotExport):
    """A bundle that keeps its calibration: what stands in the way, and what to do."""


@dataclass(frozen=True)
class Recalibration:
    """What a new calibration is worth, by Brier score (lower is better) on the same exams.

    Attributes:
        exams: labelled, none of them trained on.
        patients: whose they are.
        factor: on all temperatures; above 1 the bundle was too sure of itself.
        brier_before: of the probabilities in service.
        brier_after: of the new ones, each patient judged without the factor having seen them.
    """

    exams: int
    patients: int
    factor: float
    brier_before: float
    brier_after: float

    def __str__(self) -> str:
        return (
            f"fitted to the whole ensemble on {self.exams} exams of {self.patients} patients that "
            f"no member was trained on; Brier score {self.brier_before:.3f} before and "
            f"{self.brier_after:.3f} after, each patient judged without being fitted to"
        )


def recalibrate(
    subject: Subject,
    folder: Path,
    version: str,
    command: str,
    on_progress: Callable[[int, int], None],
) -> Recalibration:
    """Write a bundle with the same weights and a calibration of its own.

    Regions get a factor each; thresholds and worth are about the one that decides.

    Args:
        subject: the bundle in service, and labelled exams such as `gather --ledger` brings them.
        folder: of the new bundle; created.
        version: of the new bundle, other than the old one's.
        command: that made it.
        on_progress: called with the exams judged, and how many there are.

    Raises:
        NotComparable: the cohort does not fit the bundle.
        CannotRecalibrate: exams are too few, or were trained on; or the folder or the version is
            taken.
    """
    bundle, cohort = subject.bundle, subject.cohort
    require_fit(subject)
    _require_enough(subject)
    if folder.exists():
        raise CannotRecalibrate(folder, "it is there already", "name a new folder, or remove it")
    if version in _versions(bundle):
        found = f"version {version} is or was that of the bundle in service"
        raise CannotRecalibrate(folder, found, "name a higher one: reports tell them apart by it")
    odds = _log_odds(subject, on_progress)
    old = {name: np.array(each) for name, each in subject.temperatures.items()}
    factors = {name: best_factor(cohort.labels, odds[name], old[name]) for name in old}
    new = {name: tuple((old[name] * factors[name]).tolist()) for name in old}
    decisive = subject.decisive
    worth = Recalibration(
        exams=len(cohort),
        patients=len(set(cohort.groups)),
        factor=factors[decisive],
        brier_before=brier(cohort.labels, _probabilities(odds[decisive], old[decisive])),
        brier_after=brier(cohort.labels, _left_out(cohort, odds[decisive], old[decisive])),
    )
    probabilities = _probabilities(odds[decisive], np.array(new[decisive]))
    settled = limits(cohort.labels, probabilities, new[decisive], _targets(bundle))
    _write(subject, folder, version, command, settled, new, worth)
    return worth


def best_factor(labels: Labels, log_odds: Values, temperatures: Values) -> float:
    """The factor on all temperatures with the least cross-entropy of the mean probability.

    Args:
        labels: (N,), 1 for positive.
        log_odds: (N, members), uncalibrated.
        temperatures: (members,).

    Returns:
        1 where sharper is always better: some twenty exams without an error do not settle it.
    """

    def loss(log_factor: float) -> float:
        stated = _probabilities(log_odds, temperatures * np.exp(log_factor))
        inside = np.clip(stated, np.finfo(float).tiny, 1 - np.finfo(float).epsneg)
        return float(-np.mean(np.where(labels == 1, np.log(inside), np.log1p(-inside))))

    bounds = float(np.log(LOWEST_TEMPERATURE)), float(np.log(HIGHEST_TEMPERATURE))
    best = float(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x)
    return float(np.exp(best)) if loss(bounds[0]) > loss(best) + NO_DIFFERENCE else 1.0


def _require_enough(subject: Subject) -> None:
    cohort = subject.cohort
    if seen := seen_in_training(subject):
        found = f"{seen} of these exams made this bundle what it is"
        remedy = "leave them out: a bundle cannot be measured on them"
        raise CannotRecalibrate(subject.bundle.folder, found, remedy)
    for label, name in ((1, "positive"), (0, "negative")):
        patients = len(set(cohort.groups[cohort.labels == label]))
        if patients < FEWEST:
            found = f"{patients} patients are {name}, and {FEWEST} are needed"
            raise CannotRecalibrate(subject.bundle.folder, found, "gather more labelled exams")


def _log_odds(subject: Subject, on_progress: Callable[[int, int], None]) -> dict[str, Values]:
    """(N, members), uncalibrated, by region."""
    found = []
    for exam in range(len(subject.cohort)):
        found.append(subject.log_odds(exam))
        on_progress(len(found), len(subject.cohort))
    return {name: np.array([each[name] for each in found]) for name in subject.temperatures}


def _probabilities(log_odds: Values, temperatures: Values) -> Values:
    """(N,) what the service reports."""
    means: Values = special.expit(log_odds / temperatures).mean(axis=1)
    return means


def _left_out(cohort: Examined, log_odds: Values, temperatures: Values) -> Values:
    """(N,) each patient's exams with the factor that fits all others best."""
    found = np.empty(len(cohort))
    for patient in np.unique(cohort.groups):
        theirs = cohort.groups == patient
        factor = best_factor(cohort.labels[~theirs], log_odds[~theirs], temperatures)
        found[theirs] = _probabilities(log_odds[theirs], temperatures * factor)
    return found


def _versions(bundle: Bundle) -> set[str]:
    """The version of a bundle, and those that it came from."""
    metadata = json.loads((bundle.folder / METADATA).read_bytes())
    return {bundle.version, *metadata.get("changelog", {})}


def _targets(bundle: Bundle) -> StatementConfig:
    """What the thresholds are to keep, as the bundle was made to."""
    folder = bundle.folder
    metadata = json.loads((folder / METADATA).read_bytes())
    try:
        return StatementConfig.model_validate(metadata["fit"]["statement"])
    except (KeyError, ValidationError) as error:
        found = "its metadata does not say what its thresholds are to keep"
        raise CannotRecalibrate(folder, found, "take a bundle that `export` wrote") from error


def _write(
    subject: Subject,
    folder: Path,
    version: str,
    command: str,
    settled: Operation,
    temperatures: Mapping[str, tuple[float, ...]],
    worth: Recalibration,
) -> None:
    """Copy the bundle and change what was fitted; nothing is left behind if that fails."""
    volumes = sorted(exam.volume for exam in subject.cohort.exams)
    how = f"{worth}; made with: {command}"
    try:
        shutil.copytree(subject.bundle.folder, folder)
        rewrite_operation(folder, settled, temperatures, version, how, volumes)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
