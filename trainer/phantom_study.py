"""A phantom as a DICOM MR study, with its ground truth beside.

    folder/
      study/0001.dcm ...   MR Image Storage, one frame each: sagittal slices from right to left of a
                           phantom of phantom.py, axial ones from below upwards of phantom_t2.py
      truth.json           what was planted
      truth.npy            bool (X, Y, Z): where the T1 shows it; its affine is in truth.json
      regions/*.nii.gz     both regions of an axial T2

One study can hold both looks of one head: `write_axial` takes the study of `study_of`.

DICOM counts x towards the patient's left and y towards posterior (LPS), monro the other way (RAS).
Nothing comes from the clock or from chance: the same case on the same scanner makes the same files.
"""

import dataclasses
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from trainer.infection import InfectionCase
from trainer.nifti import nifti_image
from trainer.phantom import Case, Phantom, render, visible_signs
from trainer.phantom_t2 import THICKNESS_MM, AxialPhantom
from trainer.scanner import PHANTOM_SCANNER, Scanner

# Namespace of every UID made here (PS3.5 B.2: UUID-derived, no registration).
NAMESPACE: Final = uuid.UUID("6f1d0f5e-5ab4-4c0c-9d3c-6a2b7f0f9a11")
IMPLEMENTATION: Final = UID(f"2.25.{uuid.uuid5(NAMESPACE, 'implementation').int}")
DATE: Final = "20260101"
TIME: Final = "120000"
DECIMALS: Final = 6  # of lengths in mm: a DS holds 16 characters (PS3.5 6.2)

COMMON: Final[Mapping[str, str | list[str]]] = {
    "Modality": "MR",
    "StationName": "PHANTOM",
    "SoftwareVersions": "1",
    "BodyPartExamined": "BRAIN",
    "PatientPosition": "HFS",
    "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
    "ScanningSequence": "SE",
    "SequenceVariant": "SK",
    "ImagedNucleus": "1H",
    "NumberOfAverages": "1",
    "LossyImageCompression": "00",
    "BurnedInAnnotation": "NO",
}
# A fat-suppressed 3D turbo spin echo after gadolinium (Faghani 2024: TR 600, TE 7.2).
SAGITTAL_T1: Final = {
    "ScanOptions": "FS",
    "MRAcquisitionType": "3D",
    "EchoTrainLength": "30",
    "FlipAngle": "90",
    "ContrastBolusAgent": "GADOBUTROL (SYNTHETIC)",
    "ContrastBolusRoute": "IV",
    "ContrastBolusVolume": "7.5",
}
# A 2D turbo spin echo without contrast.
AXIAL_T2: Final = {
    "ScanOptions": "",
    "MRAcquisitionType": "2D",
    "EchoTrainLength": "15",
    "FlipAngle": "150",
}


@dataclass(frozen=True)
class Visit:
    """Who was examined, where and when, as the headers tell it.

    Attributes:
        sex: PatientSex, `M`, `F` or `O`.
        age_years: on the day of the examination; None leaves it out.
        date: of the examination, YYYYMMDD.
        institution: invented.
    """

    sex: str = "O"
    age_years: int | None = None
    date: str = DATE
    institution: str = ""


NOBODY: Final = Visit()


@dataclass(frozen=True)
class Study:
    """What all series of a study share.

    Attributes:
        uid: Study Instance UID.
        frame_uid: Frame of Reference UID: the head lay still.
        description: StudyDescription.
    """

    uid: str
    frame_uid: str
    description: str


@dataclass(frozen=True, eq=False)
class Series:
    """One look of a phantom, as a scanner would send it.

    Attributes:
        case: whose.
        scanner: that saw it.
        number: SeriesNumber.
        protocol: attributes of the sequence.
        planes: (slices, rows, columns), in order of instance number.
        lps: 4 x 4, (column, row, slice) -> LPS mm.
        letters: where columns and rows run to (PatientOrientation).
        thickness_mm: of a slice.
    """

    case: Case | InfectionCase
    scanner: Scanner
    number: int
    protocol: Mapping[str, str]
    planes: NDArray[np.float32]
    lps: NDArray[np.float64]
    letters: tuple[str, str]
    thickness_mm: float


def write_study(phantom: Phantom, folder: Path) -> list[Path]:
    """Write one T1 phantom's study and its ground truth.

    Args:
        phantom: what to write.
        folder: created where it is missing; a study of the same case is overwritten.

    Returns:
        The paths of the DICOM files, in order of instance number.
    """
    paths = write_slices(phantom, NOBODY, folder / "study")
    _write_truth(phantom, folder)
    return paths


