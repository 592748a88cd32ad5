"""The UIDs that are found on the way are those that pydicom reads."""

import random
from collections.abc import Callable
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from listener.errors import BadAttribute
from listener.handlers import read_key
from listener.piecewise import quick_key

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def encoded(dataset: Dataset, syntax: UID) -> bytes:
    file = BytesIO()
    write_dataset_to(file, dataset, syntax)
    return file.getvalue()


def write_dataset_to(file: BytesIO, dataset: Dataset, syntax: UID) -> None:
    stream = DicomFileLike(file)
    stream.is_implicit_VR, stream.is_little_endian = syntax.is_implicit_VR, True
    write_dataset(stream, dataset)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=["explicit", "implicit"])
def test_the_quick_key_is_the_one_that_pydicom_reads(syntax: UID, mr_slice: Dataset) -> None:
    mr_slice.ReferencedStudySequence = [Dataset()]
    mr_slice.add_new(0x00091002, "UN", b"private")
    named = str(mr_slice.SOPClassUID), str(mr_slice.SOPInstanceUID)
    data = encoded(mr_slice, syntax)

    key = quick_key(data, syntax, *named)

    assert key == read_key(BytesIO(data), syntax, *named)
    assert key is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda dataset: dataset.pop("StudyInstanceUID"),
        lambda dataset: dataset.pop("SOPClassUID"),
        lambda dataset: setattr(dataset, "SOPInstanceUID", "1.2.3"),
    ],
)
def test_what_is_not_plain_is_left_to_pydicom(
    spoil: Callable[[Dataset], object], mr_slice: Dataset
) -> None:
    named = str(mr_slice.SOPClassUID), str(mr_slice.SOPInstanceUID)
    spoil(mr_slice)
    data = encoded(mr_slice, ExplicitVRLittleEndian)

    assert quick_key(data, ExplicitVRLittleEndian, *named) is None
    with pytest.raises(BadAttribute):
        read_key(BytesIO(data), ExplicitVRLittleEndian, *named)


def test_a_sequence_of_undefined_length_is_left_to_pydicom(mr_slice: Dataset) -> None:
    mr_slice.ReferencedStudySequence = [Dataset()]
    mr_slice["ReferencedStudySequence"].is_undefined_length = True
    named = str(mr_slice.SOPClassUID), str(mr_slice.SOPInstanceUID)
    data = encoded(mr_slice, ExplicitVRLittleEndian)

    assert quick_key(data, ExplicitVRLittleEndian, *named) is None
    assert read_key(BytesIO(data), ExplicitVRLittleEndian, *named).sop_uid == named[1]


def test_no_bytes_upset_the_quick_key() -> None:
    dice = random.Random(0)
    for _ in range(2000):
        data = dice.randbytes(dice.randrange(200))
        for syntax in SYNTAXES:
            assert quick_key(data, syntax, "1.2", "1.2.3") is None


def test_a_dataset_that_ends_early_has_no_quick_key(mr_slice: Dataset) -> None:
    named = str(mr_slice.SOPClassUID), str(mr_slice.SOPInstanceUID)
    data = encoded(mr_slice, ExplicitVRLittleEndian)
    whole = data.index(str(mr_slice.SeriesInstanceUID).encode())

    for length in range(0, whole, 7):
        assert quick_key(data[:length], ExplicitVRLittleEndian, *named) is None
