"""A phantom as a complete DICOM MR study, with its ground truth beside.

    folder/
      study/0001.dcm ...   sagittal slices, right to left: MR Image Storage, one frame each
      truth.json           what was planted
      truth.npy            bool (X, Y, Z): where the MRI shows it; its affine is in truth.json

DICOM counts x towards the patient's left and y towards posterior (LPS), monro the other way (RAS).
Nothing comes from the clock or from chance: the same case on the same scanner makes the same files.
"""

import dataclasses
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from trainer.phantom import Case, Phantom, render, visible_signs
from trainer.scanner import PHANTOM_SCANNER, Scanner

# Namespace of every UID made here (PS3.5 B.2: UUID-derived, no registration).
NAMESPACE: Final = uuid.UUID("6f1d0f5e-5ab4-4c0c-9d3c-6a2b7f0f9a11")
IMPLEMENTATION: Final = UID(f"2.25.{uuid.uuid5(NAMESPACE, 'implementation').int}")
DATE: Final = "20260101"
TIME: Final = "120000"
DECIMALS: Final = 6  # of lengths in mm: a DS holds 16 characters (PS3.5 6.2)

# A fat-suppressed 3D turbo spin echo after gadolinium (Faghani 2024: TR 600, TE 7.2).
PROTOCOL: Final = {
    "Modality": "MR",
    "StationName": "PHANTOM",
    "SoftwareVersions": "1",
    "BodyPartExamined": "BRAIN",
    "PatientPosition": "HFS",
    "StudyDescription": "MRI BRAIN WITH CONTRAST (SYNTHETIC)",
    "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
    "ScanningSequence": "SE",
    "SequenceVariant": "SK",
    "ScanOptions": "FS",
    "MRAcquisitionType": "3D",
    "EchoTrainLength": "30",
    "ImagedNucleus": "1H",
    "NumberOfAverages": "1",
    "FlipAngle": "90",
    "ContrastBolusAgent": "GADOBUTROL (SYNTHETIC)",
    "ContrastBolusRoute": "IV",
    "ContrastBolusVolume": "7.5",
    "LossyImageCompression": "00",
    "BurnedInAnnotation": "NO",
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


def write_study(phantom: Phantom, folder: Path) -> list[Path]:
    """Write one phantom's study and its ground truth.

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
    """Write one phantom's study without its ground truth.

    Args:
        phantom: what to write.
        visit: whose it is said to be.
        folder: for the slices; created where it is missing.

    Returns:
        The paths of the DICOM files, in order of instance number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    common = _common(phantom, visit)
    paths = []
    for index in range(phantom.voxels.shape[0]):
        path = folder / f"{index + 1:04}.dcm"
        _slice(phantom, common, index).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def patient_id(case: Case) -> str:
    """PatientID of a case and of its counterfactuals."""
    return f"PHANTOM-{case.seed}"


def study_uid(case: Case, scanner: Scanner = PHANTOM_SCANNER) -> str:
    """Study Instance UID of a case on a scanner; its counterfactuals have others."""
    return _uid(case, scanner, "study")


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


def _common(phantom: Phantom, visit: Visit) -> Dataset:
    """Attributes that all slices share."""
    case, scanner = phantom.case, phantom.scanner
    dataset = Dataset()
    for keyword, value in PROTOCOL.items():
        setattr(dataset, keyword, value)
    _name(dataset, scanner)
    _identify(dataset, case, visit)
    dataset.StudyInstanceUID = study_uid(case, scanner)
    dataset.SeriesInstanceUID = _uid(case, scanner, "series")
    dataset.FrameOfReferenceUID = _uid(case, scanner, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    _lay_out(dataset, phantom)
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


def _identify(dataset: Dataset, case: Case, visit: Visit) -> None:
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
    dataset.SeriesNumber = 1
    dataset.AcquisitionNumber = 1
    for kind in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{kind}Date", visit.date)
        setattr(dataset, f"{kind}Time", TIME)


def _lay_out(dataset: Dataset, phantom: Phantom) -> None:
    """Sagittal: columns run to posterior, rows to inferior."""
    spacing = [round(float(each), DECIMALS) for each in np.diag(phantom.affine)[:3]]
    dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    dataset.PatientOrientation = ["P", "F"]
    dataset.PixelSpacing = [spacing[2], spacing[1]]
    dataset.SliceThickness = spacing[0]
    dataset.SpacingBetweenSlices = spacing[0]
    dataset.Rows = phantom.voxels.shape[2]
    dataset.Columns = phantom.voxels.shape[1]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter = "350"
    dataset.WindowWidth = "700"


def _slice(phantom: Phantom, common: Dataset, index: int) -> FileDataset:
    """One instance; index 0 is the first of the series."""
    x, y, z = phantom.voxels.shape
    # Voxel axis 0 runs to the right, most series run away from it.
    voxel = index if phantom.scanner.left_first else x - 1 - index
    instance_uid = _uid(phantom.case, phantom.scanner, f"instance {index}")
    dataset = FileDataset("", {}, file_meta=_file_meta(instance_uid), preamble=b"\0" * 128)
    dataset.update(common)
    dataset.SOPInstanceUID = instance_uid
    dataset.InstanceNumber = index + 1
    corner = (phantom.affine @ (voxel, y - 1, z - 1, 1))[:3]
    right, anterior, superior = (round(float(each), DECIMALS) for each in corner)
    dataset.ImagePositionPatient = [-right, -anterior, superior]
    dataset.SliceLocation = -right
    stored = np.rint(phantom.voxels[voxel, ::-1, ::-1].T / phantom.scanner.slope)
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


def _uid(case: Case, scanner: Scanner, what: str) -> str:
    """A UID that depends on case, scanner and what it names, and on nothing else."""
    seen_by = "" if scanner == PHANTOM_SCANNER else f" {scanner.manufacturer} {scanner.model}"
    return f"2.25.{uuid.uuid5(NAMESPACE, f'{case!r}{seen_by} {what}').int}"
