"""Reads series as a worker does, with little memory, and tells what it made of each.

For each folder that is named on a line of its standard input, one line of JSON: what was found.
"""

import json
import logging
import re
import resource
import sys
import time
import traceback
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pydicom.config

from listener.errors import BadAttribute
from listener.selection import select
from listener.series import read_series_facts
from worker.pipeline import read_headers
from worker.quality import UnusableStudy, check_headers, check_volume
from worker.results.outcome import NotJudged, Options
from worker.results.result import Encoder, objects
from worker.results.uids import Lineage
from worker.volume import read_volume

SPARE_BYTES: Final = 3 << 30
"""Of address space, beyond what imports took: 1 GiB of voxels, and what decoders reserve."""

LINEAGE: Final = Lineage("fuzz", "1.2.3", "fistula", "d", "toy 1.0.0", "a" * 64, "")


def main() -> None:
    logging.disable(logging.CRITICAL)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.simplefilter("ignore")
    used = _kib("VmSize") << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, resource.RLIM_INFINITY))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        begun = time.monotonic()
        said, fault = judged(Path(line.strip()))
        told = {
            "said": said,
            "fault": fault,
            "seconds": round(time.monotonic() - begun, 3),
            "peak_mib": _kib("VmHWM") // 1024,
        }
        print(json.dumps(told), flush=True)


def judged(folder: Path) -> tuple[str, str]:
    """What is said of a series, and where an error came from that has no place there."""
    paths = sorted(folder.iterdir())
    try:
        try:
            facts = read_series_facts(paths[0], len(paths))
            select("fistula", [facts])
            check_headers(facts, "fistula")
        except (BadAttribute, UnusableStudy):
            pass  # a worker would stop here; what comes after is to be reached all the same
        volume = read_volume(paths)
        check_volume(volume, "fistula")
    except UnusableStudy as refusal:
        return refusal.reason.value, _unaddressed(paths, refusal)
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return "fault", _place(error)
    return "read", ""


def _unaddressed(paths: list[Path], refusal: UnusableStudy) -> str:
    """Write the refusal as objects; what went wrong with that, or an empty text."""
    try:
        headers = read_headers(paths)
        if headers:
            created = datetime(2026, 1, 1, tzinfo=UTC)
            outcome = NotJudged(
                LINEAGE, created, headers, refusal, predecessors=(), options=Options()
            )
            encoder = Encoder()
            for each in objects(outcome):
                encoder.encode(each.dataset)
    except Exception as error:  # noqa: BLE001 - likewise
        return f"refusal: {_place(error)}"
    return ""


def _place(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)
    ours = [each for each in last if "/worker/" in each.filename or "/listener/" in each.filename]
    places = " < ".join(f"{each.name}:{each.lineno}" for each in (*ours[-2:], last[-1]))
    return f"{type(error).__name__}: {str(error)[:150]} in {places}"


def _kib(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0
