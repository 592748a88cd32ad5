"""Is everything there? What lies in the spool against what stands in the ledger, each on its own.

    received = used + not wanted + refused + quarantined + waiting

of the instances that were not purged by policy since. What lies beside them is named as well: what
is on its way to its name, and what was set aside because it was sent again.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import select

from listener.errors import BadAttribute
from listener.ledger import Ledger
from listener.series import BROKEN
from listener.spool import GROUP_LENGTH_BYTES, PREAMBLE_BYTES, Spool
from listener.tables import instances, studies

STATES: Final = ("used", "not wanted", "refused", "quarantined", "waiting")


@dataclass(frozen=True)
class StudyAccount:
    """One study.

    Attributes:
        on_disk: instances in the spool.
        recorded: instances that were ever received, as the ledger counted when they came.
        states: instances per state in the ledger, without purged ones.
        purged: instances that were removed by policy.
        unknown: files that the ledger does not know of, or believes to be purged.
        missing: files that the ledger knows of and the spool does not have.
        damaged: files that are not what was received: of another size, or of another digest where
            that was looked at; or that the ledger does not know of, and that end within an element.
        unsettled: whole instances that a kill or a power cut left half way to their name: they may
            have been acknowledged, and are in none of the counts.
        set_aside: files that were torn or rotten and were sent again; they count no more.
    """

    study_uid: str
    on_disk: int
    recorded: int
    states: Mapping[str, int]
    purged: int
    unknown: tuple[Path, ...]
    missing: tuple[Path, ...]
    damaged: tuple[Path, ...] = ()
    unsettled: tuple[Path, ...] = ()
    set_aside: tuple[Path, ...] = ()

    @property
    def received(self) -> int:
        """Instances that came and were not purged since, whatever became of them."""
        return self.recorded - self.purged

    @property
    def agrees(self) -> bool:
        """Whether spool and ledger say the same, and each instance is in one of STATES."""
        named = sum(self.states.get(state, 0) for state in STATES)
        strange = self.unknown or self.missing or self.damaged or self.unsettled
        return not strange and self.on_disk == self.received == named == sum(self.states.values())


@dataclass(frozen=True)
class _Row:
    """What the ledger says of one instance that was not purged."""

    state: str
    size: int
    sha256: str


@dataclass
class _Book:
    """What the ledger says of one study."""

    recorded: int
    purged: int
    rows: dict[Path, _Row]


@dataclass
class _Walked:
    """What lies in the spool of one study."""

    files: set[Path] = field(default_factory=set)
    unsettled: list[Path] = field(default_factory=list)
    set_aside: list[Path] = field(default_factory=list)


def account(
    spool: Spool,
    ledger: Ledger,
    verify: bool = False,
    tell: Callable[[int], None] = lambda checked: None,
) -> list[StudyAccount]:
    """Count every study, by UID.

    What comes in or goes meanwhile may count as unknown: `look_again` a moment later.

    Args:
        spool: what lies there.
        ledger: what stands there.
        verify: whether to read every file, and compare its digest as well as its size.
        tell: is told now and then how many files were compared.
    """
    walked: dict[str, _Walked] = defaultdict(_Walked)
    # First: what gets its name meanwhile is found under that.
    for key, path in spool.unsettled():
        walked[key.study_uid].unsettled.append(path)
    for key, path in (*spool.received(), *spool.quarantined()):
        walked[key.study_uid].files.add(path)
    for path in spool.set_aside():
        walked[path.parts[-3]].set_aside.append(path)
    books = _books(ledger)
    inspection = _Inspection(spool, verify, tell)
    return [
        _compare(study_uid, walked[study_uid], books.get(study_uid, _NOTHING), inspection)
        for study_uid in sorted(walked.keys() | books.keys())
    ]


def look_again(
    study: StudyAccount, spool: Spool, ledger: Ledger, verify: bool = False
) -> StudyAccount:
    """Count a study once more that did not agree, in case it was being received or purged."""
    books = _books(ledger, study.study_uid)
    book = books.get(study.study_uid, _NOTHING)
    inspection = _Inspection(spool, verify, lambda checked: None)
    walked = _Walked(set(study.unknown), [*study.unsettled], [*study.set_aside])
    return _compare(study.study_uid, walked, book, inspection)


_NOTHING: Final = _Book(0, 0, {})


def _books(ledger: Ledger, study_uid: str | None = None) -> dict[str, _Book]:
    """What the ledger says of all studies, or of one."""
    recorded = select(studies.c.study_uid, studies.c.received)
    known = select(
        instances.c.study_uid,
        instances.c.path,
        instances.c.state,
        instances.c.size,
        instances.c.sha256,
        instances.c.purged_at,
    )
    if study_uid is not None:
        recorded = recorded.where(studies.c.study_uid == study_uid)
        known = known.where(instances.c.study_uid == study_uid)
    with ledger.reading() as connection:
        found = {row.study_uid: _Book(row.received, 0, {}) for row in connection.execute(recorded)}
        for row in connection.execute(known):
            book = found[row.study_uid]
            if row.purged_at is not None:
                book.purged += 1
            else:
                book.rows[Path(row.path)] = _Row(row.state, row.size, row.sha256)
    return found


class _Inspection:
    """Looks whether files are what was received."""

    def __init__(self, spool: Spool, verify: bool, tell: Callable[[int], None]) -> None:
        self._spool, self._verify, self._tell = spool, verify, tell
        self._checked = 0

    def is_sound(self, path: Path, row: _Row) -> bool:
        """Whether a file has the size, and if asked for the digest, that the ledger knows."""
        self._checked += 1
        self._tell(self._checked)
        if _dataset_bytes(path) != row.size:
            return False
        if not self._verify:
            return True
        try:
            return self._spool.identity(path)[1] == row.sha256
        except (BadAttribute, *BROKEN):
            return False

    def is_torn(self, path: Path) -> bool:
        """Whether a file that the ledger knows nothing of is only a part of an instance."""
        try:
            return self._spool.is_torn(path)
        except FileNotFoundError:  # it was purged a moment ago
            return False

    def is_unsettled(self, claim: Path) -> bool:
        """Whether what is on its way to its name is whole, and nobody has settled it meanwhile."""
        try:
            return self._spool.is_whole(claim)
        except FileNotFoundError:
            return False


def _compare(study_uid: str, walked: _Walked, book: _Book, inspection: _Inspection) -> StudyAccount:
    """Compare files with rows.

    The rows were read after the walk: what came in between is looked for by its name, and what
    went in between is no file any more.
    """
    unknown = {path for path in walked.files if path not in book.rows and path.exists()}
    here = {path for path in book.rows if path.exists()}
    return StudyAccount(
        study_uid,
        on_disk=len(here) + len(unknown),
        recorded=book.recorded,
        states=dict(Counter(row.state for row in book.rows.values())),
        purged=book.purged,
        unknown=tuple(sorted(unknown)),
        missing=tuple(sorted(book.rows.keys() - here)),
        damaged=(
            *(path for path in sorted(here) if not inspection.is_sound(path, book.rows[path])),
            *(path for path in sorted(unknown) if inspection.is_torn(path)),
        ),
        unsettled=tuple(path for path in walked.unsettled if inspection.is_unsettled(path)),
        set_aside=tuple(walked.set_aside),
    )


def _dataset_bytes(path: Path) -> int | None:
    """Size of the encoded dataset of a file that the listener wrote; None where it is none.

    PS3.10 7.1: the group length, which we write, is the first element after the preamble.
    """
    start = PREAMBLE_BYTES + GROUP_LENGTH_BYTES
    try:
        with path.open("rb") as file:
            head, size = file.read(start), os.fstat(file.fileno()).st_size
    except FileNotFoundError:  # it was purged a moment ago
        return None
    if len(head) < start or not head[:-4].endswith(b"DICM\x02\x00\x00\x00UL\x04\x00"):
        return None
    return size - start - int.from_bytes(head[-4:], "little")
