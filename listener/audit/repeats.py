"""Alerts that come by the thousand, of which one in a while is enough."""

import threading
import time
from collections.abc import Callable
from typing import Final

PAUSE_SECONDS: Final = 60.0

MOST_REMEMBERED: Final = 1000
"""Strangers choose their addresses; what is forgotten is told again."""


class Repeats:
    """Counts what is passed over.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def due(self, whom: str) -> int | None:
        """Whether to tell of somebody now: how often it was passed over since; None: not now.

        >>> now = [0.0]
        >>> repeats = Repeats(lambda: now[0])
        >>> [repeats.due("10.0.0.5") for _ in range(3)]
        [0, None, None]
        >>> now[0] = 60.0
        >>> repeats.due("10.0.0.5")
        2
        """
        with self._lock:
            now = self._clock()
            told_at, passed_over = self._told.get(whom, (-PAUSE_SECONDS, 0))
            if now - told_at < PAUSE_SECONDS:
                self._told[whom] = told_at, passed_over + 1
                return None
            if len(self._told) >= MOST_REMEMBERED:
                self._told.clear()
            self._told[whom] = now, 0
            return passed_over
