"""The worker processes by their hearts' last beat: who lives, and which bundles they hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, insert, select, update

from listener.ledger import Ledger
from listener.tables import workers

BEAT_SECONDS: Final = 15.0

ALIVE_SECONDS: Final = 60.0
"""Who was not heard of for so long is gone: three beats may be late."""

FORGOTTEN_SECONDS: Final = 24 * 3600.0

STAGE_BOUNDS: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds, of histograms of where a job's time goes: a map takes from seconds to an hour."""

Held = tuple[str, str, str]
"""Analysis, digest of the weights and version of a bundle that a worker holds."""


@dataclass(frozen=True)
class Worker:
    """One worker process.

    Attributes:
        name: host and process, as `this_process` has it.
        started_at: when its heart began to beat.
        seen_at: when it beat last.
        device: where its networks run.
        editions: bundles that it holds.
        troubles: what is wrong with its bundles, in words.
        memory: bytes of its device, `used` and `total`; empty where that is not known.
    """

    name: str
    started_at: float
    seen_at: float
    device: str
    editions: Sequence[Held]
    memory: Mapping[str, int]
    troubles: Sequence[str] = ()


def bundle_label(version: str, weights_sha256: str) -> str:
    """How a bundle is called in figures: a version may be published again with other weights."""
    return f"{version} {weights_sha256[:8]}"


class Workforce:
    """The table of workers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def beat(self, worker: Worker) -> None:
        """Write down that a worker lives, and forget those that have not for a day."""
        row = {
            "started_at": worker.started_at,
            "seen_at": worker.seen_at,
            "device": worker.device,
            "editions": [list(each) for each in worker.editions],
            "troubles": list(worker.troubles),
            "memory": dict(worker.memory) or None,
        }
        with self._ledger.writing() as connection:
            this = workers.c.name == worker.name
            if not connection.execute(update(workers).where(this).values(**row)).rowcount:
                connection.execute(insert(workers).values(name=worker.name, **row))
            horizon = self._ledger.now - FORGOTTEN_SECONDS
            connection.execute(delete(workers).where(workers.c.seen_at < horizon))

    def leave(self, name: str) -> None:
        """A worker stopped in order."""
        with self._ledger.writing() as connection:
            connection.execute(delete(workers).where(workers.c.name == name))

    def known(self) -> list[Worker]:
        """All that are not forgotten, by name."""
        with self._ledger.reading() as connection:
            return [
                Worker(
                    row.name,
                    row.started_at,
                    row.seen_at,
                    row.device,
                    [(analysis, weights, version) for analysis, weights, version in row.editions],
                    row.memory or {},
                    tuple(row.troubles),
                )
                for row in connection.execute(select(workers).order_by(workers.c.name))
            ]

    def alive(self) -> list[Worker]:
        """Those that were heard of lately."""
        horizon = self._ledger.now - ALIVE_SECONDS
        return [each for each in self.known() if each.seen_at >= horizon]

    def held(self) -> frozenset[Held]:
        """What they hold."""
        return frozenset(edition for worker in self.alive() for edition in worker.editions)


def without_a_worker(ledger: Ledger, analyses: Iterable[str]) -> list[str]:
    """Analyses whose active bundle no living worker holds, or that have none."""
    held = Workforce(ledger).held()
    lacking = []
    for analysis in analyses:
        bundle = ledger.active_bundle(analysis)
        if bundle is None or (analysis, *bundle.edition) not in held:
            lacking.append(analysis)
    return lacking
