"""The worklist: which studies there are, the latest first, and how far each is.

A page costs the same in a ledger of a thousand studies and of a hundred thousand: it begins at a
place in an index, and instances are not counted but read from where they were.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Select, and_, exists, func, or_, select

from listener.console.answers import Unindexed, is_answer, last_of_all, may_answer
from listener.console.latest import LATEST_FIRST, LATEST_LAST, Place
from listener.ledger import Ledger
from listener.series import UID
from listener.tables import deliveries, jobs, results, studies

PAGE_STUDIES: Final = 50
MOST_STUDIES: Final = 200
"""On one page, however many are asked for."""

FEW: Final = 2_000
"""Jobs that the studies of a page are looked up from; where more have what is looked for, a page of
studies that have it is soon found by looking at the latest."""

MOST_TROUBLED: Final = 500
"""Studies whose deliveries are in trouble, as many as are listed: an archive that is down for days
troubles them all."""

FIRST_DAY: Final = date(1970, 1, 2)
LAST_DAY: Final = date(9999, 12, 29)
"""Days that have a midnight in whatever zone, a day later as well."""

STUDY_STATES: Final[Mapping[str, tuple[str, ColumnElement[bool]]]] = {
    "receiving": ("coming in", studies.c.state == "RECEIVING"),
    "waiting": (
        "complete, waits to be planned",
        and_(studies.c.state == "COMPLETE", studies.c.planned_revision < studies.c.revision),
    ),
    "aside": (
        "no analysis wants it",
        and_(
            studies.c.state == "COMPLETE",
            studies.c.planned_revision >= studies.c.revision,
            studies.c.has_jobs.is_(False),
        ),
    ),
}
"""States that are the study's own: what each is called, and which studies are in it."""

JOB_STATES: Final[Mapping[str, tuple[str, str]]] = {
    "queued": ("waits for a worker", "QUEUED"),
    "running": ("is analysed", "RUNNING"),
    "reported": ("reported", "REPORTED"),
    "refused": ("refused", "REFUSED"),
    "failed": ("failed", "FAILED"),
    "cancelled": ("cancelled", "CANCELLED"),
}
"""States that some answer of the study is in."""

BANDS: Final = ("suggested", "not suggested", "undetermined")

IN_TROUBLE: Final = or_(
    deliveries.c.state == "PARKED",
    and_(deliveries.c.state == "PENDING", deliveries.c.attempts > 0),
)
"""Deliveries that did not arrive at the first attempt."""


@dataclass(frozen=True)
class Wanted:
    """Which studies to list; what is empty does not matter.

    Attributes:
        state: a key of STUDY_STATES or JOB_STATES.
        analysis: of some answer.
        band: of the same answer: suggested, not suggested or undetermined.
        refusal: of the same answer: its coded reason.
        scanner: that the images come from.
        since: first day of what came in, in the server's time.
        until: last day, inclusive.
        uid: how the Study Instance UID begins.
        trouble: whether some delivery must be parked or tried again.
    """

    state: str = ""
    analysis: str = ""
    band: str = ""
    refusal: str = ""
    scanner: str = ""
    since: date | None = None
    until: date | None = None
    uid: str = ""
    trouble: bool = False


@dataclass(frozen=True)
class AnswerRow:
    """The last job of an analysis, as far as it is."""

    job_id: str
    analysis: str
    state: str
    probability: float | None
    band: str | None
    refusal: str | None
    reason: str | None
    progress: str | None
    answered: str | None
    finished_at: float | None


@dataclass(frozen=True)
class DeliveryCount:
    """Result objects of a study in one state, over all destinations."""

    state: str
    count: int
    attempts: int


@dataclass(frozen=True)
class StudyRow:
    """One line of the worklist; times are seconds since the epoch."""

    study_uid: str
    state: str
    reason: str | None
    revision: int
    is_planned: bool
    received: int
    first_at: float
    last_at: float
    scanner: str | None
    answers: tuple[AnswerRow, ...] = ()
    deliveries: tuple[DeliveryCount, ...] = ()

    @property
    def in_trouble(self) -> int:
        """Result objects that are parked, or are tried again."""
        return sum(
            each.count
            for each in self.deliveries
            if each.state == "PARKED" or (each.state == "PENDING" and each.attempts)
        )

    @property
    def on_their_way(self) -> int:
        """Result objects that wait to be sent."""
        return self._in("PENDING")

    @property
    def unconfirmed(self) -> int:
        """Result objects that were sent, and that no destination has said yet that it keeps."""
        return self._in("SENT")

    def _in(self, state: str) -> int:
        return sum(each.count for each in self.deliveries if each.state == state)


