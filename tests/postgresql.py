"""A real PostgreSQL server on loopback, for tests."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.tools import is_absent


@contextmanager
def postgresql_server(folder: Path) -> Iterator[str]:
    """Start one that keeps its data in a folder; yields its SQLAlchemy URL."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        is_absent("PostgreSQL", "postgresql")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # PostgreSQL does not run as root: in a namespace of its own it is not called so.
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.getuid() == 0 else []
    data = folder / "data"
    initialise = [
        *user,
        str(binaries[-1] / "initdb"),
        "-D",
        str(data),
        "-U",
        "monro",
        "-A",
        "trust",
    ]
    subprocess.run(initialise, check=True, capture_output=True)
    serve = [str(binaries[-1] / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
    server = subprocess.Popen([*user, *serve], stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(port)
        yield f"postgresql+psycopg://monro@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait()


def _wait_until_it_answers(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=monro dbname=postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    pytest.fail("PostgreSQL did not start within 60 s")
