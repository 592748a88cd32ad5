"""The Bern score of intracranial hypotension on brain MRI, from its six items.

Dobrocky et al., JAMA Neurol 2019;76(5):580-587, doi 10.1001/jamaneurol.2018.4921. The score was
derived on fast leaks and says how likely a leak is found, not how ill a patient is (Houk et al.,
AJNR 2023). What to do about an item that nobody read is not in the source: the score is then a
range, since an unread item counted as absent would make a patient look healthier than known.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Band: TypeAlias = Literal["low", "intermediate", "high"]


@dataclass(frozen=True)
class BernItems:
    """What was read in one exam; None is unknown.

    Distances are in mm, on a sagittal slice; 0 is an effaced cistern.

    Attributes:
        pachymeningeal_enhancement: the dura enhances.
        venous_engorgement: the dominant transverse sinus has a convex lower margin.
        suprasellar_mm: height of the suprasellar cistern below the chiasm.
        subdural_fluid: a subdural collection.
        prepontine_mm: depth of the prepontine cistern.
        mamillopontine_mm: from mamillary bodies to pons.

    Raises:
        ValueError: a distance is negative or not finite.
    """

    pachymeningeal_enhancement: bool | None = None
    venous_engorgement: bool | None = None
    suprasellar_mm: float | None = None
    subdural_fluid: bool | None = None
    prepontine_mm: float | None = None
    mamillopontine_mm: float | None = None

    def __post_init__(self) -> None:
        """Refuse distances that nobody can have measured."""
        for item in BERN_ITEMS:
            value = getattr(self, item.name)
            if item.at_most_mm is None or value is None:
                continue
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"Bern item {item.name} is {value}, which is no distance in mm: "
                    "give 0 or more, or leave it empty where it was not measured"
                )


@dataclass(frozen=True)
class BernItem:
    """One row of the score.

    Attributes:
        name: the field of BernItems.
        points: for a positive item.
        at_most_mm: a distance up to and with this one is positive; None for a yes-or-no item.
    """

    name: str
    points: int
    at_most_mm: float | None = None

    def is_positive(self, items: BernItems) -> bool | None:
        """Whether the item earns its points; None where it is unknown."""
        value = getattr(items, self.name)
        if value is None:
            return None
        return bool(value) if self.at_most_mm is None else bool(value <= self.at_most_mm)


# Thresholds are inclusive: 4.0, 5.0 and 6.5 mm are positive.
BERN_ITEMS: Final = (
    BernItem("pachymeningeal_enhancement", 2),
    BernItem("venous_engorgement", 2),
    BernItem("suprasellar_mm", 2, at_most_mm=4.0),
    BernItem("subdural_fluid", 1),
    BernItem("prepontine_mm", 1, at_most_mm=5.0),
    BernItem("mamillopontine_mm", 1, at_most_mm=6.5),
)
HIGHEST_SCORE: Final = sum(item.points for item in BERN_ITEMS)

# The highest score of the two lower bands.
HIGHEST_LOW: Final = 2
HIGHEST_INTERMEDIATE: Final = 4


def bern_score(items: BernItems) -> tuple[int, int]:
    """The lowest and the highest score that the items allow, 0 to 9; equal when all are known.

    >>> bern_score(BernItems(True, False, 4.0, False, 5.1, 6.5))
    (5, 5)
    >>> bern_score(BernItems(pachymeningeal_enhancement=True))
    (2, 9)
    """
    found = [(item.points, item.is_positive(items)) for item in BERN_ITEMS]
    lowest = sum(points for points, positive in found if positive)
    unknown = sum(points for points, positive in found if positive is None)
    return lowest, lowest + unknown


def bern_band(score: int) -> Band:
    """How likely a leak is found: low for 0 to 2, intermediate for 3 and 4, high for 5 to 9.

    >>> [bern_band(score) for score in (2, 3, 4, 5)]
    ['low', 'intermediate', 'intermediate', 'high']

    Raises:
        ValueError: no score can have this value.
    """
    if not 0 <= score <= HIGHEST_SCORE:
        raise ValueError(f"a Bern score of {score}: it runs from 0 to {HIGHEST_SCORE}")
    if score <= HIGHEST_LOW:
        return "low"
    return "intermediate" if score <= HIGHEST_INTERMEDIATE else "high"
