"""What became of the last self-test to each destination: a small file each in the spool.

`selftest` is a program of its own, run by a timer perhaps; so the listener can tell of it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

FOLDER: Final = "selftest"


@dataclass(frozen=True)
class Outcome:
    """How a self-test ended.

    Attributes:
        destination: that its results were for.
        at: when it ended, in seconds since the epoch.
        passed: whether all arrived.
        seconds: that it took.
    """

    destination: str
    at: float
    passed: bool
    seconds: float


def write_outcome(root: Path, outcome: Outcome) -> None:
    """Keep it in place of the last one.

    Args:
        root: of the spool.
        outcome: to keep.

    Raises:
        OSError: it cannot be written.
    """
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    part = folder / f"{token_hex(8)}.part"
    part.write_text(json.dumps(asdict(outcome)))
    part.replace(folder / f"{outcome.destination}.json")


def read_outcomes(root: Path) -> list[Outcome]:
    """The last one of each destination; what cannot be read is left out."""
    found = []
    for path in sorted((root / FOLDER).glob("*.json")):
        try:
            found.append(Outcome(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return found
