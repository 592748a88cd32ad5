"""Series -> Volume: the only code that turns DICOM geometry into numbers.

Axes, stated here for all of monro: world coordinates are RAS+ in mm, so x grows to the patient's
Right, y to Anterior, z to Superior. DICOM writes LPS (PS3.3 C.7.6.2.1.1): RAS x = -LPS x,
RAS y = -LPS y, z is the same. Voxel axis 0 of a volume runs to the Right, axis 1 to Anterior,
axis 2 to Superior, each as nearly as a permutation and flips of the acquired axes allow; how far a
tilted scan departs from the world axes stays in the affine.

Slices are put in order by where they lie, never by name, number or order of arrival, and the slice
direction is taken from their positions: scanners run it along the cross product of row and column
and against it alike.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from listener.errors import BadAttribute
from listener.reading import Allowance, TooMuch
from listener.series import MOST_PIECES as MOST_PIECES_IN_ONE
from listener.series import Header, frame_headers, read_instance
from worker.decoder import Decoder, Stored, Undecodable
from worker.limits import LIMITS, MOST_PIECES, Limits
from worker.preprocess import canonical
from worker.quality import NEEDED, SAME_POSITION_MM, Reason, UnusableStudy

LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])

# Scanners round direction cosines to 4-6 digits; half a degree is another plan of the scan.
COSINE_TOLERANCE: Final = 0.005
SPACING_TOLERANCE_MM: Final = 0.001
ECHO_TOLERANCE_MS: Final = 0.5


@dataclass(frozen=True, eq=False)
class Slice:
    """Where one source image lies in the patient.

    Attributes:
        frame: number within a multi-frame instance, from 1; None for a single-frame instance.
        position: (3,) LPS mm, centre of the first pixel (ImagePositionPatient).
        row: (3,) LPS, unit, direction in which the column index grows.
        column: (3,) LPS, unit, direction in which the row index grows.
        orientation: row and column as the source rounded them (ImageOrientationPatient), for
            headers that must agree with its own.
        row_spacing: mm between rows (PixelSpacing[0]).
        column_spacing: mm between columns (PixelSpacing[1]).
    """

    sop_uid: str
    sop_class_uid: str
    frame: int | None
    instance_number: int | None
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    orientation: tuple[float, ...]
    row_spacing: float
    column_spacing: float
    thickness_mm: float | None
    rows: int
    columns: int

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) LPS, unit: row x column."""
        return np.cross(self.row, self.column)

    def pixel_to_ras(self) -> NDArray[np.float64]:
        """The 4x4 affine from (column index, row index, 0, 1) to RAS mm."""
        lps = np.eye(4)
        lps[:3, 0] = self.row * self.column_spacing
        lps[:3, 1] = self.column * self.row_spacing
        lps[:3, 2] = self.normal
        lps[:3, 3] = self.position
        return LPS_TO_RAS @ lps


