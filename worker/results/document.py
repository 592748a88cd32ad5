"""A Structured Report document around a content tree (PS3.3 C.17).

The content trees come from highdicom's templates; the document around them is written here, since
highdicom's own takes its dates from the clock.
"""

from collections.abc import Iterator, Sequence

from highdicom.sr import CodedConcept, LanguageOfContentItemAndDescendants
from highdicom.sr.utils import collect_evidence
from pydicom.dataset import Dataset

from worker.results.letterhead import Letterhead, library
from worker.results.outcome import Predecessor
from worker.results.terms import FAMILY, KINDS, LANGUAGE, Kind


class Evidence:
    """Instances that the documents of one outcome rest on, listed once for all of them.

    Args:
        instances: by their four UIDs.
        study_uid: of the documents.
    """

    def __init__(self, instances: Sequence[Dataset], study_uid: str) -> None:
        self._uids = {each.SOPInstanceUID for each in instances}
        nothing = Dataset()
        nothing.ContentSequence = []
        same_study, other_studies = collect_evidence(instances, nothing, study_uid)
        self._lists = Dataset()
        if same_study:
            self._lists.CurrentRequestedProcedureEvidenceSequence = same_study
        if other_studies:
            self._lists.PertinentOtherEvidenceSequence = other_studies

    def list_in(self, report: Dataset, root: Dataset) -> None:
        """Name all of it; raises ValueError where the content refers to what is none of it."""
        if missing := set(_referenced(root)) - self._uids:
            raise ValueError(f"content refers to instances that are no evidence: {missing}")
        report.update(self._lists)


def document(letterhead: Letterhead, kind: Kind, root: Dataset, evidence: Evidence) -> Dataset:
    """Write a content tree down as a document of one kind.

    Args:
        letterhead: patient, study, series, origin.
        kind: of document; it decides the SOP class and the UIDs.
        root: the container at the root of the content tree; documents may share it.
        evidence: what the content rests on.
    """
    report = letterhead.instance(kind)
    report.Modality = "SR"
    report.ReferencedPerformedProcedureStepSequence = []
    report.CompletionFlag = "COMPLETE"
    report.VerificationFlag = "UNVERIFIED"  # only a person verifies
    report.PreliminaryFlag = "PRELIMINARY"
    report.PerformedProcedureCodeSequence = []
    evidence.list_in(report, root)
    before = [
        _reference(each, FAMILY[kind][each.answered])
        for each in letterhead.outcome.predecessors
        if each.answered in FAMILY[kind]
    ]
    if before:
        report.PredecessorDocumentsSequence = before
    report.ContributingEquipmentSequence.append(library(letterhead))
    for element in separated(root):
        report.add(element)
    return report


def separated(container: Dataset) -> Dataset:
    """Mark every container of a tree as a list of items: viewers run CONTINUOUS ones together."""
    if container.ValueType == "CONTAINER":
        container.ContinuityOfContent = "SEPARATE"
    for item in container.get("ContentSequence", []):
        separated(item)
    return container


def english() -> LanguageOfContentItemAndDescendants:
    """The language of every document (TID 1204)."""
    return LanguageOfContentItemAndDescendants(CodedConcept.from_code(LANGUAGE))


def _referenced(container: Dataset) -> Iterator[str]:
    """UIDs of the instances that a content tree refers to."""
    for item in container.get("ContentSequence", []):
        for reference in item.get("ReferencedSOPSequence", []):
            yield reference.ReferencedSOPInstanceUID
        yield from _referenced(item)


def _reference(before: Predecessor, kind: Kind) -> Dataset:
    """Name one document of an earlier outcome (PS3.3 table C.17-3)."""
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = KINDS[kind].sop_class
    instance.ReferencedSOPInstanceUID = before.lineage.uid(kind)
    series.SeriesInstanceUID = before.lineage.series_uid(kind)
    series.ReferencedSOPSequence = [instance]
    study.StudyInstanceUID = before.lineage.study_uid
    study.ReferencedSeriesSequence = [series]
    return study
