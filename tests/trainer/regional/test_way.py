"""The whole way on the command line: from synthetic studies and masks to a table and a bundle."""

import csv
import json
import shutil
from dataclasses import replace

import highdicom
import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from deploy.model_cards import card
from trainer.__main__ import app
from trainer.cohort import BadCohort
from trainer.export import CannotExport
from trainer.regional.cohort import REGIONS, read_regional_cohort
from trainer.regional.export import export_regions, view_of
from trainer.regional.run import read_regional_run
from trainer.run import BadRun
from trainer.synthesize_infection import synthesize_infection
from worker.bundle import RegionBundle, load_bundle
from worker.region_ensemble import RegionEnsemble

PATIENTS = 10
PIXELS = 120

TINY = """
analysis = "infection"

[preparation]
fewest_pixels = 5
side = 64
[preparation.radiomics]
log_sigmas_mm = [1.0]
families = ["firstorder"]

[models.base]
name = "compact-densenet-2d"
config = { growth_rate = 4, block_config = [1, 1, 1, 1], init_features = 8 }

[models.fused]
name = "compact-densenet-2d-aspp-radfusion"
[models.fused.config]
growth_rate = 4
block_config = [1, 1, 1, 1]
init_features = 8
aspp_rates = [1]
aspp_channels = 8

[fit]
folds = 2
inner_folds = 2
batch_size = 8
learning_rates = [1e-3]
epochs = [1]

[features]
numbers = [3]

[bundle]
name = "tiny-regions"
statement = "tiny"
"""


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def done(*arguments):
    found = run(*arguments)
    assert found.exit_code == 0, found.output
    return found.output


def gathering(place, out="cohort", labels="labels.csv"):
    return (
        "gather", "--labels", place / "dicom" / labels, "--dicom", place / "dicom" / "studies",
        "--out", place / out, "--salt", place / "salt", "--config", place / "tiny.toml",
    )  # fmt: skip


