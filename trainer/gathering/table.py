"""The label table: one row for a study, or for all studies of a patient.

CSV (comma or semicolon) or Parquet. Everything is read as text and then understood column by
column, so that 007 stays 007 and what cannot be understood is refused with its row number.
Messages never quote a cell: in a table whose columns have slipped, any cell may hold a name.
Rows are numbered from 1, the header not counted.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeVar

import polars

from listener.errors import MonroError
from trainer.bern import BernItems

REQUIRED: Final = ("patient", "study", "label")
LABELS: Final = ("positive", "negative", "indeterminate")
BERN_FLAGS: Final = ("pachymeningeal_enhancement", "venous_engorgement", "subdural_fluid")
BERN_DISTANCES: Final = ("suprasellar_mm", "prepontine_mm", "mamillopontine_mm")
OTHERS: Final = (
    "bern_score", "slec", "site", "scanner", "sex", "age_years", "myelogram_date", "regions",
)  # fmt: skip
KNOWN: Final = frozenset({*REQUIRED, *BERN_FLAGS, *BERN_DISTANCES, *OTHERS})

YES_OR_NO: Final[Mapping[str, bool]] = {
    "yes": True,
    "true": True,
    "1": True,
    "no": False,
    "false": False,
    "0": False,
}
SEXES: Final[Mapping[str, str]] = {
    "f": "F",
    "female": "F",
    "m": "M",
    "male": "M",
    "o": "O",
    "other": "O",
}
HIGHEST_BERN_SCORE: Final = 9
LONGEST_CISTERN_MM: Final = 100.0  # no distance of the score comes near: a slipped column
OLDEST_YEARS: Final = 130.0
# Longer digit groups than any measurement: dates in all spellings, hospital numbers, UIDs.
IDENTIFYING: Final = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}"
    r"|\d{1,2}\.?[ -]?(jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])"
    r"|\d{6,}|\d+(\.\d+){3,}",
    re.IGNORECASE,
)

Value = TypeVar("Value")


class BadTable(MonroError):
    """A label table that cannot be understood: which rows, what was found, what is needed."""

    def __init__(self, rows: Sequence[int], found: str, needed: str) -> None:
        super().__init__(rows, found, needed)
        self.rows, self.found, self.needed = tuple(rows), found, needed

    def __str__(self) -> str:
        return f"label table{_rows(self.rows)}: {self.found}; {self.needed}"


@dataclass(frozen=True)
class LabelRow:
    """What one row says. What it leaves empty is None or an empty text.

    Attributes:
        number: of the row, from 1.
        patient: as the table names them; patients of the same name share a fold.
        study: Study Instance UID or accession number; empty for all studies of the patient.
        label: one of LABELS.
        bern_score: as given; `bern` holds its items.
        slec: whether a spinal longitudinal extradural collection was seen (a fast leak).
        sex: F, M, O or empty.
        regions: folder of the masks that a reader drew, beside the table: a NIfTI for each, or a
            DICOM Segmentation; empty where regions are to be proposed. Never to be written down:
            people name folders after patients.
        columns: all columns of no meaning to us.
    """

    number: int
    patient: str
    study: str
    label: str
    bern_score: int | None = None
    bern: BernItems = field(default_factory=BernItems)
    slec: bool | None = None
    site: str = ""
    scanner: str = ""
    sex: str = ""
    age_years: float | None = None
    myelogram_date: date | None = None
    regions: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def read_table(path: Path) -> tuple[LabelRow, ...]:
    """Read a label table; a row that says the same as an earlier one is left out.

    Raises:
        BadTable: a column is missing, a cell cannot be understood, or rows contradict each other.
    """
    frame = _frame(path)
    _check_columns(frame.columns)
    rows = [_row(_Cells(number, cells)) for number, cells in _numbered(frame)]
    if not rows:
        raise BadTable((), "no row", "give one row for each study")
    return _without_repetition(rows)


def write_table(path: Path, rows: Iterable[LabelRow]) -> None:
    """Write rows as CSV that `read_table` reads; it names patients, so only the owner may read it.

    Free columns come last, by name.
    """
    records = [_record(row) for row in rows]
    free = sorted({name for record in records for name in record} - KNOWN)
    names = [*REQUIRED, *OTHERS, *BERN_FLAGS, *BERN_DISTANCES, *free]
    columns = {name: [record.get(name, "") for record in records] for name in names}
    frame = polars.DataFrame(columns, schema=dict.fromkeys(names, polars.String))
    path.touch(0o600)
    path.chmod(0o600)
    frame.write_csv(path)


def require_free(rows: Iterable[LabelRow], keep: Sequence[str]) -> None:
    """Make sure that free columns can go into a cohort.

    Raises:
        BadTable: a column is not there, or a cell of it looks like a date, a UID or a hospital
            number, or repeats the name of a patient or study.
    """
    for row in rows:
        for name in (*keep, "site", "scanner"):
            if name in keep and name not in row.columns:
                raise BadTable((), f"no free column {name!r}", "name columns that the table has")
            value = row.columns[name] if name in keep else str(getattr(row, name))
            if IDENTIFYING.search(value) or (value and value in (row.patient, row.study)):
                raise BadTable(
                    (row.number,),
                    f"column {name!r} holds what may identify a patient (a date, UID or number)",
                    "leave the column out of the cohort, or remove what identifies",
                )


# --- the file ---


def _frame(path: Path) -> polars.DataFrame:
    """All columns as text; what is absent is empty."""
    try:
        if path.suffix.lower() == ".parquet":
            frame = polars.read_parquet(path)
        else:
            frame = polars.read_csv(path, infer_schema=False, separator=_separator(path))
        return frame.select(polars.all().cast(polars.String).fill_null("").str.strip_chars())
    except (polars.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        # Not "from error": polars quotes cells.
        raise BadTable(
            (),
            f"{path} cannot be read ({type(error).__name__})",
            "give a UTF-8 CSV file with a header, or a Parquet file of plain columns",
        ) from None


def _separator(path: Path) -> str:
    """A semicolon where the header holds one: spreadsheets write it where the comma is decimal."""
    with path.open(encoding="utf-8") as file:
        return ";" if ";" in file.readline() else ","


def _check_columns(names: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise BadTable(
            (),
            f"no column {' and no column '.join(missing)}",
            f"name the columns {', '.join(REQUIRED)}, in lower case, in its first line",
        )
    # polars renames the second of two columns of one name.
    repeated = [name for name in KNOWN if any(f"{name}_duplicated_" in each for each in names)]
    if repeated:
        raise BadTable((), f"column {min(repeated)} twice", "remove one of them")


def _numbered(frame: polars.DataFrame) -> Iterable[tuple[int, dict[str, str]]]:
    """Rows that hold anything, with their numbers."""
    rows = enumerate(frame.iter_rows(named=True), start=1)
    return ((number, cells) for number, cells in rows if any(cells.values()))


# --- cells ---


@dataclass(frozen=True)
class _Cells:
    """The texts of one row, understood on demand."""

    number: int
    texts: Mapping[str, str]

    def text(self, name: str) -> str:
        return self.texts.get(name, "")

    def understood(self, name: str, read: Callable[[str], Value], needed: str) -> Value | None:
        """What a cell means; None where it is empty or absent."""
        text = self.text(name)
        if not text:
            return None
        try:
            return read(text)
        except (ValueError, KeyError):
            # Not "from error": it quotes the cell.
            found = f"column {name} cannot be understood"
            raise BadTable((self.number,), found, f"needed {needed}, or nothing") from None

    def number_within(self, name: str, highest: float) -> float | None:
        needed = f"a number from 0 to {highest:g} with a decimal point"
        return self.understood(name, lambda text: _number(text, highest), needed)

    def flag(self, name: str) -> bool | None:
        return self.understood(name, lambda text: YES_OR_NO[text.lower()], "yes or no")


def _row(cells: _Cells) -> LabelRow:
    if not cells.text("patient"):
        raise BadTable((cells.number,), "no patient", "give every row a patient")
    needed = f"one of {', '.join(LABELS)}"
    label = cells.understood("label", lambda text: LABELS[LABELS.index(text.lower())], needed)
    if label is None:
        raise BadTable((cells.number,), "no label", needed)
    return LabelRow(
        number=cells.number,
        patient=cells.text("patient"),
        study=cells.text("study"),
        label=label,
        bern_score=cells.understood("bern_score", _score, f"0 to {HIGHEST_BERN_SCORE}"),
        bern=_bern(cells),
        slec=cells.flag("slec"),
        site=cells.text("site"),
        scanner=cells.text("scanner"),
        sex=cells.understood("sex", lambda text: SEXES[text.lower()], "F, M or O") or "",
        age_years=cells.number_within("age_years", OLDEST_YEARS),
        myelogram_date=cells.understood("myelogram_date", _date, "a date as 2026-01-31"),
        regions=cells.text("regions"),
        columns={name: text for name, text in cells.texts.items() if name not in KNOWN},
    )


def _bern(cells: _Cells) -> BernItems:
    flags = {name: cells.flag(name) for name in BERN_FLAGS}
    distances = {name: cells.number_within(name, LONGEST_CISTERN_MM) for name in BERN_DISTANCES}
    values: dict[str, Any] = {**flags, **distances}
    return BernItems(**values)


def _number(text: str, highest: float) -> float:
    number = float(text)
    if not math.isfinite(number) or not 0 <= number <= highest:
        raise ValueError
    return number


def _score(text: str) -> int:
    """A whole number; 4.0 is one as well, since columns with gaps become decimal elsewhere."""
    number = _number(text, HIGHEST_BERN_SCORE)
    if number != int(number):
        raise ValueError
    return int(number)


def _date(text: str) -> date:
    """A date, also with a midnight behind it, as Parquet's timestamps have."""
    day, _, time = text.partition(" ")
    if time.strip("0:.") or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", day):
        raise ValueError
    return date.fromisoformat(day)


