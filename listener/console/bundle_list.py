"""The bundles that workers can run, and what is said of each."""

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from markdown_it import MarkdownIt
from sqlalchemy import and_, case, select

from listener.entries import Edition
from listener.ledger import BUNDLE_COLUMNS, Ledger
from listener.tables import bundles
from listener.workforce import Held, Workforce

ROLE_ORDER: Final = {"active": 0, "shadow": 1, "retired": 2}

RENDERER: Final = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table")
"""Model cards: no HTML of theirs, since others wrote them."""

HEADINGS_ABOVE: Final = 2
"""Levels of headings that a card stands below."""


@dataclass(frozen=True)
class Validation:
    """Patients of the validation cohort by score, in ten bins."""

    edges: tuple[float, ...]
    patients: tuple[int, ...]
    positives: tuple[int, ...]


@dataclass(frozen=True)
class Bundle:
    """A bundle that some worker registered.

    Attributes:
        role: active, shadow or retired.
        model_card: Markdown; empty where there is none.
        figures: measured by the evaluation, by name.
        has_worker: whether a living worker holds it.
        has_evaluation: whether there is an evaluation report to read.
    """

    analysis: str
    name: str
    version: str
    weights_sha256: str
    role: str
    registered_at: float
    description: str
    statement: str
    intended_input: str
    threshold_low: float | None
    threshold_high: float | None
    model_card: str
    figures: Mapping[str, Any]
    has_worker: bool
    has_evaluation: bool
    validation: Validation | None

    @property
    def edition(self) -> Edition:
        """Digest of its weights, and its version."""
        return self.weights_sha256, self.version

    @property
    def model_card_html(self) -> str:
        """The model card as HTML, in which nothing of it can be markup of its own."""
        tokens = RENDERER.parse(self.model_card)
        for token in tokens:
            if token.type in {"heading_open", "heading_close"}:
                token.tag = f"h{min(int(token.tag[1:]) + HEADINGS_ABOVE, 6)}"
        return str(RENDERER.renderer.render(tokens, RENDERER.options, {}))


def read_bundles(ledger: Ledger) -> tuple[Bundle, ...]:
    """All bundles by analysis, the active one first."""
    has_evaluation = bundles.c.evaluation.is_not(None).label("has_evaluation")
    told = bundles.c[*BUNDLE_COLUMNS, "registered_at", "card"]
    query = select(*told, has_evaluation).order_by(
        bundles.c.analysis, case(ROLE_ORDER, value=bundles.c.role), bundles.c.registered_at.desc()
    )
    held = Workforce(ledger).held()
    with ledger.reading() as connection:
        return tuple(_bundle(row, held) for row in connection.execute(query))


def read_evaluation(ledger: Ledger, analysis: str, weights: str, version: str) -> str | None:
    """The evaluation report of a bundle as an HTML document; None where there is none."""
    this = and_(
        bundles.c.analysis == analysis,
        bundles.c.weights_sha256 == weights,
        bundles.c.version == version,
    )
    with ledger.reading() as connection:
        packed = connection.scalar(select(bundles.c.evaluation).where(this))
    return None if packed is None else zlib.decompress(packed).decode()


def _bundle(row: Any, held: Collection[Held]) -> Bundle:
    card = row.card or {}
    bins = card.get("validation")
    return Bundle(
        analysis=row.analysis,
        name=row.name,
        version=row.version,
        weights_sha256=row.weights_sha256,
        role=row.role,
        registered_at=row.registered_at,
        description=card.get("description") or "",
        statement=card.get("statement") or "",
        intended_input=card.get("intended_input") or "",
        threshold_low=card.get("threshold_low"),
        threshold_high=card.get("threshold_high"),
        model_card=card.get("model_card") or "",
        figures=card.get("figures") or {},
        has_worker=(row.analysis, row.weights_sha256, row.version) in held,
        has_evaluation=row.has_evaluation,
        validation=Validation(
            tuple(bins["edges"]), tuple(bins["patients"]), tuple(bins["positives"])
        )
        if bins
        else None,
    )
