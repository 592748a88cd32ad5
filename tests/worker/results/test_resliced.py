"""A grid at the pixels of a slice, held to SciPy's interpolation at each pixel."""

from itertools import permutations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from worker.results.resliced import on_plane
from worker.volume import Slice

ROWS, COLUMNS = 30, 24
SHAPE = (9, 7, 8)
ASKEW = np.array([[0.995, -0.0995, 0.0], [0.0995, 0.995, 0.0], [0.0, 0.0, 1.0]])


def slice_at(position, row, column):
    return Slice(
        "2.25.1", "2.25.2", None, 1, np.asarray(position, float), np.asarray(row, float),
        np.asarray(column, float), (*row, *column), 1.7, 2.1, None, ROWS, COLUMNS,
    )  # fmt: skip


def at_each_pixel(grid, affine, source):
    """Index by index; beyond its faces the grid goes on."""
    columns, rows = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
    pixels = np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)]).reshape(4, -1)
    index = (np.linalg.inv(affine) @ source.pixel_to_ras() @ pixels)[:3]
    return map_coordinates(grid, index, order=1, mode="nearest").reshape(ROWS, COLUMNS)


@pytest.fixture
def grid():
    return np.random.default_rng(4).random(SHAPE).astype(np.float32)


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1)])
@pytest.mark.parametrize("axes", list(permutations(range(3), 2)))
def test_a_slice_along_the_axes_of_the_grid(grid, axes, signs):
    row, column = (sign * np.eye(3)[axis] for axis, sign in zip(axes, signs, strict=True))
    affine = np.diag([7.0, 6.0, 5.0, 1.0])
    affine[:3, 3] = -30, -20, -10
    source = slice_at((3.3, -4.4, 5.5), row, column)
    np.testing.assert_allclose(
        on_plane(grid, affine, source), at_each_pixel(grid, affine, source), atol=1e-5
    )


@pytest.mark.parametrize("axes", list(permutations(range(3), 2)))
def test_a_slice_askew_in_the_grid(grid, axes):
    row, column = (ASKEW @ np.eye(3)[axis] for axis in axes)
    affine = np.diag([7.0, 6.0, 5.0, 1.0])
    affine[:3, 3] = -30, -20, -10
    source = slice_at((3.3, -4.4, 5.5), row, column)
    np.testing.assert_allclose(
        on_plane(grid, affine, source), at_each_pixel(grid, affine, source), atol=1e-4
    )


def test_an_oblique_head_on_its_own_axes_and_a_grid_of_one_layer(grid):
    row, column = ASKEW @ np.array([0.0, 1, 0]), np.array([0.0, 0, -1])
    affine = np.eye(4)
    affine[:2, :2] = 5.0 * (ASKEW[:2, :2] * [[1, -1], [-1, 1]])  # RAS of an LPS rotation
    affine[2, 2] = 5.0
    affine[:3, 3] = -20, -20, -20
    source = slice_at((1.0, -2.0, 3.0), row, column)
    for some in (grid, grid[:1], grid[:, :1, :1]):
        np.testing.assert_allclose(
            on_plane(some, affine, source), at_each_pixel(some, affine, source), atol=1e-4
        )
