from dataclasses import replace
from datetime import UTC, datetime

import pytest

from worker.results.letterhead import letterhead
from worker.results.outcome import Options
from worker.results.terms import PROCESSING_EQUIPMENT, Kind


@pytest.fixture
def instance(judged):
    return letterhead(judged).instance(Kind.REPORT)


def test_an_object_belongs_to_the_patient_and_study_of_its_source(instance, judged):
    source = judged.sources[0]

    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        assert instance[keyword].value == source[keyword].value
    assert instance.SeriesInstanceUID != source.SeriesInstanceUID


def test_every_object_is_marked_as_research(instance):
    assert instance.ContentQualification == "RESEARCH"
    assert "INVESTIGATIONAL" in instance.SeriesDescription


def test_all_times_are_that_of_creation(instance):
    for part in ("InstanceCreation", "Series", "Content"):
        assert instance[f"{part}Date"].value == "20261121"
        assert instance[f"{part}Time"].value == "123015.000000"


def test_times_are_in_the_zone_that_the_source_names(judged):
    sources = judged.sources
    sources[0].TimezoneOffsetFromUTC = "-1130"
    evening = replace(judged, created=datetime(2026, 11, 21, 6, 0, tzinfo=UTC))

    instance = letterhead(evening).instance(Kind.REPORT)
    del sources[0].TimezoneOffsetFromUTC

    assert (instance.ContentDate, instance.ContentTime) == ("20261120", "183000.000000")
    assert instance.TimezoneOffsetFromUTC == "-1130"


def test_the_model_is_named_with_its_weights_and_what_it_was_trained_on(instance, judged):
    scanner, model = instance.ContributingEquipmentSequence

    assert scanner.Manufacturer == "Scanner maker"
    assert model.ManufacturerModelName == "fistula-demo"
    assert model.SoftwareVersions == "1.2.3"
    assert model.DeviceUID == judged.lineage.model_uid
    assert judged.bundle.weights_sha256 in model.ContributionDescription
    assert judged.bundle.statement in model.ContributionDescription
    assert model.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator == "99IHE"


def test_a_site_may_list_the_model_as_plain_equipment(judged):
    plain = replace(judged, options=Options(algorithm_purpose=PROCESSING_EQUIPMENT))

    model = letterhead(plain).instance(Kind.REPORT).ContributingEquipmentSequence[-1]

    assert model.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_no_model_is_named_where_none_took_part(refused):
    (scanner,) = letterhead(refused).instance(Kind.REFUSAL).ContributingEquipmentSequence

    assert scanner.Manufacturer == "Scanner maker"
