"""A real PostgreSQL server on loopback, for tests."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.tools import is_absent

TRUSTING = ("--auth=trust",)


@contextmanager
def postgresql_server(
    folder: Path, initialised: Sequence[str] = TRUSTING, password: str = "unused"
) -> Iterator[str]:
    """Start one that keeps its data in a folder.

    Args:
        folder: also has the socket; it is made.
        initialised: further arguments of `initdb`; by default anybody on loopback is let in.
        password: of the role monro, which owns everything.

    Yields:
        SQLAlchemy URL of the database `postgres`, without the password.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # PostgreSQL does not run as root: in a namespace of its own it is not called so.
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.getuid() == 0 else []
    data, secret = folder / "data", folder / "password"
    secret.write_text(password)
    initialise = [
        *user, postgresql_program("initdb"), f"--pgdata={data}", "--username=monro",
        f"--pwfile={secret}", *initialised,
    ]  # fmt: skip
    subprocess.run(initialise, check=True, capture_output=True)
    serve = [postgresql_program("postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
    server = subprocess.Popen([*user, *serve], stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(port, password)
        yield f"postgresql+psycopg://monro@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait()


def postgresql_program(name: str) -> str:
    """One of PostgreSQL's programs, of the newest version that is installed."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return str(binaries[-1] / name) if binaries else is_absent("PostgreSQL", "postgresql")


def _wait_until_it_answers(port: int, password: str) -> None:
    deadline = time.monotonic() + 60
    who = f"user=monro password='{password}' dbname=postgres"
    while time.monotonic() < deadline:
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} {who}").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    pytest.fail("PostgreSQL did not start within 60 s")
