"""Figures and sums in Prometheus' words: a prefix, base units, `_total` for what only counts up."""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from listener.monitoring.drift import FEWEST_STUDIES, references, stability_index
from listener.monitoring.figures import Figures
from listener.monitoring.tallies import Histogram, Kind, Tallies
from listener.turned_away import Kind as TurnedAwayKind
from listener.turned_away import What
from listener.workforce import ALIVE_SECONDS, bundle_label

FEWEST_SCORES: Final = 20
"""Of which a most frequent one is told."""

FEWEST_INPUTS: Final = 20
"""Studies, of whose inputs a mean and quantiles are told."""

MOST_INPUTS: Final = 20
"""Names of inputs that are told of one bundle and scanner: a worker writes them."""

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)

Labels = tuple[str, ...]

JOB: Final = ("analysis", "role")
BUNDLE: Final = ("analysis", "role", "bundle")
KIND: Final = ("analysis", "role", "bundle", "scanner")


def one(name: str, words: str, value: float) -> Metric:
    """A figure without labels."""
    return gauge(name, words, (), {(): value})


def gauge(name: str, words: str, labels: Labels, values: Mapping[Labels, float]) -> Metric:
    """A figure that goes up and down."""
    family = GaugeMetricFamily(name, words, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value)
    return family


def counter(name: str, words: str, labels: Labels, values: Mapping[Labels, float]) -> Metric:
    """A figure that only goes up."""
    family = CounterMetricFamily(name, words, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value)
    return family


def histogram(name: str, words: str, labels: Labels, values: Mapping[Labels, Histogram]) -> Metric:
    """How values are distributed."""
    family = HistogramMetricFamily(name, words, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value.buckets, value.sum)
    return family


def of_figures(figures: Figures, analyses: Sequence[str]) -> Iterator[Metric]:
    """What the ledger says of the present."""
    now = figures.at
    yield counter("monro_instances_received", "Instances, each once.", (), {(): figures.instances})
    yield gauge("monro_studies", "Studies by state.", ("state",), _under_names(figures.studies))
    yield gauge("monro_jobs", "Jobs without an answer that stays.", (*JOB, "state"), figures.jobs)
    yield gauge(
        "monro_oldest_queued_job_age_seconds",
        "Since all input of the job was here that waits longest.",
        JOB,
        _ages(figures.oldest_queued_at, now),
    )
    yield gauge(
        "monro_deliveries",
        "Results by destination and state; SENT and CONFIRMED those of the last day.",
        ("destination", "state"),
        figures.deliveries,
    )
    yield gauge(
        "monro_oldest_pending_delivery_age_seconds",
        "Since the result was there that waits longest for a destination.",
        ("destination",),
        _ages(_under_names(figures.oldest_pending_at), now),
    )
    yield one("monro_associations_open", "That brought something.", figures.associations)
    yield one("monro_figures_duration_seconds", "To read the ledger.", figures.took_seconds)
    yield from _of_workers(figures, analyses)
    yield from _of_senders(figures)


def of_turned_away(totals: Mapping[TurnedAwayKind, int]) -> Iterator[Metric]:
    """What was not let in, of all kinds that there are: from 0 on, so that each rise is seen."""

    def of(what: What) -> dict[Labels, float]:
        return {(service, why): n for (kind, service, why), n in totals.items() if kind == what}

    labels = "service", "reason"
    yield counter(
        "monro_associations_rejected",
        "Associations, and requests of STOW-RS, that were turned away.",
        labels,
        of("association"),
    )
    yield counter("monro_instances_refused", "Instances not taken.", labels, of("instance"))


def _of_workers(figures: Figures, analyses: Sequence[str]) -> Iterator[Metric]:
    alive = [each for each in figures.workers if each.seen_at >= figures.at - ALIVE_SECONDS]
    yield one("monro_workers_alive", "Heard of in the last minute.", len(alive))
    yield gauge(
        "monro_analysis_has_worker",
        "Whether a living worker holds the active bundle.",
        ("analysis",),
        {(analysis,): float(analysis not in figures.lacking) for analysis in analyses},
    )
    held = {edition for each in alive for edition in each.editions}
    yield gauge(
        "monro_bundle_has_worker",
        "Whether a living worker holds a bundle that is active or a shadow.",
        BUNDLE,
        {
            _bundle_labels(row): float((row.analysis, row.weights_sha256, row.version) in held)
            for row in figures.bundles
        },
    )
    yield gauge(
        "monro_worker_refused_bundles",
        "Bundles in a worker's folders that it does not run, though they are wanted or unknown.",
        ("worker",),
        {(each.name,): len(each.troubles) for each in alive},
    )
    for what in ("used", "total"):
        yield gauge(
            f"monro_workers_memory_{what}_bytes",
            "Memory of a worker's device; of a CPU, what that worker has of it.",
            ("worker", "device"),
            {(each.name, each.device): each.memory[what] for each in alive if what in each.memory},
        )
    yield gauge(
        "monro_bundle_info",
        "Bundles that are active or shadows.",
        BUNDLE,
        {_bundle_labels(row): 1 for row in figures.bundles},
    )


