"""An axial T2 series of the head, and segmentations of it as viewers send them back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from listener.segmentation import PROPERTY_CATEGORY
from tests.listener.conftest import make_slice

TISSUE = ("85756007", "SCT", "Tissue")
"""What viewers write where nobody chose a property type."""

BOTH = (("Ventricles", TISSUE), ("Sublentiform", TISSUE))


def t2_series(study: str, series: str, slices: int = 3) -> list[Dataset]:
    """An axial T2-weighted spin echo of the head."""
    frame_of_reference = generate_uid()
    return [_t2_slice(study, series, number, frame_of_reference) for number in range(slices)]


def _t2_slice(study: str, series: str, number: int, frame_of_reference: str) -> Dataset:
    dataset = make_slice(study, series, number + 1)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.BodyPartExamined, dataset.SeriesDescription = "BRAIN", "AX T2 TSE"
    dataset.ScanningSequence, dataset.SequenceVariant = "SE", "SK"
    dataset.MRAcquisitionType = "2D"
    dataset.RepetitionTime, dataset.EchoTime, dataset.FlipAngle = "4500", "100", "90"
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, 5 * number]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], "5"
    dataset.FrameOfReferenceUID = frame_of_reference
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
    dataset.StudyID = dataset.StudyDate = dataset.StudyTime = ""
    dataset.ReferringPhysicianName = ""
    return dataset


def segmentation(
    images: Sequence[Dataset],
    segments: Sequence[tuple[str, tuple[str, str, str]]] = BOTH,
    at: str = "20260102 101500",
    kind: str = "BINARY",
    manual: bool = True,
    **others: Any,
) -> Dataset:
    """A segmentation of `images`.

    Args:
        images: of one series.
        segments: label and property type of each.
        at: content date and time.
        kind: BINARY or LABELMAP.
        manual: whether a person drew it.
        others: attributes to set, by keyword.
    """
    mask = np.zeros((len(images), 4, 4, len(segments)), np.uint8)
    for number in range(len(segments)):
        mask[:, number % 4, :, number] = 1
    made: Dataset = Segmentation(
        source_images=list(images),
        pixel_array=mask,
        segmentation_type=kind,
        segment_descriptions=[
            _described(number, label, code, manual)
            for number, (label, code) in enumerate(segments, start=1)
        ],
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="viewer",
        manufacturer_model_name="viewer",
        software_versions="1",
        device_serial_number="1",
    )
    made.ContentDate, made.ContentTime = at.split()
    for keyword, value in others.items():
        setattr(made, keyword, value)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def _described(
    number: int, label: str, code: tuple[str, str, str], manual: bool
) -> SegmentDescription:
    algorithm = AlgorithmIdentificationSequence(
        name="any", version="1", family=Code("123110", "DCM", "Artificial Intelligence")
    )
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=Code(*PROPERTY_CATEGORY),
        segmented_property_type=Code(*code),
        algorithm_type="MANUAL" if manual else "AUTOMATIC",
        algorithm_identification=None if manual else algorithm,
    )
