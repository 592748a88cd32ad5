"""A synthetic cohort for the infection analysis, as a lab would hand over its own.

    folder/
      studies/0000/0001.dcm ...          one patient's axial T2 each
      regions/0000/ventricles.nii.gz     what a reader would have drawn, and sublentiform.nii.gz
      labels.csv                         label, site, scanner, sex, age, regions; written last

The abstract of Cüce 2025 tells nothing of ages: persons are those of the other analysis' cohort. A
cartoon, for testing software and the sanity of learning only, never for claims. Everything follows
from the seed, and patient n is the same whatever the size of the cohort.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from trainer.infection import InfectionCase, draw_infection
from trainer.phantom_study import Visit, patient_id, study_uid, write_axial, write_regions
from trainer.phantom_t2 import MATRIX, render_t2
from trainer.scanner import SCANNERS, T2_SCANNERS, Scanner
from trainer.shapes import Point
from trainer.synthesize import MOST_PATIENTS, draw_scanner, draw_visit, hand_over

# Far beyond the seeds of the other analysis' cohorts.
FIRST_SEED: Final = 10_000_000_000_000
PERSON_STREAM: Final = 3  # phantom.py draws from streams 0 to 2, phantom_t2.py from 4 on
# Radiographers plan along the commissures, and miss by a few degrees about each axis.
PLAN_DEVIATION_DEG: Final = 2.0
COLUMNS: Final = ("patient", "study", "label", "site", "scanner", "sex", "age_years", "regions")


@dataclass(frozen=True)
class InfectionPatient:
    """One synthetic patient with one axial T2.

    Attributes:
        number: counts from 0 within the cohort.
        case: head and signs.
        scanner: that saw it.
        visit: what the headers say of the person and the day.
        plan_deg: turn of the slices about x, y and z.
    """

    number: int
    case: InfectionCase
    scanner: Scanner
    visit: Visit
    plan_deg: Point


def synthesize_infection(
    folder: Path,
    patients: int,
    seed: int,
    severity: float,
    on_progress: Callable[[int, int], None],
    processes: int,
    matrix: int = MATRIX,
) -> Path:
    """Write a cohort of DICOM studies, their regions and its table of labels.

    Args:
        folder: new or empty.
        patients: how many, up to MOST_PATIENTS; every other one is positive.
        seed: of everything.
        severity: factor on the effect; at 1, accuracy can come near the paper's.
        on_progress: called with the patients done and to do.
        processes: writing at a time.
        matrix: pixels of a slice, either way; fewer are quicker, and blur texture.

    Returns:
        The path of the table.

    Raises:
        FolderInUse: `folder` is not empty.
    """
    everyone = [draw_infection_patient(number, seed, severity) for number in range(patients)]
    write = partial(_write, folder=folder, matrix=matrix)
    return hand_over(folder, everyone, write, COLUMNS, _row, on_progress, processes)


def draw_infection_patient(number: int, seed: int, severity: float = 1.0) -> InfectionPatient:
    """Draw one patient of a cohort.

    Args:
        number: below MOST_PATIENTS; odd ones are positive.
        seed: of the cohort.
        severity: factor on the effect.
    """
    own_seed = FIRST_SEED + seed * MOST_PATIENTS + number
    rng = np.random.default_rng([own_seed, PERSON_STREAM])
    case = draw_infection(own_seed, number % 2 == 1, severity)
    site, scanner = draw_scanner(rng)
    visit = draw_visit(rng, site)
    about_x, about_y, about_z = rng.normal(0, PLAN_DEVIATION_DEG, 3)
    t2 = T2_SCANNERS[SCANNERS.index(scanner)]
    plan = float(about_x), float(about_y), float(about_z)
    return InfectionPatient(number, case, t2, visit, plan)


def _write(patient: InfectionPatient, folder: Path, matrix: int) -> None:
    phantom = render_t2(patient.case, matrix, patient.scanner, patient.plan_deg)
    write_axial(phantom, patient.visit, folder / "studies" / f"{patient.number:04}")
    write_regions(phantom, folder / "regions" / f"{patient.number:04}")


def _row(patient: InfectionPatient) -> dict[str, str]:
    return {
        "patient": patient_id(patient.case),
        "study": study_uid(patient.case, patient.scanner),
        "label": "positive" if patient.case.positive else "negative",
        "site": patient.visit.institution,
        "scanner": f"{patient.scanner.manufacturer} {patient.scanner.model}",
        "sex": patient.visit.sex,
        "age_years": str(patient.visit.age_years),
        "regions": f"regions/{patient.number:04}",
    }
