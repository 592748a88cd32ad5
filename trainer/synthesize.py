"""A synthetic cohort, as a lab would hand over its own: DICOM studies and a table of labels.

    folder/
      studies/0000/0001.dcm ...   one patient's MRI each
      labels.csv                  label, Bern items, site, scanner, sex, age, dates; written last

A cartoon, for testing software and the sanity of learning only, never for claims. Everything
follows from the seed, and patient n is the same whatever the size of the cohort.
"""

import csv
import datetime
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from listener.errors import MonroError
from trainer.bern import BernItems
from trainer.phantom import NORMAL_MRI, SPACING_MM, Case, Spectrum, draw_case, render
from trainer.phantom_study import Visit, patient_id, study_uid, write_slices
from trainer.scanner import CARINA, HALO, LYRA, NIMBUS, Scanner

# Seeds far from those of the demo's phantoms (0 and up) and of its trials (1,000,000 and up).
FIRST_SEED: Final = 10_000_000
MOST_PATIENTS: Final = 100_000
PERSON_STREAM: Final = 3  # phantom.py draws from streams 0, 1 and 2

# In the seed paper (Faghani 2024) the Bern score has an AUROC of 0.80. Whoever shows all signs
# together is found by it at .89, and smaller signs do not change that (.87 at size 0): dura and
# sinuses count once they are there. So each patient with a slow leak shows only some of the
# signs, and at this size the AUROC is .802 (8,000 patients of either kind).
SEVERITY: Final = 0.7
SLOW_LEAKS_WITH_FEW_SIGNS: Final = 1.0
# Some of the signs may be one that the patient lacks (2.6 %): with these, 19 % have a normal MRI.
SLOW_LEAKS_HIDDEN: Final = 0.168
# Fast leaks show all signs together: the score was derived on them (Dobrocky 2019).
FAST_LEAKS_WITH_FEW_SIGNS: Final = 0.0
FAST_LEAKS: Final = 0.15  # share of the positives; the seed paper excludes them, and so may a user

# Of Faghani 2024, Table 1: median age 54, quartiles 20 years apart, 23 to 87; 65 % women.
MEDIAN_AGE: Final = 54.0
AGE_DEVIATION: Final = 20 / 1.349  # a normal distribution's quartiles lie 1.349 deviations apart
AGES: Final = (23, 87)
WOMEN: Final = 0.65

FIRST_DAY: Final = datetime.date(2023, 1, 1)
DAYS: Final = 3 * 365
LONGEST_WAIT_DAYS: Final = 21  # from MRI to myelogram, one at least

SITES: Final[tuple[tuple[str, tuple[Scanner, ...]], ...]] = (
    ("North (synthetic)", (LYRA, CARINA)),
    ("Harbour (synthetic)", (HALO,)),
    ("Hill (synthetic)", (NIMBUS,)),
)

COLUMNS: Final = (
    "patient",
    "study",
    "label",
    "pachymeningeal_enhancement",
    "venous_engorgement",
    "suprasellar_mm",
    "subdural_fluid",
    "prepontine_mm",
    "mamillopontine_mm",
    "slec",
    "site",
    "scanner",
    "sex",
    "age_years",
    "myelogram_date",
)

Anybody = TypeVar("Anybody")


class FolderInUse(MonroError):
    """The folder for a synthetic cohort holds something already."""

    def __init__(self, folder: str, found: str) -> None:
        super().__init__(folder, found)
        self.folder, self.found = folder, found

    def __str__(self) -> str:
        return (
            f"folder {self.folder} holds {self.found} where nothing was expected: name a new "
            "folder, or delete this one if it is left from a synthesis that was stopped"
        )


@dataclass(frozen=True)
class Patient:
    """One synthetic patient with one examination.

    Attributes:
        number: counts from 0 within the cohort.
        case: head and signs.
        scanner: that saw it.
        visit: what the headers say of the person and the day.
        slec: has a spinal longitudinal extradural collection, the mark of a fast leak.
        wait_days: from MRI to myelogram.
    """

    number: int
    case: Case
    scanner: Scanner
    visit: Visit
    slec: bool
    wait_days: int


def synthesize(
    folder: Path,
    patients: int,
    seed: int,
    severity: float,
    few_signs: float,
    on_progress: Callable[[int, int], None],
    processes: int,
    spacing_mm: float = SPACING_MM,
) -> Path:
    """Write a cohort of DICOM studies and its table of labels.

    Args:
        folder: new or empty.
        patients: how many, up to MOST_PATIENTS; every other one is positive.
        seed: of everything.
        severity: factor on the size of signs; with SEVERITY and SLOW_LEAKS_WITH_FEW_SIGNS the Bern
            score is as good as the paper's.
        few_signs: share of the slow leaks that show only some of the signs.
        on_progress: called with the patients done and to do.
        processes: writing at a time.
        spacing_mm: of pixels.

    Returns:
        The path of the table.

    Raises:
        FolderInUse: `folder` is not empty.
    """
    everyone = [draw_patient(number, seed, severity, few_signs) for number in range(patients)]
    write = partial(_write, folder=folder, spacing_mm=spacing_mm)
    return hand_over(folder, everyone, write, COLUMNS, _row, on_progress, processes)


