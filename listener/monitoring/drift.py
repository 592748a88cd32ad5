"""Does what comes in still look like what a bundle was validated on? Population stability index.

    PSI = sum over bins of (found - expected) * ln(found / expected)

of shares. By convention, below 0.1 nothing changed and above 0.25 much did. A PSI is never quite 0:
of n studies from the very population of the reference it is about (bins - 1) / n, .05 for ten bins
and 200 studies, .09 for 100, and the fewer the more. So there is no figure of fewer than
FEWEST_STUDIES.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Self

LAST_STUDIES: Final = 200
"""Studies that are looked at: enough for a steady figure, few enough to see a change in weeks."""

FEWEST_STUDIES: Final = 100

HALF: Final = 0.5
"""Added to each bin's count, or an empty bin would make the index infinite."""

DECILES: Final = tuple(range(0, 101, 10))


@dataclass(frozen=True)
class Reference:
    """A distribution to compare with.

    Attributes:
        edges: between the bins, ascending: the outer bins have no end.
        shares: of the bins, one more than edges; their sum is 1, and none is 0.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, edges: Any, weights: Any) -> Self | None:
        """A reference from a bundle's card; None where the card has none that makes sense.

        Args:
            edges: between the bins, ascending.
            weights: of the bins: counts or shares, one more than edges.
        """
        if not _are_numbers(edges) or not _are_numbers(weights) or len(weights) < 2:
            return None
        ascends = all(low < high for low, high in pairwise(edges))
        if len(edges) != len(weights) - 1 or not ascends or min(weights) < 0 or sum(weights) <= 0:
            return None
        # As if of a hundred patients a bin: an empty one is then rare, and not impossible.
        counts = [100 * len(weights) * each / sum(weights) for each in weights]
        return cls(tuple(map(float, edges)), _shares(counts))


UNIFORM_PERCENTILES: Final = Reference(tuple(map(float, DECILES[1:-1])), (0.1,) * 10)
"""What percentiles of a cohort are within that cohort."""


def stability_index(reference: Reference, values: Sequence[float]) -> float | None:
    """The index of some values; None of too few.

    >>> stability_index(UNIFORM_PERCENTILES, [n % 100 for n in range(200)])
    0.0
    >>> round(stability_index(UNIFORM_PERCENTILES, [95.0] * 200), 1)
    5.3
    >>> stability_index(UNIFORM_PERCENTILES, [95.0] * 99)
    """
    sound = [value for value in values if math.isfinite(value)]
    if len(sound) < FEWEST_STUDIES:
        return None
    counts = [0.0] * len(reference.shares)
    for value in sound:
        counts[bisect_right(reference.edges, value)] += 1
    return math.fsum(
        (found - expected) * math.log(found / expected)
        for found, expected in zip(_shares(counts), reference.shares, strict=True)
    )


def references(card: Mapping[str, Any] | None) -> dict[str, Reference]:
    """What a bundle's card lets be compared: `score`, `ood_percentile` and `input NAME`."""
    card = card or {}
    found: dict[str, Reference | None] = {"ood_percentile": UNIFORM_PERCENTILES}
    validation = card.get("validation")
    if isinstance(validation, Mapping):
        ends = validation.get("edges")
        between = ends[1:-1] if isinstance(ends, list) else None
        found["score"] = Reference.of(between, validation.get("patients"))
    inputs = card.get("inputs")
    if isinstance(inputs, Mapping):
        for name, each in inputs.items():
            if isinstance(each, Mapping):
                found[f"input {name}"] = Reference.of(each.get("edges"), each.get("share"))
    return {name: reference for name, reference in found.items() if reference is not None}


def _shares(counts: Sequence[float]) -> tuple[float, ...]:
    total = math.fsum(counts) + HALF * len(counts)
    return tuple((count + HALF) / total for count in counts)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
        for each in values
    )
