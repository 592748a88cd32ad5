"""The figures that Prometheus scrapes, in its words. No label holds a UID or anything of a patient.

What counts up is read from the ledger (tallies.py), so it is the same after a restart. Two kinds
count from the listener's start: the time from a study's last instance to its completion, as the
ledger keeps only the last one of a study that went on; and what was turned away at the door, of
which nothing is written down (turned_away.py).
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from listener.errors import where
from listener.ledger import Ledger
from listener.monitoring.completions import Completions
from listener.monitoring.figures import look
from listener.monitoring.health import Health
from listener.monitoring.pulse import Check
from listener.monitoring.selftests import read_outcomes
from listener.monitoring.tallies import FinishedJobs
from listener.monitoring.telling import (
    gauge,
    histogram,
    of_figures,
    of_tallies,
    of_turned_away,
    one,
)
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.turned_away import TurnedAway

log = logging.getLogger(__name__)

REMEMBERED_SECONDS: Final = 10.0
"""Whoever asks more often is told the same again."""

SHARE_OF_TIME: Final = 10
"""A look that took long is repeated after so many times as long, so that it costs a tenth."""


class ListenerCollector(Collector):
    """All figures of one listener.

    Args:
        settings: of the listener.
        ledger: to look at.
        spool: whose disk is looked at.
        health: whose checks are told as figures, too.
        turned_away: at the door, by all processes of the listener.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        ledger: Ledger,
        spool: Spool,
        health: Health,
        turned_away: TurnedAway,
    ) -> None:
        self._turned_away = turned_away
        self._settings, self._ledger, self._spool, self._health = settings, ledger, spool, health
        self._finished = FinishedJobs(ledger)
        self._completions = Completions(ledger)
        self._lock = threading.Lock()
        self._looked_at = self._due_at = 0.0
        self._told: list[Metric] = []

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry would otherwise look at everything once when it takes this."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every figure; those of the ledger as they were a few seconds ago."""
        begun = time.monotonic()
        yield gauge("monro_build_info", "What runs.", ("version",), {(version("monro"),): 1})
        yield from _of_disk(self._spool, self._settings)
        yield from _of_checks("healthz", self._health.liveness())
        yield from _of_checks("readyz", self._health.readiness())
        yield from _of_selftests(self._spool)
        yield from of_turned_away(self._turned_away.totals)
        with self._lock:
            ok = self._refresh()
            yield from self._told
            if self._told:
                age = time.monotonic() - self._looked_at
                yield one("monro_figures_age_seconds", "Age of what the ledger said.", age)
        yield one("monro_ledger_answers", "Whether the ledger was read for this.", float(ok))
        took = time.monotonic() - begun
        yield one("monro_scrape_duration_seconds", "Time that these figures took.", took)

    def _refresh(self) -> bool:
        """Look at the ledger if that is due; False: it does not answer, and nothing of it is told.

        What it said some time ago is not told: a figure that stands still looks like one that is
        well.
        """
        if time.monotonic() < self._due_at:
            return True
        begun = time.monotonic()
        try:
            self._finished.read()
            self._completions.read()
            figures = look(self._ledger, self._settings.analyses)
        except SQLAlchemyError as error:
            log.warning("the ledger was not read for monitoring: %s", where(error))
            self._told = []
            return False
        self._told = [
            *of_figures(figures, self._settings.analyses),
            *of_tallies(self._finished.tallies, figures),
            histogram(
                "monro_study_completion_seconds",
                "From a study's last instance to its completion, since the listener's start.",
                (),
                {(): self._completions.histogram},
            ),
        ]
        self._looked_at = time.monotonic()
        took = self._looked_at - begun
        self._due_at = self._looked_at + max(REMEMBERED_SECONDS, SHARE_OF_TIME * took)
        return True


def _of_disk(spool: Spool, settings: ListenerSettings) -> Iterator[Metric]:
    try:
        free, total = spool.free_bytes(), spool.total_bytes()
    except OSError as error:
        log.warning("the spool's disk was not looked at for monitoring: %s", where(error))
        return
    yield one("monro_spool_free_bytes", "Space left on the spool's disk.", free)
    yield one("monro_spool_total_bytes", "Size of the spool's disk.", total)
    needed = settings.keep_free + settings.room_for_study
    yield one("monro_spool_needed_bytes", "With less left, senders are sent away.", needed)


def _of_checks(probe: str, checks: Iterable[Check]) -> Iterator[Metric]:
    yield gauge(
        f"monro_{probe}_check_ok",
        f"Whether a check of /{probe} is well.",
        ("check",),
        {(each.name,): float(each.ok) for each in checks},
    )


def _of_selftests(spool: Spool) -> Iterator[Metric]:
    outcomes = read_outcomes(spool.root)
    for name, words, value in (
        ("passed", "Whether the last self-test did.", lambda each: float(each.passed)),
        ("finished_timestamp_seconds", "When the last self-test ended.", lambda each: each.at),
        ("duration_seconds", "How long the last self-test took.", lambda each: each.seconds),
    ):
        told: dict[tuple[str, ...], float] = {(each.destination,): value(each) for each in outcomes}
        yield gauge(f"monro_selftest_{name}", words, ("destination",), told)