@dataclass(frozen=True)
class Page:
    """A page of the worklist.

    Attributes:
        newer: the place that the page of later studies ends at; None where there are none.
        older: the place that the page of earlier studies begins at; None where there are none.
        is_cut: more studies are in trouble than are listed.
    """

    studies: tuple[StudyRow, ...]
    newer: str | None = None
    older: str | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class Turn:
    """Which page of the worklist: that before a place, that after one, or the first."""

    before: Place | None = None
    after: Place | None = None
    limit: int = field(default=PAGE_STUDIES)


def worklist(ledger: Ledger, wanted: Wanted, turn: Turn) -> Page:
    """A page of the studies that are wanted, the latest first."""
    limit = min(max(1, turn.limit), MOST_STUDIES)
    with ledger.reading() as connection:
        query, is_cut = _query(connection, wanted)
        if turn.after is not None:
            query = query.where(turn.after.later).order_by(*LATEST_LAST)
        elif turn.before is not None:
            query = query.where(turn.before.earlier).order_by(*LATEST_FIRST)
        else:
            query = query.order_by(*LATEST_FIRST)
        found = connection.execute(query.limit(limit + 1)).all()
        rows, has_more = found[:limit], len(found) > limit
        if turn.after is not None:
            rows = rows[::-1]
        listed = _listed(connection, rows)
    backwards = turn.after is not None
    has_older = backwards or has_more
    has_newer = has_more if backwards else turn.before is not None
    return Page(
        listed,
        newer=str(Place(rows[0].last_at, rows[0].study_uid)) if rows and has_newer else None,
        older=str(Place(rows[-1].last_at, rows[-1].study_uid)) if rows and has_older else None,
        is_cut=is_cut,
    )


def these_studies(ledger: Ledger, study_uids: Iterable[str]) -> Page:
    """Some studies by UID, the latest first; those that are not known are left out."""
    query = select(studies).where(studies.c.study_uid.in_(list(study_uids)))
    with ledger.reading() as connection:
        rows = connection.execute(query.order_by(*LATEST_FIRST)).all()
        return Page(_listed(connection, rows))


def beginning_so(ledger: Ledger, text: str, most: int) -> list[str]:
    """UIDs of studies that begin with a text of digits and dots; none where it is another one."""
    if "." not in text or not UID.fullmatch(text.rstrip(".")):
        return []
    with ledger.reading() as connection:
        query = select(studies.c.study_uid).where(_begins(connection, text)).limit(most)
        return list(connection.scalars(query))


def scanners(ledger: Ledger) -> tuple[str, ...]:
    """All scanners that studies came from."""
    query = select(studies.c.scanner).where(studies.c.scanner.is_not(None)).distinct()
    with ledger.reading() as connection:
        return tuple(sorted(connection.scalars(query)))


def refusals(ledger: Ledger) -> tuple[str, ...]:
    """The coded reasons that some study was refused for."""
    refused = and_(jobs.c.state == "REFUSED", jobs.c.role == "active")
    query = select(jobs.c.refusal).where(refused, jobs.c.refusal.is_not(None))
    with ledger.reading() as connection:
        return tuple(sorted(connection.scalars(query.distinct())))


def _query(connection: Connection, wanted: Wanted) -> tuple[Select[Any], bool]:
    """The studies that are wanted, in no order, and whether some in trouble are left out."""
    query = select(studies)
    is_cut = False
    if wanted.scanner:
        query = query.where(studies.c.scanner == wanted.scanner)
    if wanted.since is not None:
        query = query.where(studies.c.last_at >= _midnight(wanted.since))
    if wanted.until is not None:
        query = query.where(studies.c.last_at < _midnight(wanted.until, days_later=1))
    if wanted.uid:
        query = query.where(_begins(connection, wanted.uid))
    if wanted.state in STUDY_STATES:
        query = query.where(STUDY_STATES[wanted.state][1])
    of_job = _job_conditions(wanted)
    if of_job:
        query = query.where(*_has_answer(connection, of_job))
    if wanted.trouble:
        troubled = _troubled(connection)
        is_cut = len(troubled) > MOST_TROUBLED
        query = query.where(studies.c.study_uid.in_(troubled[:MOST_TROUBLED]))
    return query, is_cut


