"""The head of a file is found in whatever pieces it comes, and kept as sent where it is sound."""

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from listener.dicomweb.part import FilePart, Head, UnknownClass, UnknownSyntax, read_head
from listener.errors import BadAttribute, DoesNotMatch
from listener.spool import Spool
from tests.listener.dicomweb.conftest import file_of

LARGEST = 1 << 20


def keep(spool: Spool, file: bytes, step: int = 1 << 20, study_uid: str | None = None) -> Path:
    part = FilePart(spool, study_uid, LARGEST)
    try:
        for start in range(0, len(file), step):
            part.take(memoryview(file)[start : start + step])
        return part.keep().path
    finally:
        part.drop()
        assert list((spool.root / "incoming").iterdir()) == []


@pytest.mark.parametrize("step", [1, 7, 131, 132, 144, 300, 1 << 20])
def test_a_file_is_kept_byte_for_byte_whatever_its_pieces(
    spool: Spool, mr_slice: Dataset, step: int
) -> None:
    file = bytes(range(128)) + file_of(mr_slice)[128:]

    assert keep(spool, file, step).read_bytes() == file


def test_private_information_in_the_head_is_kept(spool: Spool, mr_slice: Dataset) -> None:
    mr_slice.file_meta.SourceApplicationEntityTitle = "GATEWAY"
    mr_slice.file_meta.PrivateInformationCreatorUID = "1.2.3"
    mr_slice.file_meta.PrivateInformation = bytes(100_000)

    assert keep(spool, file_of(mr_slice), 999).read_bytes() == file_of(mr_slice)


@pytest.mark.parametrize("length", [None, 0, 50, 100_000], ids=str)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_a_missing_or_wrong_group_length_is_mended_and_the_dataset_left_alone(
    spool: Spool, mr_slice: Dataset, length: int | None, step: int
) -> None:
    sound = file_of(mr_slice)
    head = read_head(sound)
    assert isinstance(head, Head)
    told = b"" if length is None else sound[132:140] + length.to_bytes(4, "little")
    path = keep(spool, sound[:132] + told + sound[144:], step)

    assert path.read_bytes()[-len(sound[head.size :]) :] == sound[head.size :]
    assert dcmread(path).file_meta == dcmread(BytesIO(sound)).file_meta
    ((key, found),) = spool.received()
    assert spool.held(key, found).size == len(sound) - head.size


def test_a_deflated_dataset_is_kept(spool: Spool, mr_slice: Dataset) -> None:
    mr_slice.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file = file_of(mr_slice)

    assert keep(spool, file, 50).read_bytes() == file


def spoilt(file: bytes, old: bytes, new: bytes) -> bytes:
    assert old in file
    return file.replace(old, new, 1)


@pytest.mark.parametrize("size", [0, 100, 132, 150, 300])
def test_a_file_that_ends_in_its_head_is_refused(
    spool: Spool, mr_slice: Dataset, size: int
) -> None:
    with pytest.raises(BadAttribute):
        keep(spool, file_of(mr_slice)[:size])


def test_what_is_no_dicom_file_is_refused(spool: Spool, mr_slice: Dataset) -> None:
    file = file_of(mr_slice)
    for bad in (
        b"\x89PNG" * 1000,
        spoilt(file, b"DICM", b"DICX"),
        file[:132] + b"\x02\x00\x00\x00OB\x00\x00\xff\xff\xff\xff" + file[144:],
        file[:132] + b"\x02\x00\x02\x00OB\x00\x00\x00\x00\xff\x7f" + bytes(1 << 21),
        file[:132] + file[132:].replace(b"UI", b"??"),
    ):
        with pytest.raises(BadAttribute):
            keep(spool, bad)
    assert list(spool.received()) == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_uids_that_are_none_are_refused_without_being_told(spool: Spool, mr_slice: Dataset) -> None:
    uid = str(mr_slice.SOPInstanceUID).encode()
    file = spoilt(file_of(mr_slice), uid, b"PLANTED".ljust(len(uid)))
    with pytest.raises(BadAttribute) as caught:
        keep(spool, file)
    assert "PLANTED" not in str(caught.value)


def test_a_dataset_that_contradicts_its_head_is_refused(spool: Spool, mr_slice: Dataset) -> None:
    for keyword in ("MediaStorageSOPInstanceUID", "MediaStorageSOPClassUID"):
        file = file_of(mr_slice)
        uid = str(mr_slice.file_meta[keyword].value).encode()
        other = uid[:-1] + (b"4" if uid[-1:] != b"4" else b"2")
        with pytest.raises((DoesNotMatch, UnknownClass)):
            keep(spool, spoilt(file, uid, other))


def test_a_file_of_another_study_is_refused(spool: Spool, mr_slice: Dataset) -> None:
    with pytest.raises(DoesNotMatch, match=r"sent to 1\.2\.3"):
        keep(spool, file_of(mr_slice), study_uid="1.2.3")
    assert keep(spool, file_of(mr_slice), study_uid=str(mr_slice.StudyInstanceUID)).exists()


def test_what_no_association_would_bring_is_refused(spool: Spool, mr_slice: Dataset) -> None:
    hanging_protocol = "1.2.840.10008.5.1.4.38.1"
    mr_slice.SOPClassUID = mr_slice.file_meta.MediaStorageSOPClassUID = hanging_protocol
    with pytest.raises(UnknownClass):
        keep(spool, file_of(mr_slice))

    mr_slice.SOPClassUID = mr_slice.file_meta.MediaStorageSOPClassUID = "1.2.840.113619.4.27"
    assert keep(spool, file_of(mr_slice)).exists()

    with pytest.raises(UnknownSyntax):
        keep(spool, spoilt(file_of(mr_slice), b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7\0"))


def test_a_file_that_is_larger_than_is_taken_is_refused_and_leaves_nothing(
    tmp_path: Path, mr_slice: Dataset
) -> None:
    mr_slice.PixelData = bytes(LARGEST)
    spool = Spool(tmp_path / "spool")
    with pytest.raises(BadAttribute, match="MONRO_LARGEST_INSTANCE"):
        keep(spool, file_of(mr_slice), step=1000)
