"""Jobs on their way to a worker, lent to one, and back with an answer."""

import logging
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, and_, exists, or_, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError

from listener.clock import LONGEST_PAUSE_SECONDS, is_ahead
from listener.entries import Answer, Early, Edition, Job, Predecessor, Queued, Result
from listener.errors import LeaseLost, SpoolFull
from listener.ledger.database import Database
from listener.ledger.delivery import address
from listener.ledger.inputs import settle_inputs
from listener.ledger.rows import instance_of_row, row_of_result
from listener.ledger.succession import OUTDATED, is_outdated, predecessor_is_running, predecessor_of
from listener.tables import instances, job_inputs, jobs, move, results

log = logging.getLogger(__name__)

ANSWERED = {"REPORTED": "report", "REFUSED": "refusal"}
"""What the results of a job in one of these states say."""

HOPELESS_ATTEMPTS = 10
"""A job given back this often has failed for good: only an operator's retry revives it."""


class Lease:
    """A job lent to one worker for as long as its heart beats."""

    def __init__(self, ledger: "Work", job: Job, seconds: float) -> None:
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


class Work(Database):
    """What workers do."""

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
            move(connection, jobs, and_(waiting, is_outdated()), "SUPERSEDED", reason=OUTDATED)
            lent = move(
                connection,
                jobs,
                and_(waiting, ~predecessor_is_running()),
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
            inputs=tuple(instance_of_row(instance) for instance in inputs),
            predecessor=predecessor_of(connection, row),
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
                settle_inputs(connection, job, answer)
            kind = "shadow job" if job.role == "shadow" else "job"
            what = f"{kind} {answer.state.lower()}"
            self.note(connection, job.study_uid, what, answer.reason or job.job_id)

    def _put_results(self, connection: Connection, job: Job, found: Sequence[Result]) -> None:
        for result in found:
            row = row_of_result(job, result)
            connection.execute(self.insert_or_ignore(results).values(**row))
        if job.role == "active":
            preferred = [each.sop_uid for each in found if each.alternative_of is None]
            address(self, connection, preferred)

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


def _give_back(
    connection: Connection, job_id: str, reason: str, sent_at: float | None = None
) -> None:
    this = and_(jobs.c.job_id == job_id, jobs.c.state == "RUNNING")
    nobody = {"lease": None, "lease_until": None, "progress": None, "sent_at": sent_at}
    outdated = and_(this, is_outdated())
    if move(connection, jobs, outdated, "SUPERSEDED", reason=f"{reason}; {OUTDATED}", **nobody):
        return
    hopeless = and_(this, jobs.c.attempts >= HOPELESS_ATTEMPTS)
    if not move(connection, jobs, hopeless, "FAILED", reason=reason, **nobody):
        move(connection, jobs, this, "QUEUED", reason=reason, **nobody)


def _summarised(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A job's summary, and what of it has a column of its own."""
    columns = {name: summary.get(name) for name in ("probability", "band", "ood_percentile")}
    return {"summary": dict(summary), "refusal": summary.get("refused"), **columns}
