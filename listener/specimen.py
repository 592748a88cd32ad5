"""The synthetic study of a self-test: read, refused unless it calls itself synthetic, named anew.

`python -m trainer synthesize` makes such studies (trainer/phantom_study.py), and their headers say
so in three places. A patient's study says it in none of them, and is never sent by this.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from listener.errors import MonroError
from listener.series import BROKEN, SELFTEST_STATION

SYNTHETIC_FAMILY: Final = "PHANTOM"
SYNTHETIC_ID: Final = "PHANTOM-"
SYNTHETIC_STUDY: Final = "(SYNTHETIC)"

PATIENT_NAME: Final = "MONRO^SELFTEST"
PATIENT_ID: Final = "MONRO-SELFTEST"
DESCRIPTION: Final = f"MONRO SELFTEST {SYNTHETIC_STUDY}"

MOST_FILES: Final = 2000
"""A small study is meant; who names a whole archive by mistake is told so at once."""

RENAMED: Final = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "FrameOfReferenceUID",
)


class NoSpecimen(MonroError):
    """A folder holds no study that may be sent as a self-test."""

    def __init__(self, folder: str, found: str) -> None:
        super().__init__(folder, found)
        self.folder, self.found = folder, found

    def __str__(self) -> str:
        return (
            f"{self.folder} {self.found} where the DICOM files of one synthetic study were "
            "expected: name the folder of one patient that `python -m trainer synthesize` made, by "
            "--study or MONRO_SELFTEST_STUDY"
        )


def read_specimen(folder: Path) -> list[Dataset]:
    """The instances of the study below a folder; what is no DICOM file is passed over.

    Raises:
        NoSpecimen: there is none, or several, or one that is not synthetic.
    """
    found: list[Dataset] = []
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(paths) > MOST_FILES:
        raise NoSpecimen(str(folder), f"holds {len(paths)} files")
    for path in paths:
        try:
            dataset = dcmread(path)
        except InvalidDicomError:
            continue
        except BROKEN as error:
            raise NoSpecimen(
                str(folder), f"holds {path.name}, which cannot be read ({type(error).__name__})"
            ) from error
        if not is_synthetic(dataset):
            raise NoSpecimen(str(folder), f"holds {path.name}, which does not say it is synthetic,")
        found.append(dataset)
    studies = {str(dataset.StudyInstanceUID) for dataset in found}
    if len(studies) != 1:
        raise NoSpecimen(str(folder), f"holds {len(studies)} studies")
    return found


def is_synthetic(dataset: Dataset) -> bool:
    """Whether a header says so, as those of our synthetic studies do, in each of three places."""
    return (
        str(dataset.get("PatientName", "")).startswith(f"{SYNTHETIC_FAMILY}^")
        and str(dataset.get("PatientID", "")).startswith(SYNTHETIC_ID)
        and str(dataset.get("StudyDescription", "")).endswith(SYNTHETIC_STUDY)
    )


def stamp(instances: Sequence[Dataset], at: datetime) -> str:
    """Make a new study of today out of instances, in place; returns its Study Instance UID.

    UIDs are derived from random UUIDs (PS3.5 B.2); what had the same one has the same one again.
    """
    fresh: dict[str, str] = {}
    for dataset in instances:
        for keyword in RENAMED:
            if keyword in dataset:
                old = str(dataset[keyword].value)
                dataset[keyword].value = fresh.setdefault(old, f"2.25.{uuid.uuid4().int}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.PatientName, dataset.PatientID = PATIENT_NAME, PATIENT_ID
        dataset.StudyDescription, dataset.StationName = DESCRIPTION, SELFTEST_STATION
        for kind in ("Study", "Series", "Acquisition", "Content"):
            setattr(dataset, f"{kind}Date", at.strftime("%Y%m%d"))
            setattr(dataset, f"{kind}Time", at.strftime("%H%M%S"))
    return str(instances[0].StudyInstanceUID)
