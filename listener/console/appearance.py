"""How the input of a job looks, in numbers, beside the cohort that its bundle was made from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Appearance:
    """One number of the input.

    Attributes:
        name: what it measures, as the worker says.
        low: below this, fewer of the cohort lie; None where the bundle does not tell.
        high: from this on, fewer of the cohort lie.
        usual_share: of the cohort, between the two.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    usual_share: float | None = None

    @property
    def is_unusual(self) -> bool:
        """Whether few of the cohort lie there; False where the bundle does not tell."""
        if self.low is None or self.high is None:
            return False
        return not self.low <= self.value < self.high

    @property
    def sentence(self) -> str:
        """The same in words."""
        if self.low is None or self.high is None or self.usual_share is None:
            return f"{self.value:.4g}; the bundle does not say what is usual"
        told = "lower than usual" if self.value < self.low else "higher than usual"
        share, low, high = 100 * self.usual_share, self.low, self.high
        usual = f"{share:.0f} % of its cohort had {low:.4g} to {high:.4g}"
        return f"{self.value:.4g}, {told if self.is_unusual else 'as usual'}: {usual}"


def appearances(
    summary: Mapping[str, Any] | None, card: Mapping[str, Any] | None
) -> tuple[Appearance, ...]:
    """The numbers that a job's summary has, each beside what its bundle's card says of it.

    >>> card = {"inputs": {"noise": {"edges": [1.0, 2.0], "share": [0.1, 0.8, 0.1]}}}
    >>> [each.sentence for each in appearances({"input": {"noise": 2.5}}, card)]
    ['2.5, higher than usual: 80 % of its cohort had 1 to 2']
    """
    found = (summary or {}).get("input")
    return tuple(_numbers(found, (card or {}).get("inputs"))) if isinstance(found, dict) else ()


def _numbers(found: Mapping[str, Any], cohort: Any) -> Iterator[Appearance]:
    for name, value in found.items():
        if not isinstance(value, int | float):
            continue
        spread = cohort.get(name) if isinstance(cohort, dict) else None
        edges, share = (spread.get("edges"), spread.get("share")) if spread else (None, None)
        if edges and share and len(edges) > 1:
            yield Appearance(name, value, edges[0], edges[-1], sum(share[1:-1]))
        else:
            yield Appearance(name, value)
