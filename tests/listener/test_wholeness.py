"""A file that was cut off is told from a whole one by its headers alone."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from listener.wholeness import ends_within_an_element


@pytest.fixture
def written(tmp_path: Path, an_mr_slice: Callable[..., Dataset]) -> Callable[[UID], bytes]:
    """A file with a sequence in one, with items of both kinds of length."""

    def write(syntax: UID) -> bytes:
        image = an_mr_slice()
        inner, outer = Dataset(), Dataset()
        inner.CodeValue = "1"
        inner.is_undefined_length_sequence_item = True
        outer.PurposeOfReferenceCodeSequence = Sequence([inner])
        outer["PurposeOfReferenceCodeSequence"].is_undefined_length = True
        image.ReferencedImageSequence = Sequence([outer, Dataset()])
        image["ReferencedImageSequence"].is_undefined_length = True
        image.file_meta.TransferSyntaxUID = syntax
        if syntax.is_encapsulated:
            image.PixelData = encapsulate([b"\0" * 100])
            image["PixelData"].is_undefined_length = True
        stream = BytesIO()
        image.save_as(
            stream,
            enforce_file_format=True,
            implicit_vr=syntax.is_implicit_VR,
            little_endian=syntax.is_little_endian,
        )
        return stream.getvalue()

    return write


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless],
)
def test_only_the_whole_file_ends_where_its_dataset_does(
    tmp_path: Path, written: Callable[[UID], bytes], syntax: UID
) -> None:
    content = written(syntax)
    offset = 144 + int.from_bytes(content[140:144], "little")
    path = tmp_path / "slice.dcm"
    path.write_bytes(content)
    assert not ends_within_an_element(path, offset)

    for cut in (1, 2, 7, 8, 9):
        path.write_bytes(content[:-cut])
        assert ends_within_an_element(path, offset), cut


def test_of_a_deflated_dataset_it_cannot_be_told(
    tmp_path: Path, written: Callable[[UID], bytes]
) -> None:
    path = tmp_path / "slice.dcm"
    path.write_bytes(written(DeflatedExplicitVRLittleEndian)[:-1])
    assert not ends_within_an_element(path, 0)


@pytest.mark.parametrize("named", [None, UID(""), UID("1.2.840.113619.5.2")])
def test_of_a_file_that_names_no_transfer_syntax_of_dicoms_it_cannot_be_told(
    tmp_path: Path, named: UID | None
) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    if named is not None:
        meta.TransferSyntaxUID = named
    header = DicomBytesIO()
    write_file_meta_info(header, meta, enforce_standard=False)
    before = b"\0" * 128 + b"DICM" + header.getvalue()
    path = tmp_path / "slice.dcm"
    path.write_bytes(before + b"cut")

    assert not ends_within_an_element(path, len(before))
