"""How good members are, by exams that they have not seen: every number of the report.

`evaluate_run` looks at a cross-validation: each exam is judged by the one member that was not
trained on it. `evaluate_bundle` looks at a frozen bundle on another cohort: each exam is judged by
all members together, as the service does it. The two are never mixed, since the mean of five
members is less extreme than each of them (see report.html on calibration).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Generator

from trainer.augment import augment
from trainer.cohort import Cohort, Examined
from trainer.operation import Operation, left_out_probabilities, operation
from trainer.reporting.characteristics import Characteristic, characteristics, levels, strata
from trainer.reporting.maps import Maps, Member, map_cohort
from trainer.run import FoldResult, Run
from trainer.settings import TrainingConfig
from trainer.statistics import (
    Calibration,
    ClassCoverage,
    Comparison,
    ConformalCoverage,
    FoldSummary,
    Interval,
    NetBenefit,
    OperatingPoint,
    PredictiveValues,
    ReliabilityBin,
    Roc,
    auroc,
    bootstrap,
    calibration,
    corrected_interval,
    cross_conformal,
    decision_curve,
    delong,
    delong_interval,
    fold_summary,
    operating_points,
    predictive_values,
    reliability,
    roc,
    roc_band,
    wilson,
)
from trainer.subject import (
    Example,
    NotComparable,
    Subject,
    first_positive,
    grid,
    require_fit,
    seen_in_training,
)
from worker import nets
from worker.bundle import NOT_SUGGESTED, SUGGESTED, Bundle
from worker.ensemble import Band, conformal_set
from worker.occlusion import Members
from worker.seal import METADATA

Values: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]
Progress: TypeAlias = Callable[[int, int], None]
Design: TypeAlias = Literal["cross-validation", "external validation"]

# Sensitivity at these specificities, and the reverse.
TARGETS: Final = (0.80, 0.90, 0.95)
PREVALENCES: Final = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())
DECISIONS: Final = tuple(np.linspace(0.01, 0.95, 95).round(2).tolist())
BAND_GRID: Final = np.linspace(0, 1, 101)
# An AUROC of fewer in either class says nothing.
FEWEST: Final = 5
# Quantile bins hold about 20 exams or more of 129.
BINS: Final = 6
# A probability of exactly 0 or 1 has no log odds.
SHARPEST: Final = 1e-12
VARIANTS: Final = 4


@dataclass(frozen=True, eq=False)
class Scores:
    """What was said of every exam, in the cohort's order.

    Attributes:
        log_odds: (N,) what ranks the exams: of the one member that had not seen each, uncalibrated;
            or of the frozen ensemble.
        before: (N,) probabilities without temperatures.
        after: (N,) probabilities with the temperatures that are shipped.
        tested: (N,) probabilities with temperatures that owe nothing to the patient judged.
        fold_of: (N,) which member judged; None where all did.
    """

    log_odds: Values
    before: Values
    after: Values
    tested: Values
    fold_of: Labels | None


@dataclass(frozen=True, eq=False)
class MemberResult:
    """One member on the exams it was measured on."""

    name: str
    exams: int
    positives: int
    auroc: float
    interval: Interval | None
    curve: Roc


@dataclass(frozen=True, eq=False)
class Weights:
    """One kind of weights over all folds.

    Attributes:
        kind: "ema", "last" or "best".
        members: one per fold.
        summary: of their AUROCs.
        corrected: interval of their mean (Nadeau and Bengio).
        pooled: the AUROC of all exams together; mixes the scales of the members.
        delong: its interval, exams independent.
        bootstrap: its interval, patients drawn.
    """

    kind: str
    members: tuple[MemberResult, ...]
    summary: FoldSummary
    corrected: Interval
    pooled: float
    delong: Interval | None
    bootstrap: Interval | None


@dataclass(frozen=True, eq=False)
class Discrimination:
    """How well all exams together are told apart."""

    auroc: float
    delong: Interval | None
    bootstrap: Interval | None
    curve: Roc
    band: tuple[Values, Values]


@dataclass(frozen=True, eq=False)
class BernRow:
    """Model against one reading of the Bern score, on the same exams."""

    reading: str
    comparison: Comparison
    model_interval: Interval | None
    bern_interval: Interval | None
    curve: Roc


@dataclass(frozen=True, eq=False)
class BernComparison:
    """Model against Bern score.

    Attributes:
        exams: with a score.
        positives: among them.
        unscored: exams without any item known, left out.
        ranged: exams whose missing items leave a range.
        model: curve on the same exams.
        rows: the score at the lowest and at the highest that missing items allow; one row where
            nothing is missing.
    """

    exams: int
    positives: int
    unscored: int
    ranged: int
    model: Roc
    rows: tuple[BernRow, ...]


@dataclass(frozen=True, eq=False)
class CalibrationStage:
    """Calibration at one stage, with the bins of its reliability plot."""

    name: str
    measured_honestly: bool
    figures: Calibration
    bins: tuple[ReliabilityBin, ...]
    probabilities: Values


@dataclass(frozen=True)
class Threshold:
    """What one of the thresholds of the statement does on these exams."""

    name: str
    threshold: float
    sensitivity: float
    sensitivity_interval: Interval
    specificity: float
    specificity_interval: Interval
    by_prevalence: tuple[PredictiveValues, ...]


@dataclass(frozen=True)
class Subgroup:
    """One group of exams; without AUROC where a class has fewer than FEWEST."""

    stratum: str
    level: str
    exams: int
    positives: int
    auroc: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Statements:
    """What the service would have said of the exams of one label: band -> exams."""

    label: str
    exams: int
    bands: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Learning:
    """The epochs of one fold."""

    name: str
    best_epoch: int
    epochs: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything that a report shows.

    Attributes:
        design: what kind of study it is.
        subject: what was judged: name and version, in words.
        statement: what every report about it must say.
        cohort: the exams; only counts and hashes of it are shown.
        facts: how it was made, name -> words.
        network: name of the members' network.
        honest: which weights are reported first; "frozen" for a bundle.
        weights: kinds of weights side by side, the honest first; empty for a bundle.
        members: of the honest weights, or of the bundle.
        ensemble_calibration: whether the calibration of the members' mean was measured here.
        same_cohort: a bundle was judged on the cohort that it was trained on.
        thresholds: the lower and the upper one of the statement.
        statements: what the service would have said; for a bundle only.
        example: the first positive as members see it, where that is one volume.
        variants: the same as training varied it; empty for a bundle.
    """

    design: Design
    subject: str
    statement: str
    cohort: Examined
    facts: Mapping[str, str]
    network: str
    honest: str
    characteristics: tuple[Characteristic, ...]
    scores: Scores
    operation: Operation
    weights: tuple[Weights, ...]
    members: tuple[MemberResult, ...]
    discrimination: Discrimination
    bern: BernComparison | None
    calibration: tuple[CalibrationStage, ...]
    ensemble_calibration: Literal["measured", "unverified"]
    same_cohort: bool
    operating_points: tuple[OperatingPoint, ...]
    thresholds: tuple[Threshold, ...]
    conformal: ConformalCoverage
    decisions: tuple[NetBenefit, ...]
    subgroups: tuple[Subgroup, ...]
    statements: tuple[Statements, ...]
    learning: tuple[Learning, ...]
    maps: Maps
    example: Example | None
    variants: tuple[NDArray[np.float32], ...]


