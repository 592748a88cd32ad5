"""The ledger: every instance, study, job, result and delivery, and what may become of each.

States move only along TRANSITIONS. Times are seconds since the epoch, UTC. The tables
hold UIDs and hashes, never a patient's name, ID or birth date.
"""

import logging
import os
import socket
import threading
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    Table,
    and_,
    case,
    create_engine,
    delete,
    event,
    exists,
    func,
    insert,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import SQLAlchemyError

from listener.clock import LONGEST_PAUSE_SECONDS, Jumps, is_ahead, is_due
from listener.entries import (
    Answer,
    BundleRow,
    Count,
    Early,
    Edition,
    Gathering,
    Instance,
    Job,
    Pending,
    Plan,
    Predecessor,
    Queued,
    Received,
    Result,
    Retried,
    Role,
    digest_of,
)
from listener.errors import (
    IllegalTransition,
    LeaseLost,
    SpoolFull,
    VersionTaken,
    WrongLedger,
    where,
)
from listener.series import InstanceKey
from listener.spool import Arrival, Held
from listener.tables import (
    SCHEMA_VERSION,
    associations,
    bundles,
    counts,
    deliveries,
    destinations,
    events,
    instances,
    job_inputs,
    jobs,
    metadata,
    move,
    promises,
    results,
    rollouts,
    schema,
    studies,
)

log = logging.getLogger(__name__)

JOB_NAMESPACE = uuid.UUID("6d6f6e72-6f00-5a0b-9000-6a6f62000000")
"""Names jobs by what they are about, so that asking twice is asking once."""

OWN_RESULT = "our own result, sent back to us"

OUTDATED = "a later job of the study answers in its place"

CANCELLED = "cancelled by the operator"

ANSWERED = {"REPORTED": "report", "REFUSED": "refusal"}
"""What the results of a job in one of these states say."""

NONE: Mapping[str, str] = MappingProxyType({})

BUNDLE_COLUMNS = ("analysis", "name", "version", "weights_sha256", "role")
"""What planning must know of a bundle: cards and reports are large, and not read each second."""

ROWS_AT_ONCE = 500
"""Instances in one statement: databases limit how many values it may have."""

PATIENCE_SECONDS = 60
"""How long a writer waits for its turn, and how long one may pause that has it."""

IN_TURN = (
    f"SET LOCAL lock_timeout = '{PATIENCE_SECONDS}s';"
    f"SET LOCAL idle_in_transaction_session_timeout = '{PATIENCE_SECONDS}s';"
    f"SELECT pg_advisory_xact_lock({0x6D6F6E726F})"
)
"""How a transaction that writes begins on PostgreSQL; the number is our name, in ASCII."""

ONE_STATE = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
"""How one begins there that reads."""

HOPELESS_ATTEMPTS = 10
"""A job given back this often has failed for good: only an operator's retry revives it."""


def process_name(pid: int) -> str:
    """Name of a process of this host among all hosts that share a ledger."""
    return f"{socket.gethostname()}:{pid}"


def this_process() -> str:
    """Name of this process among all hosts that share a ledger."""
    return process_name(os.getpid())