# --- rows beside each other ---


def _without_repetition(rows: Sequence[LabelRow]) -> tuple[LabelRow, ...]:
    """The rows, those about the same thing once."""
    kept: dict[tuple[str, str], LabelRow] = {}
    for row in rows:
        earlier = kept.setdefault(_subject(row), row)
        require_agreement(earlier, row)
    return tuple(kept.values())


def _subject(row: LabelRow) -> tuple[str, str]:
    """What a row is about: a study, or a patient as a whole."""
    return ("study", row.study) if row.study else ("patient", row.patient)


def require_agreement(one: LabelRow, other: LabelRow) -> None:
    """Make sure that two rows about the same study say the same.

    Raises:
        BadTable: they do not; free columns may differ.
    """
    names = [name for name in LabelRow.__dataclass_fields__ if name not in ("number", "columns")]
    if not (one.study and other.study) or one.study != other.study:
        names.remove("study")  # one names it by its UID, the other by its accession number
    differing = [name for name in names if getattr(one, name) != getattr(other, name)]
    if differing:
        raise BadTable(
            (one.number, other.number),
            f"the same study, but contradicting values of {', '.join(differing)}",
            "correct or remove one of the rows",
        )


def _rows(numbers: Sequence[int]) -> str:
    """Row numbers as words.

    >>> _rows(()), _rows((7,)), _rows((3, 9))
    ('', ', row 7', ', rows 3 and 9')
    """
    if not numbers:
        return ""
    *first, last = map(str, numbers)
    return f", rows {', '.join(first)} and {last}" if first else f", row {last}"


def _record(row: LabelRow) -> dict[str, str]:
    """A row as the texts it is read from."""
    items = {name: getattr(row.bern, name) for name in (*BERN_FLAGS, *BERN_DISTANCES)}
    plain = {name: getattr(row, name) for name in (*REQUIRED, *OTHERS)}
    return {name: _text(value) for name, value in {**row.columns, **plain, **items}.items()}


def _text(value: object) -> str:
    """A value as `read_table` understands it.

    >>> _text(True), _text(None), _text(4.5), _text(date(2026, 1, 31))
    ('yes', '', '4.5', '2026-01-31')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
