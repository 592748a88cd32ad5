"""Instances that were acknowledged, and the associations that brought them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection, and_, delete, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from listener.clock import is_ahead
from listener.entries import Received
from listener.errors import where
from listener.ledger.database import Database
from listener.ledger.processes import this_process
from listener.series import InstanceKey
from listener.spool import Arrival, Held
from listener.tables import associations, instances, move, results, studies

log = logging.getLogger(__name__)

OWN_RESULT = "our own result, sent back to us"

ROWS_AT_ONCE = 500
"""Instances in one statement: databases limit how many values it may have."""


class Reception(Database):
    """What came in."""

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


def _revive(connection: Connection, received: Received) -> None:
    """An instance that was purged is here again, perhaps elsewhere."""
    held = received.held
    this = and_(instances.c.sop_uid == held.key.sop_uid, instances.c.sha256 == held.sha256)
    connection.execute(
        update(instances)
        .where(this)
        .values(path=str(held.path), size=held.size, received_at=held.written_at, purged_at=None)
    )