class Lease:
    """A job lent to one worker for as long as its heart beats."""

    def __init__(self, ledger: "Ledger", job: Job, seconds: float) -> None:
        self.job = job
        self._ledger = ledger
        self._seconds = seconds
        self._progress = ""
        self._lost = threading.Event()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Raise LeaseLost once somebody else may hold the job. Cheap: call it often."""
        if self._lost.is_set():
            raise LeaseLost(self.job.job_id)

    def tell(self, progress: str) -> None:
        """Say how far the job is; written down with the next heartbeat. Cheap: call it often."""
        self._progress = progress

    def end(self) -> None:
        """Stop the heartbeat."""
        self._over.set()
        self._heart.join()

    def _beat(self) -> None:
        valid_until = time.monotonic() + self._seconds
        while not self._over.wait(self._seconds / 4):
            beat_at = time.monotonic()
            try:
                extended = self._ledger.extend(self.job, self._seconds, self._progress)
            except SQLAlchemyError:
                log.warning("job %s: the ledger did not take a heartbeat", self.job.job_id)
                extended = beat_at < valid_until
            else:
                valid_until = beat_at + self._seconds
            if not extended:
                self._lost.set()
                return


class Ledger:
    """The tables behind everything that may not be forgotten.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL.
        clock: seconds since the epoch.
        steady: seconds by a clock that is never set; see `Jumps`.

    Raises:
        WrongLedger: the database was written by another version of monro.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self._engine = _engine(url)
        self._clock = clock
        self._jumps = Jumps(clock, steady)
        with self._engine.begin() as connection:
            metadata.create_all(connection)
            version = connection.scalar(select(schema.c.version))
            if version is None:
                connection.execute(insert(schema).values(version=SCHEMA_VERSION))
        if version not in (None, SCHEMA_VERSION):
            raise WrongLedger(version, SCHEMA_VERSION)

    @property
    def now(self) -> float:
        """The ledger's time."""
        return self._clock()

    def jumped_within(self, seconds: float) -> bool:
        """Whether the clock was set a moment ago: nobody is to be called silent by it then."""
        return self._jumps.within(seconds)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    # Receiving

    def record(self, batch: Sequence[Received]) -> None:
        """Write down acknowledged instances; those known already change nothing."""
        for start in range(0, len(batch), ROWS_AT_ONCE):
            self._record_some(batch[start : start + ROWS_AT_ONCE])

    def _record_some(self, batch: Sequence[Received]) -> None:
        with self.writing() as connection:
            self._open_studies(connection, batch)
            states, added = self._add_instances(connection, batch)
            self._note_associations(connection, batch)
            for study_uid, of_study in _by_study(batch).items():
                new = {_identity(each) for each in of_study} & added
                if new:
                    connection.execute(
                        update(studies)
                        .where(studies.c.study_uid == study_uid)
                        .values(received=studies.c.received + len(new))
                    )
                waiting = [each for each in of_study if states[_identity(each)] == "waiting"]
                if waiting:
                    at = max(each.at for each in waiting)
                    reopen = any(_identity(each) in added for each in waiting)
                    self._touch_study(connection, study_uid, at, reopen)

    def _open_studies(self, connection: Connection, batch: Sequence[Received]) -> None:
        rows = [
            {
                "study_uid": study_uid,
                "state": "RECEIVING",
                "revision": 0,
                "planned_revision": 0,
                "received": 0,
                "first_at": of_study[0].at,
                "last_at": of_study[0].at,
            }
            for study_uid, of_study in _by_study(batch).items()
        ]
        connection.execute(self.insert_or_ignore(studies), rows)

    def _add_instances(
        self, connection: Connection, batch: Sequence[Received]
    ) -> tuple[dict[tuple[str, str], str], set[tuple[str, str]]]:
        """Add those that are new; returns what state each would begin in, and which are new."""
        uids = {received.held.key.sop_uid for received in batch}
        known = connection.execute(
            select(
                instances.c.sop_uid, instances.c.sha256, instances.c.state, instances.c.purged_at
            ).where(instances.c.sop_uid.in_(uids))
        ).all()
        taken = {row.sop_uid: row.sha256 for row in known if row.state != "quarantined"}
        here = {(row.sop_uid, row.sha256) for row in known}
        purged = {(row.sop_uid, row.sha256) for row in known if row.purged_at is not None}
        ours = set(connection.scalars(select(results.c.sop_uid).where(results.c.sop_uid.in_(uids))))
        states: dict[tuple[str, str], str] = {}
        rows = []
        for received in batch:
            held, key = received.held, received.held.key
            if _identity(received) in states:
                continue
            state, reason = _first_state(held, taken.get(key.sop_uid), key.sop_uid in ours)
            states[_identity(received)] = state
            if _identity(received) in here:
                continue
            if state == "quarantined":
                self.note(
                    connection, key.study_uid, "instance quarantined", f"{key.sop_uid}: {reason}"
                )
            else:
                taken[key.sop_uid] = held.sha256
            rows.append(
                {
                    "sop_uid": key.sop_uid,
                    "sha256": held.sha256,
                    "study_uid": key.study_uid,
                    "series_uid": key.series_uid,
                    "path": str(held.path),
                    "size": held.size,
                    "received_at": held.written_at,
                    "state": state,
                    "reason": reason,
                }
            )
        if rows:
            connection.execute(self.insert_or_ignore(instances), rows)
        for received in batch:
            if _identity(received) in purged:
                _revive(connection, received)
        return states, states.keys() - here

    def _touch_study(self, connection: Connection, study_uid: str, at: float, reopen: bool) -> None:
        here = studies.c.study_uid == study_uid
        connection.execute(
            update(studies)
            .where(
                here,
                or_(studies.c.last_at < at, is_ahead(studies.c.last_at, self._clock(), 0)),
                studies.c.state == "RECEIVING",
            )
            .values(last_at=at)
        )
        if reopen and move(connection, studies, here, "RECEIVING", last_at=at, released_at=None):
            self.note(connection, study_uid, "study reopened", "an instance came late")

    def _note_associations(self, connection: Connection, batch: Sequence[Received]) -> None:
        brought = {
            (received.association, received.held.key.study_uid)
            for received in batch
            if received.association is not None
        }
        rows = [
            {"association": association, "study_uid": study_uid, "process": this_process()}
            for association, study_uid in sorted(brought)
        ]
        if rows:
            connection.execute(self.insert_or_ignore(associations), rows)

    def close_association(self, association: str, released: bool, at: float) -> None:
        """Note that an association ended, by release or otherwise."""
        mine = associations.c.association == association
        with self.writing() as connection:
            brought = select(associations.c.study_uid).where(mine)
            connection.execute(
                update(studies)
                .where(studies.c.study_uid.in_(brought))
                .values(released_at=at if released else None)
            )
            connection.execute(delete(associations).where(mine))

    def serving(self) -> set[str]:
        """Names of the processes that have associations open."""
        with self.reading() as connection:
            return set(connection.scalars(select(associations.c.process).distinct()))

    def forget_associations_of(self, is_gone: Callable[[str], bool]) -> set[str]:
        """Drop the associations of processes that died without closing them.

        Returns:
            UIDs of the studies that they brought something of.
        """
        cut_off: set[str] = set()
        with self.writing() as connection:
            processes = connection.scalars(select(associations.c.process).distinct()).all()
            for process in filter(is_gone, processes):
                theirs = associations.c.process == process
                cut_off.update(connection.scalars(select(associations.c.study_uid).where(theirs)))
                connection.execute(delete(associations).where(theirs))
        return cut_off

    def known(self, study_uid: str) -> set[Path]:
        """Paths of the instances of a study that the ledger holds and that were not purged."""
        with self.reading() as connection:
            rows = connection.scalars(
                select(instances.c.path).where(
                    instances.c.study_uid == study_uid, instances.c.purged_at.is_(None)
                )
            )
            return {Path(path) for path in rows}

    def sha256_at(self, key: InstanceKey, path: Path) -> str | None:
        """Digest of the instance that must lie at a path; None: that is not known, or not now."""
        query = select(instances.c.sha256).where(
            instances.c.sop_uid == key.sop_uid,
            instances.c.path == str(path),
            instances.c.purged_at.is_(None),
        )
        try:
            with self.reading() as connection:
                return connection.scalar(query)
        except SQLAlchemyError as error:
            log.warning("the ledger does not say what %s holds: %s", path.name, where(error))
            return None

    # Completion and planning

    def gathering(self) -> list[Gathering]:
        """Studies that are still coming in."""
        open_associations = (
            select(func.count())
            .where(associations.c.study_uid == studies.c.study_uid)
            .scalar_subquery()
        )
        query = select(
            studies.c.study_uid, studies.c.last_at, studies.c.released_at, open_associations
        ).where(studies.c.state == "RECEIVING")
        counted = (
            select(counts.c.study_uid, counts.c.source, counts.c.missing)
            .join(studies, studies.c.study_uid == counts.c.study_uid)
            .where(studies.c.state == "RECEIVING", counts.c.asked_at >= studies.c.last_at)
            .order_by(counts.c.source)
        )
        with self.reading() as connection:
            by_study: dict[str, list[Count]] = defaultdict(list)
            for row in connection.execute(counted):
                by_study[row.study_uid].append(Count(row.source, row.missing))
            return [
                Gathering(*row, counts=tuple(by_study[row.study_uid]))
                for row in connection.execute(query)
            ]

    def complete(self, study: Gathering, reason: str) -> bool:
        """Declare a study complete, unless something came since `study` was read."""
        now = self._clock()
        unchanged = and_(studies.c.study_uid == study.study_uid, studies.c.last_at == study.last_at)
        with self.writing() as connection:
            moved = move(
                connection,
                studies,
                unchanged,
                "COMPLETE",
                revision=studies.c.revision + 1,
                completed_at=now,
                reason=reason,
            )
            if moved:
                self.note(connection, study.study_uid, "study complete", reason)
        return bool(moved)

    def note_waiting(self, study_uid: str, reason: str, scanner: str | None = None) -> None:
        """Say why a complete study is not planned yet, once; and what its images come from."""
        here = and_(studies.c.study_uid == study_uid, studies.c.reason != reason)
        known = {"reason": reason, "scanner": func.coalesce(studies.c.scanner, scanner)}
        with self.writing() as connection:
            noted = connection.execute(update(studies).where(here).values(**known))
            if noted.rowcount > 0:
                self.note(connection, study_uid, "study waits", reason)

    def unplanned(self) -> list[tuple[str, int]]:
        """Complete studies whose latest revision has not been planned, with that revision."""
        query = select(studies.c.study_uid, studies.c.revision).where(
            studies.c.state == "COMPLETE", studies.c.planned_revision < studies.c.revision
        )
        with self.reading() as connection:
            return [(row.study_uid, row.revision) for row in connection.execute(query)]

    def instances_of(self, study_uid: str) -> list[Instance]:
        """The instances of a study that may become input: no quarantine, no own results."""
        query = (
            select(instances)
            .where(
                instances.c.study_uid == study_uid,
                instances.c.state != "quarantined",
                instances.c.purged_at.is_(None),
                func.coalesce(instances.c.reason, "") != OWN_RESULT,
            )
            .order_by(instances.c.series_uid, instances.c.sop_uid)
        )
        with self.reading() as connection:
            return [_instance(row) for row in connection.execute(query)]

    def path_of(self, study_uid: str) -> Path | None:
        """Where an instance of a study lies; None where none does."""
        here = and_(instances.c.study_uid == study_uid, instances.c.purged_at.is_(None))
        with self.reading() as connection:
            path = connection.scalar(select(instances.c.path).where(here).limit(1))
        return None if path is None else Path(path)

    def is_partly_purged(self, study_uid: str) -> bool:
        """Whether instances that could be input were removed by policy."""
        gone = exists().where(
            instances.c.study_uid == study_uid,
            instances.c.state != "quarantined",
            instances.c.purged_at.is_not(None),
            func.coalesce(instances.c.reason, "") != OWN_RESULT,
        )
        with self.reading() as connection:
            return bool(connection.scalar(select(gone)))

    def active_bundle(self, analysis: str) -> BundleRow | None:
        """The bundle whose results are sent; None where no worker brought one."""
        wanted = self.wanted_bundles(analysis)
        return wanted[0] if wanted and wanted[0].role == "active" else None

    def wanted_bundles(self, analysis: str) -> list[BundleRow]:
        """The bundles that new jobs of an analysis are for: the active one, then its shadows."""
        query = (
            select(*bundles.c[*BUNDLE_COLUMNS])
            .where(bundles.c.analysis == analysis, bundles.c.role.in_(("active", "shadow")))
            .order_by(bundles.c.role, bundles.c.registered_at)
        )
        with self.reading() as connection:
            return [_bundle(row) for row in connection.execute(query)]

    def wanted_editions(self) -> set[Edition]:
        """The editions of all active and shadow bundles, of whatever analysis."""
        query = select(bundles.c.weights_sha256, bundles.c.version).where(
            bundles.c.role.in_(("active", "shadow"))
        )
        with self.reading() as connection:
            return {(row.weights_sha256, row.version) for row in connection.execute(query)}

    def register_bundle(self, bundle: BundleRow) -> Role:
        """Note that a worker can run a bundle; returns the bundle's role.

        The first of an analysis is active. Any other is a shadow until people say otherwise
        (rollout.py), and one that is known keeps the role that it has.

        Raises:
            VersionTaken: another bundle is known by its name and version.
        """
        of_analysis = bundles.c.analysis == bundle.analysis
        this = and_(of_analysis, _is_edition(bundles, bundle.edition))
        namesake = and_(
            of_analysis, bundles.c.name == bundle.name, bundles.c.version == bundle.version, ~this
        )
        report = bundle.evaluation
        told = {
            "card": dict(bundle.card),
            "evaluation": None if report is None else zlib.compress(report.encode()),
        }
        with self.writing() as connection:
            named = f"{bundle.name} {bundle.version}"
            taken = connection.scalar(select(bundles.c.weights_sha256).where(namesake))
            if taken is not None:
                raise VersionTaken(named, f"weights {bundle.weights_sha256}", f"weights {taken}")
            before = connection.execute(select(bundles.c.role, bundles.c.seal).where(this)).first()
            if before is not None:
                if before.seal != bundle.seal:
                    raise VersionTaken(named, f"content {bundle.seal}", f"content {before.seal}")
                connection.execute(update(bundles).where(this).values(**told))
                return cast(Role, before.role)
            is_first = not connection.scalar(
                select(exists().where(of_analysis, bundles.c.role == "active"))
            )
            role: Role = "active" if is_first else "shadow"
            connection.execute(
                insert(bundles).values(
                    analysis=bundle.analysis,
                    weights_sha256=bundle.weights_sha256,
                    version=bundle.version,
                    name=bundle.name,
                    role=role,
                    registered_at=self._clock(),
                    seal=bundle.seal,
                    **told,
                )
            )
            connection.execute(
                insert(rollouts).values(
                    at=self._clock(),
                    actor="a worker",
                    what=f"registered as {role}",
                    analysis=bundle.analysis,
                    weights_sha256=bundle.weights_sha256,
                    version=bundle.version,
                )
            )
        return role

    def supersede_unwanted(self) -> int:
        """Drop queued jobs whose bundle has another role by now; returns how many there were.

        Studies that waited for the active bundle's answer are planned anew.
        """
        another_role = exists().where(
            bundles.c.analysis == jobs.c.analysis,
            bundles.c.weights_sha256 == jobs.c.weights_sha256,
            bundles.c.version == jobs.c.bundle_version,
            bundles.c.role != jobs.c.role,
        )
        outdated = and_(jobs.c.state == "QUEUED", another_role)
        of_active = and_(outdated, jobs.c.role == "active")
        with self.writing() as connection:
            waiting = connection.scalars(select(jobs.c.study_uid).where(of_active)).all()
            moved = move(connection, jobs, outdated, "SUPERSEDED", reason="its bundle was replaced")
            connection.execute(
                update(studies).where(studies.c.study_uid.in_(waiting)).values(planned_revision=0)
            )
        return moved

    def plan(
        self,
        study_uid: str,
        revision: int,
        wanted: Sequence[tuple[Plan, BundleRow]],
        not_wanted: Mapping[str, str],
        left_aside: Mapping[str, str] = NONE,
        scanner: str | None = None,
        *,
        is_all: bool = True,
    ) -> list[str]:
        """Turn one revision of a study into jobs.

        Args:
            study_uid: the study.
            revision: the revision that was looked at.
            wanted: what each analysis asks for, and the bundle to use.
            not_wanted: series UID to the reason it is left aside, for every other series.
            left_aside: instance UID to the reason, where each of a series has its own.
            scanner: what the images come from; what was said first stays.
            is_all: whether no analysis waits for a bundle; while one does, the revision is planned
                again, which leaves alone what is already a job.

        Returns:
            IDs of the jobs that must now be dispatched.
        """
        with self.writing() as connection:
            for series_uid, reason in not_wanted.items():
                _set_instances(connection, study_uid, series_uid, "not wanted", reason)
            for sop_uid, reason in left_aside.items():
                _leave_aside(connection, study_uid, sop_uid, reason)
            queued = [
                job_id
                for plan, bundle in wanted
                if (job_id := self._plan_job(connection, study_uid, revision, plan, bundle))
            ]
            planned = {"planned_revision": revision} if is_all else {}
            connection.execute(
                update(studies)
                .where(studies.c.study_uid == study_uid, studies.c.revision == revision)
                .values(scanner=func.coalesce(studies.c.scanner, scanner), **planned)
            )
        return queued

    def _plan_job(
        self, connection: Connection, study_uid: str, revision: int, plan: Plan, bundle: BundleRow
    ) -> str | None:
        digest = digest_of(plan.inputs)
        name = [study_uid, plan.analysis, digest, bundle.weights_sha256, bundle.version]
        is_shadow = bundle.role == "shadow"
        # What a shadow found was not sent: once it is active, its job is another one.
        job_id = str(uuid.uuid5(JOB_NAMESPACE, "|".join([*name, *["shadow"] * is_shadow])))
        replaced = and_(
            jobs.c.study_uid == study_uid,
            jobs.c.analysis == plan.analysis,
            jobs.c.role == bundle.role,
            _is_edition(jobs, bundle.edition) if is_shadow else true(),
        )
        move(
            connection,
            jobs,
            and_(replaced, jobs.c.job_id != job_id, jobs.c.state == "QUEUED"),
            "SUPERSEDED",
            reason=f"revision {revision} of the study has other input",
        )
        known = connection.execute(select(jobs).where(jobs.c.job_id == job_id)).first()
        if known is not None:
            return self._plan_again(connection, known, revision)
        connection.execute(
            insert(jobs).values(
                job_id=job_id,
                study_uid=study_uid,
                analysis=plan.analysis,
                role=bundle.role,
                series_uid=plan.series_uid,
                digest=digest,
                weights_sha256=bundle.weights_sha256,
                bundle_version=bundle.version,
                revision=revision,
                predecessor=(
                    None if is_shadow else _latest_answer(connection, study_uid, plan.analysis)
                ),
                state="QUEUED",
                created_at=max(instance.received_at for instance in plan.inputs),
                attempts=0,
            )
        )
        inputs = [
            {"job_id": job_id, "sop_uid": instance.sop_uid, "sha256": instance.sha256}
            for instance in plan.inputs
        ]
        connection.execute(insert(job_inputs), inputs)
        if not is_shadow:
            _set_inputs(connection, job_id, "waiting", None)
        beside = "".join(f" with segmentation {uid}" for uid in _beside_series(plan))
        what = "shadow job queued" if is_shadow else "job queued"
        self.note(connection, study_uid, what, f"{plan.analysis} {job_id}{beside}")
        return job_id

    def _plan_again(self, connection: Connection, job: Row[Any], revision: int) -> str | None:
        """A revision asks for what an earlier one did: that job is no longer outdated."""
        this = jobs.c.job_id == job.job_id
        connection.execute(update(jobs).where(this).values(revision=revision))
        if job.state != "SUPERSEDED":
            return None
        # What followed upon this job now comes before it, and follows upon what it had followed.
        connection.execute(
            update(jobs).where(jobs.c.predecessor == job.job_id).values(predecessor=job.predecessor)
        )
        predecessor = (
            None
            if job.role == "shadow"
            else _latest_answer(connection, job.study_uid, job.analysis)
        )
        again = {"reason": None, "sent_at": None, "predecessor": predecessor}
        move(connection, jobs, this, "QUEUED", **again)
        return str(job.job_id)

    # Dispatch

    def queued(self) -> list[Queued]:
        """Jobs that wait for a worker, oldest first."""
        query = (
            select(jobs.c.job_id, jobs.c.sent_at, jobs.c.role)
            .where(jobs.c.state == "QUEUED")
            .order_by(jobs.c.created_at)
        )
        with self.reading() as connection:
            return [Queued(*row) for row in connection.execute(query)]

    def note_sent(self, job_id: str) -> None:
        """Note that a message for the job is with the broker."""
        with self.writing() as connection:
            connection.execute(
                update(jobs).where(jobs.c.job_id == job_id).values(sent_at=self._clock())
            )

    def reclaim(self, lease_seconds: float = LONGEST_PAUSE_SECONDS) -> list[str]:
        """Take back the jobs whose holder's heart stopped; returns their IDs.

        Args:
            lease_seconds: how long a lease lasts without a heartbeat.
        """
        if self.jumped_within(lease_seconds):
            return []  # who lives says so until then, by the new time
        now = self._clock()
        over = or_(jobs.c.lease_until < now, is_ahead(jobs.c.lease_until, now, lease_seconds))
        expired = and_(jobs.c.state == "RUNNING", over)
        with self.writing() as connection:
            rows = connection.execute(select(jobs).where(expired)).all()
            for row in rows:
                _give_back(connection, row.job_id, "its worker stopped answering")
                self.note(
                    connection, row.study_uid, "lease expired", f"{row.job_id} at {row.holder}"
                )
        return [row.job_id for row in rows]

    # Work

    @contextmanager
    def lease(
        self, job_id: str, holder: str, seconds: float, able: Collection[Edition]
    ) -> Iterator[Lease | None]:
        """Lend a job to one holder, as long as its heart beats.

        Args:
            job_id: the job.
            holder: who asks, for people to read.
            seconds: how long the lease lasts without a heartbeat.
            able: the editions of bundles that the holder has.

        Yields:
            The lease, or None when there is nothing to do: the job is done, lent to another,
            is outdated, waits for its predecessor, or needs another bundle. A holder that
            leaves without `keep` gives the job back, and the reason is kept.
        """
        job = self._lend(job_id, holder, seconds, able)
        if job is None:
            yield None
            return
        lease = Lease(self, job, seconds)
        try:
            yield lease
        except BaseException as error:
            lease.end()
            self._return(job, f"{type(error).__name__} in attempt {job.attempts}", error)
            raise
        lease.end()
        self._return(job, "its worker left without an answer")

    def _lend(
        self, job_id: str, holder: str, seconds: float, able: Collection[Edition]
    ) -> Job | None:
        now = self._clock()
        lease = str(uuid.uuid4())
        edition = tuple_(jobs.c.weights_sha256, jobs.c.bundle_version)
        this = and_(jobs.c.job_id == job_id, edition.in_(list(able)))
        with self.writing() as connection:
            over = and_(this, jobs.c.state == "RUNNING", jobs.c.lease_until < now)
            may_live = self.jumped_within(seconds)
            if not may_live and connection.scalar(select(exists().where(over))):
                _give_back(connection, job_id, "its worker stopped answering")
            waiting = and_(this, jobs.c.state == "QUEUED")
            move(connection, jobs, and_(waiting, _is_outdated()), "SUPERSEDED", reason=OUTDATED)
            lent = move(
                connection,
                jobs,
                and_(waiting, ~_predecessor_is_running()),
                "RUNNING",
                lease=lease,
                lease_until=now + seconds,
                holder=holder,
                started_at=now,
                attempts=jobs.c.attempts + 1,
            )
            return self._job(connection, job_id, lease) if lent else None

    def _job(self, connection: Connection, job_id: str, lease: str) -> Job:
        row = connection.execute(select(jobs).where(jobs.c.job_id == job_id)).one()
        inputs = connection.execute(
            select(instances)
            .join(
                job_inputs,
                and_(
                    job_inputs.c.sop_uid == instances.c.sop_uid,
                    job_inputs.c.sha256 == instances.c.sha256,
                ),
            )
            .where(job_inputs.c.job_id == job_id)
            .order_by(instances.c.sop_uid)
        )
        return Job(
            job_id=job_id,
            study_uid=row.study_uid,
            analysis=row.analysis,
            series_uid=row.series_uid,
            digest=row.digest,
            weights_sha256=row.weights_sha256,
            bundle_version=row.bundle_version,
            created_at=row.created_at,
            attempts=row.attempts,
            lease=lease,
            inputs=tuple(_instance(instance) for instance in inputs),
            predecessor=_predecessor(connection, row),
            early=(Predecessor(job_id, row.lineage, "early") if row.answered == "early" else None),
            role=row.role,
        )

    def extend(self, job: Job, seconds: float, progress: str = "") -> bool:
        """Beat the heart of a lease and note how far the job is; False when it is not ours now."""
        mine = and_(jobs.c.job_id == job.job_id, jobs.c.lease == job.lease)
        with self.writing() as connection:
            beat = connection.execute(
                update(jobs)
                .where(mine, jobs.c.state == "RUNNING")
                .values(lease_until=self._clock() + seconds, progress=progress)
            )
        return bool(beat.rowcount)

    def keep_early(self, job: Job, early: Early) -> None:
        """Keep what the holder of a lease knows before the job is done.

        Raises:
            LeaseLost: the job was lent to somebody else meanwhile. Nothing is kept.
        """
        mine = and_(
            jobs.c.job_id == job.job_id, jobs.c.lease == job.lease, jobs.c.state == "RUNNING"
        )
        known: dict[str, Any] = _summarised(early.summary)
        if early.found:
            known |= {"answered": "early", "lineage": dict(early.lineage)}
        with self.writing() as connection:
            if not connection.execute(update(jobs).where(mine).values(**known)).rowcount:
                raise LeaseLost(job.job_id)
            self._put_results(connection, job, early.found)
            if early.found:
                self.note(connection, job.study_uid, "early report", job.job_id)

    def keep(self, job: Job, answer: Answer) -> None:
        """Keep what the holder of a lease found, and only what it found.

        Raises:
            LeaseLost: the job was lent to somebody else meanwhile. Nothing is kept.
        """
        mine = and_(jobs.c.job_id == job.job_id, jobs.c.lease == job.lease)
        with self.writing() as connection:
            if not move(
                connection,
                jobs,
                mine,
                answer.state,
                reason=answer.reason,
                finished_at=self._clock(),
                lease=None,
                progress=None,
                lease_until=None,
                lineage=dict(answer.lineage),
                seconds=dict(answer.seconds),
                **_summarised(answer.summary),
                retriable=answer.retriable,
                answered=answer.answered or ANSWERED.get(answer.state, jobs.c.answered),
            ):
                raise LeaseLost(job.job_id)
            self._put_results(connection, job, answer.found)
            if job.role == "active":
                _settle_inputs(connection, job, answer)
            kind = "shadow job" if job.role == "shadow" else "job"
            what = f"{kind} {answer.state.lower()}"
            self.note(connection, job.study_uid, what, answer.reason or job.job_id)

    def _put_results(self, connection: Connection, job: Job, found: Sequence[Result]) -> None:
        for result in found:
            row = _result_row(job, result)
            connection.execute(self.insert_or_ignore(results).values(**row))
        if job.role == "active":
            preferred = [each.sop_uid for each in found if each.alternative_of is None]
            self._address(connection, preferred)

    def _return(self, job: Job, reason: str, error: BaseException | None = None) -> None:
        """Give a job back if its lease is still ours: after `keep` it is not.

        Want of room, or of an answer from disk or ledger, is no fault of the job's: such an
        attempt does not count. The next one waits as long as a lost message would.
        """
        mine = and_(jobs.c.job_id == job.job_id, jobs.c.lease == job.lease)
        blameless = isinstance(error, SpoolFull | OSError | SQLAlchemyError)
        with self.writing() as connection:
            if connection.scalar(select(exists().where(mine, jobs.c.state == "RUNNING"))):
                if blameless:
                    connection.execute(
                        update(jobs).where(mine).values(attempts=jobs.c.attempts - 1)
                    )
                _give_back(connection, job.job_id, reason, sent_at=self._clock())
                self.note(connection, job.study_uid, "job given back", reason)

    # Delivery

    def set_destinations(self, names: Collection[str]) -> None:
        """Say where results go from now on.

        What was addressed to somebody is sent to nobody else. What was kept while there was
        no destination at all is addressed now, or it would never leave.
        """
        with self.writing() as connection:
            connection.execute(update(destinations).values(active=False))
            for name in names:
                connection.execute(
                    self.insert_or_ignore(destinations).values(name=name, active=True)
                )
            connection.execute(
                update(destinations).where(destinations.c.name.in_(names)).values(active=True)
            )
            self._address(connection, connection.scalars(_unaddressed()).all())

    def _address(self, connection: Connection, uids: Sequence[str]) -> None:
        """Put results on their way to every destination; `uids` of preferred encodings."""
        active = select(destinations.c.name).where(destinations.c.active)
        rows = [
            {
                "sop_uid": sop_uid,
                "destination": name,
                "state": "PENDING",
                "attempts": 0,
                "next_at": 0.0,
            }
            for name in connection.scalars(active)
            for sop_uid in uids
        ]
        if rows:
            connection.execute(self.insert_or_ignore(deliveries), rows)

    def due(
        self, destination: str, longest_seconds: float = LONGEST_PAUSE_SECONDS
    ) -> list[Pending]:
        """What may be sent to a destination now, oldest job first and phases in order.

        A result waits until everything of a lower phase of its job was acknowledged.

        Args:
            destination: by name.
            longest_seconds: that a result waits for its next attempt.
        """
        earlier, earlier_delivery = results.alias(), deliveries.alias()
        held_up = exists().where(
            earlier.c.job_id == results.c.job_id,
            earlier.c.phase < results.c.phase,
            earlier_delivery.c.sop_uid == earlier.c.sop_uid,
            earlier_delivery.c.destination == destination,
            earlier_delivery.c.state.in_(("PENDING", "PARKED")),
        )
        query = (
            select(results, deliveries.c.attempts, jobs.c.study_uid)
            .join(deliveries, deliveries.c.sop_uid == results.c.sop_uid)
            .join(jobs, jobs.c.job_id == results.c.job_id)
            .where(
                deliveries.c.destination == destination,
                deliveries.c.state == "PENDING",
                is_due(deliveries.c.next_at, self._clock(), longest_seconds),
                ~held_up,
            )
            .order_by(jobs.c.finished_at, results.c.job_id, results.c.phase, results.c.number)
        )
        with self.reading() as connection:
            rows = connection.execute(query).all()
            return [
                Pending(
                    row.job_id,
                    row.study_uid,
                    row.phase,
                    row.attempts,
                    (_result(row), *_alternatives(connection, row.sop_uid)),
                )
                for row in rows
            ]

    def note_delivery(
        self,
        pending: Pending,
        destination: str,
        state: str,
        message: str,
        status: int | None = None,
        sent_as: str | None = None,
        next_at: float = 0.0,
    ) -> None:
        """Note what a destination answered.

        `state` PENDING leaves it to be sent at `next_at`, SENT to be confirmed from then on.
        """
        this = and_(
            deliveries.c.sop_uid == pending.encodings[0].sop_uid,
            deliveries.c.destination == destination,
        )
        values = {
            "attempts": deliveries.c.attempts + 1,
            "next_at": next_at,
            "status": status,
            "message": message,
            "sent_as": sent_as,
            "at": self._clock(),
            "looks": 0,
            "transaction_uid": None,
        }
        with self.writing() as connection:
            if state != "SENT":
                what = f"delivery to {destination} {state.lower()}"
                uid = pending.encodings[0].sop_uid
                self.note(connection, pending.study_uid, what, f"{uid}: {message}")
            if state == "PENDING":
                connection.execute(update(deliveries).where(this).values(**values))
            elif not move(connection, deliveries, this, state, **values):
                raise IllegalTransition("delivery", pending.encodings[0].sop_uid, state)

    def postpone(
        self, rest: Sequence[Pending], destination: str, message: str, next_at: float
    ) -> None:
        """Note that a destination could not be reached for any of these."""
        uids = [pending.encodings[0].sop_uid for pending in rest]
        with self.writing() as connection:
            connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.sop_uid.in_(uids),
                    deliveries.c.destination == destination,
                    deliveries.c.state == "PENDING",
                )
                .values(
                    attempts=deliveries.c.attempts + 1,
                    next_at=next_at,
                    message=message,
                    at=self._clock(),
                )
            )

    def retry(self, study_uid: str, destination: str | None = None) -> Retried:
        """Try again what failed, was cancelled or parked for a study, and what waits at once.

        A job that a later one answers for stays as it is: its result would come too late. So does
        one whose input was purged: it must be sent again first.

        Args:
            study_uid: the study.
            destination: send to this one only, and run no job; None for everything.
        """
        of_study = select(results.c.sop_uid).join(jobs).where(jobs.c.study_uid == study_uid)
        anywhere = destination is None
        mine = and_(
            deliveries.c.sop_uid.in_(of_study),
            true() if anywhere else deliveries.c.destination == destination,
        )
        with self.writing() as connection:
            failed = _run_again(connection, study_uid) if anywhere else 0
            parked = move(
                connection,
                deliveries,
                and_(mine, deliveries.c.state == "PARKED"),
                "PENDING",
                next_at=0.0,
            )
            pending = connection.execute(
                update(deliveries).where(mine, deliveries.c.state == "PENDING").values(next_at=0.0)
            )
            where_to = "" if anywhere else f" to {destination}"
            self.note(
                connection,
                study_uid,
                "retry by operator",
                f"{failed} job(s), {pending.rowcount} deliveries{where_to}",
            )
        return Retried(failed, parked, pending.rowcount - parked)

    def cancel(self, study_uid: str) -> int:
        """Stop the jobs of a study that wait or run; returns how many there were.

        Who works at one loses its lease, and hears of it with the next heartbeat. What was sent
        early stays sent.
        """
        live = and_(jobs.c.study_uid == study_uid, jobs.c.state.in_(("QUEUED", "RUNNING")))
        with self.writing() as connection:
            stopped = connection.scalars(select(jobs.c.job_id).where(live)).all()
            for job_id in stopped:
                _set_inputs(connection, job_id, "not wanted", CANCELLED)
            nobody = {"lease": None, "lease_until": None, "progress": None}
            move(connection, jobs, live, "CANCELLED", reason=CANCELLED, **nobody)
            if stopped:
                self.note(connection, study_uid, CANCELLED, f"{len(stopped)} job(s)")
        return len(stopped)

    # Looking

    def counts(self) -> dict[str, dict[str, int]]:
        """How many instances, studies, jobs and deliveries are in each state."""
        tables = {
            "instances": instances,
            "studies": studies,
            "jobs": jobs,
            "deliveries": deliveries,
            "promises": promises,
        }
        with self.reading() as connection:
            return {name: _count_states(connection, table) for name, table in tables.items()}

    def study(self, study_uid: str) -> dict[str, Any] | None:
        """All that is known of a study, as plain values; None when nothing is."""
        here = studies.c.study_uid == study_uid
        with self.reading() as connection:
            row = connection.execute(select(studies).where(here)).first()
            if row is None:
                return None
            per_series = (
                select(
                    instances.c.series_uid,
                    instances.c.state,
                    instances.c.reason,
                    func.count().label("count"),
                )
                .where(instances.c.study_uid == study_uid)
                .group_by(instances.c.series_uid, instances.c.state, instances.c.reason)
                .order_by(instances.c.series_uid, instances.c.state)
            )
            sent = (
                select(
                    results.c.job_id,
                    results.c.kind,
                    deliveries.c.destination,
                    deliveries.c.state,
                    func.count().label("count"),
                    func.max(deliveries.c.attempts).label("attempts"),
                    func.max(deliveries.c.at).label("at"),
                    deliveries.c.message,
                )
                .join(results, results.c.sop_uid == deliveries.c.sop_uid)
                .join(jobs, jobs.c.job_id == results.c.job_id)
                .where(jobs.c.study_uid == study_uid)
                .group_by(
                    results.c.job_id,
                    results.c.phase,
                    results.c.kind,
                    deliveries.c.destination,
                    deliveries.c.state,
                    deliveries.c.message,
                )
                .order_by(results.c.job_id, results.c.phase)
            )
            of_study = jobs.c.study_uid == study_uid
            return {
                **_plain(row),
                "instances": _rows(connection, per_series),
                "sources": _rows(
                    connection,
                    select(counts.c.source, counts.c.asked_at, counts.c.missing, counts.c.message)
                    .where(counts.c.study_uid == study_uid)
                    .order_by(counts.c.source),
                ),
                "jobs": _rows(connection, select(jobs).where(of_study).order_by(jobs.c.revision)),
                "deliveries": _rows(connection, sent),
                "events": _rows(
                    connection,
                    select(events.c.at, events.c.what, events.c.detail)
                    .where(events.c.study_uid == study_uid)
                    .order_by(events.c.number),
                ),
            }

    def study_uids(self) -> list[str]:
        """Every study that something was received of, by UID."""
        with self.reading() as connection:
            return list(connection.scalars(select(studies.c.study_uid).order_by("study_uid")))

    def recent_studies(self, limit: int) -> list[dict[str, Any]]:
        """The studies heard of last, newest first, with how many instances each has."""
        query = select(studies).order_by(studies.c.last_at.desc()).limit(limit)
        with self.reading() as connection:
            return _rows(connection, query)

    def results_of(self, job_id: str) -> list[Result]:
        """The result objects of a job, in delivery order."""
        query = (
            select(results)
            .where(results.c.job_id == job_id)
            .order_by(results.c.phase, results.c.number, results.c.alternative_of)
        )
        with self.reading() as connection:
            return [_result(row) for row in connection.execute(query)]

    def note(self, connection: Connection, study_uid: str, what: str, detail: str) -> None:
        """Write an event of a study down, for people."""
        connection.execute(
            insert(events).values(at=self._clock(), study_uid=study_uid, what=what, detail=detail)
        )

    def insert_or_ignore(self, table: Table) -> Any:
        """An INSERT that leaves a row of the same key as it is."""
        dialect = self._engine.dialect.name
        make = postgresql_insert if dialect == "postgresql" else sqlite_insert
        return make(table).on_conflict_do_nothing()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A look at one state of all tables."""
        with self._engine.connect().execution_options(monro_reading=True) as connection:
            yield connection


def _engine(url: str) -> Engine:
    return _sqlite(url) if url.startswith("sqlite") else _postgresql(url)


def _postgresql(url: str) -> Engine:
    """An engine whose writers take turns, as those of SQLite do.

    What a transaction decides from what it has read is still so when it writes it down, whoever
    else writes; and none waits for another for ever, should that be cut off in between.
    """
    engine = create_engine(url, pool_pre_ping=True)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("monro_reading", False)
        connection.exec_driver_sql(ONE_STATE if reading else IN_TURN)

    return engine


def _sqlite(url: str) -> Engine:
    engine = create_engine(
        url, connect_args={"timeout": PATIENCE_SECONDS, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        # None hands BEGIN to us: the driver's own would take the write lock too late,
        # and two writers that both read first would then deadlock.
        connection.isolation_level = None
        # FULL: what was promised on the strength of a row must survive a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("monro_reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _identity(received: Received) -> tuple[str, str]:
    """What tells an instance from others, also from one of the same UID."""
    return received.held.key.sop_uid, received.held.sha256


def _by_study(batch: Sequence[Received]) -> Mapping[str, Sequence[Received]]:
    found: dict[str, list[Received]] = {}
    for received in batch:
        found.setdefault(received.held.key.study_uid, []).append(received)
    return found


def _first_state(held: Held, taken: str | None, ours: bool) -> tuple[str, str | None]:
    """What becomes of an instance that is new.

    Args:
        held: the instance.
        taken: digest of the instance that has its UID already.
        ours: whether it is a result of ours.
    """
    if held.arrival is Arrival.CONFLICT or taken not in (None, held.sha256):
        return "quarantined", Arrival.CONFLICT.value
    return ("not wanted", OWN_RESULT) if ours else ("waiting", None)


def _beside_series(plan: Plan) -> list[str]:
    """Instance UIDs of the input that is not of the chosen series."""
    if plan.series_uid is None:
        return []
    return [each.sop_uid for each in plan.inputs if each.series_uid != plan.series_uid]


def _revive(connection: Connection, received: Received) -> None:
    """An instance that was purged is here again, perhaps elsewhere."""
    held = received.held
    this = and_(instances.c.sop_uid == held.key.sop_uid, instances.c.sha256 == held.sha256)
    connection.execute(
        update(instances)
        .where(this)
        .values(path=str(held.path), size=held.size, received_at=held.written_at, purged_at=None)
    )


def _give_back(
    connection: Connection, job_id: str, reason: str, sent_at: float | None = None
) -> None:
    this = and_(jobs.c.job_id == job_id, jobs.c.state == "RUNNING")
    nobody = {"lease": None, "lease_until": None, "progress": None, "sent_at": sent_at}
    outdated = and_(this, _is_outdated())
    if move(connection, jobs, outdated, "SUPERSEDED", reason=f"{reason}; {OUTDATED}", **nobody):
        return
    hopeless = and_(this, jobs.c.attempts >= HOPELESS_ATTEMPTS)
    if not move(connection, jobs, hopeless, "FAILED", reason=reason, **nobody):
        move(connection, jobs, this, "QUEUED", reason=reason, **nobody)


def _set_instances(
    connection: Connection, study_uid: str, series_uid: str, state: str, reason: str
) -> None:
    here = and_(instances.c.study_uid == study_uid, instances.c.series_uid == series_uid)
    move(connection, instances, here, state, reason=reason)


def _leave_aside(connection: Connection, study_uid: str, sop_uid: str, reason: str) -> None:
    """Say why one instance is not wanted, which a later revision may say otherwise."""
    here = and_(instances.c.study_uid == study_uid, instances.c.sop_uid == sop_uid)
    move(connection, instances, here, "not wanted", reason=reason)
    unwanted = and_(here, instances.c.state == "not wanted")
    connection.execute(update(instances).where(unwanted).values(reason=reason))


def _run_again(connection: Connection, study_uid: str) -> int:
    """Queue the jobs of a study that failed or were cancelled; returns how many."""
    here = and_(jobs.c.study_uid == study_uid, ~_is_outdated(), ~_lacks_input())
    refused = and_(here, jobs.c.state == "REFUSED", jobs.c.retriable)
    again = {"attempts": 0, "sent_at": None}
    stopped = and_(here, jobs.c.state.in_(("FAILED", "CANCELLED")))
    over = select(jobs.c.job_id).where(or_(refused, stopped))
    for job_id in connection.scalars(over).all():
        _set_inputs(connection, job_id, "waiting", None)
    queued = move(connection, jobs, refused, "QUEUED", predecessor=jobs.c.job_id, **again)
    return queued + move(connection, jobs, stopped, "QUEUED", **again)


def _set_inputs(
    connection: Connection,
    job_id: str,
    state: str,
    reason: str | None,
    but: Collection[str] = (),
) -> None:
    is_input = exists().where(
        job_inputs.c.job_id == job_id,
        job_inputs.c.sop_uid == instances.c.sop_uid,
        job_inputs.c.sha256 == instances.c.sha256,
    )
    these = and_(is_input, instances.c.sop_uid.not_in(list(but)))
    move(connection, instances, these, state, reason=reason)


def _settle_inputs(connection: Connection, job: Job, answer: Answer) -> None:
    """Say what became of a job's input."""
    if answer.state not in ("REPORTED", "REFUSED"):
        return
    for sop_uid, reason in answer.unused.items():
        _leave_aside(connection, job.study_uid, sop_uid, f"{job.analysis}: {reason}")
    if answer.state == "REPORTED":
        told = f"{job.analysis} job {job.job_id}"
        _set_inputs(connection, job.job_id, "used", told, answer.unused)
    else:
        _set_inputs(connection, job.job_id, "refused", answer.reason, answer.unused)


