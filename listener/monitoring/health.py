"""Does the process live, and could it take a study now and answer it? Each is tried, not believed.

Liveness asks whether loops and processes do their work: who fails that is to be started anew.
Readiness asks for all that a study needs on its way as well: a ledger that takes rows, a spool with
room, a broker, a worker with the bundle. Starting anew mends none of these.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import update

from listener.audit.trail import Audit
from listener.dispatch import broker_answers
from listener.errors import MonroError
from listener.ledger import Ledger
from listener.monitoring.pulse import ROUND_SECONDS, Check, Pulse
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import schema
from listener.workforce import without_a_worker

PATIENCE_SECONDS: Final = 5.0
"""For all that is tried, at the same time: who asks waits for some ten seconds."""

REMEMBERED_SECONDS: Final = 2.0
"""Anybody may ask, and each look writes and syncs: it is not done more often than this."""

WHOLE_ROUND: Final = "steward round"
"""What the steward touches when nothing cut its round short."""


class NotWell(Exception):
    """Something was tried and did not succeed."""


class Probe:
    """Tries something that may hang for ever, as a disk behind a network does.

    Args:
        name: of what is tried.
        look: says what it saw, or raises.
    """

    def __init__(self, name: str, look: Callable[[], str]) -> None:
        self._name, self._look = name, look
        self._thread: threading.Thread | None = None
        self._begun = 0.0
        self._found = Check(name, False, "not tried yet")

    def begin(self) -> None:
        """Try, unless an earlier try still hangs."""
        if self._thread is None or not self._thread.is_alive():
            self._begun = time.monotonic()
            self._thread = threading.Thread(
                target=self._try, name=f"probe-{self._name}", daemon=True
            )
            self._thread.start()

    def found(self, until: float) -> Check:
        """What came of it, waited for until then by the monotonic clock."""
        assert self._thread is not None, "begin() comes first"
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            waited = time.monotonic() - self._begun
            return Check(self._name, False, f"has not answered for {waited:.0f} s")
        return self._found

    def _try(self) -> None:
        try:
            self._found = Check(self._name, True, self._look())
        except (NotWell, MonroError) as error:
            self._found = Check(self._name, False, str(error))
        except OSError as error:
            self._found = Check(self._name, False, error.strerror or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not well
            self._found = Check(self._name, False, type(error).__name__)


class Health:
    """Whether the listener lives and is ready.

    Args:
        settings: of the listener.
        ledger: is written to.
        spool: is written to.
        audit: is asked.
        pulse: of the listener's own loops and processes.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        ledger: Ledger,
        spool: Spool,
        audit: Audit,
        pulse: Pulse,
    ) -> None:
        self._settings, self._ledger, self._spool = settings, ledger, spool
        self._audit, self._pulse = audit, pulse
        looks = {
            "ledger": self._ledger_takes_a_write,
            "spool": self._spool_takes_a_file,
            "broker": self._broker_answers,
            "audit trail": self._audit_goes_on,
            "workers": self._workers_hold_the_bundles,
        }
        self._probes = [Probe(name, look) for name, look in looks.items()]
        self._lock = threading.Lock()
        self._found: list[Check] = []
        self._at = -REMEMBERED_SECONDS

    def liveness(self) -> list[Check]:
        """How the loops and processes are."""
        return self._pulse.checks()

    def readiness(self) -> list[Check]:
        """How all is that a study needs; what is tried, as it was two seconds ago at most."""
        with self._lock:
            if time.monotonic() - self._at >= REMEMBERED_SECONDS:
                self._found = self._try()
                self._at = time.monotonic()
            tried = self._found
        return [*self.liveness(), self._steward_succeeds(), *tried]

    def _try(self) -> list[Check]:
        for probe in self._probes:
            probe.begin()
        until = time.monotonic() + PATIENCE_SECONDS
        return [probe.found(until) for probe in self._probes]

    def _steward_succeeds(self) -> Check:
        age = self._pulse.ages().get(WHOLE_ROUND)
        if age is None:
            return Check(WHOLE_ROUND, False, "none came to its end yet")
        ok = age <= ROUND_SECONDS
        return Check(WHOLE_ROUND, ok, f"one came to its end {age:.1f} s ago")

    def _ledger_takes_a_write(self) -> str:
        with self._ledger.writing() as connection:
            connection.execute(update(schema).values(version=schema.c.version))
        return "takes a write"

    def _spool_takes_a_file(self) -> str:
        self._spool.check(self._settings.room_for_study)
        return f"takes a file, {self._spool.free_bytes():,} bytes free"

    def _broker_answers(self) -> str:
        if not broker_answers(self._settings.broker):
            raise NotWell("does not answer; jobs wait in the ledger")
        return "answers"

    def _audit_goes_on(self) -> str:
        trouble = self._audit.trouble()
        if trouble:
            raise NotWell(trouble)
        return "is written"

    def _workers_hold_the_bundles(self) -> str:
        lacking = without_a_worker(self._ledger, self._settings.analyses)
        if lacking:
            raise NotWell(f"none lives that holds the active bundle for {', '.join(lacking)}")
        return f"live for {', '.join(self._settings.analyses)}"


def is_well(checks: Sequence[Check]) -> bool:
    """Whether all of them are."""
    return all(check.ok for check in checks)
