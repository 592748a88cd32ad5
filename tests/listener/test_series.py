"""One series is told in the same terms, whatever scanner wrote it and however dirtily."""

import errno
import subprocess
import sys
from dataclasses import asdict

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from listener.errors import BadAttribute
from listener.selection import select
from listener.series import LONGEST_LABEL, InstanceKey, read_series_facts
from tests.fuzz import images

STUDY, SERIES, INSTANCE = "1.2.3", "1.2.3.4", "1.2.3.4.5"
SAGITTAL = [0, 1, 0, 0, 0, -1]


def header(**elements):
    dataset = Dataset()
    dataset.SOPClassUID = MRImageStorage
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.SOPInstanceUID = INSTANCE
    dataset.Modality = "MR"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def group(**elements):
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return Sequence([item])


def enhanced(frames, **shared):
    dataset = header(SOPClassUID=EnhancedMRImageStorage, NumberOfFrames=len(frames))
    item = Dataset()
    for keyword, value in shared.items():
        setattr(item, keyword, value)
    dataset.SharedFunctionalGroupsSequence = Sequence([item])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return dataset


def frame(**groups):
    item = Dataset()
    for keyword, value in groups.items():
        setattr(item, keyword, value)
    return item


@pytest.fixture
def facts_of(tmp_path):
    def read(dataset, instances=1):
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPInstanceUID = INSTANCE
        path = tmp_path / "instance.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return read_series_facts(path, instances)

    return read


def test_a_scanner_has_one_readable_label_of_bounded_length(facts_of):
    named = header(
        Manufacturer="SIEMENS\x07", ManufacturerModelName=" Prisma  fit ", StationName="MR01"
    )
    wordy = header(Manufacturer="A" * 64, ManufacturerModelName="B" * 64, StationName="C" * 16)

    assert facts_of(named).scanner == "SIEMENS Prisma fit MR01"
    assert len(facts_of(wordy).scanner) == LONGEST_LABEL
    assert facts_of(header()).scanner == ""


@pytest.mark.parametrize(
    "uid",
    [
        "",
        "../../etc/passwd",
        "1.2.",
        ".1",
        "1..2",
        "1.2.3\n",
        "1.2.3 4",
        "1" * 65,
        "1.2.x",
        "1.\N{FULLWIDTH DIGIT TWO}",
    ],
)
@pytest.mark.parametrize("place", range(3))
def test_what_is_no_uid_never_becomes_part_of_a_path(uid, place):
    uids = [STUDY, SERIES, INSTANCE]
    uids[place] = uid
    with pytest.raises(BadAttribute, match=r"InstanceUID of \d+ characters is not a UID"):
        InstanceKey(*uids)


def test_a_uid_of_64_characters_is_a_uid():
    assert InstanceKey(STUDY, SERIES, "1" * 64).sop_uid == "1" * 64


def test_a_refused_uid_is_not_repeated_since_it_may_be_a_patients_name():
    with pytest.raises(BadAttribute) as refusal:
        InstanceKey("DOE^JANE", SERIES, INSTANCE)
    assert "DOE" not in str(refusal.value)


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_instance_without_a_uid_is_refused(facts_of, missing):
    dataset = header()
    delattr(dataset, missing)
    with pytest.raises(BadAttribute, match=missing):
        facts_of(dataset)


def test_a_number_that_no_integer_string_holds_counts_as_malformed(tmp_path):
    path = tmp_path / "1.dcm"
    elements = images.sound(1) | {0x00280008: (b"DS", b"1e308 "), 0x00200011: (b"DS", b"-1e300")}
    path.write_bytes(images.file(elements))

    facts = read_series_facts(path, 100)

    assert (facts.frames, facts.series_number) == (1, None)
    assert select("fistula", [facts]).verdicts  # it multiplies


def test_a_file_that_is_no_dicom_is_refused(tmp_path):
    path = tmp_path / "DOE^JANE.dcm"
    path.write_bytes(b"not DICOM" * 100)
    with pytest.raises(BadAttribute, match="cannot be read") as refusal:
        read_series_facts(path, 1)
    assert "DOE" not in str(refusal.value)


def test_a_file_that_is_not_to_be_had_is_not_a_broken_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_series_facts(tmp_path / "absent.dcm", 1)


def test_a_fault_of_the_disk_within_a_sequence_is_not_a_broken_file(tmp_path, monkeypatch):
    def read_with_a_fault(*_arguments, **_options):
        try:
            raise OSError(errno.EIO, "Input/output error")
        except OSError:
            raise OSError("No tag to read at file position 99")  # noqa: B904 - as pydicom does

    monkeypatch.setattr(pydicom, "dcmread", read_with_a_fault)
    path = tmp_path / "instance.dcm"
    path.touch()
    with pytest.raises(OSError, match="No tag to read"):
        read_series_facts(path, 1)


def test_a_file_that_ends_within_a_sequence_is_refused(tmp_path, facts_of):
    dataset = header(ReferencedStudySequence=group(StudyDate="20260101"))
    dataset["ReferencedStudySequence"].is_undefined_length = True
    facts_of(dataset)
    path = tmp_path / "instance.dcm"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\xfe\xff\x00\xe0") + 4])
    with pytest.raises(BadAttribute, match="OSError"):
        read_series_facts(path, 1)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS:UserWarning")
