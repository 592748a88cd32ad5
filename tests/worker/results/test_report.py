import io
from dataclasses import replace

import pytest
from highdicom.sr import srread

from worker.bundle import NOT_SUGGESTED, SUGGESTED
from worker.ensemble import Band
from worker.occlusion import Error
from worker.results.report import parameters
from worker.results.result import Encoder, Kind, objects


@pytest.fixture
def group_of():
    """Read a report back as a stranger would, and return its one measurement group."""

    def read(outcome, kind=Kind.REPORT):
        written = next(each for each in objects(outcome) if each.kind is kind)
        document = srread(io.BytesIO(Encoder().encode(written.dataset)))
        (group,) = document.content.get_image_measurement_groups()
        return group

    return read


def measurements(group):
    return {each.name.meaning: (each.value, each.unit.value) for each in group.get_measurements()}


def evaluations(group):
    return {
        each.name.meaning: (each.value.scheme_designator, each.value.value, each.value.meaning)
        for each in group.get_qualitative_evaluations()
    }


@pytest.mark.parametrize("kind", [Kind.REPORT, Kind.REPORT_ENHANCED])
def test_numbers_are_percentages_with_one_decimal(judged, group_of, kind):
    assert measurements(group_of(judged, kind)) == {
        "Probability": (87.3, "%"),
        "Disagreement between ensemble members": (2.3, "%"),
        "Out-of-distribution percentile": (42.0, "%"),
    }


@pytest.mark.parametrize(
    ("band", "value"),
    [
        (Band.SUGGESTED, ("99MONRO", "SUGGESTED", "Suggested")),
        (Band.NOT_SUGGESTED, ("99MONRO", "NOT-SUGGESTED", "Not suggested; does not exclude")),
        (Band.UNDETERMINED, ("SCT", "373068000", "Undetermined")),
    ],
)
def test_the_finding_has_three_values_and_none_is_absent(judged, group_of, band, value):
    said = replace(judged, prediction=replace(judged.prediction, band=band))

    assert evaluations(group_of(said))["CSF-venous fistula"] == value


@pytest.mark.parametrize(
    ("labels", "meaning"),
    [
        ({SUGGESTED}, "{suggested}"),
        ({NOT_SUGGESTED}, "{not suggested}"),
        ({SUGGESTED, NOT_SUGGESTED}, "{both}"),
        (set(), "{none}"),
    ],
)
def test_the_conformal_set_is_coded(judged, group_of, labels, meaning):
    said = replace(judged, prediction=replace(judged.prediction, conformal=frozenset(labels)))

    assert evaluations(group_of(said))["Conformal prediction set"][2] == meaning


def test_the_algorithm_tells_how_it_was_run(judged, group_of, content):
    report = next(each.dataset for each in objects(judged) if each.kind is Kind.REPORT)
    group = content(report, "Measurement Group")
    told = [
        item.TextValue
        for item in group.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Algorithm Parameters"
    ]

    assert content(report, "Algorithm Name").TextValue == "fistula-demo"
    assert content(report, "Algorithm Version").TextValue == "1.2.3"
    for sentence in (
        "Ensemble of 5 members, mean of calibrated probabilities",
        "Thresholds: suggested from 65.0 %, not suggested below 35.0 %",
        f"Weights sha256: {judged.bundle.weights_sha256}",
        f"Intended input: {judged.bundle.intended_input}",
        "Research use only. Not for primary diagnosis.",
        judged.bundle.statement,
    ):
        assert sentence in told
    assert any("Occlusion map: mode paper, exact, patch 2 x 2 x 2" in text for text in told)


def test_an_approximate_map_tells_its_error(judged):
    spec = replace(judged.map.spec, mode="capped")
    error = Error(positions=12, largest=3.2e-4, relative=0.0061)
    approximate = replace(judged, map=replace(judged.map, spec=spec, error=error))

    (sentence,) = (text for text in parameters(approximate) if text.startswith("Occlusion map"))

    assert "mode capped (mode paper would have taken too long), float32" in sentence
    assert "differs from the exact map by up to 0.00032 log odds" in sentence
    assert "0.61 % of its standard deviation, at 12 positions" in sentence


def test_a_bundle_without_statement_leaves_no_empty_parameter(judged, content):
    silent = replace(judged, bundle=replace(judged.bundle, statement=""))

    report = next(each.dataset for each in objects(silent) if each.kind is Kind.REPORT)

    items = content(report, "Measurement Group").ContentSequence
    assert all(item.TextValue for item in items if item.ValueType == "TEXT")


def test_classic_sources_are_named_image_by_image(judged, group_of):
    named = [image.referenced_sop_instance_uid for image in group_of(judged).source_images]

    assert sorted(named) == sorted(source.SOPInstanceUID for source in judged.sources)


def test_a_multi_frame_source_is_named_once_as_a_whole(judge, siemens, group_of):
    judged = judge(siemens)

    (image,) = group_of(judged).source_images

    assert image.referenced_sop_instance_uid == judged.sources[0].SOPInstanceUID
    assert image.referenced_frame_numbers is None


def test_frames_are_named_where_only_some_were_used(judge, siemens, group_of):
    judged = judge(siemens)
    volume = judged.volume
    some = replace(volume, slices=volume.slices[10:40], planes=volume.planes[10:40])

    (image,) = group_of(replace(judged, volume=some)).source_images

    assert image.referenced_frame_numbers == sorted(each.frame for each in some.slices)


def test_both_encodings_say_the_same(judged):
    comprehensive, enhanced = (
        next(each.dataset for each in objects(judged) if each.kind is kind)
        for kind in (Kind.REPORT, Kind.REPORT_ENHANCED)
    )

    assert comprehensive.SOPInstanceUID != enhanced.SOPInstanceUID
    assert comprehensive.SOPClassUID != enhanced.SOPClassUID
    assert comprehensive.ContentSequence == enhanced.ContentSequence
