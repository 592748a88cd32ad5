"""A reader's segmentation -> masks on the volume's grid.

Where a voxel lies in the patient decides, not which frame is of which image: viewers write frames
in any order, turn rows around and leave empty frames out. Coordinates mean the same only within one
Frame of Reference (PS3.3 C.7.4.1), so a drawing must bear the series' own. What cannot be laid on
the volume without guessing is refused; the proposal does not take its place.
"""

import math
from collections.abc import Collection, Sequence
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from listener.corrections import latest_of_regions
from listener.errors import BadAttribute
from listener.segmentation import Segmentation, read_segmentation
from listener.series import Header, frame_headers
from worker.analyses.interface import Drawn, SegmentationUids
from worker.decoder import Decoder, Undecodable
from worker.limits import LIMITS, Limits
from worker.preprocess import Mask
from worker.quality import NEEDED, SAME_POSITION_MM, Reason, UnusableStudy
from worker.volume import Slice, Volume, read_datasets, read_slice

LEAST_COSINE: Final = 0.999  # 2.5 degrees between slice and drawing
DEEPEST_MM: Final = 1e4  # where a single slice has no thickness: farther than any scanner sees
BINARY: Final = "BINARY"
FRACTIONAL: Final = "FRACTIONAL"
LABELMAP: Final = "LABELMAP"


def read_drawn(
    paths: Sequence[Path], analysis: str, volume: Volume, limits: Limits = LIMITS
) -> Drawn | None:
    """Lay readers' regions on a volume: of each region the latest.

    Args:
        paths: of the segmentations; none where nobody drew.
        analysis: whose regions are looked for.
        volume: the series that it was drawn on.
        limits: of what is read.

    Raises:
        UnusableStudy: BAD_DRAWING or TOO_LARGE.
        OSError: a file is not to be had at present.
    """
    if not paths:
        return None
    said = {path: _facts(path) for path in paths}
    latest = latest_of_regions(analysis, said.values())
    masks: dict[str, Mask] = {}
    segmentations: list[SegmentationUids] = []
    for path, facts in said.items():
        drawing = _open(path, limits)
        segments = facts.regions_for(analysis)
        counting = [region for region in segments if latest[region] is facts]
        masks |= {region: drawing.over(volume, segments[region]) for region in counting}
        segmentations += [_uids(facts)] if counting else []
    if not masks:
        raise _bad("no segment of a region that is looked at")
    held = {region: mask for region, mask in masks.items() if mask.any()}
    emptied = masks.keys() - held.keys()
    if not held:
        raise no_pixel_of(emptied)
    return Drawn(held, tuple(segmentations), frozenset(emptied))


def _facts(path: Path) -> Segmentation:
    try:
        return read_segmentation(path)
    except BadAttribute as error:
        raise _bad("a segmentation that does not say what it shows") from error


def _uids(facts: Segmentation) -> SegmentationUids:
    return SegmentationUids(facts.sop_class, facts.key.sop_uid, facts.key.series_uid)


def _open(path: Path, limits: Limits) -> "_Drawing":
    try:
        (dataset,) = read_datasets([path], limits)
        return _Drawing(dataset, limits)
    except UnusableStudy as error:
        if error.reason is not Reason.UNREADABLE:
            raise
        # The images are sound: it is the drawing that must come again.
        raise _bad(error.found) from error


