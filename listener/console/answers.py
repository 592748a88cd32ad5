"""Which job is the answer to a study: of each analysis the last active one that is not superseded.

Later revisions come after earlier ones; within a revision, what began later or is yet to begin.
"""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, String, and_, case, exists, func, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from listener.tables import jobs

NOT_BEGUN = 1e12
"""Later than all times."""


def last_of_all(table: FromClause = jobs) -> tuple[ColumnElement[Any], ...]:
    """What jobs of one study and analysis are put in order by."""
    waits = case((table.c.state == "QUEUED", NOT_BEGUN), else_=0.0)
    began = func.coalesce(table.c.finished_at, table.c.started_at, waits)
    return table.c.revision, table.c.created_at, began, table.c.job_id


def may_answer(table: FromClause = jobs) -> ColumnElement[bool]:
    """Whether a job could be the answer, if none came after it."""
    return and_(table.c.role == "active", table.c.state != "SUPERSEDED")


class Unindexed(FunctionElement[str]):
    """A column that SQLite finds no index for: it then looks among the few jobs of a study, where
    it would take an index of all jobs that have what is looked for.

    For PostgreSQL it is the column itself: that knows how many have what, and chooses by it.
    """

    inherit_cache = True
    type = String()


@compiles(Unindexed)
def _plain(element: Unindexed, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(Unindexed, "sqlite")
def _expression(element: Unindexed, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)} || '')"


def is_answer() -> ColumnElement[bool]:
    """Whether a job is the answer: whether none that could be comes after it."""
    later = jobs.alias()
    comes_after = exists().where(
        later.c.study_uid == jobs.c.study_uid,
        Unindexed(later.c.analysis) == jobs.c.analysis,
        may_answer(later),
        tuple_(*last_of_all(later)) > tuple_(*last_of_all()),
    )
    return and_(may_answer(), ~comes_after)