def write_slices(phantom: Phantom, visit: Visit, folder: Path) -> list[Path]:
    """Write one T1 phantom's study without its ground truth.

    Args:
        phantom: what to write.
        visit: whose it is said to be.
        folder: for the slices; created where it is missing.

    Returns:
        The paths of the DICOM files, in order of instance number.
    """
    return _write(_sagittal(phantom), study_of(phantom), visit, folder)


def write_axial(
    phantom: AxialPhantom, visit: Visit, folder: Path, study: Study | None = None
) -> list[Path]:
    """Write the slices of one axial T2.

    Args:
        phantom: what to write.
        visit: whose it is said to be.
        folder: for the slices; created where it is missing.
        study: that it is a series of; without, one of its own.

    Returns:
        The paths of the DICOM files, in order of instance number.
    """
    return _write(_axial(phantom), study or study_of(phantom), visit, folder)


def write_regions(phantom: AxialPhantom, folder: Path) -> None:
    """Write both regions of an axial T2 as NIfTI masks, 0 and 1, on its grid."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in (("ventricles", phantom.ventricles), ("sublentiform", phantom.sublentiform)):
        image = nifti_image(mask.astype(np.uint8), phantom.affine)
        nibabel.save(image, folder / f"{name}.nii.gz")


def patient_id(case: Case | InfectionCase) -> str:
    """PatientID of a case and of its counterfactuals, and of other looks of the same head."""
    return f"PHANTOM-{case.seed}"


def study_of(phantom: Phantom | AxialPhantom) -> Study:
    """The study that a phantom's series is by itself."""
    case, scanner = phantom.case, phantom.scanner
    enhanced = " WITH CONTRAST" if isinstance(phantom, Phantom) else ""
    return Study(
        uid=study_uid(case, scanner),
        frame_uid=_uid(case, scanner, "frame of reference"),
        description=f"MRI BRAIN{enhanced} (SYNTHETIC)",
    )


def study_uid(case: Case | InfectionCase, scanner: Scanner = PHANTOM_SCANNER) -> str:
    """Study Instance UID of a case on a scanner; its counterfactuals have others."""
    return _uid(case, scanner, "study")