def _is_edition(table: Table, edition: Edition) -> ColumnElement[bool]:
    """Bundles, or jobs for them, of one edition."""
    version = table.c.version if table is bundles else table.c.bundle_version
    return and_(table.c.weights_sha256 == edition[0], version == edition[1])


def _bundle(row: Row[Any]) -> BundleRow:
    return BundleRow(row.analysis, row.name, row.version, row.weights_sha256, role=row.role)


def _unaddressed() -> Select[str]:
    """Results that are to be sent and were never for anybody, preferred encodings only."""
    addressed = exists().where(deliveries.c.sop_uid == results.c.sop_uid)
    return (
        select(results.c.sop_uid)
        .join(jobs, jobs.c.job_id == results.c.job_id)
        .where(jobs.c.role == "active", results.c.alternative_of.is_(None), ~addressed)
    )


def _latest_answer(connection: Connection, study_uid: str, analysis: str) -> str | None:
    """The job whose result a new one replaces: the one that runs, or the last that answered."""
    answers = or_(jobs.c.state == "RUNNING", jobs.c.answered.is_not(None))
    query = (
        select(jobs.c.job_id)
        .where(
            jobs.c.study_uid == study_uid,
            jobs.c.analysis == analysis,
            jobs.c.role == "active",
            answers,
        )
        .order_by(
            case((jobs.c.state == "RUNNING", 0), else_=1),
            func.coalesce(jobs.c.finished_at, jobs.c.started_at, 0.0).desc(),
            jobs.c.revision.desc(),
        )
        .limit(1)
    )
    return connection.scalar(query)


