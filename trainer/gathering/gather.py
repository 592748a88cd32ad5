"""From label rows and a source of studies to a cohort: found, chosen, read, checked, prepared.

Series are chosen by the listener's rules; volumes are read, checked and prepared by the worker's
functions. So what a network is trained on is what it will see in service, voxel by voxel, and a
study that the service would refuse is left out here for the same coded reason.

    cohort/
      outcomes/<key>.json      what became of one series: its volume, or the code of a refusal
      volumes/<sha256>.npy     prepared voxels (cohort.py)
      volumes/<sha256>.json    their affine, 16 numbers row by row, voxel to RAS mm
      views/<sha256>...        instead of volumes, where regions are looked at (regional/cohort.py)
      exams.json, cohort.json  the cohort (cohort.py), written last

Nothing in the folder tells who the patients are without the salt. A gathering that was killed goes
on where it stopped: an outcome is kept once, under a key of everything that it depends on.
"""

import dataclasses
import fcntl
import hashlib
import inspect
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Final, Literal

import pydicom
from pydantic import TypeAdapter, ValidationError

from listener import selection, series
from listener.errors import BadAttribute, MonroError
from listener.selection import select
from listener.series import BROKEN, Header, SeriesFacts, read_series_facts
from trainer.cohort import Exam, write_cohort, write_json
from trainer.flow import Flow, Step
from trainer.gathering import keep as keeping
from trainer.gathering.deidentify import pseudonym, told_age
from trainer.gathering.keep import drawn_files, is_kept, keep
from trainer.gathering.sources import Delivery, Progress, Series, Source, Study, read_day
from trainer.gathering.table import LabelRow, require_agreement, require_free
from trainer.pool import spread
from worker import crops, drawn, preprocess, quality, regions, scene, volume
from worker.crops import CropRecipe
from worker.preprocess import NoHead, Recipe
from worker.quality import Reason, UnusableStudy, check_headers, check_volume
from worker.volume import read_volume

log = logging.getLogger(__name__)

OUTCOMES: Final = "outcomes"

FISTULA: Final = "fistula"
"""The analysis whose labels come from myelograms."""

Slec = Literal["exclude", "subgroup", "ignore"]

# Code that decides what becomes of a series: when it changes, every series is looked at again.
DECIDING: Final = (
    selection,
    series,
    quality,
    volume,
    preprocess,
    scene,
    regions,
    crops,
    drawn,
    keeping,
)

INDETERMINATE: Final = "indeterminate label"
SLEC: Final = "spinal longitudinal extradural collection"
NO_STUDY: Final = "no study found"
AFTER_MYELOGRAM: Final = "MRI after the myelogram"
NOT_LATEST: Final = "not the latest MRI before the myelogram"
SAME_IMAGES: Final = "the same images as another exam of the patient"

# Where PS3.3 C.8.3.1 asks for tesla, some write millitesla and some gauss. No clinical magnet has
# more than 12 T, none of less than 0.5 T is told in gauss, and 5000 mT are not built.
STRONGEST_TESLA: Final = 12.0
FEWEST_GAUSS: Final = 5000.0
GAUSS_PER_TESLA: Final = 1e4
MILLITESLA_PER_TESLA: Final = 1e3
PER_YEAR: Final = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}  # PS3.5, VR AS


class GatherFailed(MonroError):
    """A cohort cannot be gathered: what was found, and what to do."""

    def __init__(self, found: str, needed: str) -> None:
        super().__init__(found, needed)
        self.found, self.needed = found, needed

    def __str__(self) -> str:
        return f"{self.found}; {self.needed}"


@dataclass(frozen=True)
class GatherSettings:
    """What decides which exams a cohort has, beside table and source.

    Attributes:
        recipe: how volumes are prepared, or regions looked at.
        analysis: whose rules choose the series, and what the labels are about.
        slec: what to do with spinal longitudinal extradural collections, which are fast leaks and
            were left out by Faghani et al.: exclude them, keep them as a subgroup of their own, or
            ignore the column.
        keep_columns: free columns of the table that go into the cohort.
        trust_table: whether patients of different names in the table are different where their
            headers share a PatientID, as in sets that were anonymised.
        masks: folder that the table's `regions` are relative to.
    """

    recipe: Recipe | CropRecipe
    analysis: str = "fistula"
    slec: Slec = "exclude"
    keep_columns: tuple[str, ...] = ()
    trust_table: bool = False
    masks: Path = Path()


