"""The ledger's tables, and what may become of a row.

Times are seconds since the epoch, UTC. The tables hold UIDs and hashes, never a patient's
name, ID or birth date. What may become of a study, job, delivery or instance stands in
TRANSITIONS.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    update,
)

SCHEMA_VERSION = 8
"""Raised with every change of the tables below."""

TRANSITIONS: Mapping[str, Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "studies": {
            "RECEIVING": frozenset({"COMPLETE"}),
            "COMPLETE": frozenset({"RECEIVING"}),
        },
        "jobs": {
            "QUEUED": frozenset({"RUNNING", "SUPERSEDED", "CANCELLED"}),
            "RUNNING": frozenset(
                {"QUEUED", "REPORTED", "REFUSED", "FAILED", "SUPERSEDED", "CANCELLED"}
            ),
            "FAILED": frozenset({"QUEUED"}),
            "CANCELLED": frozenset({"QUEUED"}),
            "REPORTED": frozenset(),
            "REFUSED": frozenset({"QUEUED"}),
            "SUPERSEDED": frozenset({"QUEUED"}),
        },
        "deliveries": {
            "PENDING": frozenset({"SENT", "PARKED"}),
            "PARKED": frozenset({"PENDING"}),
            "SENT": frozenset({"CONFIRMED", "PENDING"}),
            "CONFIRMED": frozenset(),
        },
        "promises": {
            "ASKED": frozenset({"ANSWERED"}),
            "ANSWERED": frozenset({"ASKED"}),
        },
        "instances": {
            "waiting": frozenset({"used", "not wanted", "refused"}),
            "not wanted": frozenset({"waiting", "used", "refused"}),
            "refused": frozenset({"waiting"}),
            "used": frozenset(),
            "quarantined": frozenset(),
        },
    }
)
"""What may become of what. A move that is not in this table does not happen."""

metadata = MetaData()
Uid = String(64)

schema = Table("schema_version", metadata, Column("version", Integer, nullable=False))

studies = Table(
    "studies",
    metadata,
    Column("study_uid", Uid, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("revision", Integer, nullable=False, default=0),
    Column("planned_revision", Integer, nullable=False, default=0),
    Column("first_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
    Column("released_at", Double),
    Column("completed_at", Double),
    Column("reason", Text),
    Column("received", Integer, nullable=False, default=0),
    Column("scanner", String(128)),
    Column("has_jobs", Boolean, nullable=False, default=False),
    Index("studies_by_state", "state"),
    Index("studies_by_last_at", "last_at"),
    Index("studies_by_scanner", "scanner", "last_at"),
    Index("studies_by_has_jobs", "has_jobs", "last_at"),
)
"""`received`: instances, each once; `scanner`: what its images come from, once it was planned;
`has_jobs`: whether an analysis, active or shadow, ever wanted it."""

instances = Table(
    "instances",
    metadata,
    Column("sop_uid", Uid, primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("study_uid", Uid, ForeignKey("studies.study_uid"), nullable=False, index=True),
    Column("series_uid", Uid, nullable=False),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("purged_at", Double),
)
"""`purged_at`: when the file was removed by policy; None while it is there."""

associations = Table(
    "associations",
    metadata,
    Column("association", String(64), primary_key=True),
    Column("study_uid", Uid, primary_key=True),
    Column("process", String(255), nullable=False),
)
"""Associations that are open and brought something of a study."""

counts = Table(
    "counts",
    metadata,
    Column("study_uid", Uid, ForeignKey("studies.study_uid"), primary_key=True),
    Column("source", String(32), primary_key=True),
    Column("asked_at", Double, nullable=False),
    Column("missing", Integer),
    Column("message", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", Double, nullable=False),
)
"""What a source said of a study when it was asked last; `missing` of it is not here, None where the
source does not have the study or did not answer. `attempts` counts how often that was so."""

bundles = Table(
    "bundles",
    metadata,
    Column("analysis", String(32), primary_key=True),
    Column("weights_sha256", String(64), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("registered_at", Double, nullable=False),
    Column("seal", String(64), nullable=False, default=""),
    Column("card", JSON),
    Column("evaluation", LargeBinary),
)
"""What workers said they can run; `role` is active, shadow or retired. Of each analysis one is
active: its results are sent. Those of shadows are kept. `seal` is the digest of all that a bundle
says and weighs, `card` what people and monitors are told of it, `evaluation` the report of its
evaluation, HTML compressed by zlib."""

rollouts = Table(
    "rollouts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("what", String(32), nullable=False),
    Column("analysis", String(32), nullable=False),
    Column("weights_sha256", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("before_weights", String(64)),
    Column("before_version", String(64)),
)
"""Who made which bundle active, shadow or retired; `before` is the one that was active before."""

workers = Table(
    "workers",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("device", String(64), nullable=False),
    Column("editions", JSON, nullable=False),
    Column("troubles", JSON, nullable=False),
    Column("memory", JSON),
)
"""Worker processes by their hearts' last beat: which bundles they hold, as [analysis, weights,
version], which they refuse and why, in words, and the memory of their device in bytes, as
{"used": ..., "total": ...}."""

listeners = Table(
    "listeners",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("seen_at", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("has_watch", Boolean, nullable=False),
)
"""Listeners by their hearts' last beat, and until when each is believed to live; one has the watch
(watch.py)."""

labels = Table(
    "labels",
    metadata,
    Column("study_uid", Uid, primary_key=True),
    Column("analysis", String(32), primary_key=True),
    Column("positive", Boolean, nullable=False),
    Column("at", Double, nullable=False),
    Column("actor", String(64), nullable=False),
)
"""What turned out to be true of studies, as far as people said so."""

accounts = Table(
    "accounts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password", String(255)),
    Column("created_at", Double, nullable=False),
    Column("disabled_at", Double),
    Column("issuer", String(512)),
    Column("subject", String(255)),
    UniqueConstraint("issuer", "subject"),
)
"""Who may sign in at the console; `password` is an Argon2 hash, None where another vouches: the
provider `issuer`, for whom it knows as `subject` for ever, whatever they are called."""

sessions = Table(
    "sessions",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("account", String(64), ForeignKey("accounts.name"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("until", Double, nullable=False),
)
"""Who is signed in; `kind` is browser or program. The token itself is with its holder only."""

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("study_uid", Uid, ForeignKey("studies.study_uid"), nullable=False),
    Column("analysis", String(32), nullable=False),
    Column("role", String(16), nullable=False, default="active"),
    Column("series_uid", Uid),
    Column("digest", String(64), nullable=False),
    Column("weights_sha256", String(64), nullable=False),
    Column("bundle_version", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("predecessor", String(36)),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("created_at", Double, nullable=False),
    Column("sent_at", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("lease", String(36)),
    Column("lease_until", Double),
    Column("holder", String(255)),
    Column("progress", String(64)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("retriable", Boolean, nullable=False, default=False),
    Column("answered", String(16)),
    Column("lineage", JSON),
    Column("seconds", JSON),
    Column("summary", JSON),
    Column("probability", Double),
    Column("band", String(16)),
    Column("refusal", String(32)),
    Column("ood_percentile", Double),
    Index("jobs_of_study", "study_uid", "analysis", "role"),
    Index("jobs_by_state", "state"),
    Index("jobs_by_finish", "analysis", "role", "finished_at"),
    Index("jobs_to_filter", "state", "band", "refusal", "analysis", "role", "study_uid"),
)
"""`role`: as that of its bundle when it was planned; results of shadow jobs are never sent.
`answered`: what its results say so far, an early report, a proposal, a report or a refusal.
`probability`, `band`, `ood_percentile` and `refusal` stand in `summary` as well: these are for
questions about many jobs, which `jobs_to_filter` answers without reading a row."""

job_inputs = Table(
    "job_inputs",
    metadata,
    Column("job_id", String(36), ForeignKey("jobs.job_id"), primary_key=True),
    Column("sop_uid", Uid, primary_key=True),
    Column("sha256", String(64), nullable=False),
    Index("job_inputs_by_instance", "sop_uid"),
)

results = Table(
    "results",
    metadata,
    Column("sop_uid", Uid, primary_key=True),
    Column("job_id", String(36), ForeignKey("jobs.job_id"), nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("number", Integer, nullable=False),
    Column("phase", Integer, nullable=False),
    Column("alternative_of", Uid),
    Column("series_uid", Uid, nullable=False),
    Column("sop_class", Uid, nullable=False),
    Column("path", Text, nullable=False),
)

destinations = Table(
    "destinations",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("active", Boolean, nullable=False),
)
"""Where results go from now on: a result is for those that were active when it was kept."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("sop_uid", Uid, ForeignKey("results.sop_uid"), primary_key=True),
    Column("destination", String(32), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("sent_as", Uid),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", Double, nullable=False),
    Column("status", Integer),
    Column("message", Text),
    Column("at", Double),
    Column("looks", Integer, nullable=False, default=0),
    Column("transaction_uid", Uid, index=True),
    Index("deliveries_by_state", "state", "next_at"),
)
"""`next_at`: when to send next, and once sent, when to see next whether it was kept there; `looks`
counts these, `transaction_uid` names the storage commitment that was asked for last, and `status`
is what the destination said last: to C-STORE, or why it does not commit."""

promises = Table(
    "promises",
    metadata,
    Column("transaction_uid", Uid, primary_key=True),
    Column("calling", String(16), nullable=False),
    Column("address", String(255), nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("references", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", Double, nullable=False),
    Column("message", Text),
    Index("promises_by_state", "state", "next_at"),
)
"""Storage commitments that others asked us for; `references` lists SOP class and instance UIDs."""

events = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("study_uid", Uid, nullable=False, index=True),
    Column("what", String(64), nullable=False),
    Column("detail", Text, nullable=False),
)


def move(
    connection: Connection, table: Table, where: ColumnElement[bool], to: str, **values: Any
) -> int:
    """Move rows to a state, those that may; returns how many did."""
    allowed = [state for state, nexts in TRANSITIONS[table.name].items() if to in nexts]
    moved = connection.execute(
        update(table).where(where, table.c.state.in_(allowed)).values(state=to, **values)
    )
    return moved.rowcount