def evaluate_run(
    run: Run, cohort: Cohort, maps: int, on_progress: Progress, device: str = "cpu"
) -> Evaluation:
    """Evaluate a cross-validation by its out-of-fold judgements.

    Args:
        run: all folds done.
        cohort: the one it was trained on.
        maps: positives whose occlusion maps are averaged, at most; 0 maps nothing.
        on_progress: told of exams mapped and to map.
        device: that occlusion maps are computed on.

    Raises:
        NotComparable: the run was trained on another cohort.
    """
    if run.cohort_fingerprint != cohort.fingerprint:
        raise NotComparable(
            f"run {run.folder}", "it was trained on another cohort", "name the cohort of the run"
        )
    config = run.config
    log_odds, fold_of = run.out_of_fold(config.fit.honest, len(cohort))
    found = operation(cohort.labels, log_odds, fold_of, config.statement)
    scores = out_of_fold_scores(cohort, log_odds, fold_of, found)
    kinds = tuple(
        weights(kind, cohort, *run.out_of_fold(kind, len(cohort)))
        for kind in _kinds(config.fit.honest)
    )
    judge = _held_out_judge(run, fold_of, device)
    return Evaluation(
        design="cross-validation",
        subject=f"{config.bundle.name} {config.bundle.version}",
        statement=config.bundle.statement,
        cohort=cohort,
        facts=_run_facts(run),
        network=config.network.name,
        honest=config.fit.honest,
        characteristics=characteristics(cohort),
        scores=scores,
        operation=found,
        weights=kinds,
        members=kinds[0].members,
        discrimination=discriminated(cohort, scores.log_odds),
        bern=_bern(cohort, scores.log_odds),
        calibration=run_calibration(cohort, scores),
        ensemble_calibration="unverified",
        same_cohort=True,
        operating_points=operating_points(cohort.labels, scores.after, TARGETS),
        thresholds=thresholds_kept(cohort.labels, scores.after, found),
        conformal=cross_conformal(
            cohort.labels,
            scores.tested,
            fold_of,
            config.statement.missed_positives,
            config.statement.missed_negatives,
        ),
        decisions=decision_curve(cohort.labels, scores.tested, DECISIONS),
        subgroups=tuple(subgroups(cohort, scores.log_odds)),
        statements=(),
        learning=tuple(_learning(fold) for fold in run.folds),
        maps=map_cohort(cohort, scores.after, judge, config.bundle.occlusion, maps, on_progress),
        example=first_positive(cohort),
        variants=_variants(cohort, config),
    )