class _Drawing:
    """The frames of one segmentation, where they lie and what they show."""

    def __init__(self, dataset: Dataset, limits: Limits) -> None:
        header = Header(dataset)
        self._kind = header.code("SegmentationType")
        if self._kind not in (BINARY, FRACTIONAL, LABELMAP):
            raise _bad("a segmentation of an unknown type")
        self._full = header.whole("MaximumFractionalValue") or 255
        self._frame_of_reference = header.text("FrameOfReferenceUID")
        headers = frame_headers(dataset)
        if sum((each.whole("Rows") or 0) * (each.whole("Columns") or 0) for each in headers) > (
            limits.voxels
        ):
            raise UnusableStudy(Reason.TOO_LARGE, f"{len(headers)} drawn frames", limits.needed)
        self._slices = [read_slice(dataset, each, index) for index, each in enumerate(headers)]
        identification = "SegmentIdentificationSequence.ReferencedSegmentNumber"
        self._segments = [each.whole(identification) for each in headers]
        with Decoder(limits.decode_seconds) as decoder:
            try:
                self._values = decoder.stored_values(dataset)
            except Undecodable as error:
                raise _bad(f"pixels that cannot be decoded ({error})") from error
        shapes = [(each.rows, each.columns) for each in self._slices]
        if [values.shape for values in self._values] != shapes:
            raise _bad("pixels of another size or number than the header says")

    def over(self, volume: Volume, numbers: Collection[int]) -> Mask:
        """Bool (X, Y, Z): where one of these segments was drawn."""
        if volume.frame_of_reference and self._frame_of_reference != volume.frame_of_reference:
            raise _bad("a segmentation whose Frame of Reference UID is not the series'")
        mask = np.zeros(volume.voxels.shape, dtype=np.bool_)
        half = min(_step_mm(volume.slices), _step_mm(self._slices)) / 2
        for place, segment, values in zip(self._slices, self._segments, self._values, strict=True):
            drawn = self._drawn(values, segment, numbers)
            if drawn.any():
                _paint(mask, volume, place, drawn, half)
        return mask

    def _drawn(
        self, values: NDArray[np.generic], segment: int | None, numbers: Collection[int]
    ) -> Mask:
        if self._kind == LABELMAP:
            return np.isin(values, list(numbers))
        if segment not in numbers:
            return np.zeros(values.shape, dtype=np.bool_)
        least = self._full / 2 if self._kind == FRACTIONAL else 1
        drawn: Mask = np.asarray(values, dtype=np.float64) >= least
        return drawn


def _paint(mask: Mask, volume: Volume, place: Slice, drawn: Mask, half_mm: float) -> None:
    """Set the voxels whose centre lies in the slab of a frame, at a pixel that is drawn."""
    if abs(float(place.normal @ volume.slices[0].normal)) < LEAST_COSINE:
        raise _bad("a drawing on slices of another orientation")
    to_pixel = np.linalg.inv(place.pixel_to_ras()) @ volume.affine
    block = _block(to_pixel, drawn, half_mm, mask.shape)
    i, j, k = np.ogrid[block]
    column, row, depth = (
        step[0] * i + step[1] * j + step[2] * k + step[3] for step in to_pixel[:3]
    )
    near = np.abs(depth) <= half_mm
    at_row, at_column = np.rint(row[near]).astype(int), np.rint(column[near]).astype(int)
    inside = (at_row >= 0) & (at_row < place.rows) & (at_column >= 0) & (at_column < place.columns)
    hit = np.zeros(inside.shape, dtype=np.bool_)
    hit[inside] = drawn[at_row[inside], at_column[inside]]
    mask[block][near] |= hit


def _block(
    to_pixel: NDArray[np.float64], drawn: Mask, half_mm: float, shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """The box of voxels that holds all which the drawn pixels of a slab can reach.

    A frame shows a small part of a volume, and is painted in as small a part of the time.
    """
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    deep = min(half_mm, DEEPEST_MM)
    corners = np.array(
        list(
            product(
                (columns[0] - 0.5, columns[-1] + 0.5),
                (rows[0] - 0.5, rows[-1] + 0.5),
                (-deep, deep),
                (1.0,),
            )
        )
    )
    indices = (corners @ np.linalg.inv(to_pixel).T)[:, :3]
    first = np.floor(indices.min(axis=0)).astype(int).clip(0, shape)
    last = np.ceil(indices.max(axis=0)).astype(int).clip(-1, np.array(shape) - 1)
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))


def _step_mm(slices: Sequence[Slice]) -> float:
    """From slice to slice, where they lie closest; without end where there is one."""
    steps = np.diff(np.sort([each.position @ slices[0].normal for each in slices]))
    return float(min(steps[steps > SAME_POSITION_MM], default=math.inf))


def no_pixel_of(regions: Collection[str]) -> UnusableStudy:
    """What is said of segments that are described, and hold nothing of the volume."""
    names = " and ".join(sorted(regions))
    return _bad(f"a segment for the region {names}, and no pixel of it within the volume")


def _bad(found: str) -> UnusableStudy:
    return UnusableStudy(Reason.BAD_DRAWING, found, NEEDED[Reason.BAD_DRAWING])
