"""Pauses between attempts that never end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Pauses that double up to a cap."""

    first_seconds: float
    cap_seconds: float

    def pause(self, attempts: int) -> float:
        """Pause after that many failed attempts.

        >>> [Backoff(5, 600).pause(attempts) for attempts in (1, 2, 3, 20)]
        [5.0, 10.0, 20.0, 600]
        """
        return min(self.cap_seconds, self.first_seconds * 2.0 ** min(attempts - 1, 30))