def evaluate_bundle(subject: Subject, maps: int, on_progress: Progress) -> Evaluation:
    """Evaluate a frozen bundle on a cohort: external validation.

    Args:
        subject: bundle and cohort.
        maps: positives whose maps are averaged, at most; 0 maps nothing.
        on_progress: told of exams judged and mapped, and of all that are to be.

    Raises:
        NotComparable: the cohort was prepared by another recipe, or lacks a label.
    """
    require_fit(subject)
    bundle, cohort = subject.bundle, subject.cohort
    temperatures = subject.temperatures[subject.decisive]
    done = len(cohort)
    predictions = []
    for exam in range(done):
        predictions.append(subject.predict(exam))
        on_progress(len(predictions), done + maps)
    odds = _members_log_odds(np.array([each.members for each in predictions]), temperatures)
    after = np.array([each.probability for each in predictions])
    scores = Scores(_logit(after), special.expit(odds).mean(axis=1), after, after, None)
    found = Operation(
        temperatures, bundle.threshold_low, bundle.threshold_high, dict(bundle.conformal)
    )
    to_map = subject.maps_to_make(after, maps)
    same = seen_in_training(subject) > 0
    return Evaluation(
        design="external validation",
        subject=f"{bundle.name} {bundle.version}",
        statement=bundle.statement,
        cohort=cohort,
        facts=_bundle_facts(subject),
        network=bundle.network.name,
        honest="frozen",
        characteristics=characteristics(cohort),
        scores=scores,
        operation=found,
        weights=(),
        members=tuple(
            _member(f"member {number}", cohort.labels, odds[:, number])
            for number in range(odds.shape[1])
        ),
        discrimination=discriminated(cohort, scores.log_odds),
        bern=_bern(cohort, scores.log_odds),
        calibration=_bundle_calibration(cohort, scores),
        ensemble_calibration="unverified" if same else "measured",
        same_cohort=same,
        operating_points=operating_points(cohort.labels, after, TARGETS),
        thresholds=thresholds_kept(cohort.labels, after, found),
        conformal=_frozen_coverage(bundle, cohort.labels, after),
        decisions=decision_curve(cohort.labels, after, DECISIONS),
        subgroups=tuple(subgroups(cohort, scores.log_odds)),
        statements=_statements(cohort.labels, [each.band for each in predictions]),
        learning=(),
        maps=subject.maps(
            after, maps, lambda mapped, total: on_progress(done + mapped, done + to_map)
        ),
        example=subject.example,
        variants=(),
    )


# --- what was said of each exam ---


def _kinds(honest: str) -> tuple[str, ...]:
    """The honest weights first, the flattering last."""
    return (honest, *(kind for kind in ("ema", "last") if kind != honest), "best")


