"""What all reports share: one self-contained page, and every figure, table and number beside it.

report.html       needs nothing else: pictures are inside
metrics.json      every number
figures/*.png     as in the page
tables/*.csv      as in the page, in full precision
"""

import base64
import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeAlias

import jinja2
import numpy as np

from trainer.cohort import Examined
from trainer.reporting import figures
from trainer.reporting.characteristics import Share, Spread
from trainer.reporting.evaluate import Scores
from trainer.reporting.maps import Maps
from trainer.statistics import Interval, Roc

Cell: TypeAlias = str | int | float | Interval | Spread | Share | None

REPORT: Final = "report.html"
METRICS: Final = "metrics.json"
# What would make the JSON unreadable and is in the figures anyway.
NOT_NUMBERS: Final = (Examined, Maps, Roc, Scores)
ARRAYS: Final = frozenset({"example", "variants", "probabilities"})


@dataclass(frozen=True)
class Sheet:
    """A table of the report.

    Attributes:
        name: of its CSV file.
        columns: headings.
        rows: as many cells each.
        emphasised: numbers of the rows that sum others up.
        grouped: the first column is shown where it changes only.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    emphasised: frozenset[int] = frozenset()
    grouped: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure of the report.

    Attributes:
        name: of its PNG file.
        content: the PNG.
        alt: what it shows, for those who cannot see it.
    """

    name: str
    content: bytes
    alt: str

    @property
    def width(self) -> str:
        """Its natural width in inches, so that letters are of one size in all figures."""
        pixels = int.from_bytes(self.content[16:20], "big")  # PNG, IHDR
        return f"{pixels / figures.DPI:.2f}in"

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return "data:image/png;base64," + base64.b64encode(self.content).decode()


def write_page(
    folder: Path,
    template: str,
    pictures: Iterable[Picture],
    sheets: Iterable[Sheet],
    unprinted: Iterable[Sheet],
    numbers: Mapping[str, Any],
    **values: Any,
) -> Path:
    """Write report, figures, tables and numbers into a folder; what is there is replaced.

    Args:
        folder: made where it is missing.
        template: file in this package.
        pictures: of the page.
        sheets: of the page.
        unprinted: tables beside it only.
        numbers: content of metrics.json.
        values: what else the template names.

    Returns:
        The page.
    """
    shown_pictures = {each.name: each for each in pictures}
    shown_sheets = {each.name: each for each in sheets}
    for part in ("figures", "tables"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for picture in shown_pictures.values():
        (folder / "figures" / f"{picture.name}.png").write_bytes(picture.content)
    for sheet in (*shown_sheets.values(), *unprinted):
        (folder / "tables" / f"{sheet.name}.csv").write_text(as_csv(sheet))
    (folder / METRICS).write_text(json.dumps(numbers, indent=2) + "\n")
    page = folder / REPORT
    page.write_text(render(template, pictures=shown_pictures, sheets=shown_sheets, **values))
    return page


def render(template: str, **values: Any) -> str:
    """A template of this package with its values."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": shown, "figure": _number}
    environment.tests["words"] = is_words
    return environment.get_template(template).render(values)


def _source(template: str) -> str:
    return resources.files("trainer.reporting").joinpath(template).read_text(encoding="utf-8")


def plain(value: Any) -> Any:
    """Dataclasses, arrays and numbers as what JSON knows."""
    if is_dataclass(value):
        return {
            each.name: plain(getattr(value, each.name))
            for each in fields(value)
            if each.name not in ARRAYS and not isinstance(getattr(value, each.name), NOT_NUMBERS)
        }
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def as_csv(sheet: Sheet) -> str:
    """A sheet in full precision; an interval takes two columns, a spread five, a share two."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    widths = [_parts([row[place] for row in sheet.rows]) for place in range(len(sheet.columns))]
    writer.writerow(
        f"{column} {part}".strip()
        for column, parts in zip(sheet.columns, widths, strict=True)
        for part in parts
    )
    for row in sheet.rows:
        writer.writerow(
            _part(cell, part) for cell, parts in zip(row, widths, strict=True) for part in parts
        )
    return stream.getvalue()


def _parts(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The columns that a column of composite cells needs."""
    kinds = {type(cell) for cell in cells if is_dataclass(cell)}
    named = [
        each.name for kind in (Share, Spread, Interval) if kind in kinds for each in fields(kind)
    ]
    return tuple(dict.fromkeys(named)) or ("",)


def _part(cell: Cell, part: str) -> Any:
    found = getattr(cell, part, None) if is_dataclass(cell) else cell
    return "" if found is None else found


def shown(cell: Cell) -> str:
    """A cell as a reader sees it.

    >>> shown(0.12345), shown(Interval(0.5, 0.75)), shown(None), shown(Share(3, 12))
    ('0.123', '0.500 to 0.750', '-', '3 (25.0 %)')
    """
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "-"
    if isinstance(cell, Interval):
        return f"{_number(cell.low)} to {_number(cell.high)}"
    if isinstance(cell, Share):
        return _share_words(cell)
    if isinstance(cell, Spread):
        return _spread_words(cell)
    return _number(cell) if isinstance(cell, float) else str(cell)


def is_words(cell: Cell) -> bool:
    """Whether a cell may be broken into lines."""
    return isinstance(cell, str | Spread)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share_words(share: Share) -> str:
    return f"{share.count} ({share.count / share.of:.1%})".replace("%", " %") if share.of else "0"


def _spread_words(spread: Spread) -> str:
    if spread.median is None:
        return "unknown"
    words = (
        f"{spread.median:g} ({spread.lower_quartile:g} to {spread.upper_quartile:g}), "
        f"{spread.lowest:g} to {spread.highest:g}"
    )
    return words if spread.known == spread.of else f"{words}; known of {spread.known}"
