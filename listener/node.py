"""One running listener: the application entity and the loops behind it."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from listener.audit.trail import NO_AUDIT, Audit, open_audit
from listener.cautions import cautions
from listener.commitment import Herald
from listener.completion import Patience, complete_studies, plan_studies
from listener.delivery import couriers
from listener.dicomweb.server import WebServer
from listener.dispatch import Dispatcher, celery_app
from listener.entrance import open_ports
from listener.entries import Received
from listener.errors import BadAttribute, where
from listener.ledger import Ledger, this_process
from listener.monitoring.health import WHOLE_ROUND, Health
from listener.monitoring.pulse import Pulse
from listener.receivers import Receivers
from listener.retention import purge
from listener.scout import scouts
from listener.series import BROKEN
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tls import server_context
from listener.turned_away import TurnedAway
from listener.watch import Watch, has_died

log = logging.getLogger(__name__)


STEWARD = "steward"
"""The loop that completes, plans and dispatches."""

PURGE_SECONDS = 600.0
"""Pause between looks at what may go: days are counted, not seconds."""


class Server(Protocol):
    """What is served at a port of its own, beside DICOM."""

    @property
    def is_alive(self) -> bool:
        """Whether it answers."""

    def start(self) -> None:
        """Begin to answer, or begin anew."""

    def stop(self) -> None:
        """Answer no more."""


class Node:
    """Receives, completes, plans, dispatches and delivers until it is stopped.

    Every loop may die and start anew at any point: what it does next is read from the
    ledger, and the ledger from the spool. Of several listeners that share both, one has the watch
    (watch.py): it does what is done once for all; the others receive, and stand by.

    Attributes:
        pulse: how its loops, threads and processes are.
        turned_away: at the door, by all its processes.
    """

    def __init__(self, settings: ListenerSettings) -> None:
        self._settings = settings
        self.spool = Spool(settings.spool, settings.keep_free)
        self.ledger = Ledger(settings.ledger_url)
        self.spool.sha256_at = self.ledger.sha256_at
        self._dispatcher = Dispatcher(
            celery_app(settings.broker), self.ledger, settings.resend_seconds
        )
        self._watch = Watch(self.ledger, settings.lease_seconds)
        self.pulse = Pulse()
        # The last row is that of this process, which serves STOW-RS and fetches.
        self.turned_away = TurnedAway(settings.receivers + 1)
        self._clicker = self.turned_away.clicker(settings.receivers)
        self._servers: dict[str, Server] = {}
        self._over = threading.Event()
        self._steward = threading.Thread(target=self._run, name="steward thread", daemon=True)

    def __enter__(self) -> Self:
        """Bring ledger and spool together, then start answering.

        Raises:
            CannotListen: the address or port is taken or not ours; by another listener, perhaps.
            BadSettings: certificates are of no use.
        """
        if self._settings.tls is not None:
            server_context(self._settings.tls)
        for caution in cautions(self._settings):
            log.warning("%s", caution)
        ports = open_ports(self._settings)
        self._watch.start()
        on_duty = self._watch.is_ours
        self.audit = open_audit(self._settings, forwards=True, on_duty=on_duty).start()
        self._servers = self._open_servers()
        self.spool.sweep()
        self.spool.recover(self._watch.is_alone())
        self._make_up_for(_is_gone)
        self.ledger.set_destinations([each.name for each in self._settings.destinations])
        self._couriers = couriers(self._settings, self.ledger, self.audit, on_duty)
        for courier in self._couriers:
            courier.start()
        self._scouts = scouts(
            self._settings, self.ledger, self.spool, self.audit, on_duty, self._clicker
        )
        for scout in self._scouts:
            scout.start()
        self._herald = Herald(self._settings, self.ledger, self.spool, on_duty)
        self._herald.start()
        self.receivers = Receivers(self._settings, ports, self.turned_away)
        for server in self._servers.values():
            server.start()
        self._steward.start()
        self._show_signs_of_life()
        self.audit.started()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop answering, write what is left, stop the loops."""
        self._over.set()
        self._steward.join()
        self.receivers.stop()
        for server in self._servers.values():
            server.stop()
        self._herald.stop()
        for courier in self._couriers:
            courier.stop()
        for scout in self._scouts:
            scout.stop()
        for thread in [self._herald, *self._couriers, *self._scouts]:
            thread.join()
        self.audit.stopped()
        self.audit.close()
        self._watch.stop()
        self.ledger.close()

    def _show_signs_of_life(self) -> None:
        """Tell monitoring what can be looked at."""
        self.pulse.expect(STEWARD)
        for thread in (self._watch, self._steward, self._herald, *self._couriers, *self._scouts):
            self.pulse.watch_thread(thread)
        self.pulse.watch("receivers", self.receivers.trouble)
        self.pulse.watch("ports", self.receivers.trouble_at_ports)
        for name, server in self._servers.items():
            self.pulse.watch(name, partial(_trouble_of, server))

    def _run(self) -> None:
        purged_at = -PURGE_SECONDS
        while not self._over.wait(self._settings.poll_seconds):
            self.pulse.touch(STEWARD)
            try:
                self._make_up_for_the_dead()
            except Exception as error:  # noqa: BLE001 - what else is to be done must not wait for it
                log.error("a receiver's rows come with the next round: %s", where(error))
            try:
                self._revive_servers()
                if self._watch.is_ours():
                    self._make_up_for_silent_listeners()
                    steward(self.ledger, self._dispatcher, self._settings)
                # Who stands by has come round as well: nothing more is asked of it.
                self.pulse.touch(WHOLE_ROUND)
                if self._watch.was_ours() and time.monotonic() - purged_at >= PURGE_SECONDS:
                    self.spool.sweep()
                    if self.spool.recover(alone=False):  # what could not be read before
                        rebuild(self.spool, self.ledger, self.audit)
                    purge(
                        self.spool,
                        self.ledger,
                        self._settings,
                        self.audit,
                        lambda: self.pulse.touch(STEWARD),
                    )
                    purged_at = time.monotonic()
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever it meets
                log.error("this round was cut short, the next one follows: %s", where(error))

    def _open_servers(self) -> dict[str, Server]:
        servers: dict[str, Server] = {}
        if self._settings.web_port is not None:
            servers["web service"] = WebServer(
                self._settings, self.spool, self.ledger, self.audit, self._clicker
            )
        if self._settings.console_port is not None:
            # Here, since templates and FastAPI take longer to import than all the rest.
            from listener.console.server import ConsoleServer  # noqa: PLC0415
            from listener.monitoring.routes import routes  # noqa: PLC0415

            parts = (self._settings, self.ledger, self.spool, self.audit)
            health = Health(*parts, self.pulse)
            asked = routes(*parts[:3], health, self.turned_away)
            servers["console"] = ConsoleServer(*parts, asked, health.readiness)
        return servers

    def _revive_servers(self) -> None:
        for name, server in self._servers.items():
            if not server.is_alive:
                log.error("the %s died and is started again", name)
                try:
                    server.start()
                except Exception as error:  # noqa: BLE001 - studies must not wait for it
                    log.error("the %s did not start: %s", name, where(error))

    def _make_up_for_the_dead(self) -> None:
        """Receivers that died, and those of a killed listener that outlived it for a while."""
        self.receivers.replace_dead()
        gone = self.receivers.gone | set(filter(has_died, self.ledger.serving()))
        if gone:
            self._make_up_for(gone.__contains__)
            self.receivers.gone -= gone

    def _make_up_for_silent_listeners(self) -> None:
        """Listeners that were killed, or whose host was."""
        silent = self._watch.silent()
        if silent:
            log.error("made up for what died with %s", ", ".join(sorted(silent)))
            self._make_up_for(self._watch.is_gone_with(silent))
            self._watch.forget(silent)

    def _make_up_for(self, is_gone: Callable[[str], bool]) -> None:
        """Bring back what died with processes between disk, ledger and audit trail."""
        self.spool.recover(alone=False)
        rebuild(self.spool, self.ledger, self.audit)
        # Last: who died is found by its associations, should the above have to be done again.
        for study_uid in sorted(self.ledger.forget_associations_of(is_gone)):
            self.audit.cut_off(study_uid, self.ledger.path_of(study_uid))


