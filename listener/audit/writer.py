"""Makes and writes messages behind everybody's back.

While the file or the disk is away they wait in memory; what finds no room there is counted, and the
count is told once there is room again, or at the end.
"""

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from listener.audit.message import Message, Origin
from listener.audit.patient import Patient
from listener.errors import where

log = logging.getLogger(__name__)

WAITING_MESSAGES: Final = 10_000
"""In memory while they cannot be written: some 20 MB."""

RETRY_SECONDS: Final = 2.0


class Target(Protocol):
    """Where messages are written."""

    def check(self) -> None:
        """Raise OSError where nothing can be written at present."""

    def write(self, message: Message, xml: str) -> None:
        """Write one message; raises OSError when it was not written."""


@dataclass(frozen=True)
class Draft:
    """A message whose patient is still to be asked for."""

    message: Message
    patient: Callable[[], Patient] | None = None


class Writer:
    """A queue in front of a target, and the thread that empties it.

    Args:
        target: of the messages.
        origin: that they name.
        finish: puts the patient into a draft; raises OSError where that cannot be done at present.
        own_up: the message that says how many were dropped.
        room: messages that may wait.
    """

    def __init__(
        self,
        target: Target,
        origin: Origin,
        finish: Callable[[Draft], Message],
        own_up: Callable[[str], Message],
        room: int = WAITING_MESSAGES,
    ) -> None:
        self._target, self._origin = target, origin
        self._finish, self._own_up = finish, own_up
        self._queue: queue.Queue[Draft | None] = queue.Queue(room)
        self._lock = threading.Lock()
        self._dropped = 0
        self._is_away = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, draft: Draft) -> None:
        """Write this soon."""
        try:
            self._queue.put_nowait(draft)
        except queue.Full:
            self._drop()

    def close(self) -> None:
        """Write what is left, then stop; what cannot be written now is dropped, and told of."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join()

    def _drop(self) -> None:
        with self._lock:
            self._dropped += 1

    def _run(self) -> None:
        while (draft := self._queue.get()) is not None:
            try:
                if self._write(draft):
                    self._confess()
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever it meets
                log.error("an audit message was not written: %s", where(error))
                self._drop()
        self._confess()

    def _write(self, draft: Draft) -> bool:
        """Write a message however long it takes; False: it was dropped, the process ends."""
        while True:
            is_last_try = self._closing.is_set()
            try:
                message = self._finish(draft)
                self._target.write(message, message.xml(self._origin))
                break
            except OSError as error:
                self._complain(error)
            if is_last_try:
                self._drop()
                return False
            self._closing.wait(RETRY_SECONDS)
        if self._is_away:
            log.warning("the audit trail is written again")
            self._is_away = False
        return True

    def _complain(self, error: OSError) -> None:
        if not self._is_away:
            log.error(
                "the audit trail cannot be written (%s: %s); up to %d messages wait in memory",
                error.filename,
                error.strerror,
                self._queue.maxsize,
            )
            self._is_away = True

    def _confess(self) -> None:
        """Say what was dropped: in the log, and in the trail if it can be written."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            text = f"{dropped} audit message(s) were dropped; the log of the listener says why"
            log.error(text)
            message = self._own_up(text)
            with suppress(OSError):
                self._target.write(message, message.xml(self._origin))