@dataclass(frozen=True, eq=False)
class Volume:
    """One series as a block of voxels and as the planes it was acquired in.

    Attributes:
        voxels: (X, Y, Z) float32, rescaled stored values (PS3.3 C.11.1); axes run R, A, S.
        affine: (4, 4), voxel index to RAS mm.
        slices: sorted along the slice normal, row x column.
        planes: (slices, rows, columns) float32, the same values as acquired, in slice order.
        frame_of_reference: UID of the coordinates that all slices share; empty where none is given.
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    slices: tuple[Slice, ...]
    planes: NDArray[np.float32]
    frame_of_reference: str = ""

    @property
    def gaps_mm(self) -> NDArray[np.float64]:
        """(slices - 1,) distance from each slice to the next along the normal, 0 or more."""
        return np.diff(_depths(self.slices))

    @property
    def shifts_mm(self) -> NDArray[np.float64]:
        """(slices - 1,) how far each slice is shifted sideways, within its plane, to the next."""
        steps = np.diff([piece.position for piece in self.slices], axis=0)
        along = np.outer(steps @ self.slices[0].normal, self.slices[0].normal)
        shifts: NDArray[np.float64] = np.linalg.norm(steps - along, axis=1)
        return shifts


@dataclass(frozen=True, eq=False)
class _Frame:
    """One image before its pixels are read: where it lies, and what it is an image of."""

    slice: Slice
    index: int
    slope: float
    intercept: float
    series_uid: str
    frame_of_reference: str
    component: str
    echo_time: float | None
    inversion_time: float | None
    temporal_position: int | None
    image_type: tuple[str, ...]


def read_volume(paths: Sequence[Path], limits: Limits = LIMITS) -> Volume:
    """Read one series, classic or enhanced multi-frame, from its files; each is read once.

    The result is a volume for any set of parallel images; whether slices are enough, evenly spaced
    and all there is for `quality.check_volume` to say.

    Raises:
        UnusableStudy: UNREADABLE, MIXED or TOO_LARGE.
        OSError: a file is not to be had at present, or no process to decode it.
    """
    datasets = read_datasets(paths, limits)
    frames = [_frames(dataset) for dataset in datasets]
    every = [frame for of_one in frames for frame in of_one]
    _refuse_what_is_too_large(every, limits)
    _refuse_mixtures(every)
    order = _along_normal([frame.slice for frame in every])
    planes = _planes(datasets, frames, np.argsort(order).tolist(), limits)
    slices = tuple(every[at].slice for at in order)
    voxels, affine = canonical(planes, LPS_TO_RAS @ _planes_to_lps(slices))
    return Volume(np.ascontiguousarray(voxels), affine, slices, planes, every[0].frame_of_reference)


# --- headers ---


def read_datasets(paths: Sequence[Path], limits: Limits) -> list[Dataset]:
    """Read instances with their pixels, within limits.

    Raises:
        UnusableStudy: UNREADABLE or TOO_LARGE.
        OSError: a file is not to be had at present.
    """
    if not paths:
        raise _unreadable("no images")
    if len(paths) > limits.slices:
        raise _too_large(f"{len(paths)} files", limits)
    size = sum(path.stat().st_size for path in paths)
    if size > limits.series_bytes:
        raise _too_large(f"{size / 1024**3:.1f} GiB", limits)
    # Headers are looked at twice here and there.
    allowance = Allowance(limits.series_bytes + size, MOST_PIECES, MOST_PIECES_IN_ONE)
    try:
        return [read_instance(path, pixels=True, allowance=allowance) for path in paths]
    except BadAttribute as error:
        if isinstance(error.__cause__, TooMuch):
            raise _too_large(str(error.__cause__), limits) from error
        why = type(error.__cause__).__name__
        raise _unreadable(f"an image that cannot be parsed ({why})") from error


def _frames(dataset: Dataset) -> list[_Frame]:
    headers = frame_headers(dataset)
    announced = Header(dataset).whole("NumberOfFrames") or 1
    if announced != len(headers):
        raise _unreadable(f"an object of {announced} frames that describes {len(headers)}")
    return [_frame(dataset, header, index) for index, header in enumerate(headers)]


def _frame(dataset: Dataset, header: Header, index: int) -> _Frame:
    transformation = "PixelValueTransformationSequence"
    frame_type = "MRImageFrameTypeSequence"
    image_type = header.codes(f"{frame_type}.FrameType", "ImageType")
    slope = header.number(f"{transformation}.RescaleSlope", "RescaleSlope")
    intercept = header.number(f"{transformation}.RescaleIntercept", "RescaleIntercept")
    return _Frame(
        slice=read_slice(dataset, header, index),
        index=index,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        series_uid=header.text("SeriesInstanceUID"),
        frame_of_reference=header.text("FrameOfReferenceUID"),
        component=header.code(f"{frame_type}.ComplexImageComponent", "ComplexImageComponent")
        or next((value for value in image_type[2:] if value in {"M", "P", "R", "I"}), ""),
        echo_time=header.number("MREchoSequence.EffectiveEchoTime", "EchoTime"),
        inversion_time=header.number("MRModifierSequence.InversionTimes", "InversionTime"),
        temporal_position=header.whole(
            "FrameContentSequence.TemporalPositionIndex", "TemporalPositionIdentifier"
        ),
        image_type=image_type,
    )


def read_slice(dataset: Dataset, header: Header, index: int) -> Slice:
    """Where a frame lies.

    Args:
        dataset: of the instance.
        header: of the frame.
        index: of the frame, from 0.

    Raises:
        UnusableStudy: UNREADABLE, where it does not say.
    """
    measures = "PixelMeasuresSequence"
    position = header.numbers("PlanePositionSequence.ImagePositionPatient", "ImagePositionPatient")
    cosines = header.numbers(
        "PlaneOrientationSequence.ImageOrientationPatient", "ImageOrientationPatient"
    )
    spacing = header.numbers(f"{measures}.PixelSpacing", "PixelSpacing")
    matrix = header.whole("Rows") or 0, header.whole("Columns") or 0
    if (len(position), len(cosines), len(spacing)) != (3, 6, 2) or min(*spacing, *matrix) <= 0:
        raise _unreadable("an image whose header does not say where it lies in the patient")
    row, column = _directions(cosines)
    return Slice(
        sop_uid=header.text("SOPInstanceUID"),
        sop_class_uid=header.text("SOPClassUID"),
        frame=index + 1 if "PerFrameFunctionalGroupsSequence" in dataset else None,
        instance_number=header.whole("InstanceNumber"),
        position=np.array(position),
        row=row,
        column=column,
        orientation=cosines,
        row_spacing=spacing[0],
        column_spacing=spacing[1],
        thickness_mm=header.number(f"{measures}.SliceThickness", "SliceThickness"),
        rows=matrix[0],
        columns=matrix[1],
    )


def _directions(cosines: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column direction, made exactly unit and perpendicular."""
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if np.abs(np.array(lengths) - 1).max() > 0.01 or abs(row @ column) > 0.01:
        raise _unreadable("an image whose row and column directions are not perpendicular")
    row /= lengths[0]
    column -= row * (row @ column)
    return row, column / np.linalg.norm(column)


