"""When the loops of this process last came round, and which of its threads still live."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

ROUND_SECONDS: Final = 120.0
"""A loop that did not come round for so long hangs, or has more to do than it can."""


@dataclass(frozen=True)
class Check:
    """Whether one part of monro is well, and what was seen of it."""

    name: str
    ok: bool
    detail: str


class Pulse:
    """Loops touch it, and tell what else can be looked at.

    Args:
        clock: seconds of a clock that only goes forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._touched: dict[str, float] = {}
        self._limits: dict[str, float] = {}
        self._lives: dict[str, Callable[[], str]] = {}

    def expect(self, loop: str, within_seconds: float = ROUND_SECONDS) -> None:
        """A loop begins, and touches from now on at least so often."""
        with self._lock:
            self._limits[loop] = within_seconds
            self._touched[loop] = self._clock()

    def touch(self, loop: str) -> None:
        """A loop came round."""
        with self._lock:
            self._touched[loop] = self._clock()

    def watch(self, part: str, trouble: Callable[[], str]) -> None:
        """Ask a part for what is the matter with it, whenever somebody looks; empty: nothing."""
        with self._lock:
            self._lives[part] = trouble

    def watch_thread(self, thread: threading.Thread) -> None:
        """A thread is to live as long as the process does."""
        self.watch(thread.name, lambda: "" if thread.is_alive() else "its thread ended")

    def ages(self) -> Mapping[str, float]:
        """Seconds since each loop came round."""
        now = self._clock()
        with self._lock:
            return {name: now - at for name, at in self._touched.items()}

    def checks(self) -> list[Check]:
        """How each part is."""
        ages = self.ages()
        with self._lock:
            limits, lives = dict(self._limits), dict(self._lives)
        loops = [
            Check(
                name, ages[name] <= limit, f"came round {ages[name]:.1f} s ago, {limit:g} allowed"
            )
            for name, limit in limits.items()
        ]
        parts = [_check(name, trouble()) for name, trouble in lives.items()]
        return [*loops, *parts]


def _check(name: str, trouble: str) -> Check:
    return Check(name, not trouble, trouble or "lives")
