"""What is written into the ledger and read from it, as plain values.

Times are seconds since the epoch, UTC.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from listener.spool import Held


@dataclass(frozen=True)
class Received:
    """One acknowledged instance, and the association that brought it."""

    held: Held
    association: str | None
    at: float
    """When it arrived; `held.written_at` is when it first did."""


@dataclass(frozen=True)
class Count:
    """What a source said of a study since its last instance came."""

    source: str
    missing: int | None
    """Instances that are there and not here; None where it does not have the study, or does not
    answer."""


class Retried(NamedTuple):
    """What an operator's retry set going.

    Attributes:
        jobs: that run again.
        parked: deliveries that are on their way again.
        hurried: deliveries that waited for their next attempt, and are made at once.
    """

    jobs: int
    parked: int
    hurried: int


@dataclass(frozen=True)
class Gathering:
    """A study that is still coming in."""

    study_uid: str
    last_at: float
    released_at: float | None
    open_associations: int
    counts: tuple[Count, ...] = ()


@dataclass(frozen=True)
class Instance:
    """One acknowledged instance as the ledger knows it."""

    sop_uid: str
    sha256: str
    series_uid: str
    path: Path
    state: str
    received_at: float


Edition = tuple[str, str]
"""Digest of a bundle's weights, and its version: the same weights may be published again
with other thresholds, and a job is for one of the two."""


Role = Literal["active", "shadow", "retired"]
"""Whether a bundle's results are sent, kept for comparison only, or no longer asked for."""


@dataclass(frozen=True)
class BundleRow:
    """A bundle that some worker can run.

    Attributes:
        card: what people and monitors are told of it: its model card, thresholds, how often those
            with which score were positive in validation. Read where it is asked for only.
        evaluation: report of its evaluation, as HTML; likewise.
        seal: digest over every file of it: thresholds count as weights do.
        role: as the ledger has it; who registers a bundle does not choose it.
    """

    analysis: str
    name: str
    version: str
    weights_sha256: str
    card: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    evaluation: str | None = field(default=None, compare=False, repr=False)
    seal: str = field(default="", compare=False, repr=False)
    role: Role = field(default="active", compare=False)

    @property
    def edition(self) -> Edition:
        """What a worker must have to do this bundle's jobs."""
        return self.weights_sha256, self.version


@dataclass(frozen=True)
class Plan:
    """What one revision of a study asks of the workers, and what it leaves aside."""

    analysis: str
    series_uid: str | None
    """The chosen series; None where the study is to be refused as a whole."""
    inputs: tuple[Instance, ...]


@dataclass(frozen=True)
class Result:
    """One result object on disk."""

    sop_uid: str
    series_uid: str
    sop_class: str
    kind: str
    number: int
    phase: int
    """Delivery order: everything of a lower phase is acknowledged first."""
    path: Path
    alternative_of: str | None = None
    """Instance UID of the preferred encoding of the same content."""


@dataclass(frozen=True)
class Job:
    """A job as it is lent to a worker."""

    job_id: str
    study_uid: str
    analysis: str
    series_uid: str | None
    digest: str
    weights_sha256: str
    bundle_version: str
    created_at: float
    attempts: int
    lease: str
    inputs: tuple[Instance, ...]
    predecessor: "Predecessor | None"
    early: "Predecessor | None" = None
    """The early report of this very job, where an earlier attempt has sent one."""
    role: Role = "active"
    """As that of its bundle when it was planned; what a shadow finds is not sent."""

    @property
    def edition(self) -> Edition:
        """Which bundle it is for."""
        return self.weights_sha256, self.bundle_version


@dataclass(frozen=True)
class Queued:
    """A job that waits for a worker."""

    job_id: str
    sent_at: float | None
    """When a message was last given to the broker; None since it was queued (again)."""
    role: Role = "active"


Answered = Literal["early", "proposal", "report", "refusal"]
"""What a job's results say: the score before its map, what a reader should look at before anything
is judged, all there is to say, or why nothing is."""


@dataclass(frozen=True)
class Predecessor:
    """What must be known of an earlier job to name its result."""

    job_id: str
    lineage: Mapping[str, Any]
    """What its result UIDs derive from, as it was kept."""
    answered: Answered


@dataclass(frozen=True)
class Answer:
    """What a worker makes of a job.

    Attributes:
        state: REPORTED, REFUSED or FAILED.
        reason: of a refusal or failure, in words.
        found: result objects, on stable storage already.
        lineage: what the result UIDs derive from.
        seconds: where the time went.
        summary: plain values for people, such as the probability; no patient data.
        retriable: whether an operator may run the same input again.
        answered: what the results say; None where the state tells it.
        unused: instance UID of what was input and left aside, and why.
    """

    state: str
    reason: str | None = None
    found: Sequence[Result] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    retriable: bool = False
    answered: Answered | None = None
    unused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Early:
    """What is known of a job before it is done.

    Attributes:
        summary: as that of an `Answer`, as far as it goes.
        found: an early report, where the site asks for one; on stable storage already.
        lineage: what its UIDs derive from.
    """

    summary: Mapping[str, Any]
    found: Sequence[Result] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pending:
    """One result object that a destination does not have yet."""

    job_id: str
    study_uid: str
    phase: int
    attempts: int
    encodings: tuple[Result, ...]
    """The same content in order of preference; one of them is to be sent."""


@dataclass(frozen=True)
class Sent:
    """One result object that a destination acknowledged, and may or may not have kept.

    Attributes:
        key: instance UID of the preferred encoding, which names the delivery.
        sop_uid: of the encoding that was sent.
        looks: how often it was looked for already.
        unanswered: whether a request for commitment was made and nothing came of it. Not so where
            the destination said that it does not commit.
    """

    key: str
    study_uid: str
    series_uid: str
    sop_class: str
    sop_uid: str
    looks: int
    unanswered: bool


def digest_of(inputs: Iterable[Instance]) -> str:
    """Digest of a set of instances: their UIDs and bytes, in no order (results.md R2)."""
    lines = sorted(f"{instance.sop_uid} {instance.sha256}\n" for instance in inputs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
