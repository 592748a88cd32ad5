"""How long studies waited for their completion, since this process began."""

from typing import Final

from sqlalchemy import select

from listener.ledger import Ledger
from listener.monitoring.tallies import OVERLAP_SECONDS, Histogram
from listener.tables import studies

BOUNDS: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

LONGEST_SECONDS: Final = 24 * 3600.0
"""A study that waited for longer is passed over: the table is read along `last_at`."""


class Completions:
    """Reads from the ledger which studies became complete since it was read last.

    Attributes:
        histogram: seconds from the last instance on.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._begun = self._read_up_to = ledger.now
        self._seen: dict[tuple[str, int], float] = {}
        self.histogram = Histogram(BOUNDS)

    def read(self) -> None:
        """Add what is new."""
        since = max(self._begun, self._read_up_to - OVERLAP_SECONDS)
        query = select(
            studies.c.study_uid, studies.c.revision, studies.c.completed_at, studies.c.last_at
        ).where(
            studies.c.state == "COMPLETE",
            studies.c.last_at > since - LONGEST_SECONDS,
            studies.c.completed_at > since,
        )
        with self._ledger.reading() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            if (row.study_uid, row.revision) not in self._seen:
                self._seen[row.study_uid, row.revision] = row.completed_at
                self._read_up_to = max(self._read_up_to, row.completed_at)
                self.histogram.add(max(0.0, row.completed_at - row.last_at))
        horizon = self._read_up_to - OVERLAP_SECONDS
        self._seen = {which: at for which, at in self._seen.items() if at > horizon}
