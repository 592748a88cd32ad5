"""What a row costs in a ledger of a thousand, and of a million: `make bench-ledger`.

Synthetic rows; `value` is the time per instance in the large ledger, `peer_value` that in the small
one, so that a ratio near 1 means that the cost does not grow.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert

from listener.entries import Received
from listener.ledger import Ledger
from listener.series import InstanceKey
from listener.spool import Arrival, Held
from listener.tables import instances, studies

SIZES = (1_000, 100_000, 1_000_000)
SLICES = 200
BATCH = 50
ROUNDS = 40


def main() -> None:
    """Fill a ledger further and further, and time what is added at each size."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{Path(folder) / 'ledger.sqlite'}")
        found: dict[int, dict[str, float]] = {}
        rows = 0
        for size in SIZES:
            fill(ledger, rows, size)
            rows = size
            found[size] = {"record": record_ms(ledger, size), "look": look_ms(ledger)}
            print(f"{size} instances: {found[size]}", file=sys.stderr, flush=True)
        ledger.close()
    for what in ("record", "look"):
        for size in SIZES[1:]:
            value, small = found[size][what], found[SIZES[0]][what]
            line = {
                "figure": f"ledger.{what}_at_{size}",
                "value": round(value, 4),
                "unit": "ms",
                "peer": f"at {SIZES[0]}",
                "peer_value": round(small, 4),
                "ratio": round(small / value, 2),
                "goal": None,
            }
            print(json.dumps(line), flush=True)


def fill(ledger: Ledger, rows: int, size: int) -> None:
    """Add finished studies until there are so many instances."""
    for start in range(rows, size, 50_000):
        numbers = range(start, min(size, start + 50_000))
        with ledger.writing() as connection:
            connection.execute(
                ledger.insert_or_ignore(studies),
                [
                    {"study_uid": f"1.{study}", "state": "COMPLETE", "revision": 1,
                     "planned_revision": 1, "first_at": 0.0, "last_at": 0.0}
                    for study in {number // SLICES for number in numbers}
                ],
            )  # fmt: skip
            connection.execute(
                insert(instances),
                [
                    {"sop_uid": f"1.{number // SLICES}.{number}", "sha256": f"{number:064x}",
                     "study_uid": f"1.{number // SLICES}", "series_uid": "1", "size": 131072,
                     "path": f"/spool/{number}", "received_at": 0.0, "state": "used"}
                    for number in numbers
                ],
            )  # fmt: skip


def record_ms(ledger: Ledger, size: int) -> float:
    """Milliseconds per instance that is written down, in batches as they come in."""
    seconds = []
    for turn in range(ROUNDS):
        batch = [received(f"2.{size}.{turn}", number) for number in range(BATCH)]
        start = time.perf_counter()
        ledger.record(batch)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds) / BATCH


def look_ms(ledger: Ledger) -> float:
    """Milliseconds of what the listener asks every second."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ledger.gathering()
        ledger.unplanned()
        ledger.queued()
        ledger.due("pacs")
        ledger.reclaim()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def received(study: str, number: int) -> Received:
    """An instance of a study that is coming in."""
    key = InstanceKey(study, f"{study}.1", f"{study}.1.{number}")
    held = Held(key, Path("/spool") / key.sop_uid, f"{number:064x}", 131072, Arrival.NEW, 1.0)
    return Received(held, "association", 1.0)


if __name__ == "__main__":
    main()