def test_a_classic_header_is_read_as_it_stands(facts_of):
    facts = facts_of(
        header(
            SeriesNumber=7,
            SeriesDescription="T1  MPRAGE ",
            ImageType=["original", "PRIMARY", "M"],
            ScanningSequence=["GR", "IR"],
            EchoTime="2.9",
            RepetitionTime="1900",
            InversionTime="900",
            FlipAngle="9",
            PixelSpacing=[0.5, 0.6],
            SliceThickness="2",
            SpacingBetweenSlices="1",
            ImageOrientationPatient=SAGITTAL,
        ),
        instances=170,
    )
    assert (facts.study_uid, facts.series_uid, facts.series_number) == (STUDY, SERIES, 7)
    assert facts.description == "T1 MPRAGE"
    assert facts.image_type == ("ORIGINAL", "PRIMARY", "M")
    assert facts.scanning_sequence == ("GR", "IR")
    assert (facts.echo_time, facts.repetition_time) == (2.9, 1900.0)
    assert (facts.inversion_time, facts.flip_angle) == (900.0, 9.0)
    assert (facts.slices, facts.slice_step, facts.pixel_spacing) == (170, 1.0, (0.5, 0.6))
    assert facts.plane == "sagittal"


def test_an_enhanced_header_is_told_in_classic_terms(facts_of):
    dataset = enhanced(
        [
            frame(
                PlaneOrientationSequence=group(ImageOrientationPatient=SAGITTAL),
                MREchoSequence=group(EffectiveEchoTime=2.4),
            ),
            frame(),
        ],
        MRTimingAndRelatedParametersSequence=group(RepetitionTime=1800, FlipAngle=9),
        MRModifierSequence=group(InversionRecovery="YES", InversionTimes=[900.0], Spoiling="RF"),
        PixelMeasuresSequence=group(PixelSpacing=[2, 2], SliceThickness=2),
    )
    dataset.EchoPulseSequence = "GRADIENT"
    dataset.TimeOfFlightContrast = "YES"
    dataset.ContrastBolusAgentSequence = group(CodeMeaning="Gadobutrol", ContrastBolusVolume=7.5)
    facts = facts_of(dataset)

    assert facts.scanning_sequence == ("GR", "IR")
    assert facts.sequence_variant == ("SP", "TOF")
    assert (facts.echo_time, facts.repetition_time) == (2.4, 1800.0)
    assert (facts.inversion_time, facts.flip_angle) == (900.0, 9.0)
    assert (facts.slices, facts.slice_step, facts.pixel_spacing) == (2, 2.0, (2.0, 2.0))
    assert facts.plane == "sagittal"
    assert (facts.contrast_agent, facts.contrast_volume) == ("Gadobutrol", 7.5)


def test_diffusion_shows_in_the_frames_after_the_first(facts_of):
    frames = [frame(MRDiffusionSequence=group(DiffusionBValue=b)) for b in (0.0, 1000.0)]
    assert facts_of(enhanced(frames)).b_value == 1000.0


def test_an_image_type_of_mixed_is_told_by_the_first_frame(facts_of):
    dataset = enhanced([frame(MRImageFrameTypeSequence=group(FrameType=["ORIGINAL", "PRIMARY"]))])
    dataset.ImageType = ["MIXED", "PRIMARY", "M", "NONE"]
    assert facts_of(dataset).image_type == ("ORIGINAL", "PRIMARY")


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_malformed_values_count_as_absent(facts_of):
    dataset = header(
        ImageOrientationPatient=[1, 0, 0], PixelSpacing=[0, 0], SliceThickness=-1, EchoTime=None
    )
    dataset.add_new("RepetitionTime", "LO", "fast")
    dataset.add_new("NumberOfFrames", "LO", "many")
    facts = facts_of(dataset)
    assert facts.plane == ""
    assert facts.slices == 1
    assert (facts.pixel_spacing, facts.slice_step) == (None, None)
    assert (facts.echo_time, facts.repetition_time) == (None, None)


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        (SAGITTAL, "sagittal"),
        ([1, 0, 0, 0, 0, -1], "coronal"),
        ([1, 0, 0, 0, 1, 0], "axial"),
        ([-0.0386, 0.9993, -0.0024, 0.0609, 0, -0.9981], "sagittal"),
        ([1, 0, 0, 0, 0.8, -0.6], "axial"),
    ],
)
def test_the_plane_of_an_oblique_series_is_the_nearest_one(facts_of, orientation, plane):
    assert facts_of(header(ImageOrientationPatient=orientation)).plane == plane


def test_facts_hold_no_patient(facts_of):
    dataset = header(PatientName="DOE^JANE", PatientID="4711", PatientBirthDate="19700101")
    told = repr(asdict(facts_of(dataset)))
    assert not any(secret in told for secret in ("DOE", "4711", "19700101"))


def test_facts_are_read_where_numpy_is_not_installed(facts_of, tmp_path):
    facts_of(header(SeriesDescription="T1"))
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from pathlib import Path\n"
        "from listener.series import read_series_facts\n"
        "from listener.selection import select\n"
        "facts = read_series_facts(Path(sys.argv[1]), 1)\n"
        "print(facts.description, select('fistula', [facts]).holds_head_mr)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "instance.dcm")]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout == "T1 True\n"


def test_the_real_mprage_is_told_as_one(shared_data):
    path = shared_data / "philips_mprage_sag" / "1301_0001.dcm"
    facts = read_series_facts(path, instances=170)
    assert (facts.scanning_sequence, facts.sequence_variant) == (("GR",), ("MP",))
    assert (facts.plane, facts.mr_acquisition_type, facts.slices) == ("sagittal", "3D", 170)
    assert facts.contrast_agent == ""


def test_the_real_enhanced_series_are_told_like_a_classic_one(shared_data):
    for path in (shared_data / "siemens_xa30_enh_t1_sag").glob("*/*"):
        facts = read_series_facts(path, instances=1)
        assert facts.scanning_sequence == ("GR", "IR")
        assert (facts.repetition_time, facts.inversion_time) == (1800.0, 900.0)
        assert (facts.plane, facts.slices, facts.slice_step) == ("sagittal", 96, 2.0)
