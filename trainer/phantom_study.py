"""A phantom as a complete DICOM MR study, with its ground truth beside.

    folder/
      study/0001.dcm ...   sagittal slices, right to left: MR Image Storage, one frame each
      truth.json           what was planted
      truth.npy            bool (X, Y, Z): where the MRI shows it; its affine is in truth.json

DICOM counts x towards the patient's left and y towards posterior (LPS), monro the other way (RAS).
Nothing comes from the clock or from chance: the same case makes the same files.
"""

import dataclasses
import json
import uuid
from pathlib import Path
from typing import Final

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from trainer.phantom import Case, Phantom, render, visible_signs

# Namespace of every UID made here (PS3.5 B.2: UUID-derived, no registration).
NAMESPACE: Final = uuid.UUID("6f1d0f5e-5ab4-4c0c-9d3c-6a2b7f0f9a11")
IMPLEMENTATION: Final = UID(f"2.25.{uuid.uuid5(NAMESPACE, 'implementation').int}")
DATE: Final = "20260101"
TIME: Final = "120000"

# A fat-suppressed 3D turbo spin echo after gadolinium (Faghani 2024: TR 600, TE 7.2).
PROTOCOL: Final = {
    "Modality": "MR",
    "Manufacturer": "monro",
    "ManufacturerModelName": "phantom",
    "InstitutionName": "",
    "StationName": "PHANTOM",
    "SoftwareVersions": "1",
    "BodyPartExamined": "BRAIN",
    "PatientPosition": "HFS",
    "StudyDescription": "MRI BRAIN WITH CONTRAST (SYNTHETIC)",
    "SeriesDescription": "SAG T1 3D TSE FS +C (SYNTHETIC)",
    "ProtocolName": "SAG T1 3D TSE FS +C",
    "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
    "ScanningSequence": "SE",
    "SequenceVariant": "SK",
    "ScanOptions": "FS",
    "MRAcquisitionType": "3D",
    "RepetitionTime": "600",
    "EchoTime": "7.2",
    "EchoTrainLength": "30",
    "MagneticFieldStrength": "3",
    "ImagedNucleus": "1H",
    "NumberOfAverages": "1",
    "FlipAngle": "90",
    "ContrastBolusAgent": "GADOBUTROL (SYNTHETIC)",
    "ContrastBolusRoute": "IV",
    "ContrastBolusVolume": "7.5",
    "LossyImageCompression": "00",
    "BurnedInAnnotation": "NO",
}


def write_study(phantom: Phantom, folder: Path) -> list[Path]:
    """Write one phantom's study and its ground truth.

    Args:
        phantom: what to write.
        folder: created where it is missing; a study of the same case is overwritten.

    Returns:
        The paths of the DICOM files, in order of instance number.
    """
    study = folder / "study"
    study.mkdir(parents=True, exist_ok=True)
    common = _common(phantom)
    paths = []
    for index in range(phantom.voxels.shape[0]):
        path = study / f"{index + 1:04}.dcm"
        _slice(phantom, common, index).save_as(path, enforce_file_format=True)
        paths.append(path)
    _write_truth(phantom, folder)
    return paths


def study_uid(case: Case) -> str:
    """Study Instance UID of a case; its counterfactuals have others."""
    return _uid(case, "study")


def _write_truth(phantom: Phantom, folder: Path) -> None:
    healthy = phantom.case.only()
    spacing_mm = float(phantom.affine[0, 0])
    truth = visible_signs(phantom, render(healthy, spacing_mm))
    np.save(folder / "truth.npy", truth)
    facts = dataclasses.asdict(phantom.case) | {
        "overt": phantom.case.overt,
        "study_uid": study_uid(phantom.case),
        "affine_ras_mm": phantom.affine.tolist(),
    }
    (folder / "truth.json").write_text(json.dumps(facts, indent=2) + "\n")


def _common(phantom: Phantom) -> Dataset:
    """Attributes that all slices share."""
    case = phantom.case
    dataset = Dataset()
    for keyword, value in PROTOCOL.items():
        setattr(dataset, keyword, value)
    _identify(dataset, case)
    dataset.StudyInstanceUID = study_uid(case)
    dataset.SeriesInstanceUID = _uid(case, "series")
    dataset.FrameOfReferenceUID = _uid(case, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    _lay_out(dataset, phantom)
    return dataset


def _identify(dataset: Dataset, case: Case) -> None:
    """Patient, study and series; type 2 attributes without a value are present and empty."""
    dataset.SOPClassUID = MRImageStorage
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"PHANTOM^{case.seed}"
    dataset.PatientID = f"PHANTOM-{case.seed}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyID = str(case.seed % 10**16)
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber = 1
    dataset.AcquisitionNumber = 1
    for kind in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{kind}Date", DATE)
        setattr(dataset, f"{kind}Time", TIME)


def _lay_out(dataset: Dataset, phantom: Phantom) -> None:
    """Sagittal: columns run to posterior, rows to inferior."""
    spacing = [float(each) for each in np.diag(phantom.affine)[:3]]
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
    """One instance; index 0 lies furthest to the patient's right."""
    x, y, z = phantom.voxels.shape
    voxel = x - 1 - index  # voxel axis 0 runs to the right, the series runs away from it
    instance_uid = _uid(phantom.case, f"instance {index}")
    dataset = FileDataset("", {}, file_meta=_file_meta(instance_uid), preamble=b"\0" * 128)
    dataset.update(common)
    dataset.SOPInstanceUID = instance_uid
    dataset.InstanceNumber = index + 1
    right, anterior, superior = (phantom.affine @ (voxel, y - 1, z - 1, 1))[:3]
    dataset.ImagePositionPatient = [float(-right), float(-anterior), float(superior)]
    dataset.SliceLocation = float(-right)
    pixels = phantom.voxels[voxel, ::-1, ::-1].T
    dataset.PixelData = np.ascontiguousarray(pixels).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _file_meta(instance_uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    return meta


def _uid(case: Case, what: str) -> str:
    """A UID that depends on the case and on what it names, and on nothing else."""
    return f"2.25.{uuid.uuid5(NAMESPACE, f'{case!r} {what}').int}"