def _of_senders(figures: Figures) -> Iterator[Metric]:
    yield gauge(
        "monro_scanner_silence_seconds",
        "Since something of a scanner's last study came.",
        ("scanner",),
        {(each.scanner,): figures.at - each.last_at for each in figures.senders},
    )
    yield gauge(
        "monro_scanner_longest_pause_seconds",
        "The longest between two studies of a scanner within 30 days.",
        ("scanner",),
        {
            (each.scanner,): each.longest_pause
            for each in figures.senders
            if each.longest_pause is not None
        },
    )


def of_tallies(tallies: Tallies, figures: Figures) -> Iterator[Metric]:
    """What the jobs amount to; scores and drift of bundles that are active or shadows."""
    yield counter("monro_answers", "Jobs by what they answered.", (*JOB, "answer"), tallies.answers)
    yield counter(
        "monro_conclusions", "Reports by their conclusion.", (*JOB, "band"), tallies.conclusions
    )
    yield counter(
        "monro_refusals",
        "Refusals by reason, without internal ones: `monro_jobs` has those, which may be retried.",
        (*JOB, "reason"),
        tallies.refusals,
    )
    yield histogram(
        "monro_stage_seconds", "What a stage of a job took.", (*JOB, "stage"), tallies.stages
    )
    in_use: dict[Labels, Any] = {
        (row.analysis, row.weights_sha256, row.version): row.card for row in figures.bundles
    }
    yield histogram("monro_score", "Probabilities.", KIND, _of_kinds(tallies.scores, in_use))
    yield histogram(
        "monro_ood_percentile",
        "How far out of distribution, as percentile of the reference cohort.",
        KIND,
        _of_kinds(tallies.percentiles, in_use),
    )
    yield from _of_drift(tallies, in_use)
    yield from _of_inputs(tallies, in_use)
    yield gauge(
        "monro_score_most_frequent_share",
        "Share of the last scores that are the most frequent one, rounded to 0.01.",
        KIND,
        _most_frequent(tallies, in_use),
    )


def _most_frequent(tallies: Tallies, in_use: Mapping[Labels, Any]) -> dict[Labels, float]:
    """A model that says the same of everybody is broken, whatever it says."""
    shares = {}
    for kind, latest in tallies.latest.items():
        if _edition(kind) in in_use and len(latest) >= FEWEST_SCORES:
            (_score, count), *_ = Counter(round(each.score, 2) for each in latest).most_common(1)
            shares[_kind_labels(kind)] = count / len(latest)
    return shares


def _of_drift(tallies: Tallies, in_use: Mapping[Labels, Any]) -> Iterator[Metric]:
    looked_at, indices = {}, {}
    for kind, latest in tallies.latest.items():
        if _edition(kind) not in in_use:
            continue
        for what, reference in references(in_use[_edition(kind)]).items():
            values = [value for each in latest if (value := each.value(what)) is not None]
            labels = (*_kind_labels(kind), what)
            looked_at[labels] = len(values)
            index = stability_index(reference, values)
            if index is not None:
                indices[labels] = index
    yield gauge(
        "monro_drift_studies",
        f"Of the last studies, those that say it; with fewer than {FEWEST_STUDIES} no index.",
        (*KIND, "of"),
        looked_at,
    )
    yield gauge(
        "monro_drift_population_stability_index",
        "Of the last studies against the bundle's reference; above 0.25, much has changed.",
        (*KIND, "of"),
        indices,
    )


def _of_inputs(tallies: Tallies, in_use: Mapping[Labels, Any]) -> Iterator[Metric]:
    """What the input was like, in its own units: drift tells that it changed, and this how."""
    means: dict[Labels, float] = {}
    quantiles: dict[Labels, float] = {}
    for kind, latest in tallies.latest.items():
        if _edition(kind) not in in_use:
            continue
        for name in sorted({name for each in latest for name in each.inputs})[:MOST_INPUTS]:
            values = [each.inputs[name] for each in latest if name in each.inputs]
            sound = [value for value in values if math.isfinite(value)]
            if len(sound) < FEWEST_INPUTS:
                continue
            labels = (*_kind_labels(kind), name)
            means[labels] = statistics.fmean(sound)
            cuts = statistics.quantiles(sound, n=20, method="inclusive")
            for each in QUANTILES:
                quantiles[*labels, str(each)] = cuts[round(20 * each) - 1]
    yield gauge("monro_input_mean", "Of the last studies.", (*KIND, "input"), means)
    yield gauge(
        "monro_input_quantile", "Of the last studies.", (*KIND, "input", "quantile"), quantiles
    )


def _of_kinds(
    histograms: Mapping[Kind, Histogram], in_use: Mapping[Labels, Any]
) -> dict[Labels, Histogram]:
    return {
        _kind_labels(kind): each for kind, each in histograms.items() if _edition(kind) in in_use
    }


def _edition(kind: Kind) -> Labels:
    return kind.analysis, kind.weights_sha256, kind.version


def _kind_labels(kind: Kind) -> Labels:
    return kind.analysis, kind.role, bundle_label(kind.version, kind.weights_sha256), kind.scanner


def _bundle_labels(row: Any) -> Labels:
    return row.analysis, row.role, bundle_label(row.version, row.weights_sha256)


def _under_names(values: Mapping[str, float]) -> dict[Labels, float]:
    return {(name,): value for name, value in values.items()}


def _ages(times: Mapping[Labels, float], now: float) -> dict[Labels, float]:
    return {labels: max(0.0, now - at) for labels, at in times.items()}
