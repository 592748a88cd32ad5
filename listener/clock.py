"""Times of the ledger, where somebody may set the clock of the machine.

The ledger holds times since the epoch: hosts share them, and they survive a restart. But such a
clock may be set back, and then what was written down lies in the future; or forward, and then every
heart seems to have stopped. The monotonic clock of the system tells, for it is never set.
"""

import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import ColumnElement, or_

AHEAD_SECONDS: Final = 60.0
"""How far the clocks of hosts that share a ledger may differ: what is later was written by a clock
that was set back since."""

JUMP_SECONDS: Final = 5.0
"""A clock that is only adjusted does not gain or lose this much between two looks."""

LONGEST_PAUSE_SECONDS: Final = 24 * 3600.0
"""No pause of ours is longer, unless a setting says so."""


def since(then: float, now: float) -> float:
    """Seconds that went by; without end since a time that the clock was set back from.

    >>> since(100, 130), since(100, 90), since(10_000, 90)
    (30, -10, inf)
    """
    return now - then if then <= now + AHEAD_SECONDS else float("inf")


def is_due(
    at: ColumnElement[float], now: float, longest_seconds: float = LONGEST_PAUSE_SECONDS
) -> ColumnElement[bool]:
    """Whether a time has come, or lies further ahead than any pause could have put it."""
    return or_(at <= now, is_ahead(at, now, longest_seconds))


def is_ahead(at: ColumnElement[float], now: float, longest_seconds: float) -> ColumnElement[bool]:
    """Whether a time lies further ahead than a pause of this length could have put it."""
    return at > now + longest_seconds + AHEAD_SECONDS


class Jumps:
    """Notices when the clock of this machine was set, or stood still while time went on.

    Args:
        clock: seconds since the epoch.
        steady: seconds since any moment, by a clock that nobody sets; None: the system's for the
            system's clock, and none for another.
    """

    def __init__(
        self, clock: Callable[[], float], steady: Callable[[], float] | None = None
    ) -> None:
        self._clock = clock
        self._steady = steady or (time.monotonic if clock is time.time else clock)
        self._apart = self._clock() - self._steady()
        self._seen_at: float | None = None

    def within(self, seconds: float) -> bool:
        """Whether the clock was found to have jumped no longer ago than this. Call it often."""
        now = self._steady()
        apart = self._clock() - now
        if abs(apart - self._apart) > JUMP_SECONDS:
            self._seen_at = now
        self._apart = apart
        return self._seen_at is not None and now - self._seen_at < seconds
