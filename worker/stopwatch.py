"""Where the time of a job goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Where the time of a job goes, in seconds per step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; one that is entered again adds up."""
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)
