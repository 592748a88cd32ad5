"""Signed distances of simple shapes in mm, negative inside.

A grid is three fields, x, y and z of every voxel in mm; it is enough that they broadcast.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.float32]
Grid: TypeAlias = tuple[Field, Field, Field]
Point: TypeAlias = tuple[float, float, float]


def ellipsoid(grid: tuple[Field, ...], centre: Point, radii: Point) -> Field:
    """Signed distance from an ellipsoid, mm, negative inside; true to first order."""
    offsets = [each - np.float32(at) for each, at in zip(grid, centre, strict=True)]
    inverse = [np.float32(1 / radius) for radius in radii]
    unit = [offset * each for offset, each in zip(offsets, inverse, strict=True)]
    level = np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2) + np.float32(1e-6)
    slopes = [each * scale for each, scale in zip(unit, inverse, strict=True)]
    slope = np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2) + np.float32(1e-9)
    distance: Field = level * (level - 1) / slope
    return distance


def capsule(grid: tuple[Field, ...], start: Point, end: Point, radius: float) -> Field:
    """Signed distance from a rod with round ends, mm."""
    axis = np.subtract(end, start)
    offsets = [each - np.float32(at) for each, at in zip(grid, start, strict=True)]
    along = sum(offset * np.float32(part) for offset, part in zip(offsets, axis, strict=True))
    share = np.clip(along / np.float32(axis @ axis), 0, 1)
    rest = [offset - share * np.float32(part) for offset, part in zip(offsets, axis, strict=True)]
    distance: Field = np.sqrt(rest[0] ** 2 + rest[1] ** 2 + rest[2] ** 2) - np.float32(radius)
    return distance


def both(*distances: Field) -> Field:
    """Signed distance of what all shapes share."""
    shared = distances[0]
    for distance in distances[1:]:
        shared = np.maximum(shared, distance)
    return shared


def either(*distances: Field) -> Field:
    """Signed distance of what any shape covers."""
    joined = distances[0]
    for distance in distances[1:]:
        joined = np.minimum(joined, distance)
    return joined


def box(grid: Grid, centre: Point, half: Point) -> Field:
    """Signed distance from an upright box, mm; near its edges the greatest of those from faces."""
    return both(
        *(
            np.abs(each - np.float32(at)) - np.float32(reach)
            for each, at, reach in zip(grid, centre, half, strict=True)
        )
    )
