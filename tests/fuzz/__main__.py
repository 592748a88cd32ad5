"""Hostile input for a real listener and for a worker's reading: `make fuzz INPUTS=20000 SEED=1`.

Each target gets its share of the inputs (`TARGETS`), or all of them where `--only` names it. At the
end, one JSON line: what was answered at each, how much memory was used, and what was not as it
should be.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.fuzz import sources, tls, web
from tests.fuzz.attack import DICOM, Attack, Door, Verdict
from tests.fuzz.bench import Findings, judge
from tests.fuzz.target import attacked

LOOK_EVERY: Final = 250

Told = Mapping[str, Any]


def attack(
    opening: Callable[..., Any], door: Door, numbers: range, seed: int, folder: Path
) -> Told:
    """Send inputs to a listener."""
    verdict = Verdict()
    with opening(folder) as target:
        Attack(target, seed, verdict, door).run(numbers, LOOK_EVERY)
    return {
        "inputs": verdict.inputs,
        "answers": dict(verdict.answers.most_common()),
        "families": dict(verdict.families.most_common()),
        "peak_mib": verdict.peak_mib,
        "written_elsewhere": verdict.written_elsewhere,
        "crashes": verdict.crashes,
        "faults": verdict.faults,
    }


def have_read(numbers: range, seed: int, folder: Path) -> Told:
    """Hand series to a worker's reading."""
    findings = Findings()
    judge(numbers, seed, folder, findings)
    return {
        "inputs": findings.inputs,
        "answers": dict(findings.answers.most_common()),
        "peak_mib": round(findings.peak_mib),
        "slowest_series_seconds": round(findings.slowest_seconds, 1),
        "written_elsewhere": 0,
        "crashes": findings.answers["died or hung"],
        "faults": findings.faults,
    }


# Target: how many of twenty inputs go there, and how they are tried. A listener stores in its own,
# quick way, or leaves that to pynetdicom, as is usual.
TARGETS: Final[Mapping[str, tuple[int, Callable[[range, int, Path], Told]]]] = {
    "quick": (5, partial(attack, partial(attacked, quick=True), DICOM)),
    "usual": (4, partial(attack, partial(attacked, quick=False), DICOM)),
    "STOW-RS": (4, partial(attack, web.attacked_by_web, web.DOOR)),
    "TLS": (2, partial(attack, tls.attacked_by_tls, tls.DOOR)),
    "sources": (1, partial(attack, sources.attacked_by_sources, sources.DOOR)),
    "worker": (4, have_read),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    begun, shares = time.monotonic(), sum(TARGETS[each][0] for each in asked.only)
    told: dict[str, Told] = {}
    first = 0
    with tempfile.TemporaryDirectory() as name:
        for at, each in enumerate(asked.only):
            print(each, file=sys.stderr)
            share, tried = TARGETS[each]
            numbers = range(first, first + -(-asked.inputs * share // shares))
            told[each] = tried(numbers, asked.seed, Path(name) / str(at))
            first = numbers.stop
    faults = [f"{each}: {fault}" for each, found in told.items() for fault in found["faults"]]
    line = {
        "seed": asked.seed,
        "inputs": sum(each["inputs"] for each in told.values()),
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "crashes": sum(each["crashes"] for each in told.values()),
        "written_elsewhere": sum(each["written_elsewhere"] for each in told.values()),
        "targets": told,
        "faults": faults,
    }
    print(json.dumps(line), flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