# --- one consistent stack ---


def _refuse_what_is_too_large(frames: Sequence[_Frame], limits: Limits) -> None:
    if len(frames) > limits.slices:
        raise _too_large(f"{len(frames)} slices", limits)
    largest = max((frame.slice for frame in frames), key=lambda piece: piece.rows * piece.columns)
    if largest.rows * largest.columns > limits.slice_pixels:
        raise _too_large(f"a slice of {largest.rows} x {largest.columns} pixels", limits)
    voxels = sum(frame.slice.rows * frame.slice.columns for frame in frames)
    if voxels > limits.voxels:
        raise _too_large(f"{voxels / 1e6:.0f} million voxels", limits)


def _one(value: Callable[[_Frame], Any]) -> Callable[[Sequence[_Frame]], bool]:
    return lambda frames: len({value(frame) for frame in frames}) == 1


def _near(value: Callable[[_Frame], Any], tolerance: float) -> Callable[[Sequence[_Frame]], bool]:
    def holds(frames: Sequence[_Frame]) -> bool:
        values = np.array([value(frame) for frame in frames], dtype=np.float64)
        return bool(np.all(np.abs(values - values[0]) <= tolerance))

    return holds


# What all images of a volume share, and the words for images that do not.
SHARED: Final[tuple[tuple[str, Callable[[Sequence[_Frame]], bool]], ...]] = (
    ("images of several series", _one(lambda f: f.series_uid)),
    ("images of several frames of reference", _one(lambda f: f.frame_of_reference)),
    ("images of different sizes", _one(lambda f: (f.slice.rows, f.slice.columns))),
    (
        "images of different orientations",
        _near(lambda f: (*f.slice.row, *f.slice.column), COSINE_TOLERANCE),
    ),
    (
        "images of different pixel spacings",
        _near(lambda f: (f.slice.row_spacing, f.slice.column_spacing), SPACING_TOLERANCE_MM),
    ),
    ("magnitude images mixed with phase, real or imaginary ones", _one(lambda f: f.component)),
    ("images of several echo times", _near(lambda f: f.echo_time or 0.0, ECHO_TOLERANCE_MS)),
)
# What may differ from slice to slice in a sound stack, but explains images that lie on each other.
TOLD_APART_BY: Final[tuple[tuple[str, Callable[[Sequence[_Frame]], bool]], ...]] = (
    ("several points in time at one place", _one(lambda f: f.temporal_position)),
    ("several inversion times at one place", _one(lambda f: f.inversion_time)),
    ("several kinds of image at one place", _one(lambda f: f.image_type)),
)


