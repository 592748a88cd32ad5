"""A voxel is where the scanner says it is: left stays left, whatever order files and frames have.

Test geometry is written down by the DICOM equation (PS3.3 C.7.6.2.1.1) and never by the code
under test: a bright mark is planted at the pixel nearest to a known place in the patient.
"""

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from listener.errors import BadAttribute
from listener.selection import select
from listener.series import read_series_facts
from worker.limits import Limits
from worker.quality import Reason, UnusableStudy, check_headers, check_volume
from worker.volume import read_volume

SPACING = (1.5, 2.5)  # between rows, between columns: unequal, so that a swap shows
STEP_MM = 3.0
SLICES, ROWS, COLUMNS = 13, 36, 32  # no less than what JPEG 2000 halves five times

# Left, anterior and superior of the middle, by different amounts: no mirror image is alike.
MARK_RAS = np.array([-9.0, 6.0, 12.0])

AXIAL = np.array([[1.0, 0, 0], [0, 1, 0]])
CORONAL = np.array([[1.0, 0, 0], [0, 0, -1]])
SAGITTAL = np.array([[0, 1.0, 0], [0, 0, -1]])


def turned(plane, degrees_about):
    """The directions of a plane after turns about the patient's x, y and z axis."""
    turn = np.eye(3)
    for axis, degrees in enumerate(degrees_about):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        a, b = [other for other in range(3) if other != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = cosine
        step[a, b], step[b, a] = -sine, sine
        turn = step @ turn
    return plane @ turn.T


@dataclass
class Series:
    """Parallel planes around the middle of the world, with `along` +1 or -1 times row x column."""

    plane: np.ndarray
    along: int = 1

    def positions(self):
        row, column = self.plane
        step = np.cross(row, column) * STEP_MM * self.along
        corner = -(row * SPACING[1] * (COLUMNS - 1) + column * SPACING[0] * (ROWS - 1)) / 2
        return [corner + step * (k - (SLICES - 1) / 2) for k in range(SLICES)]

    def marked(self, ras):
        """Planes with 1000 at the pixel nearest to a place, 10 elsewhere, and that pixel's RAS."""
        k, r, c = np.indices((SLICES, ROWS, COLUMNS))
        row, column = self.plane
        lps = np.array(self.positions())[k] + row * SPACING[1] * c[..., None]
        lps = lps + column * SPACING[0] * r[..., None]
        places = lps * (-1, -1, 1)
        distance = np.linalg.norm(places - ras, axis=-1)
        nearest = np.unravel_index(np.argmin(distance), distance.shape)
        planes = np.full(distance.shape, 10, dtype=np.uint16)
        planes[nearest] = 1000
        assert distance[nearest] < STEP_MM
        return planes, places[nearest]


def image(plane, **elements):
    """One stored image of a series; elements add to or replace attributes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.1"
    dataset.FrameOfReferenceUID = "1.2.9"
    dataset.Modality = "MR"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(plane.dtype.kind == "i")
    dataset.PixelData = plane.tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def item(**elements):
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def decimals(numbers):
    return [f"{number:.9g}" for number in numbers]


def classic(series, planes, **elements):
    """A single-frame instance for each slice."""
    return [
        image(
            plane,
            InstanceNumber=k + 1,
            ImagePositionPatient=decimals(position),
            ImageOrientationPatient=decimals(series.plane.ravel()),
            PixelSpacing=decimals(SPACING),
            SliceThickness="3",
            **elements,
        )
        for k, (plane, position) in enumerate(zip(planes, series.positions(), strict=True))
    ]


def enhanced(series, planes, order, **elements):
    """One multi-frame instance whose frames are the slices in `order`."""
    frames = [
        item(
            PlanePositionSequence=Sequence(
                [item(ImagePositionPatient=decimals(series.positions()[k]))]
            )
        )
        for k in order
    ]
    shared = item(
        PixelMeasuresSequence=Sequence([item(PixelSpacing=decimals(SPACING), SliceThickness="3")]),
        PlaneOrientationSequence=Sequence(
            [item(ImageOrientationPatient=decimals(series.plane.ravel()))]
        ),
    )
    return image(
        planes[list(order)],
        SOPClassUID=EnhancedMRImageStorage,
        NumberOfFrames=len(frames),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        **elements,
    )


@pytest.fixture
def saved(tmp_path):
    def save(*datasets):
        paths = [tmp_path / f"{at}.dcm" for at in range(len(datasets))]
        for path, dataset in zip(paths, datasets, strict=True):
            dataset.save_as(path, enforce_file_format=True)
        return paths

    return save


GEOMETRIES = {
    f"{name}, slices {'along' if along > 0 else 'against'} row x column": Series(plane, along)
    for name, plane in {
        "sagittal": SAGITTAL,
        "coronal": CORONAL,
        "axial": AXIAL,
        "axial from below": AXIAL * [[-1], [1]],
        "sagittal tilted": turned(SAGITTAL, (12, 0, 9)),
        "coronal tilted": turned(CORONAL, (-20, 15, 0)),
        "axial tilted twice": turned(AXIAL, (25, -14, 31)),
    }.items()
    for along in (1, -1)
}


def found(volume):
    """Where the mark lies by the volume's affine, and by its slice."""
    assert np.count_nonzero(volume.voxels == volume.voxels.max()) == 1
    index = np.unravel_index(np.argmax(volume.voxels), volume.voxels.shape)
    k, r, c = np.unravel_index(np.argmax(volume.planes), volume.planes.shape)
    by_slice = volume.slices[k].pixel_to_ras() @ (c, r, 0, 1)
    return (volume.affine @ (*index, 1))[:3], by_slice[:3]


@pytest.mark.parametrize("order", ["first to last", "last to first", "at random"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_mark_on_the_left_of_a_classic_series_is_found_on_the_left(saved, name, order):
    series = GEOMETRIES[name]
    planes, place = series.marked(MARK_RAS)
    paths = saved(*classic(series, planes))
    if order == "last to first":
        paths.reverse()
    elif order == "at random":
        random.Random(1).shuffle(paths)
    volume = read_volume(paths)
    by_affine, by_slice = found(volume)
    np.testing.assert_allclose(by_affine, place, atol=1e-4)
    np.testing.assert_allclose(by_slice, place, atol=1e-4)
    assert by_affine[0] < 0 < by_affine[1] < by_affine[2]


@pytest.mark.parametrize("order", [range(SLICES), range(SLICES - 1, -1, -1)], ids=["up", "down"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_mark_on_the_left_of_an_enhanced_series_is_found_on_the_left(saved, name, order):
    series = GEOMETRIES[name]
    planes, place = series.marked(MARK_RAS)
    volume = read_volume(saved(enhanced(series, planes, order)))
    by_affine, by_slice = found(volume)
    np.testing.assert_allclose(by_affine, place, atol=1e-4)
    np.testing.assert_allclose(by_slice, place, atol=1e-4)
    marked = volume.slices[int(np.argmax(volume.planes.max(axis=(1, 2))))]
    assert marked.frame == 1 + list(order).index(int(np.argmax(planes.max(axis=(1, 2)))))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_voxel_axes_run_to_the_right_front_and_top(saved, name):
    series = GEOMETRIES[name]
    planes, _ = series.marked(MARK_RAS)
    volume = read_volume(saved(*classic(series, planes)))
    directions = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    assert np.all(np.diag(directions) > 0.7)
    assert np.linalg.det(volume.affine[:3, :3]) > 0
    np.testing.assert_allclose(np.linalg.det(directions), 1, atol=1e-6)


def test_obliqueness_stays_in_the_affine(saved):
    series = Series(turned(SAGITTAL, (12, 0, 9)))
    planes, _ = series.marked(MARK_RAS)
    volume = read_volume(saved(*classic(series, planes)))
    row, column = series.plane * (-1, -1, 1)
    np.testing.assert_allclose(volume.affine[:3, 1], -row * SPACING[1], atol=1e-6)
    np.testing.assert_allclose(volume.affine[:3, 2], -column * SPACING[0], atol=1e-6)


def test_slices_and_planes_are_sorted_along_the_normal(saved):
    series = Series(SAGITTAL, along=-1)
    planes = np.arange(SLICES, dtype=np.uint16)[:, None, None] + np.zeros((1, ROWS, COLUMNS))
    volume = read_volume(saved(*classic(series, planes.astype(np.uint16))))
    assert [piece.instance_number for piece in volume.slices] == list(range(SLICES, 0, -1))
    assert volume.planes[:, 0, 0].tolist() == list(range(SLICES - 1, -1, -1))
    np.testing.assert_allclose(volume.gaps_mm, STEP_MM, atol=1e-6)
    np.testing.assert_allclose(volume.shifts_mm, 0, atol=1e-6)


def test_single_frame_slices_carry_no_frame_number(saved):
    series = Series(AXIAL)
    planes, _ = series.marked(MARK_RAS)
    volume = read_volume(saved(*classic(series, planes, NumberOfFrames=1)))
    assert {piece.frame for piece in volume.slices} == {None}


def test_each_file_is_read_once(saved, monkeypatch):
    reads = []
    dcmread = pydicom.dcmread
    monkeypatch.setattr(
        pydicom,
        "dcmread",
        lambda file, **how: reads.append(Path(file.name)) or dcmread(file, **how),
    )
    series = Series(AXIAL)
    paths = saved(*classic(series, series.marked(MARK_RAS)[0]))
    read_volume(paths)
    assert sorted(reads) == sorted(paths)


# --- pixel values ---


def test_each_slice_is_rescaled_by_its_own_slope_and_intercept(saved):
    series = Series(AXIAL)
    datasets = classic(series, np.full((SLICES, ROWS, COLUMNS), 100, dtype=np.uint16))
    for k, dataset in enumerate(datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = str(1 + k), str(-7 * k)
    volume = read_volume(saved(*datasets))
    assert volume.planes.dtype == volume.voxels.dtype == np.float32
    assert volume.planes[:, 3, 5].tolist() == [100 * (1 + k) - 7 * k for k in range(SLICES)]


def test_each_frame_is_rescaled_by_its_own_slope_and_intercept(saved):
    series = Series(AXIAL)
    planes = np.full((SLICES, ROWS, COLUMNS), 100, dtype=np.uint16)
    dataset = enhanced(series, planes, range(SLICES), RescaleSlope="99", RescaleIntercept="99")
    for k, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        value = item(RescaleSlope=str(0.5 + k), RescaleIntercept=str(-k))
        frame.PixelValueTransformationSequence = Sequence([value])
    volume = read_volume(saved(dataset))
    assert volume.planes[:, 3, 5].tolist() == [100 * (0.5 + k) - k for k in range(SLICES)]


def test_signed_pixels_stay_signed(saved):
    series = Series(AXIAL)
    planes = np.full((SLICES, ROWS, COLUMNS), -300, dtype=np.int16)
    assert set(read_volume(saved(*classic(series, planes))).planes.ravel()) == {-300.0}


def test_signed_pixels_of_twelve_bits_stay_signed(saved):
    series = Series(AXIAL)
    planes = np.full((SLICES, ROWS, COLUMNS), 0x0FFF - 299, dtype=np.uint16)  # -300 in 12 bits
    datasets = classic(series, planes, PixelRepresentation=1, BitsStored=12, HighBit=11)
    assert set(read_volume(saved(*datasets)).planes.ravel()) == {-300.0}


def test_overlays_in_the_unused_high_bits_are_no_signal(saved):
    series = Series(AXIAL)
    planes = np.full((SLICES, ROWS, COLUMNS), 0x8000 + 300, dtype=np.uint16)
    datasets = classic(series, planes, BitsStored=12, HighBit=11)
    assert set(read_volume(saved(*datasets)).planes.ravel()) == {300.0}


def test_a_deflated_series_reads_like_a_plain_one(saved):
    series = Series(AXIAL)
    planes, place = series.marked(MARK_RAS)
    datasets = classic(series, planes)
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    np.testing.assert_allclose(found(read_volume(saved(*datasets)))[0], place, atol=1e-4)


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.name
)
def test_a_compressed_multi_frame_series_reads_like_a_plain_one(saved, syntax):
    series = Series(SAGITTAL)
    planes = np.random.default_rng(2).integers(0, 4096, (SLICES, ROWS, COLUMNS), dtype=np.uint16)
    dataset = enhanced(series, planes, range(SLICES))
    if syntax == JPEG2000Lossless:  # pydicom encodes it only with pylibjpeg
        dataset.PixelData = encapsulate(
            [encode_array(plane, photometric_interpretation=2) for plane in planes]
        )
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(read_volume(saved(dataset)).planes, planes)


def test_the_nine_transfer_syntaxes_of_one_real_image_decode_to_the_same_pixels(shared_data):
    folder = shared_data / "odd" / "transfer_syntaxes_mosaic"
    volumes = {path.name: read_volume([path]) for path in sorted(folder.glob("*.dcm"))}
    assert len(volumes) == 9
    first = volumes.pop("1.dcm")
    assert first.planes.max() > 1000
    for volume in volumes.values():
        np.testing.assert_array_equal(volume.planes, first.planes)


def test_one_real_series_in_four_compressions_reads_alike(shared_data):
    folders = sorted((shared_data / "odd" / "dicom2nifti").glob("generic-compressed_*"))
    volumes = [read_volume(list(folder.glob("*.dcm"))) for folder in folders]
    assert len(volumes) == 4
    for volume in volumes[1:]:
        np.testing.assert_array_equal(volume.voxels, volumes[0].voxels)
        np.testing.assert_array_equal(volume.affine, volumes[0].affine)


# --- refusals ---


def refusal(paths):
    with pytest.raises(UnusableStudy) as caught:
        read_volume(paths)
    return caught.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SeriesInstanceUID": "1.2.2"}, "several series"),
        ({"FrameOfReferenceUID": "1.2.8"}, "several frames of reference"),
        ({"Rows": ROWS // 2}, "different sizes"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "different orientations"),
        ({"PixelSpacing": [1.5, 2.6]}, "different pixel spacings"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, "magnitude images mixed with phase"),
        ({"EchoTime": "7.2"}, "several echo times"),
    ],
)
def test_a_series_that_mixes_images_is_refused_in_words(saved, changes, words):
    series = Series(AXIAL)
    datasets = classic(
        series, series.marked(MARK_RAS)[0], EchoTime="2.4", ImageType=["ORIGINAL", "PRIMARY", "M"]
    )
    for keyword, value in changes.items():
        setattr(datasets[4], keyword, value)
    error = refusal(saved(*datasets))
    assert error.reason is Reason.MIXED
    assert words in error.found


@pytest.mark.parametrize(
    ("keyword", "values", "words"),
    [
        ("TemporalPositionIdentifier", (1, 2), "several points in time"),
        ("InversionTime", ("700", "2500"), "several inversion times"),
        (
            "ImageType",
            (["ORIGINAL", "PRIMARY", "M", "W"], ["ORIGINAL", "PRIMARY", "M", "F"]),
            "kind",
        ),
    ],
)
def test_two_stacks_at_one_place_are_refused_with_what_tells_them_apart(
    saved, keyword, values, words
):
    series = Series(AXIAL)
    planes, _ = series.marked(MARK_RAS)
    stacks = [classic(series, planes, **{keyword: value}) for value in values]
    error = refusal(saved(*stacks[0], *stacks[1]))
    assert error.reason is Reason.MIXED
    assert words in error.found


def test_two_points_in_time_within_one_enhanced_object_are_refused(saved):
    series = Series(AXIAL)
    dataset = enhanced(series, series.marked(MARK_RAS)[0], [*range(SLICES), *range(SLICES)])
    for at, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        content = item(TemporalPositionIndex=1 + at // SLICES)
        frame.FrameContentSequence = Sequence([content])
    assert refusal(saved(dataset)).reason is Reason.MIXED


def test_a_time_index_for_every_slice_of_one_stack_does_no_harm(saved):
    series = Series(AXIAL)
    planes, place = series.marked(MARK_RAS)
    datasets = classic(series, planes)
    for k, dataset in enumerate(datasets):
        dataset.TemporalPositionIdentifier = k + 1
    np.testing.assert_allclose(found(read_volume(saved(*datasets)))[0], place, atol=1e-4)


@pytest.mark.parametrize(
    "missing", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
)
def test_an_image_that_does_not_say_where_it_lies_is_refused(saved, missing):
    series = Series(AXIAL)
    datasets = classic(series, series.marked(MARK_RAS)[0])
    delattr(datasets[7], missing)
    error = refusal(saved(*datasets))
    assert error.reason is Reason.UNREADABLE
    assert "where it lies" in error.found


@pytest.mark.filterwarnings("ignore:The pixel data:UserWarning")
@pytest.mark.parametrize(
    "changes",
    [
        {"PixelData": b"\0\0"},
        {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"NumberOfFrames": 7},
        {"Rows": 0},
        {"RescaleSlope": "1e300"},
        {"BitsAllocated": 13},
    ],
    ids=str,
)
def test_an_image_that_cannot_be_read_is_refused(saved, changes):
    series = Series(AXIAL)
    datasets = classic(series, series.marked(MARK_RAS)[0])
    for keyword, value in changes.items():
        setattr(datasets[7], keyword, value)
    assert refusal(saved(*datasets)).reason is Reason.UNREADABLE


def test_no_files_and_files_that_are_no_dicom_are_refused(tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(b"\0" * 1000)
    assert refusal([]).reason is Reason.UNREADABLE
    assert refusal([path]).reason is Reason.UNREADABLE


def test_files_that_are_not_to_be_had_are_no_reason_to_refuse(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_volume([tmp_path / "absent.dcm"])


def test_a_slice_keeps_the_direction_cosines_as_its_source_rounded_them(saved):
    series = Series(AXIAL)
    rounded = [0.999, 0.004, 0.0, 0.0, 0.999, 0.0]
    datasets = classic(series, series.marked(MARK_RAS)[0])
    for dataset in datasets:
        dataset.ImageOrientationPatient = rounded
    for piece in read_volume(saved(*datasets)).slices:
        assert list(piece.orientation) == rounded
        assert np.linalg.norm(piece.row) == pytest.approx(1)
        assert piece.row @ piece.column == pytest.approx(0)


def test_a_series_that_announces_too_many_voxels_is_refused_before_they_are_allocated(saved):
    series = Series(AXIAL)
    datasets = classic(series, series.marked(MARK_RAS)[0], Rows=65535, Columns=65535)
    assert refusal(saved(*datasets)).reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("limits", "found", "needed"),
    [
        (Limits(series_bytes=1000), "0.0 GiB", "and 0.0 GiB"),
        (Limits(slices=12), "13 files", "at most 12 slices"),
        (Limits(slice_pixels=1000), "a slice of 36 x 32 pixels", "0.0 million pixels in each"),
        (Limits(voxels=10_000), "0 million voxels", "0 million voxels"),
    ],
)
def test_a_series_that_is_larger_than_the_settings_allow_is_refused(saved, limits, found, needed):
    series = Series(AXIAL)
    paths = saved(*classic(series, series.marked(MARK_RAS)[0]))
    with pytest.raises(UnusableStudy) as error:
        read_volume(paths, limits)
    assert error.value.reason is Reason.TOO_LARGE
    assert error.value.found == found
    assert needed in error.value.needed


# --- real series ---


def test_the_real_mprage_lies_where_its_headers_say(shared_data):
    paths = sorted((shared_data / "philips_mprage_sag").iterdir())
    volume = read_volume(paths)
    assert volume.voxels.shape == (170, 256, 256)
    header = pydicom.dcmread(paths[100])
    row, column = np.array(header.ImageOrientationPatient).reshape(2, 3)
    r, c = 77, 140
    lps = np.array(header.ImagePositionPatient) + row * c + column * r
    i, j, k = np.round(np.linalg.solve(volume.affine, [-lps[0], -lps[1], lps[2], 1]))[:3].astype(
        int
    )
    stored = header.pixel_array[r, c] * float(header.RescaleSlope)
    assert volume.voxels[i, j, k] == pytest.approx(stored, rel=1e-6)
    assert volume.voxels[i, j, k] > 30


@pytest.mark.parametrize("folder", ["5_anat-T1w", "6_anat-T1w_norm"])
def test_real_frames_that_run_against_the_cross_product_are_not_mirrored(shared_data, folder):
    (path,) = (shared_data / "siemens_xa30_enh_t1_sag" / folder).iterdir()
    volume = read_volume([path])
    dataset = pydicom.dcmread(path)
    frames = dataset.PerFrameFunctionalGroupsSequence
    x_lps = [frame.PlanePositionSequence[0].ImagePositionPatient[0] for frame in frames]
    assert x_lps[0] == pytest.approx(-100.424)  # the patient's right comes first
    assert np.cross([0, 1, 0], [0, 0, -1])[0] == -1  # and the cross product runs to the right
    rightmost = volume.voxels[-1]
    np.testing.assert_array_equal(rightmost, np.flip(dataset.pixel_array[0].T, (0, 1)))
    assert (volume.affine @ [95, 0, 0, 1])[0] == pytest.approx(100.424)


# --- everything odd ---

ODD = (
    "charset",
    "frag",
    "pydicom",
    "siemens_scout_xa30i",
    "transfer_syntaxes_mosaic",
    "dicom2nifti/failing-gantrytilting_001",
    "dicom2nifti/failing-slicecount_001",
    "dicom2nifti/failing-sliceorientation_001",
    "dicom2nifti/ge-anatomical_001_single_slice",
    "dicom2nifti/generic-anatomical_002_non_isotropic",
    "dicom2nifti/generic-compressed_j2k_001",
    "dicom2nifti/generic-compressed_jpeg_001",
    "dicom2nifti/generic-compressed_jpegls_001",
    "dicom2nifti/generic-compressed_rle_001",
    "dicom2nifti/generic-rgb_001",
    "dicom2nifti/hitachi-anatomical_001",
    "dicom2nifti/hyperfine-anatomical_001",
    "dicom2nifti/philips_enhanced-anatomical_001_implicit",
    "dicom2nifti/siemens_multiframe-anatomical_001",
)


def test_the_list_of_odd_folders_is_complete(shared_data):
    odd = shared_data / "odd"
    files = {path for path in odd.rglob("*") if path.is_file()}
    assert files == {path for folder in ODD for path in (odd / folder).rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("folder", ODD)
def test_odd_files_end_in_a_value_or_a_named_refusal(shared_data, folder):
    paths = [path for path in (shared_data / "odd" / folder).rglob("*") if path.is_file()]
    series: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            facts = read_series_facts(path, instances=1)
        except BadAttribute:
            assert folder in {"charset", "pydicom"}
            continue
        series[facts.series_uid].append(path)
    for of_one in series.values():
        facts = read_series_facts(of_one[0], len(of_one))
        assert select("fistula", [facts]).verdicts[0].series_uid == facts.series_uid
        for check in (
            lambda facts=facts: check_headers(facts, "fistula"),
            lambda of_one=of_one: check_volume(read_volume(of_one), "fistula"),
        ):
            with pytest.raises(UnusableStudy) as caught:
                check()
            assert str(caught.value).endswith(".")
