"""Hostile input for a real listener and for a worker's reading: `make fuzz INPUTS=20000 SEED=1`.

Two fifths of the inputs go to a listener that stores quickly, two fifths to one that leaves storing
to pynetdicom, and one fifth are series that a worker is to read. At the end, one JSON line: what
was answered, how much memory was used, and what was not as it should be.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.fuzz.attack import Attack, Verdict
from tests.fuzz.bench import Findings, judge
from tests.fuzz.target import attacked

LOOK_EVERY: Final = 250


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    begun, fifth = time.monotonic(), -(-asked.inputs // 5)
    verdict, findings = Verdict(), Findings()
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        for at, quick in enumerate((True, False)):
            kind = "quick" if quick else "usual"
            print(f"listener, the {kind} way", file=sys.stderr)
            with attacked(Path(name) / kind, quick=quick) as target:
                Attack(target, asked.seed, verdict).run(
                    range(2 * at * fifth, 2 * (at + 1) * fifth), LOOK_EVERY
                )
                peaks[kind] = round(max(target.peak_mib.values()))
        print("worker", file=sys.stderr)
        judge(range(4 * fifth, 5 * fifth), asked.seed, Path(name) / "series", findings)
    line = {
        "seed": asked.seed,
        "inputs": verdict.inputs + findings.inputs,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "listener": dict(verdict.answers.most_common()),
        "families": dict(verdict.families.most_common()),
        "worker": dict(findings.answers.most_common()),
        "peak_mib": {**peaks, "worker": round(findings.peak_mib)},
        "slowest_series_seconds": round(findings.slowest_seconds, 1),
        "written_elsewhere": verdict.written_elsewhere,
        "crashes": verdict.crashes + findings.answers["died or hung"],
        "faults": [*verdict.faults, *findings.faults],
    }
    print(json.dumps(line), flush=True)
    return 1 if line["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
