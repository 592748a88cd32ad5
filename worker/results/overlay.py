"""The overlay series: one colour Secondary Capture per source slice, where the slice is.

Secondary Capture is outside of IHE AIR and the one thing that every viewer shows. Each image has
the frame of reference, position, orientation and spacing of its source slice, of the frame where
the source is multi-frame, so that viewers scroll both together.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from worker.analyses.interface import Explanation
from worker.occlusion import OcclusionMap
from worker.results import picture, terms
from worker.results.header import copied
from worker.results.letterhead import Letterhead, coded
from worker.results.outcome import Judged
from worker.results.outlines import Outlines
from worker.results.picture import Bytes, Colours
from worker.results.resliced import OnSlices, resliced
from worker.results.terms import Kind
from worker.volume import Slice

SHARED_WITH_SOURCE: Final = (
    "PatientPosition",
    "FrameOfReferenceUID",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
# PS3.3 C.7.6.1.1.1: LPS axis -> letter towards its positive and its negative end.
DIRECTIONS: Final = (("L", "R"), ("P", "A"), ("H", "F"))
# Threads: more of them would wait for each other's Python.
PAINTERS: Final = 2
# About 6 degrees: a smaller tilt is not worth a letter.
LEAST_COSINE: Final = 0.1


@dataclass(frozen=True)
class Layers:
    """The two layers of one overlay image as PNG files, for the console; without margins.

    Attributes:
        anatomy: 8-bit grey.
        heat: RGBA, transparent where blanking changed nothing.
        pixel_mm: height and width of a pixel, to show it undistorted.
        marked: mean opacity of the map on the slice, 0 to 1, relative to what it may have at most.
    """

    anatomy: bytes
    heat: bytes
    pixel_mm: tuple[float, float]
    marked: float


def overlay(letterhead: Letterhead, judged: Judged) -> Iterator[tuple[Dataset, Layers]]:
    """Each slice of the volume in turn, as an image with margins and as bare layers."""
    series_of = {each.SOPInstanceUID: each.SeriesInstanceUID for each in judged.sources}
    common = letterhead.instance(Kind.OVERLAY)
    _put_series(common, letterhead, judged)
    _put_derivation(common, letterhead, judged.map)
    painter = _Painter.of(judged)
    _put_format(common, painter.frame)
    slices, planes = judged.volume.slices, judged.volume.planes
    with ThreadPoolExecutor(PAINTERS, thread_name_prefix="overlay") as pool:
        painted = pool.map(painter.paint, slices, planes)
        for index, (source, (rgb, layers)) in enumerate(zip(slices, painted, strict=True)):
            image = letterhead.another(common, Kind.OVERLAY, index)
            put_place(image, source)
            _put_origin(image, source, series_of[source.sop_uid])
            _put_pixels(image, rgb)
            yield image, layers


@dataclass(frozen=True, eq=False)
class _Painter:
    """What all pictures of a series share."""

    window: picture.Window
    colours: Colours
    on_slices: OnSlices
    outlines: Outlines
    frame: picture.Frame

    @classmethod
    def of(cls, judged: Judged) -> "_Painter":
        colours = Colours(picture.rounded_up(judged.map.strongest))
        first = judged.volume.slices[0]
        outlines = Outlines.of(judged)
        caption = " ".join((judged.bundle.statement, judged.map.brief, *outlines.legend))
        return cls(
            picture.window(judged.volume.planes),
            colours,
            resliced(judged.volume, judged.map),
            outlines,
            picture.frame(first.rows, first.columns, colours, caption),
        )

    def paint(self, source: Slice, plane: NDArray[np.floating]) -> tuple[Bytes, Layers]:
        """One slice: the picture within its margins, and its layers."""
        grey = self.window.grey(plane)
        heat = self.colours.rgba(self.on_slices.effects(source), self.on_slices.share(source))
        marked = float(heat[..., 3].mean()) / (255 * picture.OPAQUE)
        self.outlines.draw(heat, source)
        pixel_mm = (source.row_spacing, source.column_spacing)
        layers = Layers(picture.png(grey), picture.png(heat), pixel_mm, marked)
        return self.frame.around(picture.blend(grey, heat)), layers


def guide(judged: Judged, layers: Sequence[Layers]) -> bytes:
    """What the console must know to show the layers: JSON, read by listener/console/slices.py.

    Args:
        judged: that they show.
        layers: of all slices in order; at least one.
    """
    told = {
        "pixel_mm": layers[0].pixel_mm,
        "marked": [round(each.marked, 4) for each in layers],
        "largest": picture.rounded_up(judged.map.strongest),
        "two_sided": isinstance(judged.map, OcclusionMap),
        "caption": " ".join((judged.map.brief, *Outlines.of(judged).legend)),
    }
    return json.dumps(told).encode()


def patient_orientation(row: NDArray[np.float64], column: NDArray[np.float64]) -> list[str]:
    """Letters for the directions in which column and row index grow (PS3.3 C.7.6.1.1.1).

    Args:
        row: (3,) LPS direction cosines in which the column index grows.
        column: (3,) likewise for the row index.

    >>> patient_orientation(np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.3, -0.954]))
    ['P', 'FP']
    """
    return [_letters(row), _letters(column)]


def _letters(direction: NDArray[np.float64]) -> str:
    strongest_first = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(
        DIRECTIONS[axis][int(direction[axis] < 0)]
        for axis in strongest_first
        if abs(direction[axis]) > LEAST_COSINE
    )


def _put_series(image: Dataset, letterhead: Letterhead, judged: Judged) -> None:
    """General Series, Frame of Reference and SC Equipment modules."""
    image.Modality = "OT"
    image.BodyPartExamined = judged.terms.body_part  # Laterality would be required without it
    image.ConversionType = "WSD"
    image.update(copied(letterhead.header, SHARED_WITH_SOURCE))
    if "FrameOfReferenceUID" in image:
        image.PositionReferenceIndicator = letterhead.header.get("PositionReferenceIndicator", "")


def put_place(image: Dataset, source: Slice) -> None:
    """Image Plane module (PS3.3 C.7.6.2): that of the source slice."""
    image.ImagePositionPatient = _decimals(*source.position)
    spacing = source.row_spacing, source.column_spacing
    axes = tuple(source.row), tuple(source.column)
    image.update(_plane(source.orientation, axes, spacing, source.thickness_mm))


@lru_cache(maxsize=8)
def _plane(
    orientation: tuple[float, ...],
    axes: tuple[tuple[float, ...], tuple[float, ...]],
    spacing: tuple[float, float],
    thickness_mm: float | None,
) -> Dataset:
    """What the slices of a stack have in common, to be shared by their images."""
    plane = Dataset()
    plane.PatientOrientation = patient_orientation(*map(np.array, axes))
    plane.ImageOrientationPatient = _decimals(*orientation)
    plane.PixelSpacing = _decimals(*spacing)
    plane.SliceThickness = _decimals(thickness_mm)[0] if thickness_mm else None
    return plane


def _decimals(*values: float) -> list[str]:
    return [format_number_as_ds(float(value)) for value in values]


def _put_derivation(image: Dataset, letterhead: Letterhead, map_: Explanation) -> None:
    """General Image and SC Image modules: how all images of the series were made."""
    image.ImageType = ["DERIVED", "SECONDARY", map_.image_type]
    image.DerivationDescription = (
        f"{map_.title} over the source image: {map_.derivation}; {map_.how}"
    )
    image.DateOfSecondaryCapture, image.TimeOfSecondaryCapture = letterhead.date, letterhead.time
    image.BurnedInAnnotation = "NO"  # PS3.3 C.7.6.1: nothing that identifies the patient
    image.RecognizableVisualFeatures = "YES"  # sagittal heads show the face


def _put_origin(image: Dataset, source: Slice, series_uid: str) -> None:
    """General Image and Common Instance Reference modules: made from what."""
    image.SourceImageSequence = [_source_image(source)]
    series = Dataset()
    series.SeriesInstanceUID = series_uid
    series.ReferencedInstanceSequence = [reference(source)]
    image.ReferencedSeriesSequence = [series]


def _source_image(source: Slice) -> Dataset:
    item = reference(source)
    if source.frame is not None:
        item.ReferencedFrameNumber = source.frame
    item.update(_as_source())
    return item


@cache
def _as_source() -> Dataset:
    """What a reference is for, to be shared by all references."""
    purpose = Dataset()
    purpose.PurposeOfReferenceCodeSequence = [coded(terms.SOURCE_IMAGE)]
    return purpose


def reference(source: Slice) -> Dataset:
    """Name the instance that a slice is of."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.sop_class_uid
    item.ReferencedSOPInstanceUID = source.sop_uid
    return item


def _put_format(image: Dataset, frame: picture.Frame) -> None:
    """Image Pixel module (PS3.3 C.7.6.3), but for the pixels."""
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = frame.canvas.shape[:2]
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelRepresentation = 0


def _put_pixels(image: Dataset, rgb: Bytes) -> None:
    image["PixelData"] = DataElement("PixelData", "OB", rgb.tobytes() + b"\0" * (rgb.size % 2))
