"""Is everything there? What lies in the spool against what stands in the ledger, each on its own.

    received = used + not wanted + refused + quarantined + waiting

of the instances that were not purged by policy since.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import select

from listener.ledger import Ledger
from listener.spool import Spool
from listener.tables import instances

STATES: Final = ("used", "not wanted", "refused", "quarantined", "waiting")


@dataclass(frozen=True)
class StudyAccount:
    """One study.

    Attributes:
        on_disk: instances in the spool.
        states: instances per state in the ledger, without purged ones.
        purged: instances that were removed by policy.
        unknown: files that the ledger does not know of, or believes to be purged.
        missing: files that the ledger knows of and the spool does not have.
    """

    study_uid: str
    on_disk: int
    states: Mapping[str, int]
    purged: int
    unknown: tuple[Path, ...]
    missing: tuple[Path, ...]

    @property
    def received(self) -> int:
        """Instances that the ledger says are here."""
        return sum(self.states.values())

    @property
    def agrees(self) -> bool:
        """Whether spool and ledger say the same, and each instance is in one of STATES."""
        named = sum(self.states.get(state, 0) for state in STATES)
        return not self.unknown and not self.missing and self.on_disk == self.received == named


def account(spool: Spool, ledger: Ledger) -> list[StudyAccount]:
    """Count every study, by UID."""
    on_disk: dict[str, set[Path]] = defaultdict(set)
    for key, path in (*spool.received(), *spool.quarantined()):
        on_disk[key.study_uid].add(path)
    states: dict[str, Counter[str]] = defaultdict(Counter)
    known: dict[str, set[Path]] = defaultdict(set)
    purged: Counter[str] = Counter()
    columns = (
        instances.c.study_uid, instances.c.path, instances.c.state, instances.c.purged_at
    )  # fmt: skip
    with ledger.reading() as connection:
        for row in connection.execute(select(*columns)):
            if row.purged_at is not None:
                purged[row.study_uid] += 1
                continue
            states[row.study_uid][row.state] += 1
            known[row.study_uid].add(Path(row.path))
    return [
        StudyAccount(
            study_uid,
            len(on_disk[study_uid]),
            dict(states[study_uid]),
            purged[study_uid],
            unknown=tuple(sorted(on_disk[study_uid] - known[study_uid])),
            missing=tuple(sorted(known[study_uid] - on_disk[study_uid])),
        )
        for study_uid in sorted(on_disk.keys() | states.keys() | purged.keys())
    ]