def _write(series: Series, study: Study, visit: Visit, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    common = _common(series, study, visit)
    paths = []
    for index in range(len(series.planes)):
        path = folder / f"{index + 1:04}.dcm"
        _slice(series, common, index).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _write_truth(phantom: Phantom, folder: Path) -> None:
    healthy = phantom.case.only()
    pixel_mm = float(phantom.affine[1, 1])
    truth = visible_signs(phantom, render(healthy, pixel_mm, phantom.scanner))
    np.save(folder / "truth.npy", truth)
    facts = dataclasses.asdict(phantom.case) | {
        "overt": phantom.case.overt,
        "study_uid": study_uid(phantom.case, phantom.scanner),
        "affine_ras_mm": phantom.affine.tolist(),
    }
    (folder / "truth.json").write_text(json.dumps(facts, indent=2) + "\n")


def _sagittal(phantom: Phantom) -> Series:
    """Columns run to posterior, rows to inferior; most series run from right to left."""
    planes = phantom.voxels[:, ::-1, ::-1].transpose(0, 2, 1)
    steps = (-1, 1)[phantom.scanner.left_first]
    return Series(
        phantom.case,
        phantom.scanner,
        1,
        SAGITTAL_T1,
        planes[::steps],
        _planes_to_lps(phantom.affine, phantom.voxels.shape, ((1, -1), (2, -1), (0, steps))),
        ("P", "F"),
        float(phantom.affine[0, 0]),
    )


def _axial(phantom: AxialPhantom) -> Series:
    """Columns run to the left, rows to posterior, slices upwards."""
    return Series(
        phantom.case,
        phantom.scanner,
        2,
        AXIAL_T2,
        phantom.voxels[::-1, ::-1].transpose(2, 1, 0),
        _planes_to_lps(phantom.affine, phantom.voxels.shape, ((0, -1), (1, -1), (2, 1))),
        ("L", "P"),
        THICKNESS_MM,
    )


def _planes_to_lps(
    affine: NDArray[np.float64], shape: tuple[int, ...], runs: tuple[tuple[int, int], ...]
) -> NDArray[np.float64]:
    """The 4 x 4 from (column, row, slice) to LPS mm; each runs along a voxel axis or against it."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    found = lps.copy()
    for at, (axis, sign) in enumerate(runs):
        found[:, at] = sign * lps[:, axis]
        if sign < 0:
            found[:, 3] += lps[:, axis] * (shape[axis] - 1)
    return found


def _common(series: Series, study: Study, visit: Visit) -> Dataset:
    """Attributes that all slices share."""
    case, scanner = series.case, series.scanner
    dataset = Dataset()
    for keyword, value in {**COMMON, **series.protocol}.items():
        setattr(dataset, keyword, value)
    _name(dataset, scanner)
    _identify(dataset, case, visit)
    dataset.StudyDescription = study.description
    dataset.StudyInstanceUID = study.uid
    dataset.SeriesInstanceUID = _uid(case, scanner, "series")
    dataset.SeriesNumber = series.number
    dataset.FrameOfReferenceUID = study.frame_uid
    dataset.PositionReferenceIndicator = ""
    _lay_out(dataset, series)
    return dataset


def _name(dataset: Dataset, scanner: Scanner) -> None:
    """Scanner and protocol."""
    dataset.Manufacturer = scanner.manufacturer
    dataset.ManufacturerModelName = scanner.model
    dataset.MagneticFieldStrength = f"{scanner.field_tesla:g}"
    dataset.ProtocolName = scanner.protocol
    dataset.SeriesDescription = scanner.series
    dataset.RepetitionTime = f"{scanner.repetition_ms:g}"
    dataset.EchoTime = f"{scanner.echo_ms:g}"
    if scanner.slope != 1:
        dataset.RescaleIntercept = "0"
        dataset.RescaleSlope = f"{scanner.slope:g}"
        dataset.RescaleType = "US"  # PS3.3 C.11.1.1.2: unspecified


def _identify(dataset: Dataset, case: Case | InfectionCase, visit: Visit) -> None:
    """Patient, study and series; type 2 attributes without a value are present and empty."""
    dataset.SOPClassUID = MRImageStorage
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"PHANTOM^{case.seed}"
    dataset.PatientID = patient_id(case)
    dataset.PatientBirthDate = ""
    dataset.PatientSex = visit.sex
    if visit.age_years is not None:
        dataset.PatientAge = f"{visit.age_years:03}Y"
    dataset.InstitutionName = visit.institution
    dataset.StudyID = str(case.seed % 10**16)
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.AcquisitionNumber = 1
    for kind in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{kind}Date", visit.date)
        setattr(dataset, f"{kind}Time", TIME)


def _lay_out(dataset: Dataset, series: Series) -> None:
    """Where pixels lie, and what they are."""
    column_mm, row_mm, step_mm = (float(each) for each in _edges(series.lps))
    cosines = (series.lps[:3, :2] / (column_mm, row_mm)).T.ravel()
    dataset.ImageOrientationPatient = [_shortest(float(each)) for each in cosines]
    dataset.PatientOrientation = list(series.letters)
    dataset.PixelSpacing = [round(row_mm, DECIMALS), round(column_mm, DECIMALS)]
    dataset.SliceThickness = round(series.thickness_mm, DECIMALS)
    dataset.SpacingBetweenSlices = round(step_mm, DECIMALS)
    _, dataset.Rows, dataset.Columns = series.planes.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter = "350"
    dataset.WindowWidth = "700"


def _edges(lps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of columns, rows and slices, mm."""
    return np.asarray(np.linalg.norm(lps[:3, :3], axis=0), dtype=np.float64)


def _normal(lps: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) LPS, unit, square to the planes, towards left, posterior or superior."""
    normal = np.cross(lps[:3, 0], lps[:3, 1])
    most = normal[np.argmax(np.abs(normal))]
    return np.asarray(normal / np.linalg.norm(normal) * np.sign(most), dtype=np.float64)


def _shortest(cosine: float) -> float | int:
    """A direction cosine in few characters; 0, 1 and -1 as whole numbers."""
    rounded = round(cosine, DECIMALS)
    return int(rounded) if rounded.is_integer() else rounded


def _slice(series: Series, common: Dataset, index: int) -> FileDataset:
    """One instance; index 0 is the first of the series."""
    instance_uid = _uid(series.case, series.scanner, f"instance {index}")
    dataset = FileDataset("", {}, file_meta=_file_meta(instance_uid), preamble=b"\0" * 128)
    dataset.update(common)
    dataset.SOPInstanceUID = instance_uid
    dataset.InstanceNumber = index + 1
    corner = (series.lps @ (0, 0, index, 1))[:3]
    dataset.ImagePositionPatient = [round(float(each), DECIMALS) for each in corner]
    dataset.SliceLocation = round(float(corner @ _normal(series.lps)), DECIMALS)
    stored = np.rint(series.planes[index] / series.scanner.slope)
    dataset.PixelData = np.ascontiguousarray(stored).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _file_meta(instance_uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    return meta


def _uid(case: Case | InfectionCase, scanner: Scanner, what: str) -> str:
    """A UID that depends on case, scanner and what it names, and on nothing else."""
    seen_by = "" if scanner == PHANTOM_SCANNER else f" {scanner.manufacturer} {scanner.model}"
    return f"2.25.{uuid.uuid5(NAMESPACE, f'{case!r}{seen_by} {what}').int}"