def _is_outdated() -> ColumnElement[bool]:
    """A later revision, or a new bundle for the same one, made a job that answers instead."""
    newer = jobs.alias()
    replaces = and_(newer.c.revision == jobs.c.revision, newer.c.predecessor == jobs.c.job_id)
    same_bundle = and_(
        newer.c.weights_sha256 == jobs.c.weights_sha256,
        newer.c.bundle_version == jobs.c.bundle_version,
    )
    return exists().where(
        newer.c.study_uid == jobs.c.study_uid,
        newer.c.analysis == jobs.c.analysis,
        newer.c.role == jobs.c.role,
        or_(jobs.c.role == "active", same_bundle),
        newer.c.job_id != jobs.c.job_id,
        newer.c.state != "SUPERSEDED",
        or_(newer.c.revision > jobs.c.revision, replaces),
    )


def _lacks_input() -> ColumnElement[bool]:
    """Files that a job is about were removed by policy."""
    return exists().where(
        job_inputs.c.job_id == jobs.c.job_id,
        job_inputs.c.sop_uid == instances.c.sop_uid,
        job_inputs.c.sha256 == instances.c.sha256,
        instances.c.purged_at.is_not(None),
    )


def _predecessor_is_running() -> ColumnElement[bool]:
    """A newer revision waits for the older one's answer, which it must name."""
    before = jobs.alias()
    return exists().where(
        before.c.job_id == jobs.c.predecessor,
        before.c.job_id != jobs.c.job_id,
        before.c.state == "RUNNING",
    )


