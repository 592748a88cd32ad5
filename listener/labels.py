"""What turned out to be true of studies: a table that people bring, kept for the calibration of
bundles in service.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from listener.errors import BadAttribute, MonroError
from listener.ledger import ROWS_AT_ONCE, Ledger
from listener.selection import ANALYSES
from listener.series import require_uid
from listener.tables import labels, studies

MOST_ROWS = 200_000

MEANINGS = {
    **dict.fromkeys(("1", "true", "yes", "positive"), True),
    **dict.fromkeys(("0", "false", "no", "negative"), False),
}
"""How a label may be written, in any case."""

COLUMNS = ("study_uid", "label")


class BadLabels(MonroError):
    """A table of labels that cannot be taken, and what to mend; nothing of it was kept."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found, expected)
        self.found, self.expected = found, expected

    def __str__(self) -> str:
        return f"labels: found {self.found}, expected {self.expected}; nothing was kept"


@dataclass(frozen=True)
class Label:
    """What turned out to be true of a study."""

    study_uid: str
    positive: bool


@dataclass(frozen=True)
class Kept:
    """What became of a table.

    Attributes:
        labels: that were kept; one of the same study is replaced.
        unknown: of these, how many are of studies that were never received.
    """

    labels: int
    unknown: int


def read_labels(text: str) -> list[Label]:
    r"""Read a table: CSV with a header, and in it the columns `study_uid` and `label`.

    >>> read_labels("study_uid,label\n1.2.3,positive\n1.2.4,0\n")[1]
    Label(study_uid='1.2.4', positive=False)

    Raises:
        BadLabels: a column is missing, a row makes no sense, or a study has two labels.
    """
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    header = [name.strip().lower() for name in rows.fieldnames or ()]
    if missing := [name for name in COLUMNS if name not in header]:
        raise BadLabels(f"no column {missing[0]}", f"a header with {' and '.join(COLUMNS)}")
    rows.fieldnames = header
    try:
        return _labels(rows)
    except csv.Error:
        raise BadLabels(f"no CSV in line {rows.line_num}", "a table of short values") from None


def _labels(rows: "csv.DictReader[str]") -> list[Label]:
    found: dict[str, Label] = {}
    for row in rows:
        if len(found) >= MOST_ROWS:
            raise BadLabels("more rows", f"{MOST_ROWS:,} at most")
        label = _label(row, rows.line_num)
        if found.setdefault(label.study_uid, label) != label:
            raise BadLabels(f"two labels of one study, in line {rows.line_num}", "one")
    if not found:
        raise BadLabels("no rows", "one for each study")
    return list(found.values())


def keep_labels(ledger: Ledger, analysis: str, found: Sequence[Label], actor: str) -> Kept:
    """Keep labels of an analysis; those of the same studies are replaced.

    Raises:
        BadLabels: no such analysis is known.
    """
    if analysis not in ANALYSES:
        raise BadLabels(f"the analysis {analysis!r}", f"one of {', '.join(ANALYSES)}")
    rows = [
        {
            "study_uid": each.study_uid,
            "analysis": analysis,
            "positive": each.positive,
            "at": ledger.now,
            "actor": actor,
        }
        for each in found
    ]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        theirs = labels.c.study_uid.in_([row["study_uid"] for row in some])
        with ledger.writing() as connection:
            connection.execute(delete(labels).where(theirs, labels.c.analysis == analysis))
            connection.execute(insert(labels), some)
    with ledger.reading() as connection:
        received = set(connection.scalars(select(studies.c.study_uid)))
    return Kept(len(rows), sum(each.study_uid not in received for each in found))


def _label(row: dict[str, str], line: int) -> Label:
    said = (row["label"] or "").strip().lower()
    if said not in MEANINGS:
        raise BadLabels(f"another label in line {line}", f"one of {', '.join(MEANINGS)}")
    study_uid = (row["study_uid"] or "").strip()
    try:
        require_uid("study_uid", study_uid)
    except BadAttribute:
        raise BadLabels(f"no UID in line {line}", "a Study Instance UID") from None
    return Label(study_uid, MEANINGS[said])
