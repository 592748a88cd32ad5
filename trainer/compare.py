"""Two bundles side by side on the same exams: may the new one replace the old one?

The rule is stated before anybody looks, and is the same for everybody: see `RULE`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.cohort import Examined
from trainer.statistics import Calibration, Comparison, brier, calibration, delong
from trainer.subject import Subject, require_fit, seen_in_training
from worker.bundle import Bundle
from worker.ensemble import Band

# How much worse the new bundle may be, at the far end of the 95 % interval of the difference.
AUROC_MARGIN: Final = 0.05
BRIER_MARGIN: Final = 0.01
# So many patients of each label are needed for a verdict at all.
FEWEST: Final = 20

RULE: Final = (
    f"B may replace A if, on exams that neither was trained on, with at least {FEWEST} of each "
    "label: the 95 % interval of the AUROC difference B - A (paired DeLong) lies above "
    f"-{AUROC_MARGIN}; its Brier score is at most {BRIER_MARGIN} higher; and B calls no more "
    "positives 'not suggested' than A does."
)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One bundle on the cohort.

    Attributes:
        bundle: name and version.
        brier: score of its probabilities.
        calibration: of their log odds, measured on this cohort.
        bands: how many positives and negatives fell into each band.
    """

    bundle: str
    brier: float
    calibration: Calibration
    bands: dict[str, dict[str, int]]


@dataclass(frozen=True)
class SideBySide:
    """What a comparison found.

    Attributes:
        exams: of the cohort.
        one: the bundle in service, A.
        other: the one that might replace it, B.
        auroc: paired; B comes first, so that a difference above 0 speaks for B.
        changed: from A's band to B's: label -> "suggested -> undetermined" -> how many.
        obstacles: why B may not replace A; empty if it may.
    """

    exams: int
    one: Side
    other: Side
    auroc: Comparison
    changed: dict[str, dict[str, int]]
    obstacles: tuple[str, ...]

    @property
    def may_replace(self) -> bool:
        """Whether B may replace A under the rule."""
        return not self.obstacles

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return {"rule": RULE, "may_replace": self.may_replace, **dataclasses.asdict(self)}


@dataclass(frozen=True, eq=False)
class _Judged:
    bundle: Bundle
    probabilities: Values
    bands: tuple[Band, ...]


def compare(one: Subject, other: Subject, on_progress: Callable[[int, int], None]) -> SideBySide:
    """Judge a cohort by two bundles.

    Args:
        one: A, in service.
        other: B, the candidate, on the same cohort; it must be made for images prepared alike.
        on_progress: called with the exams judged, and how many there are to judge.

    Raises:
        NotComparable: the cohort fits one of the bundles not.
    """
    for subject in (one, other):
        require_fit(subject)
    cohort = one.cohort
    total = 2 * len(cohort)
    before = _judge(one, lambda done: on_progress(done, total))
    after = _judge(other, lambda done: on_progress(len(cohort) + done, total))
    found = delong(cohort.labels, after.probabilities, before.probabilities)
    sides = _side(before, cohort), _side(after, cohort)
    return SideBySide(
        exams=len(cohort),
        one=sides[0],
        other=sides[1],
        auroc=found,
        changed=_changed(before, after, cohort),
        obstacles=(
            *_unfit(one, other),
            *_worse(sides[0], sides[1], found),
        ),
    )


def _judge(subject: Subject, on_done: Callable[[int], None]) -> _Judged:
    found = []
    for exam in range(len(subject.cohort)):
        found.append(subject.predict(exam))
        on_done(len(found))
    probabilities = np.array([each.probability for each in found])
    return _Judged(subject.bundle, probabilities, tuple(each.band for each in found))


def _side(judged: _Judged, cohort: Examined) -> Side:
    # A probability of exactly 0 or 1 has no log odds; float64 holds none nearer than this.
    inside = judged.probabilities.clip(1e-12, 1 - 1e-12)
    bands = np.array([band.value for band in judged.bands])
    return Side(
        bundle=f"{judged.bundle.name} {judged.bundle.version}",
        brier=brier(cohort.labels, judged.probabilities),
        calibration=calibration(cohort.labels, np.log(inside / (1 - inside))),
        bands={
            name: {band.value: int(np.sum(bands[chosen] == band.value)) for band in Band}
            for name, chosen in _by_label(cohort)
        },
    )


def _changed(before: _Judged, after: _Judged, cohort: Examined) -> dict[str, dict[str, int]]:
    moves = np.array(
        [
            f"{old.value} -> {new.value}" if old != new else ""
            for old, new in zip(before.bands, after.bands, strict=True)
        ]
    )
    found: dict[str, dict[str, int]] = {}
    for name, chosen in _by_label(cohort):
        kinds, counts = np.unique(moves[chosen & (moves != "")], return_counts=True)
        found[name] = {str(kind): int(count) for kind, count in zip(kinds, counts, strict=True)}
    return found


def _unfit(*subjects: Subject) -> list[str]:
    """Why this cohort allows no verdict."""
    found = [
        f"{each.bundle.name} {each.bundle.version} was trained on {seen} of these exams"
        for each in subjects
        if (seen := seen_in_training(each))
    ]
    cohort = subjects[0].cohort
    for name, chosen in _by_label(cohort):
        patients = len(set(cohort.groups[chosen]))
        if patients < FEWEST:
            found.append(f"{patients} patients are {name}, and {FEWEST} are needed")
    return found


def _worse(one: Side, other: Side, found: Comparison) -> list[str]:
    """In what B falls short of A."""
    obstacles = []
    low = found.difference if found.interval is None else found.interval.low
    if low < -AUROC_MARGIN:
        obstacles.append(f"the AUROC may be {-low:.3f} lower, and {AUROC_MARGIN} is allowed")
    if other.brier > one.brier + BRIER_MARGIN:
        more = other.brier - one.brier
        obstacles.append(f"the Brier score is {more:.3f} higher, and {BRIER_MARGIN} is allowed")
    missed = [side.bands["positive"][Band.NOT_SUGGESTED.value] for side in (one, other)]
    if missed[1] > missed[0]:
        obstacles.append(f"{missed[1]} positives are called 'not suggested', and were {missed[0]}")
    return obstacles


def _by_label(cohort: Examined) -> tuple[tuple[str, NDArray[np.bool_]], ...]:
    return ("positive", cohort.labels == 1), ("negative", cohort.labels == 0)
