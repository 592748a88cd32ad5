"""The jobs of one study: what each is about, how far it is, what it said and made."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, and_, func, select

from listener.console.answers import last_of_all
from listener.console.appearance import Appearance, appearances
from listener.console.chances import Chance, chance
from listener.tables import bundles, job_inputs, jobs, results


@dataclass(frozen=True)
class ResultKind:
    """Result objects of one kind."""

    kind: str
    count: int


@dataclass(frozen=True)
class JobView:
    """A job; times are seconds since the epoch, `seconds` is where the time went.

    Attributes:
        chance: what the score meant in the validation cohort; None where nobody told.
        limits: the thresholds of its bundle, low and high; None where nobody told.
        ood_limit: percentile beyond which a scan is too unusual; None where nobody told.
        appearance: how its input looks, beside the cohort of its bundle.
        results: what it made.
        inputs: instances that it looks at.
        marks: what is to be said before all else, where it is not the answer that was sent last.
    """

    job_id: str
    analysis: str
    role: str
    series_uid: str | None
    state: str
    reason: str | None
    revision: int
    predecessor: str | None
    answered: str | None
    digest: str
    weights_sha256: str
    bundle_version: str
    bundle_name: str | None
    created_at: float
    sent_at: float | None
    started_at: float | None
    finished_at: float | None
    holder: str | None
    progress: str | None
    attempts: int
    retriable: bool
    seconds: Mapping[str, float]
    summary: Mapping[str, Any]
    lineage: Mapping[str, Any]
    probability: float | None
    band: str | None
    refusal: str | None
    ood_percentile: float | None
    chance: Chance | None
    limits: tuple[float, float] | None
    ood_limit: float | None
    appearance: tuple[Appearance, ...]
    results: tuple[ResultKind, ...]
    inputs: int
    marks: tuple[str, ...] = ()

    @property
    def has_slices(self) -> bool:
        """Whether there is an overlay to look at."""
        return any(each.kind == "overlay" for each in self.results)


def read_jobs(connection: Connection, study_uid: str) -> tuple[JobView, ...]:
    """All jobs of a study: by analysis, the latest revision last, shadows before active ones."""
    of_study = jobs.c.study_uid == study_uid
    edition = and_(
        bundles.c.analysis == jobs.c.analysis,
        bundles.c.weights_sha256 == jobs.c.weights_sha256,
        bundles.c.version == jobs.c.bundle_version,
    )
    made: dict[str, list[ResultKind]] = defaultdict(list)
    kinds = (
        select(results.c.job_id, results.c.kind, func.count())
        .join(jobs)
        .where(of_study)
        .group_by(results.c.job_id, results.c.phase, results.c.kind)
        .order_by(results.c.job_id, results.c.phase, results.c.kind)
    )
    for job_id, kind, count in connection.execute(kinds):
        made[job_id].append(ResultKind(kind, count))
    looked_at = (
        select(job_inputs.c.job_id, func.count())
        .join(jobs, jobs.c.job_id == job_inputs.c.job_id)
        .where(of_study)
        .group_by(job_inputs.c.job_id)
    )
    inputs = {row[0]: row[1] for row in connection.execute(looked_at)}
    query = (
        select(jobs, bundles.c.name.label("bundle_name"), bundles.c.card)
        .outerjoin(bundles, edition)
        .where(of_study)
        .order_by(jobs.c.analysis, jobs.c.revision, jobs.c.role.desc(), *last_of_all())
    )
    found = [
        _job(row, tuple(made[row.job_id]), inputs.get(row.job_id, 0))
        for row in connection.execute(query)
    ]
    return tuple(replace(each, marks=tuple(_marks(each, found))) for each in found)


def answering(all_jobs: Iterable[JobView]) -> dict[str, JobView]:
    """Of each analysis the last active job, of those that nothing superseded.

    Args:
        all_jobs: of one study, as `read_jobs` puts them in order.
    """
    return {
        each.analysis: each
        for each in all_jobs
        if each.role == "active" and each.state != "SUPERSEDED"
    }


def _marks(job: JobView, all_jobs: Sequence[JobView]) -> Iterator[str]:
    """Nobody may take what was replaced, or what a shadow found, for the site's answer."""
    if job.role != "active":
        yield "shadow: never sent"
    answer = answering(all_jobs).get(job.analysis)
    if answer is None:
        if job.state == "SUPERSEDED":
            yield "superseded"
    elif job.revision < answer.revision:
        yield f"superseded by revision {answer.revision}"
    elif job.state == "SUPERSEDED" or (job.role == "active" and job != answer):
        yield f"superseded within revision {answer.revision}"


def _job(row: Any, made: tuple[ResultKind, ...], inputs: int) -> JobView:
    card = row.card or {}
    same = (
        "job_id", "analysis", "role", "series_uid", "state", "reason", "revision", "predecessor",
        "answered", "digest", "weights_sha256", "bundle_version", "bundle_name", "created_at",
        "sent_at", "started_at", "finished_at", "holder", "progress", "attempts", "retriable",
        "probability", "band", "refusal", "ood_percentile",
    )  # fmt: skip
    low, high = card.get("threshold_low"), card.get("threshold_high")
    return JobView(
        **{name: getattr(row, name) for name in same},
        seconds=row.seconds or {},
        summary=row.summary or {},
        lineage=row.lineage or {},
        chance=chance(row.analysis, row.probability, card),
        limits=None if low is None or high is None else (low, high),
        ood_limit=card.get("ood_limit"),
        appearance=appearances(row.summary, card),
        results=made,
        inputs=inputs,
    )
