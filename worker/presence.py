"""Tells the ledger that this worker lives, what it holds, and how full its device is."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import torch

from listener.errors import where
from listener.ledger import Ledger, this_process
from listener.workforce import BEAT_SECONDS, Held, Worker, Workforce

log = logging.getLogger(__name__)

STATM: Final = Path("/proc/self/statm")
"""proc(5): sizes in pages; the second is what is resident."""


class Presence(threading.Thread):
    """A heart that beats while this process works; a clean stop takes the row away.

    Args:
        ledger: that is told.
        device: where networks run.
        editions: bundles held at present.
        troubles: what is wrong with bundles at present.
        beat_seconds: pause between beats.
    """

    def __init__(
        self,
        ledger: Ledger,
        device: str,
        editions: Callable[[], Sequence[Held]],
        troubles: Callable[[], Sequence[str]] = tuple,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        super().__init__(name="presence", daemon=True)
        self._ledger, self._workforce = ledger, Workforce(ledger)
        self._device, self._editions, self._troubles = device, editions, troubles
        self._beat_seconds = beat_seconds
        self._started_at = ledger.now
        self._over = threading.Event()

    def __enter__(self) -> Self:
        """Begin to beat; the first beat is written when this returns."""
        self._beat()
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop, and say so."""
        self._over.set()
        self.join()
        try:
            self._workforce.leave(this_process())
        except Exception as error:  # noqa: BLE001 - the row is forgotten by itself within a minute
            log.warning("the ledger was not told that this worker stopped: %s", where(error))

    def run(self) -> None:
        """Beat until stopped."""
        while not self._over.wait(self._beat_seconds):
            self._beat()

    def _beat(self) -> None:
        try:
            self._workforce.beat(
                Worker(
                    this_process(),
                    self._started_at,
                    self._ledger.now,
                    self._device,
                    self._editions(),
                    device_memory(self._device),
                    self._troubles(),
                )
            )
        except Exception as error:  # noqa: BLE001 - this thread must outlive whatever it meets
            log.warning("the ledger did not take a sign of life: %s", where(error))


def device_memory(device: str) -> Mapping[str, int]:
    """Bytes `used` and `total`: of a GPU by all processes; without one, this process's and all."""
    if torch.device(device).type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return {"used": total - free, "total": total}
    page = os.sysconf("SC_PAGE_SIZE")
    resident = int(STATM.read_text().split()[1])
    return {"used": resident * page, "total": os.sysconf("SC_PHYS_PAGES") * page}
