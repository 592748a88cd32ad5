"""What all parts of the ledger stand on: its database, its clock, and its transactions.

Writers take turns, on SQLite as on PostgreSQL: what a transaction decides from what it has read is
still so when it writes it down.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, create_engine, event, insert, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from listener.clock import Jumps
from listener.errors import WrongLedger
from listener.tables import SCHEMA_VERSION, events, metadata, schema

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

GIVEN_UP: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 1_000 * PATIENCE_SECONDS,
}
"""When a host that went silent is given up, by libpq: in seconds, the last in milliseconds."""


class Database:
    """A database, and a clock.

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
    engine = create_engine(url, pool_pre_ping=True, connect_args=GIVEN_UP)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        # Compiling takes longer than any question of ours.
        connection.execute("SET jit = off")
        connection.commit()

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
