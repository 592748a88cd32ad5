"""Whether a listener holds its memory over 100,000 instances: `make bench-soak`.

Small slices from four senders at a time, in studies of 200 that are completed meanwhile, as in a
week of a busy department. What counts is the memory of all of the listener's processes; what they
share is counted once.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import psutil

from deploy.stack import free_ports
from tests.benchmarks.ingest import QUICK, listener, until_it_answers, write_slices
from tests.system.conftest import DCMTK_STORESCU

SENDERS: Final = 4
LEGS: Final = 20
SIZE: Final = 16
# Caches fill for as long; what grows over as many instances again would grow for ever.
SETTLED_LEGS: Final = 10
SECONDS_TO_RECORD: Final = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=200_000)
    asked = parser.parse_args()
    os.environ["TCP_NODELAY"] = "1"  # for storescu
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = write_slices(folder / "slices", 16 * SENDERS, SIZE)[:SENDERS]
        (port,) = free_ports(1)
        with listener(folder / "received", port, MONRO_RELEASED_QUIET_SECONDS="2") as pid:
            until_it_answers(port)
            used = []
            for leg in range(1, LEGS + 1):
                send(parts, port, asked.instances // LEGS)
                wait_for_rows(folder / "received", leg * (asked.instances // LEGS))
                used.append(memory(pid))
                print(f"{leg * asked.instances // LEGS} instances: {used[-1]:.0f} MiB",
                      file=sys.stderr, flush=True)  # fmt: skip
    line = {
        "figure": "soak.memory_after",
        "value": round(used[-1], 1),
        "unit": "MiB",
        "peer": f"the same listener after {SETTLED_LEGS * asked.instances // LEGS} instances",
        "peer_value": round(used[SETTLED_LEGS - 1], 1),
        "ratio": round(used[SETTLED_LEGS - 1] / used[-1], 3),
        "goal": 0.95,
    }
    print(json.dumps(line))


def send(parts: Sequence[Path], port: int, instances: int) -> None:
    """Send so many, each with a UID of its own."""
    senders = [
        subprocess.Popen(
            [DCMTK_STORESCU, *QUICK, "-aet", "SENDER", "-aec", "BENCH", "+sd",
             "--invent-series", "50", "--invent-study", "4",
             "--repeat", str(instances // SENDERS // len(list(part.iterdir()))),
             "127.0.0.1", str(port), str(part)],
            stdout=subprocess.DEVNULL,
        )
        for part in parts
    ]  # fmt: skip
    codes = [sender.wait() for sender in senders]
    assert not any(codes), f"storescu ended with {codes}"


def wait_for_rows(spool: Path, instances: int) -> None:
    """Wait until the ledger has what was acknowledged."""
    deadline = time.monotonic() + SECONDS_TO_RECORD
    with closing(sqlite3.connect(f"file:{spool / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:
        while (rows := ledger.execute("SELECT count(*) FROM instances").fetchone()[0]) < instances:
            assert time.monotonic() < deadline, f"{rows} of {instances} rows were written"
            time.sleep(0.5)


def memory(pid: int) -> float:
    """MiB of a process and of those that it started."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(each.memory_full_info().pss for each in family)) / 2**20


if __name__ == "__main__":
    main()