def _refuse_mixtures(frames: Sequence[_Frame]) -> None:
    for words, holds in SHARED:
        if not holds(frames):
            raise _mixed(words)
    if _overlap([frame.slice for frame in frames]):
        for words, holds in TOLD_APART_BY:
            if not holds(frames):
                raise _mixed(words)


def _depths(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """(slices,) mm along the normal of the first slice."""
    depths: NDArray[np.float64] = np.array([piece.position for piece in slices]) @ slices[0].normal
    return depths


def _overlap(slices: Sequence[Slice]) -> bool:
    """Whether two slices lie at one position."""
    return bool(np.any(np.diff(np.sort(_depths(slices))) < SAME_POSITION_MM))


def _along_normal(slices: Sequence[Slice]) -> list[int]:
    """The order of slices along their normal; at one position by UID, so that it is stable."""
    depth = _depths(slices)
    return sorted(
        range(len(slices)), key=lambda at: (depth[at], slices[at].sop_uid, slices[at].frame or 0)
    )


# --- pixels ---


def _planes(
    datasets: list[Dataset],
    frames: Sequence[Sequence[_Frame]],
    places: Iterable[int],
    limits: Limits,
) -> NDArray[np.float32]:
    """Decode every frame into its place; datasets are let go as soon as they are decoded."""
    every = [frame.slice for of_one in frames for frame in of_one]
    planes = np.empty((len(every), every[0].rows, every[0].columns), dtype=np.float32)
    place = iter(places)
    with Decoder(limits.decode_seconds) as decoder:
        for at, of_one in enumerate(frames):
            for frame, stored in zip(of_one, _stored(decoder, datasets[at], of_one), strict=True):
                with np.errstate(over="ignore"):  # refused below
                    planes[next(place)] = stored * np.float64(frame.slope) + frame.intercept
            datasets[at] = Dataset()
    if not np.isfinite(planes).all():
        raise _unreadable("pixel values beyond the range of numbers")
    return planes


def _stored(decoder: Decoder, dataset: Dataset, frames: Sequence[_Frame]) -> list[Stored]:
    """The stored values of an object, as many and as large as its header says."""
    header = Header(dataset)
    photometric = header.code("PhotometricInterpretation")
    if header.whole("SamplesPerPixel") != 1 or photometric != "MONOCHROME2":
        raise _unreadable("images in colour or with reversed greys")
    try:
        stored = decoder.stored_values(dataset)
    except Undecodable as error:
        raise _unreadable(f"pixels that cannot be decoded ({error})") from error
    if [values.shape for values in stored] != [(f.slice.rows, f.slice.columns) for f in frames]:
        raise _unreadable("pixels of another size or number than the header says")
    return stored


# --- geometry ---


def _planes_to_lps(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """The 4x4 affine from (slice, row, column) index to LPS mm."""
    first, last = slices[0], slices[-1]
    step = (last.position - first.position) / max(1, len(slices) - 1)
    if np.linalg.norm(step) < SAME_POSITION_MM:  # one slice, or all at one place
        step = first.normal * (first.thickness_mm or 1.0)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.column * first.row_spacing
    affine[:3, 2] = first.row * first.column_spacing
    affine[:3, 3] = first.position
    return affine


# --- refusals ---


def _unreadable(found: str) -> UnusableStudy:
    return UnusableStudy(Reason.UNREADABLE, found, NEEDED[Reason.UNREADABLE])


def _mixed(found: str) -> UnusableStudy:
    return UnusableStudy(Reason.MIXED, found, NEEDED[Reason.MIXED])


def _too_large(found: str, limits: Limits) -> UnusableStudy:
    return UnusableStudy(Reason.TOO_LARGE, found, limits.needed)
