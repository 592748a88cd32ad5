"""A bundle in service gets the calibration that labelled exams ask for, and keeps its weights."""

import dataclasses
import json

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from scipy import special

from trainer.cohort import Cohort, digest
from trainer.export import export
from trainer.recalibrate import CannotRecalibrate, best_factor, recalibrate
from trainer.statistics import fit_temperature
from trainer.subject import Heads, open_subject, seen_in_training
from worker.bundle import load_bundle, load_volume_bundle
from worker.ensemble import Ensemble
from worker.preprocess import Prepared
from worker.seal import write_manifest


def ignore(*_):
    pass


@pytest.fixture
def in_service(tmp_path, toy_run, toy_cohort):
    """The toy bundle, much too sure of itself."""
    folder = tmp_path / "in service"
    export(folder, toy_run, toy_cohort, {}, "a command", ignore)
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["monro"]["temperatures"] = [0.02, 0.05]
    path.write_text(json.dumps(metadata))
    write_manifest(folder)
    return Ensemble(load_volume_bundle(folder))


@pytest.fixture
def labelled(toy_cohort):
    """Exams like those trained on and equal to none, with some labels swapped."""
    rng = np.random.default_rng(5)
    noise = rng.uniform(0, 0.2, toy_cohort.voxels.shape).astype(np.float16)
    voxels = np.where(toy_cohort.voxels > 0, toy_cohort.voxels - noise, 0).astype(np.float16)
    exams = []
    for number, (exam, volume) in enumerate(zip(toy_cohort.exams, voxels, strict=True)):
        label = 1 - exam.label if number % 16 < 2 or number % 16 == 6 else exam.label
        exams.append(dataclasses.replace(exam, label=label, volume=digest(volume)))
    return Cohort(tuple(exams), voxels, toy_cohort.recipe)


def test_the_factor_of_one_member_is_its_temperature():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 400)
    labels = (rng.uniform(size=400) < special.expit(odds)).astype(int)

    found = best_factor(labels, 3 * odds[:, None], np.array([1.0]))

    assert found == pytest.approx(fit_temperature(labels, 3 * odds), rel=1e-4)
    assert found == pytest.approx(3, rel=0.2)


def test_exams_without_any_error_change_nothing():
    labels = np.array([0, 0, 1, 1])

    assert best_factor(labels, 4.0 * (2 * labels - 1)[:, None], np.array([1.0])) == 1.0


def test_the_new_bundle_is_better_calibrated_and_says_how(in_service, labelled, tmp_path):
    heard = []

    found = recalibrate(
        Heads(in_service, labelled),
        tmp_path / "new",
        "1.1.0",
        "a command",
        lambda *each: heard.append(each),
    )

    new, old = load_bundle(tmp_path / "new"), in_service.bundle
    assert found.factor > 2
    assert found.brier_after < found.brier_before - 0.02
    assert new.temperatures == pytest.approx([0.02 * found.factor, 0.05 * found.factor])
    assert (new.version, new.weights_sha256) == ("1.1.0", old.weights_sha256)
    assert heard[-1] == (80, 80)
    metadata = json.loads((new.folder / "configs" / "metadata.json").read_text())
    assert "80 exams of 40 patients" in metadata["calibration_of_ensemble"]
    assert next(iter(metadata["changelog"])) == "1.1.0"
    card = (new.folder / "docs" / "README.md").read_text()
    assert "80 exams of 40 patients" in card
    assert "unverified" not in card


def test_the_thresholds_keep_what_was_asked_of_the_whole_ensemble(in_service, labelled, tmp_path):
    recalibrate(Heads(in_service, labelled), tmp_path / "new", "1.1.0", "a command", ignore)

    ensemble = Ensemble(load_volume_bundle(tmp_path / "new"))
    found = np.array(
        [
            ensemble.predict(Prepared(each.astype(np.float32), np.eye(4))).probability
            for each in labelled.voxels
        ]
    )
    negatives, positives = found[labelled.labels == 0], found[labelled.labels == 1]
    assert np.mean(negatives < ensemble.bundle.threshold_high) >= 0.95
    assert np.mean(positives >= ensemble.bundle.threshold_low) >= 0.75


def test_monai_computes_the_new_probability_too(in_service, labelled, tmp_path):
    recalibrate(Heads(in_service, labelled), tmp_path / "new", "1.1.0", "a command", ignore)
    volume = labelled.voxels[3].astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "volume.nii.gz")
    ours = (
        Ensemble(load_volume_bundle(tmp_path / "new"))
        .predict(Prepared(volume, np.eye(4)))
        .probability
    )

    parser = ConfigParser()
    parser.read_config(tmp_path / "new" / "configs" / "inference.json")
    parser["bundle_root"] = str(tmp_path / "new")
    parser["image_path"] = str(tmp_path / "volume.nii.gz")
    with torch.inference_mode():
        theirs = parser.get_parsed_content("pred")

    assert float(theirs[0, 1]) == pytest.approx(ours, abs=1e-6)


def test_the_exams_it_was_fitted_to_count_as_seen(in_service, labelled, tmp_path):
    assert seen_in_training(Heads(in_service, labelled)) == 0

    recalibrate(Heads(in_service, labelled), tmp_path / "new", "1.1.0", "a command", ignore)

    assert seen_in_training(open_subject(tmp_path / "new", labelled)) == 80


def test_exams_that_were_trained_on_are_refused(in_service, toy_cohort, tmp_path):
    with pytest.raises(CannotRecalibrate, match="80 of these exams"):
        recalibrate(Heads(in_service, toy_cohort), tmp_path / "new", "1.1.0", "a command", ignore)
    assert not (tmp_path / "new").exists()


def test_few_patients_are_refused(in_service, labelled, tmp_path):
    few = Cohort(labelled.exams[:30], labelled.voxels[:30], labelled.recipe)

    with pytest.raises(CannotRecalibrate, match="20 are needed"):
        recalibrate(Heads(in_service, few), tmp_path / "new", "1.1.0", "a command", ignore)


def test_a_version_stands_for_one_calibration(in_service, labelled, tmp_path):
    with pytest.raises(CannotRecalibrate, match=r"version 1\.0\.0 is or was that of the bundle"):
        recalibrate(Heads(in_service, labelled), tmp_path / "new", "1.0.0", "a command", ignore)


def test_no_folder_is_overwritten(in_service, labelled):
    folder = in_service.bundle.folder
    before = (folder / "manifest.json").read_bytes()

    with pytest.raises(CannotRecalibrate, match="there already"):
        recalibrate(Heads(in_service, labelled), folder, "1.1.0", "a command", ignore)
    assert (folder / "manifest.json").read_bytes() == before
