"""Figures are PNG, the same ones from the same numbers, hung the way radiologists do."""

import struct

import numpy as np
import pytest

from trainer.flow import Flow
from trainer.reporting import figures
from trainer.reporting.figures import Band, Bar, Curve, Reliability, show
from trainer.statistics import roc

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 2
SCORES = LABELS + RNG.normal(0, 1, 60)
PROBABILITIES = 1 / (1 + np.exp(-SCORES))
CURVE = Curve("fold 0, AUROC 0.800", roc(LABELS, SCORES))
GRID = np.linspace(0, 1, 11)
VOLUME = RNG.uniform(0, 1, (12, 13, 14))
SHOWN = show(VOLUME, RNG.normal(0, 1, VOLUME.shape), (3, 4, 5), (1.0, 1.0, 2.0))
EPOCHS = tuple(
    {"epoch": each, "loss": 0.5, "validation_loss": 0.6, "auroc": 0.8} for each in (0, 1)
)
FLOW = (
    Flow()
    .then("in the label table", ["a", "b", "c"], [])
    .then(
        "of a very long name that does not fit into one line of a box " * 2, ["a"], ["x " * 60] * 2
    )
)

DRAWN = {
    "flow": lambda: figures.flow(FLOW.steps),
    "roc_folds": lambda: figures.roc_folds([CURVE] * 10, "title"),
    "roc_pooled": lambda: figures.roc_pooled(
        CURVE, Band(GRID, GRID * 0.9, GRID), {"lower threshold": (0.8, 0.7)}
    ),
    "roc_comparison": lambda: figures.roc_comparison([CURVE, CURVE, CURVE]),
    "reliability": lambda: figures.reliability(
        [Reliability("before", GRID, GRID, GRID - 0.1, GRID + 0.1, PROBABILITIES)]
    ),
    "separation": lambda: figures.separation(LABELS, PROBABILITIES, [0.3, 0.6]),
    "predictive_values": lambda: figures.predictive_values(GRID, {"lower": (GRID, GRID)}, 0.5),
    "conformal": lambda: figures.conformal({"positives": {"the right label": 0.9, "both": 0.1}}),
    "decision_curve": lambda: figures.decision_curve(GRID, {"model": GRID, "nobody": 0 * GRID}),
    "forest": lambda: figures.forest(
        [Bar("Site", "North", 0.8, 0.7, 0.9, "3 of 9"), Bar("Site", "S", None, 0, 0, "1 of 2")], 0.8
    ),
    "learning_curves": lambda: figures.learning_curves({"fold 0": EPOCHS}, {"fold 0": 1}),
    "mean_map": lambda: figures.mean_map(SHOWN),
    "planes": lambda: figures.planes(SHOWN),
    "three_part": lambda: figures.three_part(SHOWN),
    "pipeline": lambda: figures.pipeline(VOLUME, [VOLUME] * 4, "densenet121", 5, (1.0, 1.0, 1.0)),
    "pipeline_of_a_bundle": lambda: figures.pipeline(VOLUME, [], "densenet121", 5, (1, 1, 1)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_is_a_png_that_fits_on_a_page(name):
    content = DRAWN[name]()

    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 2 < width / figures.DPI < 12
    assert 1 < height / figures.DPI < 12


def test_the_same_numbers_give_the_same_bytes():
    assert DRAWN["roc_folds"]() == DRAWN["roc_folds"]()


def test_planes_hang_with_the_right_on_the_left_and_the_front_on_the_left():
    voxels = np.zeros((10, 11, 12))
    voxels[9, 10, 11] = 1  # right, anterior, superior

    shown = show(voxels, voxels, (9, 10, 11), (1.0, 1.0, 1.0))

    for image in shown.images:  # rows run upwards
        assert image[-1, 0] == 1
        assert image.sum() == 1
    assert shown.images[0].shape == (12, 11)  # sagittal: superior by anterior
    assert shown.images[2].shape == (11, 10)  # axial: anterior by right


def test_the_crosshair_lies_on_the_voxel_asked_for():
    voxels = np.zeros((10, 11, 12))
    voxels[2, 3, 4] = 1

    shown = show(voxels, voxels, (2, 3, 4), (1.0, 1.0, 1.0))

    for image, (column, row) in zip(shown.images, shown.at, strict=True):
        assert image[row, column] == 1


def test_voxels_that_are_not_cubes_keep_their_proportions():
    assert SHOWN.aspects == (2.0, 2.0, 1.0)


def test_an_empty_volume_is_drawn_too():
    empty = np.zeros((5, 5, 5))

    assert figures.planes(show(empty, empty, (2, 2, 2), (1.0, 1.0, 1.0)))
