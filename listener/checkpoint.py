"""Who asks over an association gets the answer, whoever else reads that association.

pynetdicom's reactor, the thread of an association, looks for requests of the peer. It is stopped at
a checkpoint while a `send_...` method of another thread waits for an answer. But between passing
the checkpoint and saying that it has (`_is_paused`), the reactor counts as stopped: the system may
let the other thread send just then, and the reactor takes the answer for a request, drops it with
a warning, and the sender waits until its patience ends. On a busy machine that happens.
"""

from threading import Event, Lock
from typing import Any, cast

from pynetdicom.association import Association


class Checkpoint(Event):
    """Stands open until somebody asks; who passes says so before anybody can close it."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association: Any = association
        self._passing = Lock()
        self.set()

    def clear(self) -> None:
        """Close it: whoever is not said to be stopped comes to it once more."""
        with self._passing:
            super().clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Pass when it is open; False if it stays closed for so many seconds."""
        while super().wait(timeout):
            with self._passing:
                if self.is_set():
                    self._association._is_paused = False
                    return True
        return False


def guard_answers(association: Association) -> None:
    """Give an association, before it is negotiated, a checkpoint that holds."""
    cast(Any, association)._reactor_checkpoint = Checkpoint(association)
