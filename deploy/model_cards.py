"""Writes docs/model-card-*.md: the cards of the committed bundles, from what the bundles enclose.

`make model-cards` writes them; a test holds them equal to the bundles. Words are in the templates,
every number is read from a bundle's metadata, or from the report of its evaluation.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scipy import stats

from worker.bundle import EVALUATION, load_bundle
from worker.seal import read_metadata

DOCS: Final = Path(__file__).parents[1] / "docs"
BUNDLES: Final = Path(__file__).parent / "bundles"

CARDS: Final = {
    "fistula": BUNDLES / "fistula-demo",
    "infection": BUNDLES / "infection-demo",
}

OUTER_FOLDS: Final = 5
LEVEL: Final = 0.95


@dataclass
class Sheet:
    """A table of the report; a cell that repeats the one above it is empty."""

    rows: list[list[str]] = field(default_factory=list)

    def markdown(self, *columns: int) -> str:
        """The table as Markdown, or some of its columns."""
        shown = [[row[at] for at in columns] if columns else row for row in self.rows]
        head, *body = (f"| {' | '.join(row)} |" for row in shown)
        return "\n".join([head, "|" + "---|" * len(shown[0]), *body])


class ReportReader(HTMLParser):
    """Reads the tables of a report by the name of their CSV file."""

    def __init__(self) -> None:
        super().__init__()
        self.sheets: dict[str, Sheet] = {}
        self._sheet = Sheet()
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a table, a row or a cell."""
        if tag == "table":
            self._sheet = Sheet()
        elif tag == "tr":
            self._sheet.rows.append([])
        elif tag in ("td", "th") or ("class", "file") in attrs:
            self._text = ""

    def handle_data(self, data: str) -> None:
        """Collect the text of a cell."""
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        """End a cell, or learn a table's name."""
        if tag in ("td", "th"):
            self._sheet.rows[-1].append(self._text.strip())
        elif tag == "caption":
            name = self._text.strip().removeprefix("tables/").removesuffix(".csv")
            self.sheets[name] = self._sheet


def card(analysis: str, folder: Path | None = None) -> str:
    """The model card of a bundle as Markdown.

    Args:
        analysis: of the bundle.
        folder: of the bundle, which encloses its evaluation; without, the committed one.
    """
    folder = folder or CARDS[analysis]
    root = DOCS.parent
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    reader = ReportReader()
    reader.feed((folder / EVALUATION).read_text(encoding="utf-8"))
    metadata: dict[str, Any] = dict(read_metadata(folder))
    return environment.get_template(f"model-card-{analysis}.md.j2").render(
        bundle=load_bundle(folder),
        metadata=metadata,
        figures=metadata["eval_metrics"],
        sheets=reader.sheets,
        folder=folder.relative_to(root) if folder.is_relative_to(root) else folder,
        bounds=dict(_bounds(metadata["eval_metrics"])),
    )


def _bounds(figures: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Intervals of means over the outer folds, of those that have a standard deviation.

    The corrected resampled t of Nadeau and Bengio (Machine Learning 2003;52:239), as in
    `trainer.statistics.corrected_interval`; each fold tests a quarter as many as it trains on.
    """
    spread = (1 / OUTER_FOLDS + 1 / (OUTER_FOLDS - 1)) ** 0.5
    width = float(stats.t.ppf((1 + LEVEL) / 2, OUTER_FOLDS - 1)) * spread
    for name, mean in figures.items():
        deviation = figures.get(f"{name}_sd")
        if deviation is not None:
            low, high = mean - width * deviation, mean + width * deviation
            yield name, f"{max(0.0, low):.3f} to {min(1.0, high):.3f}"


if __name__ == "__main__":
    for each in CARDS:
        (DOCS / f"model-card-{each}.md").write_text(card(each))
