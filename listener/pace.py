"""How long somebody may take to send: as long as it comes at a pace, and not by a drop a minute."""

from time import monotonic
from typing import Final, Self

from listener.settings import ListenerSettings

PROGRESS_TIMEOUTS: Final = 10
"""So many time-outs may pass until something has come, however many bytes come between them."""


class Pace:
    """The time of one association or request, which what comes prolongs.

    Args:
        seconds: to begin with.
        least_rate: bytes that another second is granted for.
    """

    def __init__(self, seconds: float, least_rate: float) -> None:
        self._until = monotonic() + seconds
        self._least_rate = least_rate

    @classmethod
    def of_sender(cls, settings: ListenerSettings) -> Self:
        """What whoever sends to us has to keep up."""
        seconds = PROGRESS_TIMEOUTS * settings.association_timeout_seconds
        return cls(seconds, settings.least_rate)

    def note(self, size: int) -> None:
        """So many bytes came."""
        self._until += size / self._least_rate

    @property
    def seconds_left(self) -> float:
        """How long the rest may take; less than 0 when it came too slowly."""
        return self._until - monotonic()
