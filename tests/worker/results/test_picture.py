import io

import numpy as np
import pytest
from PIL import Image

from worker.results.picture import (
    LEVELS,
    Colours,
    blend,
    frame,
    png,
    rounded_up,
    window,
)

STATEMENT = "Trained on synthetic phantoms only: no clinical meaning."


def test_the_window_ignores_a_few_wild_voxels():
    planes = np.linspace(0, 1000, 100_000, dtype=np.float32).reshape(10, 100, 100)
    planes[0, 0, :3] = 1e6

    chosen = window(planes)

    assert 0 <= chosen.black < 50
    assert 950 < chosen.white <= 1010


def test_an_even_image_does_not_divide_by_zero():
    planes = np.full((2, 8, 8), 5.0, dtype=np.float32)

    assert window(planes).grey(planes[0]).dtype == np.uint8


@pytest.mark.parametrize(
    ("value", "end"), [(0.4213, 0.43), (0.42, 0.42), (9.96, 10.0), (1.3e-5, 1.3e-5), (0.0, 0.0)]
)
def test_the_bar_ends_at_a_number_of_two_digits_not_below_the_largest_effect(value, end):
    assert rounded_up(value) == end


def test_support_is_warm_and_its_opposite_cool():
    red, green, blue, _ = Colours(0.5).rgba(np.array([0.5, -0.5], dtype=np.float32)).T.astype(int)

    assert red[0] > green[0] > blue[0]
    assert blue[1] > green[1] > red[1]


def test_the_stronger_the_effect_the_more_opaque():
    effect = np.linspace(0, 0.5, LEVELS, dtype=np.float32)

    opacity = Colours(0.5).rgba(effect)[..., 3].astype(int)

    assert opacity[0] == 0
    assert (np.diff(opacity) >= 0).all()
    assert opacity[-1] < 255  # the anatomy shows through


def test_nothing_is_drawn_where_nothing_had_an_effect():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)

    blended = blend(grey, Colours(0.0).rgba(np.zeros((8, 8), dtype=np.float32)))

    assert (blended == grey[..., None]).all()


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (256, 256), (512, 448), (40, 300)])
def test_the_picture_stays_at_the_upper_left_and_the_margin_is_legible(size):
    rows, columns = size
    framed = frame(rows, columns, Colours(0.62), STATEMENT).around(
        np.full((rows, columns, 3), 77, dtype=np.uint8)
    )

    assert (framed[:rows, :columns] == 77).all()
    margin = framed.copy()
    margin[:rows, :columns] = 0
    yellow = (margin[..., 0] > 150) & (margin[..., 1] > 120) & (margin[..., 2] < 60)
    assert yellow[rows:].sum() > 150  # AI - INVESTIGATIONAL
    assert margin[:, columns:].max() > 200  # the bar
    # Nothing is cut off: no writing touches the outer edges.
    assert margin[-1].max() == 0
    assert margin[:, -1].max() == 0


def test_a_longer_statement_needs_a_taller_margin():
    short = frame(256, 256, Colours(1.0), "").canvas
    long = frame(256, 256, Colours(1.0), STATEMENT).canvas

    assert long.shape[0] > short.shape[0]
    assert long.shape[1] == short.shape[1]


def test_layers_survive_as_png():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)

    assert (np.asarray(Image.open(io.BytesIO(png(image)))) == image).all()


def test_anatomy_and_map_are_mixed_to_the_nearest_grey() -> None:
    grey, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    white = np.full((256, 256, 3), 255, np.uint8)

    mixed = blend(grey, np.dstack([white, alpha]))

    share = alpha / 255.0
    assert np.array_equal(mixed[..., 0], np.rint(grey * (1 - share) + 255 * share))
