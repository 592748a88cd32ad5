"""The two kinds of database that a ledger may be in, and what docs/operations.md says of each: how
it is backed up, brought back, and how what people said is taken over into an empty one.
"""

import os
import shutil
import sqlite3
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import create_engine, func, select, table

from tests.postgresql import postgresql_program, postgresql_server

BY_PEOPLE = ("accounts", "labels", "bundles", "rollouts")
"""Tables of what people said, which no file of the spool tells."""

NAME = "monro"


class Database(ABC):
    """A ledger's database, which can be lost.

    Attributes:
        url: as `MONRO_LEDGER` has it.
    """

    url: str

    def people_said(self) -> dict[str, int]:
        """How many rows people made, by table."""
        engine = create_engine(self.url)
        with engine.connect() as connection:
            query = select(func.count())
            found = {name: connection.scalar(query.select_from(table(name))) for name in BY_PEOPLE}
        engine.dispose()
        return {name: count or 0 for name, count in found.items()}

    @abstractmethod
    def back_up(self, folder: Path) -> None:
        """While a listener uses it."""

    @abstractmethod
    def lose(self) -> None:
        """Nothing is left but an empty database."""

    @abstractmethod
    def restore(self, folder: Path) -> None:
        """All of it."""

    @abstractmethod
    def restore_what_people_said(self, folder: Path) -> None:
        """These tables alone, beside what is there."""


class Sqlite(Database):
    """A file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir()
        self._path = path
        self.url = f"sqlite:///{path}"

    def back_up(self, folder: Path) -> None:
        with (
            closing(sqlite3.connect(self._path)) as here,
            closing(sqlite3.connect(folder / "ledger.sqlite")) as there,
        ):
            here.backup(there)

    def lose(self) -> None:
        for path in self._path.parent.iterdir():
            path.unlink()

    def restore(self, folder: Path) -> None:
        self.lose()
        shutil.copy(folder / "ledger.sqlite", self._path)

    def restore_what_people_said(self, folder: Path) -> None:
        with closing(sqlite3.connect(self._path)) as ledger, ledger:
            ledger.execute("ATTACH ? AS old", [str(folder / "ledger.sqlite")])
            for name in BY_PEOPLE:
                ledger.execute(f"INSERT OR IGNORE INTO {name} SELECT * FROM old.{name}")


class Postgresql(Database):
    """A database of a running server.

    Args:
        server: URL of another database of it.
    """

    def __init__(self, server: str) -> None:
        self._server = server.replace("+psycopg", "")
        self.url = server.rpartition("/")[0] + f"/{NAME}"
        self._say(f"CREATE DATABASE {NAME}")

    def back_up(self, folder: Path) -> None:
        self._run("pg_dump", "--format", "custom", "--file", str(folder / "ledger.dump"), NAME)

    def lose(self) -> None:
        self._say(f"DROP DATABASE {NAME} WITH (FORCE)", f"CREATE DATABASE {NAME}")

    def restore(self, folder: Path) -> None:
        self.lose()
        self._run("pg_restore", "--dbname", NAME, str(folder / "ledger.dump"))

    def restore_what_people_said(self, folder: Path) -> None:
        tables = [f"--table={name}" for name in (*BY_PEOPLE, "rollouts_number_seq")]
        dump = str(folder / "ledger.dump")
        self._run("pg_restore", "--data-only", *tables, "--dbname", NAME, dump)

    def _say(self, *statements: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def _run(self, name: str, *arguments: str) -> None:
        where = psycopg.conninfo.conninfo_to_dict(self._server)
        environment = {"PGHOST": where["host"], "PGPORT": where["port"], "PGUSER": where["user"]}
        subprocess.run(
            [postgresql_program(name), *arguments],
            env=os.environ | {key: str(value) for key, value in environment.items()},
            check=True,
        )


@contextmanager
def database(kind: str, folder: Path) -> Iterator[Database]:
    """An empty one, sqlite or postgresql, with its files in a folder."""
    if kind == "sqlite":
        yield Sqlite(folder / "database" / "ledger.sqlite")
        return
    with postgresql_server(folder / "postgresql") as server:
        yield Postgresql(server)
