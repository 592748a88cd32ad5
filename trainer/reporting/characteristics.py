"""Who is in a cohort: the table of participants, and the groups that are looked at apart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.bern import bern_band
from trainer.cohort import Exam, Examined

Indices: TypeAlias = NDArray[np.intp]

UNKNOWN: Final = "unknown"
# A score whose missing items leave more than one band open.
UNCLEAR: Final = "items missing: band open"
# Faghani et al. 2024, table 1, have a median of 54 years.
AGE_BANDS: Final = ((0, 40, "under 40"), (40, 60, "40 to 59"), (60, 200, "60 and over"))
# A column with more levels than this is no grouping; only the most frequent are shown.
MOST_LEVELS: Final = 12


@dataclass(frozen=True)
class Spread:
    """A number over exams: median, quartiles, range; None where it is known of no exam."""

    known: int
    of: int
    median: float | None
    lower_quartile: float | None
    upper_quartile: float | None
    lowest: float | None
    highest: float | None


@dataclass(frozen=True)
class Share:
    """How many exams are of a kind."""

    count: int
    of: int


Measure: TypeAlias = Callable[[Sequence[Exam]], Spread | Share | int]


@dataclass(frozen=True)
class Characteristic:
    """One row of the table: of all, of positive and of negative exams."""

    topic: str
    level: str
    everyone: Spread | Share | int
    positive: Spread | Share | int
    negative: Spread | Share | int


@dataclass(frozen=True)
class Stratum:
    """A way of grouping exams.

    Attributes:
        of: the group of an exam, in words.
        of_positives_only: negatives have no group of their own, and are compared with each.
    """

    title: str
    of: Callable[[Exam], str]
    of_positives_only: bool = False


def bern_group(exam: Exam) -> str:
    """The band of the Bern score, if the known items leave no doubt about it."""
    if exam.bern_range is None:
        return UNKNOWN
    low, high = (bern_band(score) for score in exam.bern_range)
    return f"{low} ({BERN_RANGES[low]})" if low == high else UNCLEAR


BERN_RANGES: Final[Mapping[str, str]] = {
    "low": "0 to 2",
    "intermediate": "3 or 4",
    "high": "5 to 9",
}


def age_group(exam: Exam) -> str:
    """Age in bands."""
    if exam.age_years is None:
        return UNKNOWN
    return next(name for low, high, name in AGE_BANDS if low <= exam.age_years < high)


def field_group(exam: Exam) -> str:
    """Nominal field strength, to a tenth of a tesla."""
    return UNKNOWN if exam.field_tesla is None else f"{exam.field_tesla:.1f} T"


SEXES: Final[Mapping[str, str]] = {"F": "female", "M": "male", "O": "other"}

STRATA: Final = (
    Stratum("Site", lambda exam: exam.site or UNKNOWN),
    Stratum("Scanner", lambda exam: exam.scanner or UNKNOWN),
    Stratum("Field strength", field_group),
    Stratum("Sex", lambda exam: SEXES.get(exam.sex, UNKNOWN)),
    Stratum("Age", age_group),
    Stratum("Bern score", bern_group),
    # Whether a collection accompanies the leak is a matter of those who have one.
    Stratum("Leak", lambda exam: exam.leak or UNKNOWN, of_positives_only=True),
)


def strata(cohort: Examined) -> tuple[Stratum, ...]:
    """All groupings of a cohort, its free columns included."""
    names = sorted({name for exam in cohort.exams for name in exam.columns})
    return (*STRATA, *(Stratum(name, partial(_column, name=name)) for name in names))


def levels(stratum: Stratum, cohort: Examined) -> Iterator[tuple[str, Indices]]:
    """Groups of a stratum with their exams' indices: bands in order, others the most frequent
    first, the unknown last.
    """
    groups = np.array([stratum.of(exam) for exam in cohort.exams])
    names, counts = np.unique(groups, return_counts=True)
    order = sorted(zip(names, counts, strict=True), key=lambda each: (-each[1], each[0]))
    known = [name for name, _ in order if name != UNKNOWN][:MOST_LEVELS]
    for name in (*_in_order(known), *(name for name in names if name == UNKNOWN)):
        inside = groups == name
        if stratum.of_positives_only:
            inside = np.where(cohort.labels == 1, inside, True)
            if not (inside & (cohort.labels == 1)).any():
                continue
        yield str(name), np.flatnonzero(inside)


def characteristics(cohort: Examined) -> tuple[Characteristic, ...]:
    """The table of participants, after table 1 of Faghani et al. 2024."""
    rows = [
        _row("Exams", "", cohort.exams, lambda chosen: Share(len(chosen), len(cohort))),
        _row("Patients", "", cohort.exams, _patients),
        _row("Age, years", "median (IQR), range", cohort.exams, partial(_spread, _age)),
    ]
    if any(exam.days_to_myelogram is not None for exam in cohort.exams):
        days = partial(_spread, _days)
        rows.append(_row("MRI to myelogram, days", "median (IQR), range", cohort.exams, days))
    for stratum in strata(cohort):
        present = [name for name, _ in levels(stratum, cohort)]
        if present in ([], [UNKNOWN]):
            continue
        for name in present:
            inside = partial(_share, stratum, name)
            rows.append(_row(stratum.title, name, cohort.exams, inside))
    return tuple(rows)


def _row(topic: str, level: str, exams: Sequence[Exam], measure: Measure) -> Characteristic:
    positive = [exam for exam in exams if exam.label == 1]
    negative = [exam for exam in exams if exam.label == 0]
    return Characteristic(topic, level, measure(exams), measure(positive), measure(negative))


def _patients(exams: Sequence[Exam]) -> int:
    return len({exam.patient for exam in exams})


def _share(stratum: Stratum, name: str, exams: Sequence[Exam]) -> Share:
    counted = [exam for exam in exams if exam.label == 1 or not stratum.of_positives_only]
    return Share(sum(stratum.of(exam) == name for exam in counted), len(counted))


def _spread(value: Callable[[Exam], float | None], exams: Sequence[Exam]) -> Spread:
    known = [number for exam in exams if (number := value(exam)) is not None]
    if not known:
        return Spread(0, len(exams), None, None, None, None, None)
    lowest, lower, median, upper, highest = np.percentile(known, (0, 25, 50, 75, 100)).tolist()
    return Spread(len(known), len(exams), median, lower, upper, lowest, highest)


def _age(exam: Exam) -> float | None:
    return exam.age_years


def _days(exam: Exam) -> float | None:
    return exam.days_to_myelogram


def _column(exam: Exam, name: str) -> str:
    return exam.columns.get(name, "") or UNKNOWN


def _in_order(names: list[str]) -> list[str]:
    """Bands from low to high, the rest as it comes."""
    bands = [f"{band} ({scores})" for band, scores in BERN_RANGES.items()]
    order = bands + [name for _, _, name in AGE_BANDS]
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))
