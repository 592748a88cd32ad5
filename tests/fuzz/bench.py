"""Hands hostile series to a worker's reading, with a watchdog beside it."""

import json
import random
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from tests.fuzz.images import one

# A header of as many items as are allowed takes 15 s of CPU time, and the machine may be busy.
MOST_SECONDS: Final = 240.0
START_SECONDS: Final = 120.0
MOST_MEMORY_MIB: Final = 2500.0


@dataclass
class Findings:
    """What became of all series.

    Attributes:
        answers: codes of reasons, and how often each was given.
        faults: what was not as it should be, with the number of the series.
    """

    inputs: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    peak_mib: float = 0.0
    slowest_seconds: float = 0.0


class Subject:
    """The process that reads; it is started anew when it is gone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, folder: Path) -> dict[str, Any] | None:
        """What is said of a series; None if the process died of it, or took too long."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.subject"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                bufsize=1,
            )
            assert self._answer(START_SECONDS) == {"ready": True}, "the subject did not start"
        _pipe(self._process.stdin).write(f"{folder}\n")
        return self._answer(MOST_SECONDS)

    def end(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        assert self._process is not None
        output = _pipe(self._process.stdout)
        ready, _, _ = select.select([output], [], [], seconds)
        line = output.readline() if ready else ""
        if not line:
            self.end()
            return None
        found: dict[str, Any] = json.loads(line)
        return found


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@contextmanager
def subject() -> Iterator[Subject]:
    """A process for as long as it is needed."""
    found = Subject()
    try:
        yield found
    finally:
        found.end()


def judge(numbers: range, seed: int, folder: Path, findings: Findings) -> None:
    """Let numbered series of a seed be read."""
    begun = time.monotonic()
    with subject() as reader:
        for number in numbers:
            family, files = one(random.Random(f"{seed}:{number}"))
            place = folder / "series"
            place.mkdir(parents=True)
            for at, content in enumerate(files):
                (place / f"{at:03}.dcm").write_bytes(content)
            _note(findings, f"series {number} ({family})", reader.ask(place), family == "sound")
            shutil.rmtree(place)
            if (number + 1) % 500 == 0:
                print(
                    f"{number + 1} series, {time.monotonic() - begun:.0f} s, "
                    f"{len(findings.faults)} fault(s), {findings.peak_mib:.0f} MiB",
                    file=sys.stderr,
                    flush=True,
                )


def _note(findings: Findings, which: str, told: dict[str, Any] | None, is_sound: bool) -> None:
    findings.inputs += 1
    if told is None:
        findings.answers["died or hung"] += 1
        findings.faults.append(f"{which}: the process died or hung")
        return
    findings.answers[told["said"]] += 1
    if told["fault"]:
        findings.faults.append(f"{which}: {told['fault']}")
    elif is_sound and told["said"] != "read":
        findings.faults.append(f"{which}: {told['said']}, though nothing is wrong with it")
    findings.peak_mib = max(findings.peak_mib, told["peak_mib"])
    findings.slowest_seconds = max(findings.slowest_seconds, told["seconds"])
    if told["peak_mib"] > MOST_MEMORY_MIB:
        findings.faults.append(f"{which}: {told['peak_mib']} MiB")
