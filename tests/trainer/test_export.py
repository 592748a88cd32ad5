"""What the trainer writes, the worker loads, and MONAI too."""

import dataclasses
import json
import re

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from trainer.export import CannotExport, enclose_report, export, record_metrics
from trainer.settings import TrainingConfig
from worker.appearance import of_head
from worker.bundle import load_bundle, load_volume_bundle, member_weights
from worker.ensemble import Ensemble
from worker.preprocess import Prepared

# docs/source/mb_specification.rst of MONAI 1.6
MANDATORY = {
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
}
MANDATORY_OF_TENSORS = {
    "type",
    "format",
    "num_channels",
    "spatial_shape",
    "dtype",
    "value_range",
    "is_patch_data",
    "channel_def",
}


def ignore(*_):
    pass


@pytest.fixture
def folder(tmp_path, toy_run, toy_cohort):
    export(tmp_path / "new", toy_run, toy_cohort, {"auroc": 0.9}, "a command", ignore)
    return tmp_path / "new"


@pytest.fixture
def metadata(folder):
    return json.loads((folder / "configs" / "metadata.json").read_text())


def test_the_worker_loads_the_honest_weights(folder, toy_run):
    bundle = load_bundle(folder)

    assert bundle.recipe == toy_run.config.preparation
    assert bundle.occlusion == toy_run.config.bundle.occlusion
    assert bundle.statement == "toy"
    for weights, fold in zip(
        member_weights(bundle.folder, bundle.members), toy_run.folds, strict=True
    ):
        expected = fold.weights("ema")
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_it_tells_how_often_which_probability_was_right_and_how_inputs_looked(folder, toy_cohort):
    bundle = load_bundle(folder)

    assert sum(bundle.validation.patients) == len(toy_cohort)
    assert sum(bundle.validation.positives) == toy_cohort.labels.sum()
    seen = of_head(toy_cohort.voxels[0])
    assert bundle.inputs.keys() == seen.keys()
    assert all(sum(each.share) == pytest.approx(1, abs=1e-4) for each in bundle.inputs.values())


def test_a_report_is_enclosed_under_the_seal(folder, tmp_path):
    (tmp_path / "report.html").write_text("<p>figures</p>")
    enclose_report(folder, tmp_path / "report.html")

    load_bundle(folder)
    assert (folder / "docs" / "evaluation.html").read_text() == "<p>figures</p>"
    with pytest.raises(CannotExport, match="name the folder that `evaluate` wrote"):
        enclose_report(folder, tmp_path / "none.html")


def test_a_bundle_that_judges_otherwise_than_in_training_is_not_left_behind(
    tmp_path, toy_run, toy_cohort
):
    wrong = {kind: odds + 2e-4 for kind, odds in toy_run.folds[1].log_odds.items()}
    altered = dataclasses.replace(toy_run.folds[1], log_odds=wrong)
    wrong_run = dataclasses.replace(toy_run, folds=(toy_run.folds[0], altered))

    with pytest.raises(CannotExport, match=r"log odds differ by 0\.0002"):
        export(tmp_path / "new", wrong_run, toy_cohort, {}, "a command", ignore)
    assert not (tmp_path / "new").exists()


def test_monai_itself_reproduces_our_probability(folder, tmp_path, toy_cohort):
    volume = toy_cohort.voxels[2].astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "volume.nii.gz")
    ours = Ensemble(load_volume_bundle(folder)).predict(Prepared(volume, np.eye(4))).probability

    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser["bundle_root"] = str(folder)
    parser["image_path"] = str(tmp_path / "volume.nii.gz")
    with torch.inference_mode():
        theirs = parser.get_parsed_content("pred")

    assert float(theirs[0, 1]) == pytest.approx(ours, abs=1e-6)
    assert float(theirs.sum()) == pytest.approx(1)


def test_all_that_monai_s_specification_makes_mandatory_is_there(metadata):
    assert metadata.keys() >= MANDATORY
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["version"])
    for tensors in metadata["network_data_format"].values():
        for tensor in tensors.values():
            assert tensor.keys() >= MANDATORY_OF_TENSORS


def test_it_says_what_it_came_from(metadata, toy_run, toy_cohort):
    training = metadata["training"]

    assert training["cohort_fingerprint"] == toy_cohort.fingerprint
    assert training["folds_sha256"] == toy_run.folds_sha256
    assert metadata["calibration_of_ensemble"] == "unverified"
    assert training["environment"].keys() >= {"monro", "torch", "python"}
    assert TrainingConfig.model_validate(metadata["fit"]) == toy_run.config


def test_nothing_in_it_can_carry_code(folder):
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}

    assert kinds == {"", ".json", ".md", ".safetensors"}


def test_recording_figures_changes_card_and_metadata_and_seals_anew(folder):
    before = load_bundle(folder)

    record_metrics(folder, {"brier": 0.1})

    assert load_bundle(folder).weights_sha256 == before.weights_sha256
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert metadata["eval_metrics"] == {"auroc": 0.9, "brier": 0.1}
    assert "| brier | 0.1 |" in (folder / "docs" / "README.md").read_text()


def test_a_bundle_is_never_overwritten(folder, toy_run, toy_cohort):
    with pytest.raises(CannotExport, match="there already"):
        export(folder, toy_run, toy_cohort, {}, "again", ignore)
    assert load_bundle(folder)
