from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from worker.results.outcome import Predecessor
from worker.results.result import Kind, objects


def documents(outcome):
    return {each.kind: each.dataset for each in objects(outcome) if each.layers is None}


def walk(container):
    yield container
    for item in container.get("ContentSequence", []):
        yield from walk(item)


def test_a_document_is_complete_preliminary_and_verified_by_nobody(judged):
    for document in documents(judged).values():
        assert document.Modality == "SR"
        assert document.CompletionFlag == "COMPLETE"
        assert document.PreliminaryFlag == "PRELIMINARY"
        assert document.VerificationFlag == "UNVERIFIED"
        assert "VerifyingObserverSequence" not in document


def test_every_container_separates_its_items(judged, refused):
    for document in (*documents(judged).values(), *documents(refused).values()):
        containers = [item for item in walk(document) if item.ValueType == "CONTAINER"]
        assert len(containers) >= 3
        assert {item.ContinuityOfContent for item in containers} == {"SEPARATE"}


def test_evidence_lists_all_sources_and_all_overlay_images(judged):
    overlay = [each.sop_uid for each in objects(judged) if each.kind is Kind.OVERLAY]
    sources = [source.SOPInstanceUID for source in judged.sources]

    for document in documents(judged).values():
        (study,) = document.CurrentRequestedProcedureEvidenceSequence
        listed = [
            instance.ReferencedSOPInstanceUID
            for series in study.ReferencedSeriesSequence
            for instance in series.ReferencedSOPSequence
        ]
        assert study.StudyInstanceUID == judged.lineage.study_uid
        assert sorted(listed) == sorted([*sources, *overlay])


def predecessor_of(document: Dataset):
    (study,) = document.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    return (
        series.SeriesInstanceUID,
        instance.ReferencedSOPClassUID,
        instance.ReferencedSOPInstanceUID,
    )


ANSWERED = {"judged": "report", "refused": "refusal"}


@pytest.mark.parametrize("before", ["judged", "refused"])
@pytest.mark.parametrize("after", ["judged", "refused"])
def test_each_encoding_names_the_predecessor_in_its_own_encoding(before, after, request):
    first = request.getfixturevalue(before)
    first = replace(first, lineage=replace(first.lineage, digest="earlier"))
    second = replace(
        request.getfixturevalue(after),
        predecessors=(Predecessor(first.lineage, ANSWERED[before]),),
    )

    earlier, later = documents(first), documents(second)

    for old, new in zip(earlier.values(), later.values(), strict=True):
        assert predecessor_of(new) == (old.SeriesInstanceUID, old.SOPClassUID, old.SOPInstanceUID)


@pytest.mark.parametrize("after", ["judged", "refused"])
def test_what_follows_an_early_report_names_it_and_the_summary_does_not(estimated, after, request):
    early = {each.kind: each.dataset for each in objects(estimated)}
    final = replace(
        request.getfixturevalue(after),
        predecessors=(Predecessor(estimated.lineage, "early"),),
    )

    report, enhanced, summary = documents(final).values()

    for new, old in ((report, early[Kind.EARLY]), (enhanced, early[Kind.EARLY_ENHANCED])):
        assert predecessor_of(new) == (old.SeriesInstanceUID, old.SOPClassUID, old.SOPInstanceUID)
    assert "PredecessorDocumentsSequence" not in summary


def test_a_report_after_an_early_one_names_an_earlier_result_too(judged, estimated):
    earlier = Predecessor(replace(judged.lineage, digest="earlier"), "report")
    both = (earlier, Predecessor(estimated.lineage, "early"))

    report = documents(replace(judged, predecessors=both))[Kind.REPORT]

    series = [
        each.ReferencedSeriesSequence[0].SeriesInstanceUID
        for each in report.PredecessorDocumentsSequence
    ]
    assert series == [
        earlier.lineage.series_uid(Kind.REPORT),
        estimated.lineage.series_uid(Kind.EARLY),
    ]


def test_a_first_report_has_no_predecessor(judged):
    for document in documents(judged).values():
        assert "PredecessorDocumentsSequence" not in document
