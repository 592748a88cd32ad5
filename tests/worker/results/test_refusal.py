from copy import deepcopy
from dataclasses import replace

import pytest
from pydicom.uid import (
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    XRayRadiationDoseSRStorage,
)

from worker.quality import Reason, UnusableStudy
from worker.results.result import Kind, objects


def by_kind(outcome):
    return {each.kind: each.dataset for each in objects(outcome)}


def test_a_refusal_is_a_pair_in_series_of_its_own(refused):
    found = by_kind(refused)

    assert {kind: dataset.SeriesNumber for kind, dataset in found.items()} == {
        Kind.REFUSAL: 9007,
        Kind.REFUSAL_ENHANCED: 9007,
        Kind.REFUSAL_SUMMARY: 9008,
    }
    assert len({dataset.SeriesInstanceUID for dataset in found.values()}) == 3


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_coded_and_no_number_is_given(refused, content, reason):
    because = replace(refused, refusal=UnusableStudy(reason, "this", "that"))

    document = by_kind(because)[Kind.REFUSAL]

    code = content(document, "Not analysed").ConceptCodeSequence[0]
    value = code.get("CodeValue") or code.LongCodeValue
    assert (code.CodingSchemeDesignator, value) == ("99MONRO", reason.value)
    assert code.CodeMeaning == reason.meaning
    finding = content(document, "CSF-venous fistula").ConceptCodeSequence[0]
    assert finding.CodeMeaning == "Undetermined"
    assert "NUM" not in str(document)


def test_a_refusal_says_in_plain_words_what_was_found_and_what_is_needed(refused, content):
    summary = by_kind(refused)[Kind.REFUSAL_SUMMARY]

    texts = [
        item.TextValue
        for title in ("Conclusions", "Findings")
        for item in content(summary, title).ContentSequence
    ]
    assert texts == [
        "CSF-venous fistula: not analysed. No evidence of a contrast agent.",
        "Nothing was concluded: a CSF-venous fistula is neither suggested nor excluded.",
        "Research use only. Investigational software. Not for primary diagnosis. "
        "Not reviewed by a physician.",
        "Found: no contrast agent named in any header.",
        "Needed: a T1 series after contrast agent.",
        'Input: series 7 "SAG T1 POST", 14 images.',
        "Model asked: fistula-demo 1.2.3; weights sha256 0123456789ab.",
    ]


def test_all_series_looked_at_are_named(refused, content):
    other = deepcopy(refused.sources[0])
    other.SeriesInstanceUID += ".1"
    other.SOPInstanceUID += ".1"
    other.SeriesNumber, other.SeriesDescription = 8, ""

    summary = by_kind(replace(refused, sources=(*refused.sources, other)))[Kind.REFUSAL_SUMMARY]

    inputs = content(summary, "Findings").ContentSequence[2].TextValue
    assert inputs == 'Input: series 7 "SAG T1 POST", 14 images; series 8 untitled, 1 image.'


NO_IMAGES = (
    EnhancedSRStorage,
    XRayRadiationDoseSRStorage,
    KeyObjectSelectionDocumentStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    EncapsulatedPDFStorage,
    "1.3.12.2.1107.5.9.1",  # Siemens' CSA Non-Image Storage
)


def beside(source, number, sop_class):
    """Another object of the study, in a series of its own."""
    other = deepcopy(source)
    other.SOPClassUID = sop_class
    other.SeriesInstanceUID += f".{number}"
    other.SOPInstanceUID += f".{number}"
    return other


def complaints(lines):
    return [line for line in lines if line.startswith(("E:", "F:"))]


def evidence(document):
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    return {
        each.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    }


def test_what_is_no_image_is_evidence_and_never_named_as_an_image(refused, written, dsrdump):
    images = refused.sources
    others = tuple(beside(images[0], *each) for each in enumerate(NO_IMAGES))

    found = objects(replace(refused, sources=(*others, *images)))

    looked_at = {source.SOPInstanceUID for source in (*others, *images)}
    for each, path in zip(found, written(found), strict=True):
        lines = dsrdump(path)
        assert complaints(lines) == []
        assert evidence(each.dataset) == looked_at
        named = len(images) if each.kind is not Kind.REFUSAL_SUMMARY else 0
        assert sum("IMAGE:" in line for line in lines) == named


def test_a_refusal_without_any_image_can_be_read(refused, written, dsrdump):
    report = beside(refused.sources[0], 1, EnhancedSRStorage)

    for path in written(objects(replace(refused, sources=(report,)))):
        assert complaints(dsrdump(path)) == []