@dataclass(frozen=True)
class Outcome:
    """What became of one series; holds no identity.

    Attributes:
        reason: code of the refusal; empty where there is a volume.
        volume: digest of what was kept: prepared voxels, or views of regions.
        affine: of the prepared grid, 4 x 4 row by row, voxel -> RAS mm; empty for regions.
        masks: who outlined each region: a reader ("drawn"), or nobody yet ("proposed").
        scanner: manufacturer and model.
        sex: F, M, O or empty.
        age_years: in whole years, 90 for anybody older than 89.
    """

    reason: str = ""
    volume: str = ""
    affine: tuple[float, ...] = ()
    masks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scanner: str = ""
    field_tesla: float | None = None
    sex: str = ""
    age_years: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A row and one study that it is about, on the way into the cohort.

    Attributes:
        study: None where the source has none.
        chosen: series to read, once it is known.
        outcome: what became of it, once it is known.
    """

    row: LabelRow
    study: Study | None
    chosen: Series | None = None
    outcome: Outcome = dataclasses.field(default_factory=Outcome)

    @property
    def days_to_myelogram(self) -> int | None:
        """From MRI to myelogram; negative where the MRI came later."""
        if self.study is None or self.study.day is None or self.row.myelogram_date is None:
            return None
        return (self.row.myelogram_date - self.study.day).days


@dataclass(frozen=True)
class Errand:
    """What a process needs to find out what becomes of one series."""

    key: str
    delivery: Delivery
    recipe: Recipe | CropRecipe
    folder: Path
    analysis: str
    drawn: Path | None


def gather(
    rows: Sequence[LabelRow],
    source: Source,
    folder: Path,
    salt: bytes,
    settings: GatherSettings,
    processes: int = 1,
    on_progress: Progress = lambda _done, _all: None,
) -> Flow:
    """Gather a cohort into a folder, going on with what an earlier attempt left there.

    Fistula: MRI and myelogram of the same day count as MRI before myelogram. Where dates say
    nothing, all of a patient's exams are kept; folds keep patients whole.

    Args:
        rows: of the label table.
        source: of the studies.
        folder: of the cohort; made where it is missing.
        salt: see deidentify.
        settings: see there.
        processes: reading and preparing at a time.
        on_progress: called with the series prepared and to prepare.

    Returns:
        Who was left out on the way, and why.

    Raises:
        BadTable: rows contradict each other, or a column to keep may identify patients.
        SourceFailed: the source does not give what it has; run again to go on.
        GatherFailed: nothing was left, or exams contradict each other.
        ProcessDied: one did; run again to go on.
    """
    require_free(rows, settings.keep_columns)
    with _alone(folder):
        candidates = find_studies(rows, source)
        _see_to_namesakes(candidates, settings.trust_table)
        way = _Way.start(candidates)
        way.drop("with a definite label", _indeterminate)
        has_myelogram = settings.analysis == FISTULA
        if has_myelogram and settings.slec == "exclude":
            way.drop("without an extradural collection", _collected)
        way.drop("with a study", lambda each: NO_STUDY if each.study is None else "")
        if has_myelogram:
            way.drop("with an MRI before the myelogram", _after_myelogram)
        way.change(lambda each: _choose(each, source, settings.analysis))
        way.drop("with a suitable series", lambda each: each.outcome.reason)
        if has_myelogram:
            way.drop("latest MRI before the myelogram", _not_latest(way.left))
        way.left = _prepare_all(way.left, source, folder, salt, settings, processes, on_progress)
        way.drop("whole head, readable", lambda each: each.outcome.reason)
        way.drop("in the cohort", _same_images(way.left))
        if not way.left:
            raise GatherFailed(
                f"no exam is left: {_told(way.flow)}", "see to the reason that took the most"
            )
        exams = [_exam(each, salt, settings) for each in way.left]
        write_cohort(folder, exams, settings.recipe, settings.analysis, way.flow)
    return way.flow


class _Way:
    """The candidates that are left, and the flow so far."""

    def __init__(self, left: list[Candidate], flow: Flow) -> None:
        self.left, self.flow = left, flow

    @classmethod
    def start(cls, candidates: list[Candidate]) -> "_Way":
        patients = {each.row.patient for each in candidates}
        step = Step("in the label table", len(patients), len(candidates))
        return cls(candidates, Flow((step,)))

    def drop(self, stage: str, reason: Callable[[Candidate], str]) -> None:
        """Take out the candidates for which there is a reason."""
        reasons = [reason(each) for each in self.left]
        self.left = [each for each, why in zip(self.left, reasons, strict=True) if not why]
        patients = [each.row.patient for each in self.left]
        self.flow = self.flow.then(stage, patients, filter(None, reasons))

    def change(self, find_out: Callable[[Candidate], Candidate]) -> None:
        self.left = [find_out(each) for each in self.left]


def _told(flow: Flow) -> str:
    """All reasons of a flow in one line."""
    reasons = [f"{count} {why}" for step in flow.steps for why, count in step.excluded.items()]
    return ", ".join(reasons)


# --- which studies ---


def find_studies(rows: Sequence[LabelRow], source: Source) -> list[Candidate]:
    """Every row with each of its studies, at least once; every study once.

    A row about one study goes before a row about its patient.

    Raises:
        BadTable: rows contradict each other.
        SourceFailed: the source cannot be asked.
    """
    by_study: dict[str, LabelRow] = {}
    candidates = []
    for row in sorted(rows, key=lambda row: not row.study):
        studies = source.find(row)
        if not studies:
            candidates.append(Candidate(row, None))
        for study in studies:
            earlier = by_study.setdefault(study.study_uid, row)
            if earlier is row:
                candidates.append(Candidate(row, study))
            elif row.study or earlier.patient != row.patient:
                require_agreement(earlier, row)
    return candidates


def _see_to_namesakes(candidates: Iterable[Candidate], trust_table: bool) -> None:
    """Stop at patients whom the table parts and the headers do not: they would leak over folds.

    Raises:
        GatherFailed: there are some, and the table is not to be trusted over the headers.
    """
    rows: dict[str, dict[str, int]] = defaultdict(dict)
    for each in candidates:
        if each.study is not None and each.study.patient:
            rows[each.study.patient].setdefault(each.row.patient, each.row.number)
    for numbers in (sorted(found.values()) for found in rows.values() if len(found) > 1):
        found = (
            f"label table, rows {', '.join(map(str, numbers))}: different patients in the table, "
            "and one PatientID in the headers"
        )
        if not trust_table:
            raise GatherFailed(
                found, "give them the same patient, or trust the table if headers were anonymised"
            )
        log.warning("%s; trusted as they were told", found)


def _indeterminate(each: Candidate) -> str:
    return INDETERMINATE if each.row.label == "indeterminate" else ""


def _collected(each: Candidate) -> str:
    return SLEC if each.row.slec else ""


def _after_myelogram(each: Candidate) -> str:
    days = each.days_to_myelogram
    return AFTER_MYELOGRAM if days is not None and days < 0 else ""


def _not_latest(candidates: Iterable[Candidate]) -> Callable[[Candidate], str]:
    """Judges by the candidates of the same patient and myelogram; ties are kept."""
    least: dict[tuple[str, date | None], int] = {}
    for each in candidates:
        if (days := each.days_to_myelogram) is not None:
            key = (each.row.patient, each.row.myelogram_date)
            least[key] = min(days, least.get(key, days))

    def judge(each: Candidate) -> str:
        days = each.days_to_myelogram
        earlier = days is not None and days > least[each.row.patient, each.row.myelogram_date]
        return NOT_LATEST if earlier else ""

    return judge


# --- which series ---


def _choose(each: Candidate, source: Source, analysis: str) -> Candidate:
    """Choose the series as the listener does, and check its headers as the worker does.

    Raises:
        ValueError: the candidate has no study.
    """
    if each.study is None:
        raise ValueError("a series is chosen from a study that was found")
    found = source.series(each.study)
    chosen = select(analysis, [series.facts for series in found]).chosen
    if chosen is None:
        return dataclasses.replace(each, outcome=Outcome(reason=_coded(Reason.NO_SERIES)))
    series_ = next(series for series in found if series.facts.series_uid == chosen)
    try:
        check_headers(series_.facts, analysis)
    except UnusableStudy as refusal:
        return dataclasses.replace(each, outcome=Outcome(reason=_coded(refusal.reason)))
    return dataclasses.replace(each, chosen=series_)


def _coded(reason: Reason) -> str:
    """A reason as flows tell it: code and meaning.

    >>> _coded(Reason.NO_SERIES)
    'REASON-NO-SERIES: No suitable series in the study'
    """
    return f"{reason.value}: {reason.meaning}"


# --- what becomes of it ---


def _prepare_all(
    candidates: Sequence[Candidate],
    source: Source,
    folder: Path,
    salt: bytes,
    settings: GatherSettings,
    processes: int,
    on_progress: Progress,
) -> list[Candidate]:
    """Every candidate with its outcome; those known already are not looked at again."""
    drawn = {_chosen(each): _drawn(each.row, settings) for each in candidates}
    keys = {each: _key(each, salt, settings.recipe, masks) for each, masks in drawn.items()}
    known = {key: _read_outcome(folder, key, settings.recipe) for key in keys.values()}
    errands = [
        Errand(key, source.deliver(each), settings.recipe, folder, settings.analysis, drawn[each])
        for each, key in keys.items()
        if known[key] is None
    ]
    outcomes = {key: outcome for key, outcome in known.items() if outcome is not None}
    on_progress(len(outcomes), len(keys))
    for errand, outcome in spread(run_errand, errands, processes):
        outcomes[errand.key] = outcome
        on_progress(len(outcomes), len(keys))
    return [dataclasses.replace(each, outcome=outcomes[keys[_chosen(each)]]) for each in candidates]


def _drawn(row: LabelRow, settings: GatherSettings) -> Path | None:
    """The folder of masks that a row names.

    Raises:
        GatherFailed: it is not there.
    """
    if not row.regions or isinstance(settings.recipe, Recipe):
        return None
    folder = settings.masks / row.regions
    if not folder.is_dir():
        raise GatherFailed(
            f"label table, row {row.number}: `regions` names no folder",
            "give a path relative to the table, or leave the cell empty to have regions proposed",
        )
    return folder


def _chosen(each: Candidate) -> Series:
    if each.chosen is None:
        raise ValueError("a series is prepared once it was chosen")
    return each.chosen


def run_errand(errand: Errand) -> Outcome:
    """Read, check and prepare one series, and write down what became of it."""
    with errand.delivery.files() as paths:
        outcome = prepare_series(paths, errand.recipe, errand.folder, errand.analysis, errand.drawn)
    write_json(errand.folder / OUTCOMES / f"{errand.key}.json", dataclasses.asdict(outcome))
    return outcome


def prepare_series(
    paths: Sequence[Path],
    recipe: Recipe | CropRecipe,
    folder: Path,
    analysis: str = "fistula",
    drawn: Path | None = None,
) -> Outcome:
    """What the service would make of a series, up to the network's input (worker/pipeline.py).

    Args:
        paths: files of the series, in the order of their instances' UIDs.
        recipe: how to prepare it.
        folder: of the cohort, where volume or views are kept.
        analysis: that asks.
        drawn: folder of a reader's masks of regions.
    """
    try:
        check_headers(_facts(paths), analysis)
        read = read_volume(paths)
        check_volume(read, analysis)
        kept = keep(read, recipe, folder, drawn)
    except UnusableStudy as refusal:
        return Outcome(reason=_coded(refusal.reason))
    except NoHead:
        return Outcome(reason=_coded(Reason.NOT_HEAD))
    return _with_headers(Outcome(volume=kept.name, affine=kept.affine, masks=kept.masks), paths[0])


def _facts(paths: Sequence[Path]) -> SeriesFacts:
    try:
        return read_series_facts(min(paths), len(paths))
    except BadAttribute as error:
        needed = "images with a readable header"
        raise UnusableStudy(Reason.UNREADABLE, str(error), needed) from error


def _with_headers(outcome: Outcome, path: Path) -> Outcome:
    """Add what the header tells of patient and scanner."""
    try:
        header = Header(pydicom.dcmread(path, stop_before_pixels=True))
    except BROKEN:
        return outcome
    maker, model = header.text("Manufacturer"), header.text("ManufacturerModelName")
    sex = header.code("PatientSex")
    return dataclasses.replace(
        outcome,
        scanner=f"{maker} {model}".strip(),
        field_tesla=_tesla(header.number("MagneticFieldStrength")),
        sex=sex if sex in ("F", "M", "O") else "",
        age_years=told_age(_age(header)),
    )


def _tesla(number: float | None) -> float | None:
    """A field strength in tesla, rounded as scanners are sold, whatever unit was written.

    >>> _tesla(1.494), _tesla(15000.0), _tesla(3000.0), _tesla(0.0), _tesla(None)
    (1.5, 1.5, 3.0, None, None)
    """
    if number is None or number <= 0:
        return None
    if number > STRONGEST_TESLA:
        number /= GAUSS_PER_TESLA if number >= FEWEST_GAUSS else MILLITESLA_PER_TESLA
    return round(number, 1) if number <= STRONGEST_TESLA else None


def _age(header: Header) -> float | None:
    """Whole years: PatientAge, or from birth to study."""
    text = header.code("PatientAge")
    if len(text) == 4 and text[:3].isdecimal() and text[3] in PER_YEAR:
        return float(int(int(text[:3]) / PER_YEAR[text[3]]))
    born = read_day(header.text("PatientBirthDate"))
    day = read_day(header.text("StudyDate"))
    if born is None or day is None or day < born:
        return None
    return float(day.year - born.year - ((day.month, day.day) < (born.month, born.day)))


# --- outcomes on disk ---


def _key(chosen: Series, salt: bytes, recipe: Recipe | CropRecipe, drawn: Path | None) -> str:
    """Names an outcome by all it depends on: study, series, its instances, masks, recipe, code."""
    facts = chosen.facts
    masks = (hashlib.sha256(each.read_bytes()).hexdigest() for each in drawn_files(drawn))
    uids = (facts.study_uid, facts.series_uid, *chosen.sop_uids)
    parts = (*uids, *masks, repr(recipe), code_version())
    return pseudonym(salt, "outcome", "\n".join(parts))


@cache
def code_version() -> str:
    """Digest of the code that decides what becomes of a series."""
    sources = "".join(inspect.getsource(module) for module in DECIDING)
    return hashlib.sha256(sources.encode()).hexdigest()


def _read_outcome(folder: Path, key: str, recipe: Recipe | CropRecipe) -> Outcome | None:
    """An outcome that was kept; None where there is none, or what it names is gone."""
    try:
        written = (folder / OUTCOMES / f"{key}.json").read_bytes()
        outcome = TypeAdapter(Outcome).validate_json(written)
    except (FileNotFoundError, ValidationError):
        return None
    return outcome if outcome.reason or is_kept(folder, recipe, outcome.volume) else None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other gatherings out of a folder, and remove what killed ones were writing.

    Raises:
        GatherFailed: another process gathers into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(lock, folder)
        for leftover in folder.glob("**/*.partial"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        found = f"another process gathers into {folder}"
        raise GatherFailed(found, "wait for it, or name another folder") from error


# --- the cohort ---


def _same_images(candidates: Sequence[Candidate]) -> Callable[[Candidate], str]:
    """Judges whether an exam repeats another one.

    Raises:
        GatherFailed: the same images under two patients, or with two labels.
    """
    first: dict[str, Candidate] = {}
    for each in candidates:
        earlier = first.setdefault(each.outcome.volume, each)
        one, other = earlier.row, each.row
        if (one.patient, one.label) != (other.patient, other.label):
            raise GatherFailed(
                f"label table, rows {one.number} and {other.number}: two patients, or two labels, "
                "and the same images",
                "correct the table; such exams would be trained on and tested on at once",
            )
    return lambda each: "" if first[each.outcome.volume] is each else SAME_IMAGES


def _exam(each: Candidate, salt: bytes, settings: GatherSettings) -> Exam:
    """A candidate that came all the way; what the table says goes before the header."""
    row, outcome = each.row, each.outcome
    age = outcome.age_years if row.age_years is None else told_age(row.age_years)
    return Exam(
        exam=pseudonym(salt, "study", _chosen(each).facts.study_uid),
        patient=pseudonym(salt, "patient", row.patient),
        label=int(row.label == "positive"),
        volume=outcome.volume,
        bern=row.bern,
        given_bern=row.bern_score,
        site=row.site,
        scanner=row.scanner or outcome.scanner,
        field_tesla=outcome.field_tesla,
        sex=row.sex or outcome.sex,
        age_years=age,
        days_to_myelogram=each.days_to_myelogram,
        leak=_leak(row) if settings.slec == "subgroup" else "",
        columns={**{name: row.columns[name] for name in settings.keep_columns}, **outcome.masks},
    )


def _leak(row: LabelRow) -> str:
    """A collection shows a fast leak, its absence a slow one; who has no leak has neither."""
    kinds = {True: "fast", False: "slow", None: ""}
    return kinds[row.slec] if row.label == "positive" else ""
