import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from listener.series import frame_headers
from worker.results.overlay import guide, patient_orientation
from worker.results.result import Kind, objects

PLANES = {
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "sagittal seen from the right": ((0, -1, 0), (0, 0, -1)),
    "axial": ((1, 0, 0), (0, 1, 0)),
    "axial upside down": ((1, 0, 0), (0, -1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "oblique": ((0.1, 0.99, 0.0), (-0.09, 0.01, -0.99)),
}


def overlay(judged):
    return [each for each in objects(judged) if each.kind is Kind.OVERLAY]


def pixels(each):
    image = each.dataset
    return np.frombuffer(image.PixelData, np.uint8)[: image.Rows * image.Columns * 3].reshape(
        image.Rows, image.Columns, 3
    )


def place(image, row, column):
    """Where a pixel lies, in LPS mm, by what the DICOM header alone says (PS3.3 C.7.6.2.1.1)."""
    cosines = np.array(image.ImageOrientationPatient, dtype=float)
    return (
        np.array(image.ImagePositionPatient, dtype=float)
        + cosines[:3] * float(image.PixelSpacing[1]) * column
        + cosines[3:] * float(image.PixelSpacing[0]) * row
    )


@pytest.mark.parametrize("plane", PLANES.values(), ids=PLANES.keys())
def test_heat_falls_on_the_spot_however_the_head_was_scanned(plane, scan, judge):
    judged = judge(scan(plane=plane, size=(60, 56), spacing=(4.0, 3.5)))
    rows, columns = judged.volume.planes.shape[1:]

    def warmth(each):
        picture = pixels(each)[:rows, :columns].astype(int)
        return picture[..., 0] - picture[..., 2]

    images = overlay(judged)
    warmest = max(images, key=lambda each: warmth(each).max())
    row, column = np.unravel_index(warmth(warmest).argmax(), (rows, columns))

    # The map is hot, and the head bright, at RAS (24, 32, 16); slices are 14 mm apart.
    ras = place(warmest.dataset, row, column) * [-1, -1, 1]
    assert np.linalg.norm(ras - [24, 32, 16]) < 10
    anatomy = np.asarray(Image.open(io.BytesIO(warmest.layers.anatomy)))
    assert anatomy[row, column] == 255


def test_every_slice_has_an_image_of_its_own(scan, judge):
    judged = judge(scan(slices=14))

    images = [each.dataset for each in overlay(judged)]

    assert len({image.SOPInstanceUID for image in images}) == 14
    assert all(each.file_meta.MediaStorageSOPInstanceUID == each.SOPInstanceUID for each in images)
    assert [image.InstanceNumber for image in images] == list(range(1, 15))
    assert [image.SourceImageSequence[0].ReferencedSOPInstanceUID for image in images] == [
        slice_.sop_uid for slice_ in judged.volume.slices
    ]


def cosines_of(judged, slice_):
    """The direction cosines in the source's own header."""
    header = next(each for each in judged.sources if each.SOPInstanceUID == slice_.sop_uid)
    frame = frame_headers(header)[(slice_.frame or 1) - 1]
    keyword = "ImageOrientationPatient"
    return list(frame.numbers(f"PlaneOrientationSequence.{keyword}", keyword))


@pytest.mark.parametrize("source", ["head", "philips", "siemens"])
def test_each_image_lies_exactly_where_its_source_slice_does(source, request, judge):
    judged = judge(request.getfixturevalue(source))

    images = overlay(judged)

    assert len(images) == len(judged.volume.slices)
    for each, slice_ in zip(images, judged.volume.slices, strict=True):
        image = each.dataset
        assert image.FrameOfReferenceUID == judged.sources[0].FrameOfReferenceUID
        assert image.ImagePositionPatient == pytest.approx(slice_.position, abs=1e-9)
        assert image.ImageOrientationPatient == cosines_of(judged, slice_)
        assert image.PixelSpacing == [slice_.row_spacing, slice_.column_spacing]
        assert image.SliceThickness == slice_.thickness_mm


def test_frames_of_a_multi_frame_source_are_named_and_placed_one_by_one(judge, siemens):
    judged = judge(siemens)
    source = judged.sources[0]

    for each in overlay(judged):
        (named,) = each.dataset.SourceImageSequence
        frame = source.PerFrameFunctionalGroupsSequence[named.ReferencedFrameNumber - 1]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert named.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert each.dataset.ImagePositionPatient == pytest.approx(list(position), abs=1e-9)


def test_each_image_names_its_source(judged):
    for each, slice_ in zip(overlay(judged), judged.volume.slices, strict=True):
        (named,) = each.dataset.SourceImageSequence
        (series,) = each.dataset.ReferencedSeriesSequence
        assert named.ReferencedSOPInstanceUID == slice_.sop_uid
        assert named.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert series.SeriesInstanceUID == judged.sources[0].SeriesInstanceUID
        assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == slice_.sop_uid


def test_an_image_says_what_it_is(judged):
    image = overlay(judged)[0].dataset

    assert image.SOPClassUID.name == "Secondary Capture Image Storage"
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "OCCLUSION"]
    assert (image.Modality, image.ConversionType) == ("OT", "WSD")
    assert image.BurnedInAnnotation == "NO"
    assert image.RecognizableVisualFeatures == "YES"
    assert image.LossyImageCompression if "LossyImageCompression" in judged.sources[0] else True
    assert "WindowCenter" not in image
    assert "RescaleSlope" not in image


def test_lossy_sources_give_lossy_overlays(judge, scan):
    judged = judge(scan(slices=10, gap_mm=20.0))
    for source in judged.sources:
        source.LossyImageCompression = "01"
        source.LossyImageCompressionRatio = "12"
        source.LossyImageCompressionMethod = "ISO_15444_1"

    image = overlay(judged)[0].dataset

    assert image.LossyImageCompression == "01"
    assert image.LossyImageCompressionRatio == 12
    assert image.LossyImageCompressionMethod == "ISO_15444_1"


def test_no_heat_is_drawn_outside_of_the_head(judged):
    everywhere = replace(judged.map, delta=np.ones_like(judged.map.delta))

    for each in overlay(replace(judged, map=everywhere)):
        opacity = np.asarray(Image.open(io.BytesIO(each.layers.heat)))[..., 3]
        assert opacity[0].max() == 0  # air above the head
        assert opacity[:, 0].max() == 0  # air in front of it


def test_the_guide_names_the_slice_that_is_marked_most_and_how_large_a_pixel_is(judged):
    layers = [each.layers for each in overlay(judged)]
    opacities = [
        np.asarray(Image.open(io.BytesIO(each.heat)))[..., 3].astype(float).mean()
        for each in layers
    ]

    told = json.loads(guide(judged, layers))

    assert np.argmax(told["marked"]) == np.argmax(opacities)
    assert 0 < max(told["marked"]) < 1
    assert told["pixel_mm"] == [4.0, 4.0]
    assert told["two_sided"]
    assert told["largest"] >= judged.map.strongest
    assert "Map mode" in told["caption"]


def test_layers_are_the_bare_picture_without_margins(judged):
    for each in overlay(judged):
        anatomy = Image.open(io.BytesIO(each.layers.anatomy))
        heat = Image.open(io.BytesIO(each.layers.heat))
        rows, columns = judged.volume.planes.shape[1:]
        assert (anatomy.mode, anatomy.size) == ("L", (columns, rows))
        assert (heat.mode, heat.size) == ("RGBA", (columns, rows))
        assert each.layers.pixel_mm == (4.0, 4.0)


@pytest.mark.parametrize(
    ("row", "column", "letters"),
    [
        ((0, 1, 0), (0, 0, -1), ["P", "F"]),
        ((1, 0, 0), (0, 1, 0), ["L", "P"]),
        ((-1, 0, 0), (0, 0, 1), ["R", "H"]),
        ((0.8, 0.6, 0), (0, 0, -1), ["LP", "F"]),
    ],
)
def test_letters_point_where_the_indices_grow(row, column, letters):
    assert patient_orientation(np.array(row, float), np.array(column, float)) == letters