def _predecessor(connection: Connection, job: Row[Any]) -> Predecessor | None:
    """The latest earlier job that answered; a refusal run again follows upon itself."""
    passed: set[str] = set()
    while before := connection.execute(
        select(jobs).where(jobs.c.job_id == job.predecessor, jobs.c.job_id.not_in(passed))
    ).first():
        if before.answered is not None:
            return Predecessor(before.job_id, before.lineage, before.answered)
        passed.add(before.job_id)
        job = before
    return None


def _summarised(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A job's summary, and what of it has a column of its own."""
    columns = {name: summary.get(name) for name in ("probability", "band", "ood_percentile")}
    return {"summary": dict(summary), "refusal": summary.get("refused"), **columns}


def _alternatives(connection: Connection, sop_uid: str) -> tuple[Result, ...]:
    query = select(results).where(results.c.alternative_of == sop_uid).order_by(results.c.sop_uid)
    return tuple(_result(row) for row in connection.execute(query))


def _instance(row: Row[Any]) -> Instance:
    return Instance(
        row.sop_uid, row.sha256, row.series_uid, Path(row.path), row.state, row.received_at
    )


def _result(row: Row[Any]) -> Result:
    return Result(
        sop_uid=row.sop_uid,
        series_uid=row.series_uid,
        sop_class=row.sop_class,
        kind=row.kind,
        number=row.number,
        phase=row.phase,
        path=Path(row.path),
        alternative_of=row.alternative_of,
    )


def _result_row(job: Job, result: Result) -> dict[str, Any]:
    return {
        "sop_uid": result.sop_uid,
        "job_id": job.job_id,
        "kind": result.kind,
        "number": result.number,
        "phase": result.phase,
        "alternative_of": result.alternative_of,
        "series_uid": result.series_uid,
        "sop_class": result.sop_class,
        "path": str(result.path),
    }


def _count_states(connection: Connection, table: Table) -> dict[str, int]:
    query = select(table.c.state, func.count()).group_by(table.c.state).order_by(table.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def _plain(row: Row[Any]) -> dict[str, Any]:
    return dict(row._mapping)


def _rows(connection: Connection, query: Any) -> list[dict[str, Any]]:
    return [_plain(row) for row in connection.execute(query)]
