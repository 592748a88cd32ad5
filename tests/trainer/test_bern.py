"""The Bern score, item by item and at its edges."""

import dataclasses
import math

import pytest

from trainer.bern import BERN_ITEMS, BernItems, bern_band, bern_score

HEALTHY = BernItems(
    pachymeningeal_enhancement=False,
    venous_engorgement=False,
    suprasellar_mm=6.0,
    subdural_fluid=False,
    prepontine_mm=7.0,
    mamillopontine_mm=8.0,
)
# Dobrocky et al., JAMA Neurol 2019, as checked against Arnold 2022 and Radiopaedia.
PUBLISHED = {
    "pachymeningeal_enhancement": (True, 2),
    "venous_engorgement": (True, 2),
    "suprasellar_mm": (4.0, 2),
    "subdural_fluid": (True, 1),
    "prepontine_mm": (5.0, 1),
    "mamillopontine_mm": (6.5, 1),
}


@pytest.mark.parametrize(("item", "value", "points"), [(k, *v) for k, v in PUBLISHED.items()])
def test_each_item_earns_its_published_points_alone(item, value, points):
    assert bern_score(dataclasses.replace(HEALTHY, **{item: value})) == (points, points)


def test_nothing_scores_nothing_and_everything_scores_nine():
    everything = BernItems(**{item: value for item, (value, _) in PUBLISHED.items()})

    assert bern_score(HEALTHY) == (0, 0)
    assert bern_score(everything) == (9, 9)


@pytest.mark.parametrize(
    ("item", "threshold"),
    [("suprasellar_mm", 4.0), ("prepontine_mm", 5.0), ("mamillopontine_mm", 6.5)],
)
def test_a_distance_at_the_threshold_counts_and_the_next_number_above_does_not(item, threshold):
    at = dataclasses.replace(HEALTHY, **{item: threshold})
    above = dataclasses.replace(HEALTHY, **{item: math.nextafter(threshold, math.inf)})

    assert bern_score(at)[0] > 0
    assert bern_score(above) == (0, 0)


def test_an_effaced_cistern_of_no_width_counts():
    assert bern_score(dataclasses.replace(HEALTHY, prepontine_mm=0.0)) == (1, 1)


@pytest.mark.parametrize(("item", "points"), [(item, v[1]) for item, v in PUBLISHED.items()])
def test_an_item_that_nobody_read_makes_a_range_as_wide_as_its_points(item, points):
    assert bern_score(dataclasses.replace(HEALTHY, **{item: None})) == (0, points)


def test_a_score_of_which_nothing_is_known_may_be_anything():
    assert bern_score(BernItems()) == (0, 9)


def test_known_items_raise_the_floor_and_missing_ones_the_ceiling():
    items = BernItems(venous_engorgement=True, suprasellar_mm=9.0, subdural_fluid=True)

    assert bern_score(items) == (3, 7)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("item", ["suprasellar_mm", "prepontine_mm", "mamillopontine_mm"])
def test_a_distance_that_cannot_be_measured_is_refused_by_name(item, value):
    with pytest.raises(ValueError, match=f"{item} is {value}"):
        BernItems(**{item: value})


def test_bands_part_at_two_and_four():
    bands = ["low"] * 3 + ["intermediate"] * 2 + ["high"] * 5
    assert [bern_band(score) for score in range(10)] == bands


@pytest.mark.parametrize("score", [-1, 10])
def test_a_score_outside_the_scale_has_no_band(score):
    with pytest.raises(ValueError, match="0 to 9"):
        bern_band(score)


def test_the_table_has_a_row_for_every_item():
    assert [row.name for row in BERN_ITEMS] == [each.name for each in dataclasses.fields(BernItems)]
