"""Who and what was turned away at the door, by reason, since the listener's start.

The disk may be full when that happens, and the ledger may lie on it. So these are counted in memory
that all processes of a listener share: each in a row of its own, which its successor goes on with.
"""

import threading
from collections.abc import Mapping, MutableSequence
from enum import StrEnum
from multiprocessing.sharedctypes import RawArray
from typing import Final, Literal

What = Literal["association", "instance"]


class Service(StrEnum):
    """How something was to come in."""

    DIMSE = "DIMSE"
    STOW = "STOW-RS"
    FETCHED = "fetched"
    """By C-GET or WADO-RS, from a source that we asked."""


class Reason(StrEnum):
    """Why it was not let in."""

    CONTEXT = "application context"
    CALLED = "called AE title"
    UNKNOWN = "unknown sender"
    ENOUGH = "sender has too many"
    BUSY = "too many"
    FULL = "spool full"
    TLS = "TLS failed"
    NOT_AGREED = "class not agreed"
    MALFORMED = "malformed"
    INTERNAL = "internal"


Kind = tuple[What, Service, Reason]

OF_DIMSE: Final = (
    Reason.CONTEXT, Reason.CALLED, Reason.UNKNOWN, Reason.ENOUGH, Reason.BUSY, Reason.FULL,
    Reason.TLS, Reason.INTERNAL,
)  # fmt: skip
OF_STOW: Final = (
    Reason.UNKNOWN, Reason.ENOUGH, Reason.BUSY, Reason.FULL, Reason.MALFORMED, Reason.INTERNAL,
)  # fmt: skip
OF_INSTANCES: Final = (Reason.FULL, Reason.NOT_AGREED, Reason.MALFORMED, Reason.INTERNAL)

KINDS: Final[tuple[Kind, ...]] = (
    *(("association", Service.DIMSE, reason) for reason in OF_DIMSE),
    *(("association", Service.STOW, reason) for reason in OF_STOW),
    *(("instance", service, reason) for service in Service for reason in OF_INSTANCES),
)
"""All that there is; a request of STOW-RS counts as an association."""


class TurnedAway:
    """The counts of all processes of a listener.

    Args:
        processes: how many count.
    """

    def __init__(self, processes: int) -> None:
        self._counts = RawArray("Q", processes * len(KINDS))

    def clicker(self, process: int) -> "Clicker":
        """What one of the processes counts with, numbered from 0."""
        return Clicker(self._counts, process * len(KINDS))

    def of_process(self, process: int) -> Mapping[Kind, int]:
        """What one of them counted; kinds that never were are 0."""
        start = process * len(KINDS)
        return dict(zip(KINDS, self._counts[start : start + len(KINDS)], strict=True))

    @property
    def totals(self) -> Mapping[Kind, int]:
        """Of all processes."""
        width = len(KINDS)
        return {kind: sum(self._counts[at::width]) for at, kind in enumerate(KINDS)}


class Clicker:
    """Counts for one process, in all of its threads.

    Args:
        counts: of all processes.
        start: where those of this one begin.
    """

    def __init__(self, counts: MutableSequence[int], start: int) -> None:
        self._counts, self._start = counts, start
        self._lock = threading.Lock()

    def association(self, service: Service, reason: Reason) -> None:
        """An association was rejected, or a request refused before its body was read."""
        self._click(("association", service, reason))

    def instance(self, service: Service, reason: Reason) -> None:
        """An instance was refused."""
        self._click(("instance", service, reason))

    def _click(self, kind: Kind) -> None:
        with self._lock:
            self._counts[self._start + KINDS.index(kind)] += 1


def nobody_looks() -> Clicker:
    """For programs whose counts are not told, such as `pull`."""
    return TurnedAway(1).clicker(0)