def hand_over(
    folder: Path,
    everyone: Sequence[Anybody],
    write: Callable[[Anybody], None],
    columns: Sequence[str],
    row: Callable[[Anybody], Mapping[str, str]],
    on_progress: Callable[[int, int], None],
    processes: int,
) -> Path:
    """Write studies and, once they are all there, the table of labels.

    Args:
        folder: new or empty.
        everyone: the patients; one at least.
        write: one patient's files; it goes to other processes.
        columns: of the table.
        row: of the table, for one patient.
        on_progress: called with the patients done and to do.
        processes: writing at a time.

    Returns:
        The path of the table.

    Raises:
        FolderInUse: `folder` is not empty.
    """
    _claim(folder)
    with multiprocessing.get_context("forkserver").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(write, everyone), start=1):
            on_progress(done, len(everyone))
    return _write_table(map(row, everyone), columns, folder / "labels.csv")


def draw_patient(
    number: int,
    seed: int,
    severity: float = SEVERITY,
    few_signs: float = SLOW_LEAKS_WITH_FEW_SIGNS,
) -> Patient:
    """Draw one patient of a cohort.

    Args:
        number: below MOST_PATIENTS; odd ones are positive.
        seed: of the cohort.
        severity: factor on the size of signs.
        few_signs: share of the slow leaks that show only some of the signs.
    """
    own_seed = FIRST_SEED + seed * MOST_PATIENTS + number
    rng = np.random.default_rng([own_seed, PERSON_STREAM])
    positive = number % 2 == 1
    fast = positive and bool(rng.random() < FAST_LEAKS)
    case = draw_case(own_seed, positive, _spectrum(fast, severity, few_signs))
    site, scanner = draw_scanner(rng)
    visit = draw_visit(rng, site)
    return Patient(number, case, scanner, visit, fast, int(rng.integers(1, LONGEST_WAIT_DAYS + 1)))


def bern_items(case: Case) -> BernItems:
    """The items of the Bern score that were planted, as a perfect reader would report them."""
    shown = case.shown
    return BernItems(
        pachymeningeal_enhancement=shown.dura_gain != case.usual.dura_gain,
        venous_engorgement=shown.sinus_round,
        suprasellar_mm=round(shown.suprasellar_mm, 2),
        subdural_fluid=shown.subdural_mm > 0,
        prepontine_mm=round(shown.prepontine_mm, 2),
        mamillopontine_mm=round(shown.mamillopontine_mm, 2),
    )


def _spectrum(fast: bool, severity: float, few_signs: float) -> Spectrum:
    """How the disease shows in patients with a fast or a slow leak."""
    if fast:
        return Spectrum(NORMAL_MRI, FAST_LEAKS_WITH_FEW_SIGNS, severity)
    return Spectrum(SLOW_LEAKS_HIDDEN, few_signs, severity)


def _claim(folder: Path) -> None:
    """Create the folder, or make sure that it is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    found = next(folder.iterdir(), None)
    if found is not None:
        raise FolderInUse(str(folder), found.name)


def draw_scanner(rng: np.random.Generator) -> tuple[str, Scanner]:
    """Draw a site and one of its scanners; all scanners are equally busy."""
    choices = [(site, scanner) for site, scanners in SITES for scanner in scanners]
    return choices[int(rng.integers(len(choices)))]


def draw_visit(rng: np.random.Generator, site: str) -> Visit:
    """Draw a person and a day."""
    sex = "F" if rng.random() < WOMEN else "M"
    age_years = int(np.clip(rng.normal(MEDIAN_AGE, AGE_DEVIATION), *AGES))
    day = FIRST_DAY + datetime.timedelta(days=int(rng.integers(DAYS)))
    return Visit(sex, age_years, f"{day:%Y%m%d}", site)


def _write(patient: Patient, folder: Path, spacing_mm: float) -> None:
    phantom = render(patient.case, spacing_mm, patient.scanner)
    write_slices(phantom, patient.visit, folder / "studies" / f"{patient.number:04}")


def _write_table(rows: Iterable[Mapping[str, str]], columns: Sequence[str], path: Path) -> Path:
    """Write the table under another name first: whoever finds it finds all of it."""
    unfinished = path.with_suffix(".partial")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return unfinished.rename(path)


def _row(patient: Patient) -> dict[str, str]:
    items = bern_items(patient.case)
    return {
        "patient": patient_id(patient.case),
        "study": study_uid(patient.case, patient.scanner),
        "label": "positive" if patient.case.positive else "negative",
        "pachymeningeal_enhancement": _yes_no(items.pachymeningeal_enhancement),
        "venous_engorgement": _yes_no(items.venous_engorgement),
        "suprasellar_mm": f"{items.suprasellar_mm:.2f}",
        "subdural_fluid": _yes_no(items.subdural_fluid),
        "prepontine_mm": f"{items.prepontine_mm:.2f}",
        "mamillopontine_mm": f"{items.mamillopontine_mm:.2f}",
        "slec": _yes_no(patient.slec),
        "site": patient.visit.institution,
        "scanner": f"{patient.scanner.manufacturer} {patient.scanner.model}",
        "sex": patient.visit.sex,
        "age_years": str(patient.visit.age_years),
        "myelogram_date": _myelogram_date(patient),
    }


def _yes_no(found: bool | None) -> str:
    return "yes" if found else "no"


def _myelogram_date(patient: Patient) -> str:
    examined = datetime.date.fromisoformat(patient.visit.date)
    return (examined + datetime.timedelta(days=patient.wait_days)).isoformat()
