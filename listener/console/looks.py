"""Who looked at which study lately: the audit trail is told once, not for each slice."""

import threading
import time
from collections import OrderedDict
from typing import Final

LATELY_SECONDS: Final = 600.0
MOST_REMEMBERED: Final = 10_000


class Looks:
    """Remembers looks for ten minutes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def is_new(self, account: str, study_uid: str) -> bool:
        """Whether nobody was told of this account's look at this study lately; remembers it."""
        key, now = (account, study_uid), time.monotonic()
        with self._lock:
            told = self._told.get(key)
            if told is not None and now - told < LATELY_SECONDS:
                return False
            self._told[key] = now
            self._told.move_to_end(key)
            while len(self._told) > MOST_REMEMBERED:
                self._told.popitem(last=False)
        return True
