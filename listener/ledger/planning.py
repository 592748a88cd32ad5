"""Studies from the first instance to jobs: when one is complete, and what is asked of it."""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Row, and_, case, exists, func, insert, select, true, update

from listener.entries import BundleRow, Count, Gathering, Instance, Plan, digest_of
from listener.ledger.database import Database
from listener.ledger.inputs import leave_aside, set_inputs, set_series
from listener.ledger.reception import OWN_RESULT
from listener.ledger.rows import instance_of_row
from listener.ledger.succession import is_edition, latest_answer
from listener.tables import associations, counts, instances, job_inputs, jobs, move, studies

JOB_NAMESPACE = uuid.UUID("6d6f6e72-6f00-5a0b-9000-6a6f62000000")
"""Names jobs by what they are about, so that asking twice is asking once."""

NONE: Mapping[str, str] = MappingProxyType({})


class Planning(Database):
    """What becomes a job."""

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
            return [instance_of_row(row) for row in connection.execute(query)]

    def path_of(self, study_uid: str) -> Path | None:
        """Where the instance lies that tells whose a study is; None where none is left.

        It is the latest one that came from elsewhere and was taken. Where there is none, a result
        of ours that came back tells it, or what is in quarantine.
        """
        here = and_(instances.c.study_uid == study_uid, instances.c.purged_at.is_(None))
        doubt = case(
            (instances.c.state == "quarantined", 2),
            (func.coalesce(instances.c.reason, "") == OWN_RESULT, 1),
            else_=0,
        )
        best = (doubt, instances.c.received_at.desc(), instances.c.sop_uid.desc())
        with self.reading() as connection:
            query = select(instances.c.path).where(here).order_by(*best).limit(1)
            path = connection.scalar(query)
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

    def plan(
        self,
        study_uid: str,
        revision: int,
        wanted: Sequence[tuple[Plan, BundleRow]],
        not_wanted: Mapping[str, str],
        left_aside: Mapping[str, str] = NONE,
        scanner: str | None = None,
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
            is_all: whether nothing of the revision remains to be planned.

        Returns:
            IDs of the jobs that must now be dispatched.
        """
        with self.writing() as connection:
            for series_uid, reason in not_wanted.items():
                set_series(connection, study_uid, series_uid, "not wanted", reason)
            for sop_uid, reason in left_aside.items():
                leave_aside(connection, study_uid, sop_uid, reason)
            queued = [
                job_id
                for plan, bundle in wanted
                if (job_id := self._plan_job(connection, study_uid, revision, plan, bundle))
            ]
            connection.execute(
                update(studies)
                .where(studies.c.study_uid == study_uid, studies.c.revision == revision)
                .values(
                    planned_revision=revision if is_all else studies.c.planned_revision,
                    scanner=func.coalesce(studies.c.scanner, scanner),
                )
            )
        return queued

    def has_jobs_for(self, study_uid: str, wanted: Sequence[tuple[Plan, BundleRow]]) -> bool:
        """Whether all that is asked for was planned, and was not replaced since."""
        names = {_job_id(study_uid, plan, bundle) for plan, bundle in wanted}
        there = and_(jobs.c.job_id.in_(names), jobs.c.state != "SUPERSEDED")
        with self.reading() as connection:
            return connection.scalar(select(func.count()).where(there)) == len(names)

    def _plan_job(
        self, connection: Connection, study_uid: str, revision: int, plan: Plan, bundle: BundleRow
    ) -> str | None:
        job_id, is_shadow = _job_id(study_uid, plan, bundle), bundle.role == "shadow"
        replaced = and_(
            jobs.c.study_uid == study_uid,
            jobs.c.analysis == plan.analysis,
            jobs.c.role == bundle.role,
            is_edition(jobs, bundle.edition) if is_shadow else true(),
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
                digest=digest_of(plan.inputs),
                weights_sha256=bundle.weights_sha256,
                bundle_version=bundle.version,
                revision=revision,
                predecessor=(
                    None if is_shadow else latest_answer(connection, study_uid, plan.analysis)
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
        here = studies.c.study_uid == study_uid
        connection.execute(update(studies).where(here).values(has_jobs=True))
        if not is_shadow:
            set_inputs(connection, job_id, "waiting", None)
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
            None if job.role == "shadow" else latest_answer(connection, job.study_uid, job.analysis)
        )
        again = {"reason": None, "sent_at": None, "predecessor": predecessor}
        move(connection, jobs, this, "QUEUED", **again)
        return str(job.job_id)


def _job_id(study_uid: str, plan: Plan, bundle: BundleRow) -> str:
    """What a job is about, so that asking twice is asking once."""
    digest = digest_of(plan.inputs)
    name = [study_uid, plan.analysis, digest, bundle.weights_sha256, bundle.version]
    # What a shadow found was not sent: once it is active, its job is another one.
    is_shadow = bundle.role == "shadow"
    return str(uuid.uuid5(JOB_NAMESPACE, "|".join([*name, *["shadow"] * is_shadow])))


def _beside_series(plan: Plan) -> list[str]:
    """Instance UIDs of the input that is not of the chosen series."""
    if plan.series_uid is None:
        return []
    return [each.sop_uid for each in plan.inputs if each.series_uid != plan.series_uid]