def _trouble_of(server: Server) -> str:
    return "" if server.is_alive else "its thread ended"


def steward(ledger: Ledger, dispatcher: Dispatcher, settings: ListenerSettings) -> None:
    """One round of what must happen by itself: complete, plan, reclaim, dispatch."""
    now = ledger.now
    complete_studies(ledger, Patience.from_settings(settings), now)
    for job_id in ledger.reclaim(settings.lease_seconds):
        log.warning("job %s: its worker stopped answering; it was taken back", job_id)
    ledger.supersede_unwanted()
    plan_studies(ledger, settings.analyses)
    dispatcher.ring(now)


def rebuild(spool: Spool, ledger: Ledger, audit: Audit = NO_AUDIT) -> int:
    """Record every instance that is in the spool and not in the ledger; returns how many.

    This is how rows come back that died with a process between disk and ledger. A file that cannot
    be read keeps no other from being recorded: it is logged, and `account` names it.
    """
    missing, unreadable = _unrecorded(spool, ledger)
    # As they came: of two that have the same UID, the first counts.
    missing.sort(key=lambda each: each.at)
    ledger.record(missing)
    for study_uid, path in {each.held.key.study_uid: each.held.path for each in missing}.items():
        audit.cut_off(study_uid, path)
    for each in missing:
        if spool.is_torn(each.held.path):
            log.error(
                "%s was recorded, but ends within an element: if it did not come like that, move "
                "it out of the spool and send it again",
                spool.named(each.held.path),
            )
    if missing:
        log.warning("recorded %d instance(s) that only the spool knew of", len(missing))
    for path, reason in unreadable.items():
        log.error(
            "%s is in the spool, but not in the ledger, and cannot be read (%s): send it again",
            spool.named(path),
            reason,
        )
    return len(missing)


def _unrecorded(spool: Spool, ledger: Ledger) -> tuple[list[Received], dict[Path, str]]:
    """What the ledger does not know: instances, and why the others cannot be read."""
    known: set[Path] = set()
    study_uid = None
    missing, unreadable = [], {}
    for key, path in (*spool.received(), *spool.quarantined()):
        if key.study_uid != study_uid:
            study_uid, known = key.study_uid, ledger.known(key.study_uid)
        if path in known:
            continue
        try:
            held = spool.held(key, path)
        except FileNotFoundError:
            continue  # purged meanwhile
        except (BadAttribute, *BROKEN) as error:
            unreadable[path] = where(error)
        else:
            missing.append(Received(held, None, held.written_at))
    return missing, unreadable


def _is_gone(process: str) -> bool:
    """Whether a process of an earlier listener is; one that had our number must be."""
    return process == this_process() or has_died(process)