def gather(place, out="cohort", labels="labels.csv"):
    return done(*gathering(place, out, labels))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which a tiny cohort was gathered, trained on and exported."""
    place = tmp_path_factory.mktemp("lab")
    (place / "tiny.toml").write_text(TINY)
    synthesize_infection(place / "dicom", PATIENTS, 3, 1.0, lambda *_: None, 2, PIXELS)
    gather(place)
    ways = ("--cohort", place / "cohort"), ("--config", place / "tiny.toml")
    done("fit", *ways[0], *ways[1], "--out", place / "run", "--all", "--processes", 1)
    (place / "told.txt").write_text(
        done("evaluate", *ways[0], "--run", place / "run", "--out", place / "report")
    )
    ways = *ways[0], "--run", place / "run", "--report", place / "report"
    done("export", *ways, "--out", place / "bundle")
    return place


def rows_of(place):
    with (place / "dicom" / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(place, name, rows):
    with (place / "dicom" / name).open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def test_a_reader_s_masks_are_used_and_what_is_missing_is_proposed(place):
    rows = rows_of(place)[:2]
    rows[0]["regions"] = ""
    write_rows(place, "some.csv", rows)

    gather(place, "some", "some.csv")

    exams = read_regional_cohort(place / "some").exams
    told = sorted(tuple(exam.columns[region] for region in REGIONS) for exam in exams)
    assert told == [("drawn", "drawn"), ("proposed", "proposed")]


def test_a_mask_that_was_corrected_is_looked_at_again(place):
    rows = rows_of(place)[:1]
    rows[0]["regions"] = "regions/corrected"
    write_rows(place, "one.csv", rows)
    folder = place / "dicom" / "regions" / "corrected"
    shutil.copytree(place / "dicom" / "regions" / "0000", folder)
    gather(place, "one", "one.csv")
    before = read_regional_cohort(place / "one")

    image = nibabel.load(folder / "ventricles.nii.gz")
    less = np.asarray(image.dataobj).copy()
    less[: less.shape[0] // 2] = 0
    nibabel.save(type(image)(less, image.affine, image.header), folder / "ventricles.nii.gz")
    gather(place, "one", "one.csv")

    after = read_regional_cohort(place / "one")
    volumes = [each.views["ventricles"].volume_ml[0] for each in (before, after)]
    assert 0.3 < volumes[1] / volumes[0] < 0.7
    assert after.views["sublentiform"].volume_ml == before.views["sublentiform"].volume_ml


def test_a_mask_in_another_order_of_axes_means_the_same_voxels(place):
    rows = rows_of(place)[:1]
    rows[0]["regions"] = "regions/turned"
    write_rows(place, "turned.csv", rows)
    folder = place / "dicom" / "regions" / "turned"
    folder.mkdir()
    for region in REGIONS:
        image = nibabel.load(place / "dicom" / "regions" / "0000" / f"{region}.nii.gz")
        orientation = nibabel.orientations.axcodes2ornt(("S", "L", "P"))
        nibabel.save(image.as_reoriented(
            nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), orientation)
        ), folder / f"{region}.nii.gz")  # fmt: skip

    gather(place, "turned", "turned.csv")

    turned = read_regional_cohort(place / "turned")
    name = turned.exams[0].exam
    whole = read_regional_cohort(place / "cohort")
    volume = {exam.exam: exam.volume for exam in whole.exams}[name]
    assert turned.exams[0].volume == volume


def segmentation_of(place, row, folder):
    """What a viewer exports: both masks of a row as one DICOM Segmentation."""
    paths = (place / "dicom" / "studies").rglob("*.dcm")
    images = [each for each in map(dcmread, paths) if each.StudyInstanceUID == row["study"]]
    images.sort(key=lambda each: each.ImagePositionPatient[2])
    masks = []
    for region in REGIONS:
        image = nibabel.as_closest_canonical(nibabel.load(folder / f"{region}.nii.gz"))
        masks.append(np.flip(np.asarray(image.dataobj) > 0, (0, 1)).transpose(2, 1, 0))
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=region,
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="MANUAL",
        )
        for number, region in enumerate(REGIONS, start=1)
    ]
    return highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=np.stack(masks, axis=-1).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="viewer",
        manufacturer_model_name="viewer",
        software_versions="1",
        device_serial_number="1",
    )


def test_masks_may_come_as_a_dicom_segmentation_and_mean_the_same(place):
    rows = rows_of(place)[:1]
    original = place / "dicom" / rows[0]["regions"]
    rows[0]["regions"] = "regions/segmentation"
    write_rows(place, "segmentation.csv", rows)
    folder = place / "dicom" / "regions" / "segmentation"
    folder.mkdir()
    segmentation_of(place, rows[0], original).save_as(folder / "mended.dcm")

    gather(place, "segmentation", "segmentation.csv")

    found = read_regional_cohort(place / "segmentation").exams[0]
    whole = read_regional_cohort(place / "cohort")
    assert {found.columns[region] for region in REGIONS} == {"drawn"}
    assert found.volume == {exam.exam: exam.volume for exam in whole.exams}[found.exam]

    shutil.copy(original / f"{REGIONS[0]}.nii.gz", folder)
    done = run(*gathering(place, "twice", "segmentation.csv"))
    assert done.exit_code == 1
    assert "BAD-DRAWING" in done.stderr.replace("\n", "")


def test_the_flow_of_an_infection_cohort_knows_no_myelogram(place):
    told = json.loads((place / "cohort" / "cohort.json").read_text())["flow"]

    assert [step["stage"] for step in told][1:4] == [
        "with a definite label",
        "with a study",
        "with a suitable series",
    ]
    assert not any("myelogram" in step["stage"] for step in told)


def test_a_folder_of_masks_that_is_not_there_is_named_by_its_row_alone(place):
    rows = rows_of(place)[:1]
    rows[0]["regions"] = "regions/DOE-ANN"
    write_rows(place, "none.csv", rows)

    found = run(
        "gather", "--labels", place / "dicom" / "none.csv", "--dicom", place / "dicom" / "studies",
        "--out", place / "none", "--salt", place / "salt", "--config", place / "tiny.toml",
    )  # fmt: skip

    assert found.exit_code == 1
    assert "row 1" in found.output
    assert "DOE" not in found.output


def test_no_patient_is_named_in_the_cohort(place):
    names = {row["patient"] for row in rows_of(place)} | {row["study"] for row in rows_of(place)}
    for path in (place / "cohort").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(name.encode() in content or name in path.name for name in names)


def test_views_that_were_altered_are_refused(place, tmp_path):
    shutil.copytree(place / "cohort", tmp_path / "cohort")
    one = next((tmp_path / "cohort" / "views").iterdir())
    one.write_bytes(one.read_bytes()[:-2] + b"\0\1")

    with pytest.raises(BadCohort, match="not what was gathered"):
        read_regional_cohort(tmp_path / "cohort")


def test_a_fold_that_was_killed_is_fitted_again_to_the_same_weights(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    fold = tmp_path / "run" / "sublentiform" / "fused" / "fold_1"
    weights = (fold / "weights.safetensors").read_bytes()
    (fold / "fold.json").unlink()
    (fold / "weights.safetensors").unlink()
    with pytest.raises(BadRun, match="fold_1 is not done"):
        read_regional_run(tmp_path / "run", read_regional_cohort(place / "cohort"))

    done(
        "fit", "--cohort", place / "cohort", "--config", place / "tiny.toml",
        "--out", tmp_path / "run", "--all", "--processes", 1,
    )  # fmt: skip

    assert (fold / "weights.safetensors").read_bytes() == weights


def test_the_table_has_every_model_on_every_region(place):
    told = (place / "told.txt").read_text()
    numbers = json.loads((place / "report" / "metrics.json").read_text())

    assert told.count("fused") >= 4
    places = {(row["region"], row["model"], row["strategy"]) for row in numbers["table"]}
    assert len(places) == 2 * 2 * 4
    assert {image["image"] for image in numbers["findings"]["images"]} == {
        "original",
        "log-sigma-1-0-mm-3D",
    }
    page = (place / "report" / "report.html").read_text()
    assert "Patients, by the mean of their slices" in page
    assert "http://" not in page


def test_the_bundle_is_what_the_worker_runs(place):
    bundle = load_bundle(place / "bundle")
    cohort = read_regional_cohort(place / "cohort")

    assert isinstance(bundle, RegionBundle)
    assert bundle.decisive == "sublentiform"
    assert bundle.recipe == cohort.recipe
    assert [len(each.members) for each in bundle.regions.values()] == [2, 2]
    ensemble = RegionEnsemble(bundle)
    scores = ensemble.scores({region: view_of(cohort, region, 0) for region in REGIONS})
    assert ensemble.prediction(scores).probability == scores["sublentiform"].probability


def test_the_bundle_says_what_its_features_were_measured_with(place):
    bundle, cohort = load_bundle(place / "bundle"), read_regional_cohort(place / "cohort")

    told = bundle.measured_with
    assert (told.library, told.version, told.config_hash) == cohort.measured_with
    weighed = {
        name
        for models in bundle.regions.values()
        for each in models.features
        for name in each.names
    }
    assert told.specimen.keys() == weighed
    assert len(weighed) >= 3


def test_a_cohort_that_was_measured_otherwise_is_not_exported_from_here(place, tmp_path):
    shutil.copytree(place / "cohort", tmp_path / "cohort")
    cohort = read_regional_cohort(tmp_path / "cohort")
    library, _, config_hash = cohort.measured_with
    older = replace(cohort, measured_with=(library, "0.9.0", config_hash))
    run = read_regional_run(place / "run", cohort)

    with pytest.raises(CannotExport, match=r"features of flash-radiomics 0.9.0.*gather and fit"):
        export_regions(tmp_path / "bundle", run, older, "fused", {}, "none", lambda *_: None)
    assert not (tmp_path / "bundle").exists()


def test_what_readers_drew_is_kept_as_it_would_have_been_proposed_too(place):
    cohort = read_regional_cohort(place / "cohort")
    rows = rows_of(place)
    for row in rows:
        row["regions"] = ""
    write_rows(place, "alone.csv", rows)

    gather(place, "alone", "alone.csv")

    alone = read_regional_cohort(place / "alone")
    assert alone.proposals == {}
    at = {exam.exam: number for number, exam in enumerate(cohort.exams)}
    for region, proposals in cohort.proposals.items():
        assert 0.4 < np.nanmin(proposals.dice) < np.nanmax(proposals.dice) < 1
        usual = alone.views[region]
        for number, exam in enumerate(alone.exams):
            place_ = at[exam.exam]
            np.testing.assert_array_equal(
                proposals.views.crops[proposals.views.exam_of == place_],
                usual.crops[usual.exam_of == number],
            )
            np.testing.assert_array_equal(
                proposals.views.radiomics[place_], usual.radiomics[number]
            )


def test_the_report_says_what_proposals_cost_and_the_bundle_s_card_too(place):
    numbers = json.loads((place / "report" / "metrics.json").read_text())
    told = (place / "told.txt").read_text()
    page = (place / "report" / "report.html").read_text()
    card = (place / "bundle" / "docs" / "README.md").read_text()

    assert len(numbers["table_proposed"]) == len(numbers["table"])
    assert numbers["table_proposed"] != numbers["table"]
    assert [each["region"] for each in numbers["overlaps"]] == list(REGIONS)
    assert "regions as proposed: %" in told.replace("\n", " ")
    assert told.count("Dice of proposed and drawn") == 2
    assert "Regions as proposed" in page
    assert "| sublentiform proposed accuracy |" in card
    assert "| sublentiform dice |" in card


def test_the_report_says_of_each_finding_of_the_paper_whether_it_holds(place):
    found = json.loads((place / "report" / "metrics.json").read_text())["findings"]
    told = " ".join((place / "told.txt").read_text().split())
    page = (place / "report" / "report.html").read_text()

    lead = found["lead"]
    assert (lead["finest"], lead["next"]) == ("log-sigma-1-0-mm-3D", "original")
    low, high = lead["interval"]["low"], lead["interval"]["high"]
    assert f"margin {lead['margin']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}" in told
    for claim in (
        "fine-scale filtered features tell most: ",
        "fused beats base on sublentiform: ",
        "sublentiform clearly better: ",
        "the strict way confirms sublentiform: ",
    ):
        verdict = told.split(claim)[1].split(" (")[0]
        assert verdict in ("holds", "does not hold", "open")
        assert claim.removesuffix(": ") in page
    # Two regions, four strategies, of which three have an AUROC as well.
    assert len(found["claims"]["fused"]) == 2 * (4 + 3)


def test_the_report_looks_at_the_deciding_model_as_closely_as_at_whole_heads(place):
    page = (place / "report" / "report.html").read_text()
    numbers = json.loads((place / "report" / "metrics.json").read_text())
    files = {each.name for each in (place / "report" / "figures").iterdir()}

    for heading in (
        "Discrimination", "Calibration", "Operating points", "Conformal sets", "Decision curve",
        "Subgroups", "Worst errors", "TRIPOD+AI",
    ):  # fmt: skip
        assert f">{heading}</h2>" in page
    assert files >= {
        "flow.png", "roc_folds.png", "roc_pooled.png", "reliability.png", "probabilities.png",
        "predictive_values.png", "decision_curve.png", "conformal.png", "case_1.png",
    }  # fmt: skip
    assert not any(word in page for word in ("Bern", "yelogra", "Faghani", "Occlusion"))
    assert numbers["model"] == "fused"
    with (place / "report" / "tables" / "predictions.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    assert len(predictions) == numbers["cohort"]["exams"] == PATIENTS
    by_fold = {row["exam"]: row["fold"] for row in predictions}
    with (place / "run" / "sublentiform" / "fused" / "fold_1" / "slices.csv").open() as file:
        assert {by_fold[row["exam"]] for row in csv.DictReader(file)} == {"1"}


def test_report_and_card_say_what_the_shipped_thresholds_do(place):
    numbers = json.loads((place / "report" / "metrics.json").read_text())
    metadata = json.loads((place / "bundle" / "configs" / "metadata.json").read_text())
    found = metadata["eval_metrics"]

    shipped = [each for each in numbers["thresholds_kept"] if each["thresholds"] == "as shipped"]
    assert [each["regions"] for each in shipped] == ["as gathered", "as proposed"]
    for each, how in zip(shipped, ("", "proposed_"), strict=True):
        assert each["sensitivity"] >= 0.95
        assert each["specificity"] >= 0.9
        assert found[f"sublentiform_{how}sensitivity"] == round(each["sensitivity"], 3)
    assert numbers["operation"]["threshold_low"] == metadata["monro"]["threshold_low"]
    assert metadata["fit"]["statement"]["sensitivity"] == 0.95
    assert (
        "| sublentiform proposed unlike |" in (place / "bundle" / "docs" / "README.md").read_text()
    )


def test_a_model_card_is_written_from_what_the_bundle_encloses(place):
    page = card("infection", place / "bundle")
    metrics = json.loads((place / "bundle" / "configs" / "metadata.json").read_text())[
        "eval_metrics"
    ]

    for masks, how in (("drawn", ""), ("proposed", "proposed_")):
        for region in REGIONS:
            found = metrics[f"{region}_{how}accuracy"]
            assert f"| {region} | {masks} | accuracy | {found} |" in page
    assert "| the strict way confirms sublentiform |" in page
    assert "| fused beats base on sublentiform |" in page
    assert "of the other folds" in page
    assert "keep a sensitivity of 95.0 %" in page
    assert "{" not in page


def test_a_model_that_was_not_fitted_is_not_evaluated(place):
    found = run(
        "evaluate", "--cohort", place / "cohort", "--run", place / "run",
        "--out", place / "none", "--model", "unknown",
    )  # fmt: skip

    assert found.exit_code == 1
    assert "name one of base, fused" in " ".join(found.output.split())


def test_a_bundle_of_a_model_that_was_not_fitted_is_not_written(place):
    found = run(
        "export", "--cohort", place / "cohort", "--run", place / "run",
        "--out", place / "other", "--model", "unknown",
    )  # fmt: skip

    assert found.exit_code == 1
    assert "name one of base, fused" in " ".join(found.output.split())
    assert not (place / "other").exists()