def out_of_fold_scores(
    cohort: Examined, log_odds: Values, fold_of: Labels, found: Operation
) -> Scores:
    """What was said of every exam by the one member that had not seen it, calibrated."""
    return Scores(
        log_odds=log_odds,
        before=special.expit(log_odds),
        after=special.expit(log_odds / np.array(found.temperatures)[fold_of]),
        tested=left_out_probabilities(cohort.labels, log_odds, fold_of, cohort.groups),
        fold_of=fold_of,
    )


def _held_out_judge(run: Run, fold_of: Labels, device: str) -> Callable[[int], Members]:
    """The member that has not seen an exam; each is loaded once, when it is first asked for."""

    @cache
    def member(number: int) -> Member:
        network = nets.build(run.config.network.name, **run.config.network.config)
        network.load_state_dict(run.folds[number].weights(run.config.fit.honest))
        return Member(network, device)

    return lambda index: member(int(fold_of[index]))


def _members_log_odds(calibrated: Values, temperatures: Sequence[float]) -> Values:
    """(N, members) uncalibrated log odds, from what the service tells."""
    odds: Values = _logit(calibrated) * np.array(temperatures)
    return odds


def _logit(probabilities: Values) -> Values:
    logits: Values = special.logit(np.clip(probabilities, SHARPEST, 1 - SHARPEST))
    return logits


# --- discrimination ---


def _member(name: str, labels: Labels, scores: Values) -> MemberResult:
    return MemberResult(
        name=name,
        exams=labels.size,
        positives=int(labels.sum()),
        auroc=auroc(labels, scores),
        interval=delong_interval(labels, scores),
        curve=roc(labels, scores),
    )


def weights(kind: str, cohort: Examined, log_odds: Values, fold_of: Labels) -> Weights:
    """One kind of weights, by out-of-fold log odds of all exams.

    Args:
        kind: of weights.
        cohort: N exams.
        log_odds: (N,), each by the one member that has not seen the exam.
        fold_of: (N,) that member's number, from 0.
    """
    parts = [np.flatnonzero(fold_of == number) for number in range(int(fold_of.max()) + 1)]
    members = tuple(
        _member(f"fold {number}", cohort.labels[part], log_odds[part])
        for number, part in enumerate(parts)
    )
    areas = [member.auroc for member in members]
    held_out = round(len(cohort) / len(members))
    whole = _discrimination_figures(cohort, log_odds)
    return Weights(
        kind=kind,
        members=members,
        summary=fold_summary(areas),
        corrected=corrected_interval(areas, len(cohort) - held_out, held_out),
        pooled=whole[0],
        delong=whole[1],
        bootstrap=whole[2],
    )


def _discrimination_figures(
    cohort: Examined, scores: Values
) -> tuple[float, Interval | None, Interval | None]:
    """AUROC, DeLong's interval, bootstrap interval."""
    return (
        auroc(cohort.labels, scores),
        delong_interval(cohort.labels, scores),
        bootstrap(cohort.labels, scores, auroc, cohort.groups),
    )


def discriminated(cohort: Examined, scores: Values) -> Discrimination:
    """How well all exams together are told apart by (N,) scores."""
    return Discrimination(
        *_discrimination_figures(cohort, scores),
        curve=roc(cohort.labels, scores),
        band=roc_band(cohort.labels, scores, cohort.groups, BAND_GRID),
    )


def _bern(cohort: Examined, scores: Values) -> BernComparison | None:
    """Model and Bern score on the exams that have one; None where it cannot be compared."""
    ranges = [exam.bern_range for exam in cohort.exams]
    scored = np.array([each is not None for each in ranges])
    labels = cohort.labels[scored]
    if min(np.count_nonzero(labels), np.count_nonzero(labels == 0)) < FEWEST:
        return None
    low, high = np.array([each for each in ranges if each is not None], dtype=np.float64).T
    readings = {
        "items missing: worst for the score": np.where(labels == 1, low, high),
        "items missing: best for the score": np.where(labels == 1, high, low),
    }
    if np.array_equal(low, high):
        readings = {"all items known": low}
    return BernComparison(
        exams=labels.size,
        positives=int(labels.sum()),
        unscored=int(np.count_nonzero(~scored)),
        ranged=int(np.count_nonzero(low != high)),
        model=roc(labels, scores[scored]),
        rows=tuple(
            BernRow(
                reading=name,
                comparison=delong(labels, scores[scored], bern),
                model_interval=delong_interval(labels, scores[scored]),
                bern_interval=delong_interval(labels, bern),
                curve=roc(labels, bern),
            )
            for name, bern in readings.items()
        ),
    )