def _job_conditions(wanted: Wanted) -> list[tuple[Column[str], str]]:
    state = JOB_STATES.get(wanted.state)
    asked = (
        (jobs.c.state, state and state[1]),
        (jobs.c.analysis, wanted.analysis),
        (jobs.c.band, wanted.band),
        (jobs.c.refusal, wanted.refusal),
    )
    return [(column, value) for column, value in asked if value]


def _has_answer(
    connection: Connection, wanted: Sequence[tuple[Column[str], str]]
) -> Iterator[ColumnElement[bool]]:
    """Whether an answer of a study is so; asked in the way that is quick for as many as there are.

    What was said earlier and is the answer no more does not count.
    """
    here = [Unindexed(column) == value for column, value in wanted]
    yield exists().where(jobs.c.study_uid == studies.c.study_uid, *here, is_answer())
    anywhere = [column == value for column, value in wanted]
    of_jobs = select(jobs.c.study_uid).where(jobs.c.role == "active", *anywhere)
    some = of_jobs.limit(FEW + 1).subquery()
    if (connection.scalar(select(func.count()).select_from(some)) or 0) <= FEW:
        yield studies.c.study_uid.in_(of_jobs)


def _troubled(connection: Connection) -> list[str]:
    """Studies whose deliveries are in trouble, one more than are listed where there are more."""
    query = (
        select(jobs.c.study_uid)
        .join(results, results.c.job_id == jobs.c.job_id)
        .join(deliveries, deliveries.c.sop_uid == results.c.sop_uid)
        .where(deliveries.c.state.in_(("PARKED", "PENDING")), IN_TROUBLE)
        .distinct()
        .limit(MOST_TROUBLED + 1)
    )
    return list(connection.scalars(query))


def _begins(connection: Connection, prefix: str) -> ColumnElement[bool]:
    """Whether a UID begins so; what SQLite calls LIKE finds no index."""
    if connection.dialect.name == "sqlite":
        return studies.c.study_uid.op("GLOB", is_comparison=True)(f"{prefix}*")
    return studies.c.study_uid.like(f"{prefix}%")


def _midnight(day: date, days_later: int = 0) -> float:
    """When a day begins, or one that comes later; never before or after what clocks can tell."""
    bounded = min(max(day, FIRST_DAY), LAST_DAY) + timedelta(days=days_later)
    return datetime.combine(bounded, time()).astimezone().timestamp()


def _listed(connection: Connection, rows: Sequence[Any]) -> tuple[StudyRow, ...]:
    uids = [row.study_uid for row in rows]
    answers, sent = _answers(connection, uids), _deliveries(connection, uids)
    return tuple(
        StudyRow(
            study_uid=row.study_uid,
            state=row.state,
            reason=row.reason,
            revision=row.revision,
            is_planned=row.planned_revision >= row.revision,
            received=row.received,
            first_at=row.first_at,
            last_at=row.last_at,
            scanner=row.scanner,
            answers=tuple(answers[row.study_uid].values()),
            deliveries=tuple(sent[row.study_uid]),
        )
        for row in rows
    )


def _answers(connection: Connection, uids: list[str]) -> Mapping[str, dict[str, AnswerRow]]:
    """The answers of each study, by analysis."""
    columns = (
        jobs.c.job_id, jobs.c.analysis, jobs.c.state, jobs.c.probability, jobs.c.band,
        jobs.c.refusal, jobs.c.reason, jobs.c.progress, jobs.c.answered, jobs.c.finished_at,
    )  # fmt: skip
    query = (
        select(jobs.c.study_uid, *columns)
        .where(jobs.c.study_uid.in_(uids), may_answer())
        .order_by(jobs.c.analysis, *last_of_all())
    )
    found: dict[str, dict[str, AnswerRow]] = defaultdict(dict)
    for study_uid, *values in connection.execute(query):
        answer = AnswerRow(*values)
        found[study_uid][answer.analysis] = answer
    return found


def _deliveries(connection: Connection, uids: list[str]) -> Mapping[str, list[DeliveryCount]]:
    query = (
        select(jobs.c.study_uid, deliveries.c.state, func.count(), func.max(deliveries.c.attempts))
        .join(results, results.c.job_id == jobs.c.job_id)
        .join(deliveries, deliveries.c.sop_uid == results.c.sop_uid)
        .where(jobs.c.study_uid.in_(uids))
        .group_by(jobs.c.study_uid, deliveries.c.state)
    )
    found: dict[str, list[DeliveryCount]] = defaultdict(list)
    for study_uid, *values in connection.execute(query):
        found[study_uid].append(DeliveryCount(*values))
    return found
