"""Drift is told from chance, and nothing is said where nothing can be."""

import math
import random

import pytest

from listener.monitoring.drift import (
    FEWEST_STUDIES,
    UNIFORM_PERCENTILES,
    Reference,
    references,
    stability_index,
)

EDGES = [0.0, 0.25, 0.5, 0.75, 1.0]


def test_the_index_is_that_of_its_definition() -> None:
    reference = Reference.of(EDGES[1:-1], [40, 30, 20, 10])
    assert reference is not None
    values = [0.1] * 1000 + [0.3] * 2000 + [0.6] * 3000 + [0.9] * 4000
    expected = sum(
        (found - was) * math.log(found / was)
        for found, was in zip((0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1), strict=True)
    )

    assert stability_index(reference, values) == pytest.approx(expected, rel=0.02)


def test_studies_like_those_of_the_reference_do_not_raise_the_alarm() -> None:
    rng = random.Random(1)
    found = [
        stability_index(UNIFORM_PERCENTILES, [rng.uniform(0, 100) for _ in range(FEWEST_STUDIES)])
        for _ in range(500)
    ]

    assert sum(index is not None and index > 0.25 for index in found) <= 2
    assert max(index or math.inf for index in found) < 0.4


def test_a_scanner_whose_studies_are_all_unusual_does() -> None:
    rng = random.Random(1)
    unusual = [rng.uniform(80, 100) for _ in range(FEWEST_STUDIES)]

    index = stability_index(UNIFORM_PERCENTILES, unusual)

    assert index is not None
    assert index > 1


def test_values_beyond_the_outer_edges_count_in_the_outer_bins() -> None:
    reference = Reference.of(EDGES[1:-1], [1, 1, 1, 1])
    assert reference is not None
    inside = stability_index(reference, [0.1, 0.3, 0.6, 0.9] * 50)

    assert stability_index(reference, [-7.0, 0.3, 0.6, 7.0] * 50) == inside


def test_an_empty_bin_is_no_infinity() -> None:
    reference = Reference.of(EDGES[1:-1], [50, 50, 0, 0])
    assert reference is not None

    index = stability_index(reference, [0.9] * 200)

    assert index is not None
    assert math.isfinite(index)


def test_of_too_few_studies_there_is_no_index_and_what_is_no_number_is_no_study() -> None:
    few = [50.0] * (FEWEST_STUDIES - 1)

    assert stability_index(UNIFORM_PERCENTILES, few) is None
    assert stability_index(UNIFORM_PERCENTILES, [*few, math.nan, math.inf]) is None
    assert stability_index(UNIFORM_PERCENTILES, [*few, 50.0]) is not None


def test_a_card_says_what_can_be_compared() -> None:
    card = {
        "validation": {"edges": EDGES, "patients": [5, 5, 5, 5], "positives": [0, 1, 2, 3]},
        "inputs": {"noise": {"edges": [1], "share": [0.5, 0.5]}},
    }

    assert set(references(card)) == {"score", "ood_percentile", "input noise"}


@pytest.mark.parametrize(
    "card",
    [
        None,
        {},
        {"validation": None, "inputs": None},
        {"validation": {"edges": EDGES, "patients": None}},
        {"validation": {"edges": EDGES, "patients": [1, 2]}},
        {"validation": {"edges": EDGES[::-1], "patients": [1, 1, 1, 1]}},
        {"validation": {"edges": EDGES, "patients": [0, 0, 0, 0]}},
        {"validation": {"edges": EDGES, "patients": [math.nan, 1, 1, 1]}},
        {"validation": {"edges": EDGES, "patients": [True, 1, 1, 1]}},
        {"inputs": {"noise": {"edges": [], "share": []}, "gain": 7}},
    ],
)
def test_a_card_that_says_nothing_sensible_leaves_only_the_percentiles(card: object) -> None:
    assert set(references(card)) == {"ood_percentile"}  # type: ignore[arg-type]
