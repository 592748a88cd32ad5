"""Labels that arrive later: which studies in the ledger they are about, and what they tell.

A label names its study by Study Instance UID, by accession number, or by the salted hash under
which a cohort knows it; a label without a study is about all MR studies of its patient. What was
matched can be trained on, since a ledger is a source of studies like any other, and shows how well
the bundles in service did.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pydicom
from rich.table import Table
from scipy.special import logit

from listener.ledger import Ledger
from listener.series import BROKEN, Header
from trainer.gathering.deidentify import pseudonym
from trainer.gathering.gather import Candidate, find_studies
from trainer.gathering.sources import LocalFiles, Progress, Series, Study, read_series, read_study
from trainer.gathering.table import LabelRow
from trainer.statistics import (
    Calibration,
    Interval,
    auroc,
    bootstrap,
    brier,
    calibration,
    delong_interval,
)

# The ledger keeps probabilities with four decimals: one that reads 0 is below half of the last.
LEAST_PROBABILITY: Final = 5e-5


_Held: TypeAlias = dict[str, dict[str, Path]]
"""Series to instance to file."""


class LedgerSource:
    """The studies that a listener received, as its ledger and spool hold them.

    Every study is looked into once, in the constructor: one header for each series until an MR
    series is found.

    Args:
        ledger: of the listener.
        salt: see deidentify.
        on_progress: called with the studies looked into and the number of all.
    """

    def __init__(
        self, ledger: Ledger, salt: bytes, on_progress: Progress = lambda _done, _all: None
    ) -> None:
        self._ledger = ledger
        self._known: list[_Known] = []
        uids = ledger.study_uids()
        for done, uid in enumerate(uids, start=1):
            self._known += _look_into(self._held(uid), salt)
            on_progress(done, len(uids))

    def studies(self) -> list[Study]:
        """All studies, by UID."""
        return [known.study for known in self._known]

    def find(self, row: LabelRow) -> list[Study]:
        """See sources.Source; hashes are understood as well."""
        if not row.study:
            return [known.study for known in self._known if known.is_mr_of(row.patient)]
        by_uid = [known.study for known in self._known if row.study in known.uids]
        return by_uid or [
            known.study for known in self._known if row.study == known.study.accession
        ]

    def series(self, study: Study) -> list[Series]:
        """See sources.Source."""
        held = self._held(study.study_uid)
        every = (read_series(held[uid], len(held[uid])) for uid in sorted(held))
        return [series for series in every if series is not None]

    def deliver(self, series: Series) -> LocalFiles:
        """See sources.Source."""
        held = self._held(series.facts.study_uid)[series.facts.series_uid]
        return LocalFiles(tuple(held[uid] for uid in series.sop_uids))

    def _held(self, study_uid: str) -> _Held:
        held: _Held = defaultdict(dict)
        for instance in self._ledger.instances_of(study_uid):
            held[instance.series_uid][instance.sop_uid] = instance.path
        return held

    def probabilities(self, study_uid: str, analysis: str) -> "dict[BundleInService, float]":
        """What each bundle found in a study, by the last report of each."""
        jobs = (self._ledger.study(study_uid) or {"jobs": []})["jobs"]
        reported = [
            job for job in jobs if job["state"] == "REPORTED" and job["analysis"] == analysis
        ]
        return {
            _bundle(job): float(job["summary"]["probability"])
            for job in sorted(reported, key=lambda job: (job["revision"], job["finished_at"]))
            if "probability" in (job["summary"] or {})
        }


@dataclass(frozen=True)
class BundleInService:
    """Which bundle made a report."""

    name: str
    weights_sha256: str


@dataclass(frozen=True)
class ServiceFigures:
    """How a bundle did on labelled studies in service.

    The studies are those that somebody labelled, which are rarely all and rarely chance ones.

    Attributes:
        brier: mean squared error of its probabilities.
        calibration: None where the studies are of one class.
        auroc: likewise.
        auroc_interval: at 95 %; None where it does not exist.
    """

    bundle: BundleInService
    studies: int
    positives: int
    brier: float
    calibration: Calibration | None
    auroc: float | None
    auroc_interval: Interval | None


@dataclass(frozen=True)
class Joined:
    """Labels beside the studies that they are about.

    Attributes:
        matched: rows with a study each, the study named by its UID: a table for `gather`.
        unmatched: numbers of the rows that no study was found for.
        unlabelled: salted hashes of the studies without a label.
        figures: of each bundle that reported on a labelled study.
    """

    matched: tuple[LabelRow, ...]
    unmatched: tuple[int, ...]
    unlabelled: tuple[str, ...]
    figures: tuple[ServiceFigures, ...]


def join_labels(
    rows: Sequence[LabelRow], source: LedgerSource, salt: bytes, analysis: str = "fistula"
) -> Joined:
    """Find the studies that labels are about, and see how the bundles in service did on them.

    Raises:
        BadTable: rows contradict each other.
    """
    candidates = find_studies(rows, source)
    matched = [each for each in candidates if each.study is not None]
    labelled = {_study_uid(each) for each in matched}
    without = [study.study_uid for study in source.studies() if study.study_uid not in labelled]
    return Joined(
        matched=tuple(_named_by_uid(each) for each in matched),
        unmatched=tuple(sorted(each.row.number for each in candidates if each.study is None)),
        unlabelled=tuple(sorted(pseudonym(salt, "study", uid) for uid in without)),
        figures=tuple(_service_figures(matched, source, analysis)),
    )


def figures_table(figures: Iterable[ServiceFigures]) -> Table:
    """The figures of each bundle for a terminal."""
    table = Table(
        "bundle", "studies", "positive", "Brier", "slope", "intercept", "AUROC (95 % CI)",
        title="Bundles in service, on the studies that have a label",
    )  # fmt: skip
    for each in figures:
        found = each.calibration
        table.add_row(
            f"{each.bundle.name} ({each.bundle.weights_sha256[:8]})",
            str(each.studies),
            str(each.positives),
            f"{each.brier:.3f}",
            _number(None if found is None else found.slope),
            _number(None if found is None else found.intercept),
            f"{_number(each.auroc)}{_within(each.auroc_interval)}",
        )
    return table


# --- the ledger ---


@dataclass(frozen=True)
class _Known:
    """One study of the ledger, and the names it goes by."""

    study: Study
    uids: frozenset[str]
    patients: frozenset[str]
    is_mr: bool

    def is_mr_of(self, patient: str) -> bool:
        return self.is_mr and patient in self.patients


def _look_into(held: _Held, salt: bytes) -> Iterator[_Known]:
    """What is known of a study; nothing where no header can be read."""
    first = next(_headers(held), None)
    if first is None:
        return
    study = read_study(first)
    patient = [study.patient, pseudonym(salt, "patient", study.patient)] if study.patient else []
    yield _Known(
        study,
        uids=frozenset((study.study_uid, pseudonym(salt, "study", study.study_uid))),
        patients=frozenset(patient),
        is_mr=any(header.code("Modality") == "MR" for header in _headers(held)),
    )


def _headers(held: _Held) -> Iterator[Header]:
    """A header of each series, from its first readable instance."""
    for uid in sorted(held):
        for sop_uid in sorted(held[uid]):
            try:
                yield Header(pydicom.dcmread(held[uid][sop_uid], stop_before_pixels=True))
            except BROKEN:
                continue
            break


def _bundle(job: dict[str, Any]) -> BundleInService:
    name = str((job["lineage"] or {}).get("bundle", job["bundle_version"]))
    return BundleInService(name, str(job["weights_sha256"]))


# --- labels beside studies ---


def _study_uid(each: Candidate) -> str:
    return "" if each.study is None else each.study.study_uid


def _named_by_uid(each: Candidate) -> LabelRow:
    fields = {name: getattr(each.row, name) for name in LabelRow.__dataclass_fields__}
    return LabelRow(**{**fields, "study": _study_uid(each)})


def _service_figures(
    matched: Iterable[Candidate], source: LedgerSource, analysis: str
) -> Iterator[ServiceFigures]:
    found: dict[BundleInService, list[tuple[int, float, str]]] = defaultdict(list)
    for each in matched:
        if each.row.label == "indeterminate":
            continue
        label = int(each.row.label == "positive")
        for bundle, probability in source.probabilities(_study_uid(each), analysis).items():
            found[bundle].append((label, probability, each.row.patient))
    for bundle in sorted(found, key=lambda bundle: (bundle.name, bundle.weights_sha256)):
        labels, probabilities, patients = map(np.array, zip(*found[bundle], strict=True))
        yield _figures(bundle, labels, probabilities, patients)


def _figures(
    bundle: BundleInService, labels: Any, probabilities: Any, patients: Any
) -> ServiceFigures:
    both = 0 < labels.sum() < labels.size
    log_odds = logit(np.clip(probabilities, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
    return ServiceFigures(
        bundle=bundle,
        studies=int(labels.size),
        positives=int(labels.sum()),
        brier=brier(labels, probabilities),
        calibration=calibration(labels, log_odds) if both else None,
        auroc=auroc(labels, probabilities) if both else None,
        auroc_interval=_auroc_interval(labels, probabilities, patients) if both else None,
    )


def _auroc_interval(labels: Any, probabilities: Any, patients: Any) -> Interval | None:
    """DeLong's where all studies are independent, by resampling patients where they are not."""
    if len(set(patients)) == len(patients):
        return delong_interval(labels, probabilities)
    if min(len(set(patients[labels == label])) for label in (0, 1)) < 2:
        return None  # one patient says nothing about another
    groups = np.unique(patients, return_inverse=True)[1]
    return bootstrap(labels, probabilities, auroc, groups)


def _number(value: float | None) -> str:
    """A figure with two decimals, or a dash where it does not exist."""
    return "-" if value is None else f"{value:.2f}"


def _within(interval: Interval | None) -> str:
    return "" if interval is None else f" ({interval.low:.2f}-{interval.high:.2f})"
