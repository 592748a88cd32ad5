"""What a score meant for patients whose diagnosis is known: those of the validation cohort."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

FINDINGS: Final[Mapping[str, str]] = {
    "fistula": "a CSF-venous fistula",
    "infection": "an infection of the central nervous system",
}
"""What each analysis looks for, with its article."""

FEWEST: Final = 5
"""Patients that a share is told of: of fewer it says nothing."""

Z_95: Final = 1.959964
"""Of the normal distribution, for intervals that hold 95 %."""


@dataclass(frozen=True)
class Chance:
    """Of 100 patients with such a score, how many had the finding.

    Attributes:
        low: end of the range of scores.
        high: its other end.
        patients: of the validation cohort with a score in that range.
        of_100: of them had the finding, if there had been 100; None where there were too few.
        least: lower end of the 95 % interval (Wilson), of 100.
        most: upper end.
    """

    low: float
    high: float
    patients: int
    of_100: int | None
    least: int
    most: int
    finding: str

    @property
    def sentence(self) -> str:
        """The same in words."""
        scores = f"a score between {100 * self.low:.0f} and {100 * self.high:.0f} %"
        if self.of_100 is None:
            return (
                f"In the validation cohort {self.patients or 'no'} "
                f"{'patient' if self.patients == 1 else 'patients'} had {scores}: too few to say "
                f"how many of them had {self.finding}."
            )
        return (
            f"Of 100 patients with {scores} in the validation cohort, about {self.of_100} had "
            f"{self.finding} (95 % interval {self.least} to {self.most}, from {self.patients} "
            "patients). Where the finding is rarer than in that cohort, fewer have it."
        )


def chance(
    analysis: str, probability: float | None, card: Mapping[str, Any] | None
) -> Chance | None:
    """What the card of a bundle says of a score; None where it says nothing."""
    validation = (card or {}).get("validation")
    if probability is None or not validation:
        return None
    edges: list[float] = validation["edges"]
    at = min(max(bisect_right(edges, probability) - 1, 0), len(edges) - 2)
    patients, positives = int(validation["patients"][at]), int(validation["positives"][at])
    least, most = _wilson(positives, patients)
    return Chance(
        low=edges[at],
        high=edges[at + 1],
        patients=patients,
        of_100=round(100 * positives / patients) if patients >= FEWEST else None,
        least=round(100 * least),
        most=round(100 * most),
        finding=FINDINGS.get(analysis, "the finding"),
    )


def _wilson(positives: int, patients: int) -> tuple[float, float]:
    """The interval of a share that holds 95 % (Wilson 1927); all of 0 to 1 of nobody."""
    if not patients:
        return 0.0, 1.0
    share, square = positives / patients, Z_95**2
    middle = share + square / (2 * patients)
    spread = Z_95 * math.sqrt(share * (1 - share) / patients + square / (4 * patients**2))
    scale = 1 + square / patients
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
