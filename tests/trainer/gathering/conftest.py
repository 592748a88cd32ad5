"""A small hospital archive on disk: phantoms under planted names, scouts, a spine, other files."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from trainer.gathering.table import LabelRow
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import NOBODY, study_uid, write_slices

SALT = b"a salt for tests"


@dataclass(frozen=True)
class Planted:
    """One study, and all that must not be found in a cohort."""

    patient: str
    name: str
    accession: str
    day: str
    born: str
    uid: str
    folder: Path

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.rglob("*.dcm"))


@dataclass(frozen=True)
class Archive:
    root: Path
    studies: Mapping[str, Planted]

    def __getitem__(self, name: str) -> Planted:
        return self.studies[name]


# name: patient, patient's name, accession number, study date, birth date
PLANTED = {
    "ann early": ("HN-700001", "DOE^ANN", "ACC-10001", "20240110", "19310615"),
    "ann late": ("HN-700001", "DOE^ANN", "ACC-10002", "20240305", "19310615"),
    "bob": ("HN-700002", "ROE^BOB", "ACC-20001", "20240201", "19840229"),
    "cyd": ("HN-700003", "POE^CYD", "ACC-30001", "20240202", "20000101"),
}


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Four studies of three patients, each in a folder of its own nesting, with a scout."""
    root = tmp_path_factory.mktemp("archive")
    phantom = render(draw_case(1, positive=True, spectrum=OVERT), spacing_mm=2.4)
    rng = np.random.default_rng(0)
    studies = {}
    for number, (name, facts) in enumerate(PLANTED.items()):
        noise = rng.integers(0, 20, phantom.voxels.shape)  # or all would be the same images
        case = draw_case(number, positive=True, spectrum=OVERT)
        one = dataclasses.replace(phantom, case=case, voxels=phantom.voxels + noise)
        planted = Planted(*facts, study_uid(case), root / f"{facts[1]} {number}" / "deep" / "er")
        write_slices(one, NOBODY, planted.folder / "t1")
        identify(planted)
        write_scout(planted)
        studies[name] = planted
    (root / "README.txt").write_text("not DICOM")
    (root / "DICOMDIR.bak").write_bytes(bytes(128) + b"DICM")
    return Archive(root, studies)


def identify(planted: Planted) -> None:
    for path in planted.files:
        dataset = dcmread(path)
        dataset.PatientID, dataset.PatientName = planted.patient, planted.name
        dataset.AccessionNumber = planted.accession
        dataset.PatientBirthDate, dataset.PatientSex = planted.born, "F"
        dataset.InstitutionName = "ELSEWHERE HOSPITAL"
        for kind in ("Study", "Series", "Acquisition", "Content"):
            setattr(dataset, f"{kind}Date", planted.day)
        dataset.save_as(path)


def write_scout(planted: Planted, edit: Callable[[Dataset], None] = lambda _dataset: None) -> None:
    """Three slices of a localizer, made from slices of the T1."""
    series = generate_uid(entropy_srcs=[planted.uid, "scout"])
    folder = planted.folder.parent / "scout"
    folder.mkdir(parents=True)
    for number, path in enumerate(planted.files[:3]):
        dataset = dcmread(path)
        dataset.SeriesInstanceUID = series
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SeriesDescription, dataset.ProtocolName = "LOCALIZER", "LOCALIZER"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        edit(dataset)
        dataset.save_as(folder / f"{number}")


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., str]:
    """Writes an edited copy of some slices as a study of its own; returns its UID."""

    def write(files: list[Path], edit: Callable[[Dataset], None], to: Path, **changes: str) -> str:
        fresh: dict[str, str] = {}
        to.mkdir(parents=True)
        for path in files:
            dataset = dcmread(path)
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                old = str(dataset[keyword].value)
                dataset[keyword].value = fresh.setdefault(old, generate_uid())
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            for keyword, value in changes.items():
                setattr(dataset, keyword, value)
            edit(dataset)
            dataset.save_as(to / f"{dataset.SOPInstanceUID}.dcm")
        return str(dataset.StudyInstanceUID)

    return write


@pytest.fixture(scope="session")
def row() -> Callable[..., LabelRow]:
    """A row about a patient or one study."""

    def make(number: int, patient: str, study: str = "", **facts: object) -> LabelRow:
        fields: dict[str, object] = {"label": "positive", **facts}
        return LabelRow(number=number, patient=patient, study=study, **fields)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def salt() -> bytes:
    return SALT
