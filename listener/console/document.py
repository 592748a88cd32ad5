"""Structured Reports as people read them: the content tree, item by item (PS3.3 C.17.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from sqlalchemy import select

from listener.errors import BadAttribute
from listener.ledger import Ledger
from listener.series import Header, read_instance, sequence_items
from listener.tables import jobs, results

LANGUAGE: Final = "121049"
"""Code of DCM for the language of a document, which readers see by themselves."""

DEEPEST: Final = 12
MOST_ITEMS: Final = 2_000

REMEMBERED: Final = 128
"""Reports that are kept in mind, at most some 100 kB each."""

READ: Final = tuple(
    map(Tag, ("SpecificCharacterSet", "ConceptNameCodeSequence", "ContentSequence"))
)
"""What is read of one: the evidence that it names is longer than what it says."""

KINDS: Final = ("summary", "refusal-summary", "note", "report", "refusal", "early")
"""Kinds of documents, those for people first; other encodings of the same are left out."""

VALUES: Final = {
    "TEXT": ("TextValue",),
    "CODE": ("ConceptCodeSequence.CodeMeaning",),
    "PNAME": (),  # of a person, who is not named here again
    "UIDREF": ("UID",),
    "DATETIME": ("DateTime",),
    "DATE": ("Date",),
    "TIME": ("Time",),
    "IMAGE": ("ReferencedSOPSequence.ReferencedSOPInstanceUID",),
    "COMPOSITE": ("ReferencedSOPSequence.ReferencedSOPInstanceUID",),
}
"""Value type -> where its value stands."""


@dataclass(frozen=True)
class Item:
    """One content item.

    Attributes:
        name: of the concept.
        value: empty for containers.
        is_container: whether it is a section.
        items: below it.
    """

    name: str
    value: str
    is_container: bool
    items: tuple["Item", ...]


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        kind: summary, report, refusal and so on.
        title: of the root container.
        items: below it.
    """

    kind: str
    sop_uid: str
    title: str
    items: tuple[Item, ...]


def read_documents(ledger: Ledger, study_uid: str, job_id: str) -> tuple[Document, ...]:
    """The reports of a job, those for people first; without those whose files are gone."""
    query = (
        select(results.c.kind, results.c.sop_uid, results.c.path)
        .join(jobs, jobs.c.job_id == results.c.job_id)
        .where(
            jobs.c.study_uid == study_uid,
            results.c.job_id == job_id,
            results.c.kind.in_(KINDS),
        )
    )
    with ledger.reading() as connection:
        rows = connection.execute(query).all()
    rows_in_order = sorted(rows, key=lambda row: KINDS.index(row.kind))
    found = (_document(row.kind, row.sop_uid, Path(row.path)) for row in rows_in_order)
    return tuple(each for each in found if each is not None)


def _document(kind: str, sop_uid: str, path: Path) -> Document | None:
    try:
        title, items = _content(path, path.stat().st_mtime_ns)
    except (BadAttribute, OSError):
        return None
    return Document(kind, sop_uid, title, items)


@lru_cache(REMEMBERED)
def _content(path: Path, _written_at: int) -> tuple[str, tuple[Item, ...]]:
    """The title of a report, and what is below it; pages ask for it again and again."""
    dataset = read_instance(path, pixels=False, only=READ)
    budget = iter(range(MOST_ITEMS))
    title = Header(dataset).text("ConceptNameCodeSequence.CodeMeaning")
    return title, tuple(_items(dataset, DEEPEST, budget))


def _items(parent: Dataset, depth: int, budget: Iterator[int]) -> Iterator[Item]:
    if not depth:
        return
    for child in sequence_items(parent, "ContentSequence"):
        if next(budget, None) is None:
            return
        header = Header(child)
        if header.text("ConceptNameCodeSequence.CodeValue") == LANGUAGE:
            continue
        kind = header.code("ValueType")
        yield Item(
            name=header.text("ConceptNameCodeSequence.CodeMeaning"),
            value=_value(kind, header),
            is_container=kind == "CONTAINER",
            items=tuple(_items(child, depth - 1, budget)),
        )


def _value(kind: str, header: Header) -> str:
    if kind == "NUM":
        measured = "MeasuredValueSequence"
        number = header.text(f"{measured}.NumericValue")
        unit = header.text(f"{measured}.MeasurementUnitsCodeSequence.CodeValue")
        return f"{number} {unit if unit != '1' else ''}".strip()
    return header.text(*VALUES[kind]) if VALUES.get(kind) else ""
