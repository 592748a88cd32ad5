"""What came back for one study, as a person wants to see it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset

from listener.entries import Result
from worker.results.terms import Kind, Phase

EARLY: Final = (Kind.EARLY, Kind.EARLY_ENHANCED)


@dataclass(frozen=True)
class Answered:
    """What came back for one study from one analysis."""

    title: str
    study_uid: str
    analysis: str
    report: Path
    summary: Path
    overlays: Sequence[Path]
    text: str
    probability: float | None
    """None where the study could not be judged."""
    seconds: Mapping[str, float]
    """Where the time went, from the first instance to the last acknowledgement."""


def read_answers(
    title: str,
    known: Mapping[str, Any],
    files: Iterable[Path],
    results_of: Callable[[str], Sequence[Result]],
) -> list[Answered]:
    """Read what an archive holds of a study: the last answer of each analysis.

    Args:
        title: for people.
        known: the study as the ledger tells it.
        files: what the archive holds of it.
        results_of: the results of a job, as the ledger tells them.
    """
    held = {
        str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): path
        for path in files
    }
    last = {job["analysis"]: job for job in known["jobs"]}
    return [_answer(title, known, job, held, results_of(job["job_id"])) for job in last.values()]


def _answer(
    title: str,
    known: Mapping[str, Any],
    job: Mapping[str, Any],
    held: Mapping[str, Path],
    results: Sequence[Result],
) -> Answered:
    here = [each for each in results if each.sop_uid in held and each.kind not in EARLY]
    by_phase = {
        phase: [held[each.sop_uid] for each in here if each.phase == phase] for phase in Phase
    }
    (report,), (summary,) = by_phase[Phase.REPORT], by_phase[Phase.SUMMARY]
    return Answered(
        title=title,
        study_uid=known["study_uid"],
        analysis=job["analysis"],
        report=report,
        summary=summary,
        overlays=by_phase[Phase.OVERLAYS],
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


def _seconds(known: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, float]:
    delivered_at = max(row["at"] for row in known["deliveries"] if row["job_id"] == job["job_id"])
    return {
        "receive": known["last_at"] - known["first_at"],
        "wait": job["started_at"] - known["last_at"],
        **job["seconds"],
        "deliver": delivered_at - job["finished_at"],
    }