def subgroups(cohort: Examined, scores: Values) -> Iterator[Subgroup]:
    """Every group of exams that the cohort knows of, by (N,) scores."""
    for stratum in strata(cohort):
        found = [(level, inside) for level, inside in levels(stratum, cohort)]
        if len(found) < 2 and not stratum.of_positives_only:
            continue  # one group is everybody
        for level, inside in found:
            labels = cohort.labels[inside]
            positives = int(labels.sum())
            enough = min(positives, labels.size - positives) >= FEWEST
            yield Subgroup(
                stratum=stratum.title,
                level=level,
                exams=labels.size,
                positives=positives,
                auroc=auroc(labels, scores[inside]) if enough else None,
                interval=delong_interval(labels, scores[inside]) if enough else None,
            )


# --- calibration, thresholds, sets ---


def _stage(name: str, honest: bool, labels: Labels, probabilities: Values) -> CalibrationStage:
    bounded = np.clip(probabilities, SHARPEST, 1 - SHARPEST)
    return CalibrationStage(
        name=name,
        measured_honestly=honest,
        figures=calibration(labels, _logit(bounded)),
        bins=reliability(labels, probabilities, BINS),
        probabilities=probabilities,
    )


def run_calibration(cohort: Examined, scores: Scores) -> tuple[CalibrationStage, ...]:
    """Calibration before and after temperatures, and after those that owe nothing to a patient."""
    labels = cohort.labels
    return (
        _stage("before temperature scaling", True, labels, scores.before),
        _stage("after, fitted to these exams", False, labels, scores.after),
        _stage("after, each patient left out", True, labels, scores.tested),
    )


def _bundle_calibration(cohort: Examined, scores: Scores) -> tuple[CalibrationStage, ...]:
    return (
        _stage("ensemble without temperatures", True, cohort.labels, scores.before),
        _stage("ensemble as shipped", True, cohort.labels, scores.after),
    )


def thresholds_kept(
    labels: Labels, probabilities: Values, found: Operation
) -> tuple[Threshold, ...]:
    """What the thresholds of the statement do; one entry where they coincide."""
    by_name = {"lower threshold": found.threshold_low, "upper threshold": found.threshold_high}
    if found.threshold_low == found.threshold_high:
        by_name = {"threshold": found.threshold_low}
    return tuple(_threshold(name, at, labels, probabilities) for name, at in by_name.items())


def _threshold(name: str, at: float, labels: Labels, probabilities: Values) -> Threshold:
    positive = labels == 1
    hits = int(np.count_nonzero(probabilities[positive] >= at))
    rejected = int(np.count_nonzero(probabilities[~positive] < at))
    positives, negatives = int(positive.sum()), int((~positive).sum())
    sensitivity, specificity = hits / positives, rejected / negatives
    return Threshold(
        name=name,
        threshold=at,
        sensitivity=sensitivity,
        sensitivity_interval=wilson(hits, positives),
        specificity=specificity,
        specificity_interval=wilson(rejected, negatives),
        by_prevalence=predictive_values(sensitivity, specificity, PREVALENCES),
    )


def _frozen_coverage(bundle: Bundle, labels: Labels, probabilities: Values) -> ConformalCoverage:
    """Coverage of a bundle's own sets; what they promise is what its thresholds were set for."""
    sets = [conformal_set(float(each), bundle) for each in probabilities]
    missed = _missed(bundle)
    return ConformalCoverage(
        positives=_coverage(
            [each for each, label in zip(sets, labels, strict=True) if label == 1],
            SUGGESTED,
            1 - missed[0],
        ),
        negatives=_coverage(
            [each for each, label in zip(sets, labels, strict=True) if label == 0],
            NOT_SUGGESTED,
            1 - missed[1],
        ),
    )


