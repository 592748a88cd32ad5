"""What results say of regions: proposal, note, reports, summary, outlines; and the gate."""

import io
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread
from PIL import Image

from tests.worker.results.test_conformance import assert_clean
from worker.analyses.interface import Drawn, RegionFinding, SegmentationUids, Unmeasured
from worker.bundle import RegionBundle, RegionModels
from worker.crops import CropRecipe
from worker.ensemble import Score
from worker.gradcam import CamMap
from worker.quality import Reason, UnusableStudy, no_series
from worker.radiomics.config import PAPER_RADIOMICS
from worker.radiomics.vector import Provenance
from worker.results import terms
from worker.results.outcome import Estimated, NotJudged, Options, Predecessor, Proposed
from worker.results.outlines import Outlines
from worker.results.result import Encoder, Kind, objects

DRAWN = Drawn(
    {"sublentiform": np.ones(1)},
    (SegmentationUids(pydicom.uid.SegmentationStorage, "1.2.9.1", "1.2.9"),),
)
MEASURED = Provenance("flash-radiomics", "1.0.0 (SimpleITK 2.5.7)", "0123456789abcdef" * 4)
BLUE, GREEN = (86, 180, 233), (0, 200, 140)


def ball(volume, centre, radius):
    """Where a ball in RAS mm lies on a volume."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.voxels.shape), indexing="ij"), axis=-1)
    ras = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return np.linalg.norm(ras - centre, axis=-1) < radius


def of_infection(judged, origin="proposed"):
    """The judged head, had it been for signs of infection in two balls."""
    volume, bundle = judged.volume, judged.bundle
    shared = {
        name: getattr(bundle, name)
        for name in ("folder", "version", "weights_sha256", "network", "threshold_low")
    } | {name: getattr(bundle, name) for name in ("threshold_high", "ood_limit", "conformal")}
    regions = RegionBundle(
        **shared,
        analysis="infection",
        name="infection-toy",
        statement="Untrained: no clinical meaning.",
        intended_input="axial T2 of the head",
        recipe=CropRecipe(),
        regions={each: RegionModels((), (), ()) for each in ("ventricles", "sublentiform")},
        decisive="sublentiform",
    )
    inner, outer = ball(volume, (0, -10, 20), 30), ball(volume, (24, 32, 16), 24)
    score = Score(0.71, (0.70, 0.72), 0.01, 12.0)
    found = (
        RegionFinding(
            "ventricles", inner, 113.1, origin, False, score, (("original_firstorder_Mean", 1.5),)
        ),
        RegionFinding("sublentiform", outer, 57.9, origin, True, score, measured_with=MEASURED),
    )
    cam = CamMap(outer * np.float32(0.02), outer, volume.affine, crops=4, members=2)
    return replace(
        judged,
        lineage=replace(
            judged.lineage,
            analysis="infection",
            bundle=f"{regions.name} {regions.version}",
            occlusion="grad-cam",
        ),
        bundle=regions,
        map=cam,
        regions=found,
        drawn=DRAWN if origin == "drawn" else None,
    )


@pytest.fixture(scope="session")
def infection(judged):
    return of_infection(judged)


@pytest.fixture(scope="session")
def by_reader(judged):
    return of_infection(judged, "drawn")


@pytest.fixture(scope="session")
def of_one_region(by_reader):
    """The other one is not to be found."""
    refusal = UnusableStudy(Reason.NO_REGION, "0.4 ml of fluid", "ventricles of 1.5 to 250 ml")
    return replace(
        by_reader,
        regions=by_reader.regions[1:],
        unmeasured=(Unmeasured("ventricles", refusal),),
    )


@pytest.fixture(scope="session")
def proposed(infection):
    return Proposed(
        replace(infection.lineage, occlusion=""),
        infection.created,
        infection.sources,
        volume=infection.volume,
        bundle=infection.bundle,
        regions=tuple(replace(each, score=None, features=()) for each in infection.regions),
    )


@pytest.fixture(scope="session")
def early(infection):
    return Estimated(
        replace(infection.lineage, occlusion=""),
        infection.created,
        infection.sources,
        infection.volume,
        infection.bundle,
        infection.prediction,
        regions=infection.regions,
    )


@pytest.fixture(scope="session")
def refusal(infection):
    return NotJudged(
        infection.lineage,
        infection.created,
        infection.sources,
        no_series('series 3 "SAG T1": T1', "infection"),
    )


def test_every_kind_of_object_names_software_and_model_with_their_versions_and_hash(
    judged, infection, early, proposed, refusal
):
    with_extras = replace(judged, options=Options(extras=frozenset({Kind.REGION, Kind.FLOAT_MAP})))
    seen = set()
    for outcome in (with_extras, infection, early, proposed, refusal):
        for each in objects(outcome):
            seen.add(each.kind)
            found = each.dataset
            assert (found.ManufacturerModelName, found.SoftwareVersions) == (
                "monro",
                version("monro"),
            ), each.kind
            assert found.file_meta.ImplementationVersionName == f"MONRO {version('monro')}"
            said = Encoder().encode(found).decode("latin-1")
            name, _, number = outcome.lineage.bundle.rpartition(" ")
            assert name in said, each.kind
            assert number in said, each.kind
            # Documents for people name as many digits as people compare.
            digits = 12 if each.kind is Kind.REFUSAL_SUMMARY else 64
            assert outcome.lineage.weights_sha256[:digits] in said, each.kind
    assert seen == set(Kind)


def of_kind(outcome, kind):
    return next(each.dataset for each in objects(outcome) if each.kind is kind)


def sentences(outcome, kind, content):
    document = of_kind(outcome, kind)
    return {
        title: [item.TextValue for item in content(document, title).ContentSequence]
        for title in ("Conclusions", "Findings")
    }


def named_in(references):
    return {
        each.ReferencedSOPInstanceUID
        for study in references
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    }


# --- which objects ---


def test_what_nobody_has_seen_goes_along_as_a_segmentation(infection, by_reader):
    kinds = {each.kind for each in objects(infection)}

    assert kinds - {each.kind for each in objects(by_reader)} == {Kind.PROPOSAL}
    assert [each.phase for each in objects(infection)] == sorted(
        each.phase for each in objects(infection)
    )


def test_series_of_both_analyses_do_not_collide(judged, infection, proposed):
    numbers = {int(each.dataset.SeriesNumber) for each in objects(infection)}
    assert numbers == {9101, 9102, 9103, 9109}
    assert {int(each.dataset.SeriesNumber) for each in objects(proposed)} == {9109, 9110}
    fistula = {each.sop_uid for each in objects(judged)}
    assert fistula.isdisjoint(each.sop_uid for each in objects(infection))


def test_a_proposal_keeps_its_uid_over_runs_and_a_drawing_changes_it(proposed, infection):
    def uids(outcome):
        return {each.sop_uid for each in objects(outcome)}

    drawn = replace(proposed, lineage=replace(proposed.lineage, digest="with a drawing"))
    assert uids(proposed) == uids(replace(proposed))
    assert uids(proposed).isdisjoint(uids(drawn))


def test_a_second_run_gives_the_same_bytes(infection, proposed):
    for outcome in (infection, proposed):
        first = [Encoder().encode(each.dataset) for each in objects(outcome)]
        assert first == [Encoder().encode(each.dataset) for each in objects(outcome)]


# --- the proposal ---


def test_a_proposal_is_told_by_the_codes_that_come_back_and_lies_where_regions_are(proposed):
    made = of_kind(proposed, Kind.PROPOSAL)

    assert [
        (
            each.SegmentLabel,
            each.SegmentedPropertyTypeCodeSequence[0].CodeValue,
            each.SegmentAlgorithmType,
        )
        for each in made.SegmentSequence
    ] == [
        ("Ventricular system", "35764002", "AUTOMATIC"),
        ("Sub-lentiform parenchyma", "INF-SUBLENT", "AUTOMATIC"),
    ]
    lit = made.pixel_array.sum(axis=(1, 2))
    counted = {1: 0, 2: 0}
    for frame, group in zip(lit, made.PerFrameFunctionalGroupsSequence, strict=True):
        counted[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber] += int(frame)
    masks = [np.count_nonzero(each.mask) for each in proposed.regions]
    assert list(counted.values()) == masks
    assert made.FrameOfReferenceUID == proposed.sources[0].FrameOfReferenceUID
    (series,) = made.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == proposed.sources[0].SeriesInstanceUID


def test_the_note_asks_for_a_reader_and_concludes_nothing(proposed, content):
    said = sentences(proposed, Kind.NOTE, content)

    assert said["Conclusions"][0] == (
        "CSF-signal alteration in CNS infection: not analysed yet. A reader is asked to look at "
        "the proposed regions in series 9109."
    )
    assert said["Conclusions"][-1].endswith("Not reviewed by a physician.")
    assert said["Findings"] == [
        "Ventricular system: 113.1 ml proposed.",
        "Sub-lentiform parenchyma: 57.9 ml proposed.",
        'Input: series 7 "SAG T1 POST", 14 images.',
    ]
    note = of_kind(proposed, Kind.NOTE)
    evidence = named_in(note.CurrentRequestedProcedureEvidenceSequence)
    assert of_kind(proposed, Kind.PROPOSAL).SOPInstanceUID in evidence
    assert "probability" not in str(said).lower()


# --- reports ---


def groups_of(outcome, kind=Kind.REPORT):
    document = srread(io.BytesIO(Encoder().encode(of_kind(outcome, kind))))
    return document.content.get_image_measurement_groups()


def measured(group):
    return {each.name.meaning: (each.value, each.unit.value) for each in group.get_measurements()}


@pytest.mark.parametrize("kind", [Kind.REPORT, Kind.REPORT_ENHANCED])
def test_a_report_has_a_group_for_the_finding_and_one_for_each_region(infection, kind):
    finding, ventricles, sublentiform = groups_of(infection, kind)

    assert measured(finding)["Probability"] == (87.3, "%")
    assert measured(ventricles) == {
        "Volume": (113.1, "mL"),
        "Probability": (71.0, "%"),
        "original_firstorder_Mean": (1.5, "1"),
    }
    assert measured(sublentiform) == {"Volume": (57.9, "mL"), "Probability": (71.0, "%")}
    assert len({each.tracking_uid for each in (finding, ventricles, sublentiform)}) == 3
    sites = [each.finding_sites[0].topographical_modifier or each.finding_sites[0].value
             for each in (finding, ventricles, sublentiform)]  # fmt: skip
    assert [each.value for each in sites] == ["12738006", "35764002", "INF-SUBLENT"]


@pytest.mark.parametrize(
    ("outcome", "code"), [("infection", "REGION-PROPOSED"), ("by_reader", "REGION-DRAWN")]
)
def test_where_a_region_comes_from_is_coded(outcome, code, request):
    _, *regions = groups_of(request.getfixturevalue(outcome))
    origins = [
        each.value.value
        for group in regions
        for each in group.get_qualitative_evaluations()
        if each.name.meaning == "Origin of the region"
    ]
    assert origins == [code, code]


@pytest.mark.parametrize("kind", [Kind.REPORT, Kind.REPORT_ENHANCED])
def test_a_region_that_was_not_measured_has_a_reason_and_no_number(of_one_region, kind):
    _, sublentiform, ventricles = groups_of(of_one_region, kind)

    assert measured(sublentiform)["Volume"] == (57.9, "mL")
    assert measured(ventricles) == {}
    said = {each.name.value: each.value for each in ventricles.get_qualitative_evaluations()}
    assert said["REGION-NOT-MEAS"].value == "REASON-NO-REGION"
    assert ventricles.finding_sites[0].value.value == "35764002"


def test_reports_say_what_made_the_features(infection, early, judged, content):
    for kind in (Kind.REPORT, Kind.EARLY):
        made = infection if kind is Kind.REPORT else early
        for group in content(of_kind(made, kind), "Imaging Measurements").ContentSequence:
            said = [item.get("TextValue") for item in group.ContentSequence]
            assert f"Handcrafted features: {MEASURED}" in said
    assert (
        "Handcrafted features: flash-radiomics 1.0.0 (SimpleITK 2.5.7), configuration 0123456789ab."
        in sentences(infection, Kind.SUMMARY, content)["Findings"]
    )
    assert "Handcrafted" not in str(sentences(judged, Kind.SUMMARY, content))


def test_a_region_that_was_not_measured_is_told_in_words_and_has_no_segment_or_outline(
    of_one_region, infection, content
):
    said = sentences(of_one_region, Kind.SUMMARY, content)
    assert (
        "Ventricular system: not measured. Found: 0.4 ml of fluid. Needed: ventricles of 1.5 to "
        "250 ml. The conclusion does not rest on it."
    ) in said["Findings"]
    assert not [each for each in said["Findings"] if each.startswith("Ventricular system (")]
    assert Outlines.of(of_one_region).legend == (
        "Outlines: sub-lentiform parenchyma green (by a reader).",
    )
    proposed = replace(
        infection, regions=infection.regions[1:], unmeasured=of_one_region.unmeasured
    )
    made = of_kind(proposed, Kind.PROPOSAL)
    assert [each.SegmentLabel for each in made.SegmentSequence] == ["Sub-lentiform parenchyma"]


def test_what_a_reader_drew_is_evidence(by_reader, infection):
    def evidence(outcome, kind):
        return named_in(of_kind(outcome, kind).CurrentRequestedProcedureEvidenceSequence)

    for kind in (Kind.REPORT, Kind.SUMMARY):
        assert "1.2.9.1" in evidence(by_reader, kind)
        assert "1.2.9.1" not in evidence(infection, kind)


def test_an_early_report_names_the_map_that_follows(early, judged, content):
    group = content(of_kind(early, Kind.EARLY), "Measurement Group")
    told = [each.get("TextValue") for each in group.ContentSequence]
    assert (
        "Early report: the Grad-CAM map is being made, and a report with it will replace this"
        in told
    )


def test_the_summary_tells_of_each_region_and_how_the_map_was_made(infection, by_reader, content):
    said = sentences(infection, Kind.SUMMARY, content)
    assert said["Conclusions"][:3] == [
        "CSF-signal alteration in CNS infection: suggested by the AI model.",
        "AI-estimated probability of CSF-signal alteration in CNS infection: 87.3 % "
        "(suggested from 65.0 %, not suggested below 35.0 %).",
        "A low score does not exclude a CSF-signal alteration in CNS infection.",
    ]
    assert said["Findings"][4:8] == [
        "Ventricular system (proposed, not seen by a reader; blue in the overlay): 113.1 ml, "
        "probability 71.0 %, standard deviation 1.0 percentage points; for comparison only.",
        "Sub-lentiform parenchyma (proposed, not seen by a reader; green in the overlay): 57.9 ml, "
        "probability 71.0 %, standard deviation 1.0 percentage points; the conclusion rests on it.",
        "Handcrafted features: flash-radiomics 1.0.0 (SimpleITK 2.5.7), configuration "
        "0123456789ab.",
        "Grad-CAM map: series 9103. On 4 crops around the decisive region, the last feature map of "
        "each of 2 models was weighed by its effect on the log odds. Warm colours mark what spoke "
        "for the finding; the map shows where the models looked, not where an infection is. "
        "Computed in one pass over 4 crops, mean of 2 members.",
    ]
    assert "as a reader drew it" in sentences(by_reader, Kind.SUMMARY, content)["Findings"][4]


def test_no_document_of_infection_speaks_of_the_other_analysis(infection, proposed, early, refusal):
    for outcome in (infection, proposed, early, refusal):
        for each in objects(outcome):
            said = str(each.dataset).lower()
            assert "fistula" not in said.replace("fistula-demo", "")
            assert "occlusion" not in said
            assert "cvf" not in said


# --- predecessors ---


def test_a_summary_names_the_note_that_it_answers(by_reader, proposed, content):
    note = of_kind(proposed, Kind.NOTE)
    after = replace(by_reader, predecessors=(Predecessor(proposed.lineage, "proposal"),))

    summary = of_kind(after, Kind.SUMMARY)
    assert named_in(summary.PredecessorDocumentsSequence) == {note.SOPInstanceUID}
    (study,) = summary.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == note.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPClassUID == note.SOPClassUID
    assert "replaces an earlier" in sentences(after, Kind.SUMMARY, content)["Findings"][-1]
    # There is no measurement report before it.
    assert "PredecessorDocumentsSequence" not in of_kind(after, Kind.REPORT)


def test_a_note_names_the_summary_that_it_replaces(infection, proposed):
    before = replace(infection.lineage, digest="of fewer slices")
    after = replace(proposed, predecessors=(Predecessor(before, "report"),))

    named = named_in(of_kind(after, Kind.NOTE).PredecessorDocumentsSequence)
    assert named == {before.uid(Kind.SUMMARY)}


# --- outlines ---


def test_outlines_run_where_regions_end_and_nowhere_else(infection):
    affine = infection.volume.affine
    for source, each in zip(infection.volume.slices, objects(infection), strict=False):
        heat = np.asarray(Image.open(io.BytesIO(each.layers.heat)))
        column, row = np.meshgrid(np.arange(source.columns), np.arange(source.rows))
        pixels = np.stack([column, row, np.zeros_like(row), np.ones_like(row)], axis=-1)
        index = pixels @ (np.linalg.inv(affine) @ source.pixel_to_ras()).T
        i, j, k = np.rint(index[..., :3]).astype(int).transpose(2, 0, 1)
        borders = []
        for region in infection.regions:
            inside = region.mask[i, j, k]
            around = np.pad(inside, 1, constant_values=True)
            inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
            borders.append(inside & ~inner)
        first, last = borders  # the last is drawn over the first
        opaque = heat[..., 3] == 255
        np.testing.assert_array_equal((heat[..., :3] == BLUE).all(-1) & opaque, first & ~last)
        np.testing.assert_array_equal((heat[..., :3] == GREEN).all(-1) & opaque, last)
        outside = ~np.logical_or.reduce([each.mask[i, j, k] for each in infection.regions])
        assert heat[outside, 3].max(initial=0) == 0 or not outside.any()


def test_the_legend_says_what_the_lines_are(infection, by_reader):
    assert Outlines.of(infection).legend == (
        "Outlines: ventricular system blue (proposed), sub-lentiform parenchyma green (proposed).",
    )
    assert "green (by a reader)" in Outlines.of(by_reader).legend[0]


def test_without_regions_there_is_no_legend(judged):
    assert Outlines.of(judged).legend == ()


# --- the gate ---


def test_results_of_infection_pass_all_validators(
    by_reader, proposed, infection, head, written, dciodvfy, dcentvfy, pixelmed
):
    options = Options(extras=frozenset({Kind.FLOAT_MAP, Kind.REGION}))
    before = (Predecessor(proposed.lineage, "proposal"),)
    paths = written(objects(replace(by_reader, predecessors=before)))
    paths += written(
        [each for each in objects(replace(infection, options=options)) if each.index == 0]
    )
    assert any(path.name.startswith(Kind.PROPOSAL) for path in paths)
    assert any(path.name.startswith(Kind.FLOAT_MAP) for path in paths)

    for path in paths:
        assert_clean(dciodvfy(path), "dciodvfy")
    for path in paths:
        if path.name.startswith((f"{Kind.REPORT}-0", Kind.SUMMARY)):
            assert_clean(pixelmed(path), "pixelmed")
    fewer = written(objects(by_reader))
    assert_clean(dcentvfy([*head.paths, *fewer]), "dcentvfy")


@pytest.mark.parametrize("outcome", ["proposed", "early", "refusal"])
def test_other_outcomes_of_infection_pass_all_validators(
    outcome, request, head, written, dciodvfy, dcentvfy, pixelmed
):
    paths = written(objects(request.getfixturevalue(outcome)))

    assert_clean(dcentvfy([*head.paths, *paths]), "dcentvfy")
    for path in paths:
        assert_clean(dciodvfy(path), "dciodvfy")
        # The other encoding of a report has the same content, and takes as long.
        if not path.name.startswith(Kind.PROPOSAL) and "enhanced" not in path.name:
            assert_clean(pixelmed(path), "pixelmed")


def test_results_without_a_region_pass_all_validators(of_one_region, written, dciodvfy, pixelmed):
    made = [each for each in objects(of_one_region) if each.kind in (Kind.REPORT, Kind.SUMMARY)]
    for path in written(made):
        assert_clean(dciodvfy(path), "dciodvfy")
        assert_clean(pixelmed(path), "pixelmed")


@pytest.mark.parametrize("source", ["philips", "siemens"])
def test_regions_of_real_scans_pass_too(source, request, judge, written, dciodvfy, dcentvfy):
    series = request.getfixturevalue(source)
    outcome = of_infection(judge(series))
    made = [each for each in objects(outcome) if each.index == 0]
    paths = written(made)

    assert_clean(dcentvfy([*series.paths, *paths]), "dcentvfy")
    for path in paths:
        assert_clean(dciodvfy(path), "dciodvfy")


def test_codes_of_features_fit_and_differ():
    codes = [terms.feature_code(name) for name in PAPER_RADIOMICS.names]
    assert len({each.value for each in codes}) == len(codes)
    assert all(len(each.value) <= 16 and len(each.meaning) <= 64 for each in codes)
