"""What came back for one study, as a person wants to see it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Answered:
    """One study and what came back for it."""

    title: str
    study_uid: str
    report: Path
    summary: Path
    overlays: Sequence[Path]
    text: str
    probability: float | None
    """None where the study could not be judged."""
    seconds: Mapping[str, float]
    """Where the time went, from the first instance to the last acknowledgement."""


def read_answer(title: str, known: Mapping[str, Any], files: Iterable[Path]) -> Answered:
    """Read what an archive holds of a study.

    Args:
        title: for people.
        known: the study as the ledger tells it.
        files: what the archive holds of it.
    """
    job = known["jobs"][-1]
    by_kind: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_kind[_kind(pydicom.dcmread(path, stop_before_pixels=True))].append(path)
    report, summary = (max(by_kind[kind], key=_written) for kind in ("report", "summary"))
    return Answered(
        title=title,
        study_uid=known["study_uid"],
        report=report,
        summary=summary,
        overlays=sorted(by_kind["overlay"], key=_instance_number),
        text="\n".join(report_text(pydicom.dcmread(summary))),
        probability=job["summary"].get("probability"),
        seconds=_seconds(known, job),
    )


def report_text(item: Dataset, depth: int = 0) -> list[str]:
    """The sentences of a text SR, sections indented."""
    lines = []
    for child in item.get("ContentSequence", ()):
        name = child.ConceptNameCodeSequence[0].CodeMeaning
        if child.ValueType == "CONTAINER":
            lines += [f"{'  ' * depth}{name}:", *report_text(child, depth + 1)]
        elif child.ValueType == "TEXT":
            lines.append(f"{'  ' * depth}{child.TextValue}")
    return lines


def _kind(header: Dataset) -> str:
    if header.Modality != "SR":
        return "overlay"
    return "report" if header.ConceptNameCodeSequence[0].CodeValue == "126000" else "summary"


def _instance_number(path: Path) -> int:
    return int(pydicom.dcmread(path, specific_tags=["InstanceNumber"]).InstanceNumber)


def _written(path: Path) -> float:
    """A revised report comes later than the one that it replaces."""
    return path.stat().st_mtime


def _seconds(known: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, float]:
    delivered_at = max(row["at"] for row in known["deliveries"])
    return {
        "receive": known["last_at"] - known["first_at"],
        "wait": job["started_at"] - known["last_at"],
        **job["seconds"],
        "deliver": delivered_at - job["finished_at"],
    }