def _missed(bundle: Bundle) -> tuple[float, float]:
    """Shares of positives and negatives that a bundle's sets may miss; not a number if untold."""
    metadata = json.loads((bundle.folder / METADATA).read_bytes())
    fit = metadata.get("fit", {})
    told = fit.get("statement", fit)
    return (
        float(told.get("missed_positives", np.nan)),
        float(told.get("missed_negatives", np.nan)),
    )


def _coverage(sets: Sequence[frozenset[str]], right: str, promised: float) -> ClassCoverage:
    covered = sum(right in each for each in sets)
    sizes = np.bincount([len(each) for each in sets], minlength=3) / len(sets)
    return ClassCoverage(
        promised=promised,
        covered=covered / len(sets),
        interval=wilson(covered, len(sets)),
        single=float(sizes[1]),
        both=float(sizes[2]),
        empty=float(sizes[0]),
        count=len(sets),
    )


def _statements(labels: Labels, bands: Sequence[Band]) -> tuple[Statements, ...]:
    rows = []
    for name, label in (("positive", 1), ("negative", 0)):
        theirs = [band for band, each in zip(bands, labels, strict=True) if each == label]
        counts = {band.value: theirs.count(band) for band in Band}
        rows.append(Statements(name, len(theirs), counts))
    return tuple(rows)


# --- how it was made ---


def _learning(fold: FoldResult) -> Learning:
    return Learning(
        name=f"fold {fold.number}",
        best_epoch=fold.best_epoch,
        epochs=tuple(dict(vars(epoch)) for epoch in fold.metrics),
    )


def _run_facts(run: Run) -> dict[str, str]:
    fit = run.config.fit
    environment: Mapping[str, Any] = run.facts.get("environment", {})
    return {
        "network": network_words(run.config.network.name, run.config.network.config),
        "folds": f"{fit.folds}, stratified by label, patients whole",
        "epochs": f"{fit.epochs} ({fit.schedule}), batch {fit.batch_size}",
        "optimiser": f"AdamW, learning rate {fit.learning_rate:g}, weight decay "
        f"{fit.weight_decay:g}",
        "loss": "cross-entropy weighted by the inverse class ratio",
        "seed": str(fit.seed),
        "weights reported and shipped": f"{fit.honest}: {HONEST_WORDS[fit.honest]}",
        "preparation": grid(run.config.preparation.spacing_mm, run.config.preparation.shape),
        "cohort fingerprint": run.cohort_fingerprint[:16],
        "folds hash": run.folds_sha256[:16],
        "made with": ", ".join(f"{name} {value}" for name, value in environment.items()),
    }


HONEST_WORDS: Final[Mapping[str, str]] = {
    "ema": "moving average of the weights at the last epoch",
    "last": "weights of the last epoch",
    "best": "weights of the epoch with the best AUROC on the very fold it is reported on",
}


def _bundle_facts(subject: Subject) -> dict[str, str]:
    bundle, temperatures = subject.bundle, subject.temperatures[subject.decisive]
    return {
        "network": network_words(bundle.network.name, bundle.network.config),
        **({"region that decides": subject.decisive} if subject.decisive else {}),
        "members": str(len(temperatures)),
        "intended input": bundle.intended_input,
        "preparation": subject.preparation,
        "temperatures": ", ".join(f"{each:.3f}" for each in temperatures),
        "weights sha256": bundle.weights_sha256[:16],
    }


def network_words(name: str, config: Mapping[str, Any]) -> str:
    """A network and its arguments as a reader sees them."""
    arguments = ", ".join(f"{key} {value}" for key, value in config.items())
    return f"{name} ({arguments})" if arguments else name


def _variants(cohort: Cohort, config: TrainingConfig) -> tuple[NDArray[np.float32], ...]:
    """The first positive as training varies it."""
    first = int(np.flatnonzero(cohort.labels == 1)[0])
    volume = torch.from_numpy(cohort.voxels[first].astype(np.float32))
    batch = volume[None, None].repeat(VARIANTS, 1, 1, 1, 1)
    generator = Generator().manual_seed(config.fit.seed)
    varied = augment(batch, config.augmentation, cohort.recipe.spacing_mm, generator)
    return tuple(np.asarray(each[0].numpy()) for each in varied)
