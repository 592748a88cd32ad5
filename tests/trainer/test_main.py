"""The command line: the whole way from patients to a bundle, and messages for people."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainer.__main__ import _command, app
from worker.bundle import load_bundle
from worker.signature import read_trusted_keys

DEMO = Path(__file__).parents[2] / "deploy" / "bundles" / "fistula-demo"

TINY = """
[preparation]
spacing_mm = [10.0, 10.0, 10.0]
shape = [24, 26, 26]

[network]
name = "compact-densenet"
config = {init_features = 4, growth_rate = 4, block_config = [2, 2]}

[fit]
folds = 2
schedule = "cosine"
first_epochs = 2
ema_decay = 0.5

[bundle]
name = "tiny"
statement = "tiny"
occlusion = {mode = "paper", patch = [5, 6, 6], stride = [5, 6, 6]}
"""


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def done(*arguments):
    found = run(*arguments)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which a tiny cohort was made, gathered and trained on."""
    place = tmp_path_factory.mktemp("lab")
    config = place / "tiny.toml"
    config.write_text(TINY)
    cohort, fitted = ("--cohort", place / "cohort"), ("--run", place / "run")
    done("synthesize", "--out", place / "dicom", "--patients", 12)
    labels = ("--labels", place / "dicom" / "labels.csv", "--salt", place / "salt")
    source = ("--dicom", place / "dicom" / "studies", "--slec", "subgroup")
    done("gather", *labels, *source, "--out", place / "cohort", "--config", config)
    done("fit", *cohort, "--out", place / "run", "--all", "--config", config)
    done("evaluate", *cohort, *fitted, "--out", place / "report", "--maps", 1)
    done("export", *cohort, *fitted, "--out", place / "bundle")
    return place


def test_a_cohort_of_the_other_analysis_is_synthesized_too(tmp_path):
    done(
        "synthesize", "--analysis", "infection", "--patients", 10, "--matrix", 64, "--out", tmp_path
    )

    assert len(list((tmp_path / "studies").iterdir())) == 10
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 11


def test_a_run_is_evaluated_with_page_tables_and_numbers(place):
    assert "Research use only" in (place / "report" / "report.html").read_text()
    numbers = json.loads((place / "report" / "metrics.json").read_text())
    assert numbers["cohort"]["exams"] == 12


def test_the_bundle_is_sealed_and_tells_how_it_was_made(place):
    metadata = json.loads((place / "bundle" / "configs" / "metadata.json").read_text())

    assert load_bundle(place / "bundle").name == "tiny"
    assert metadata["made_with"].startswith("python -m trainer")
    assert metadata["training"]["exams"] == 12
    assert 0 <= metadata["eval_metrics"]["out_of_fold_auroc"] <= 1


def test_a_command_is_told_without_what_may_name_a_patient(monkeypatch):
    """As a word, after an equals sign, and as a hospital number."""
    told = ["fit", "--all", "--out", "smith", "--cohort=jones", "--config", "4711"]
    monkeypatch.setattr("sys.argv", ["trainer", *told])

    assert _command() == "python -m trainer fit --all --out --cohort --config"


def test_each_epoch_of_each_fold_is_in_the_metrics_once(place):
    for number in range(2):
        with (place / "run" / f"fold_{number}" / "metrics.csv").open() as stream:
            assert [row["epoch"] for row in csv.DictReader(stream)] == ["0", "1"]


def test_gathering_again_changes_nothing(place):
    before = (place / "cohort" / "cohort.json").read_bytes()
    labels = ("--labels", place / "dicom" / "labels.csv", "--salt", place / "salt")
    source = ("--dicom", place / "dicom" / "studies", "--slec", "subgroup")

    done("gather", *labels, *source, "--out", place / "cohort", "--config", place / "tiny.toml")

    assert (place / "cohort" / "cohort.json").read_bytes() == before


def test_a_frozen_bundle_is_validated_and_told_what_it_was_trained_on(place, tmp_path):
    output = done(
        "evaluate", "--cohort", place / "cohort", "--bundle", place / "bundle",
        "--out", tmp_path, "--maps", 0,
    )  # fmt: skip

    assert "external validation" in output
    assert "unverified" in (tmp_path / "report.html").read_text()


def test_a_bundle_may_not_replace_another_on_its_own_training_cohort(place, tmp_path):
    found = run(
        "compare", place / "bundle", place / "bundle", "--cohort", place / "cohort",
        "--out", tmp_path / "sides.json",
    )  # fmt: skip

    assert found.exit_code == 3
    assert "trained on 12 of these exams" in found.output
    assert not json.loads((tmp_path / "sides.json").read_text())["may_replace"]


def test_a_fold_that_there_is_not_is_refused(place, tmp_path):
    found = run("fit", "--cohort", place / "cohort", "--out", tmp_path / "run", "--fold", "5")

    assert found.exit_code == 2
    assert "there are 5 folds" in found.output
    assert not (tmp_path / "run").exists()


def test_volumes_are_written_for_other_tools(place, tmp_path):
    done("nifti", "--cohort", place / "cohort", "--out", tmp_path / "nifti")

    assert len(list((tmp_path / "nifti").glob("*.nii.gz"))) == 12


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("fit", "--cohort", "nowhere", "--out", "x"), "name one fold with --fold, or take --all"),
        (("fit", "--cohort", "nowhere", "--out", "x", "--all"), "cohort nowhere: cannot be read"),
        (("evaluate", "--cohort", "nowhere", "--out", "x"), "name a run or a bundle"),
        (("export", "--cohort", "nowhere", "--run", "x", "--out", "y"), "gather it again"),
        (("probe", "--bundle", "nowhere"), "bundle nowhere: found no readable manifest.json"),
        (("gather", "--labels", "nowhere", "--out", "x"), "label table"),
        (
            ("synthesize", "--analysis", "infection", "--out", "x", "--few-signs", "0.5"),
            "--few-signs is about spinal leaks",
        ),
        (("synthesize", "--out", "x", "--matrix", "64"), "--matrix is about the axial T2"),
    ],
)
def test_what_a_user_has_wrong_is_said_without_a_traceback(
    arguments, complaint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    found = run(*arguments, *(("--salt", "salt") if arguments[0] == "gather" else ()))

    assert found.exit_code in (1, 2)
    assert complaint in found.output
    assert "Traceback" not in found.output


def test_a_cohort_prepared_otherwise_is_not_trained_on(place, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")

    found = run("fit", "--cohort", place / "cohort", "--out", place / "other", "--all")

    assert found.exit_code == 1
    assert "gather with this configuration, or fit with that one" in found.output


def test_every_command_explains_itself():
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert run(name, "--help").exit_code == 0


def test_a_bundle_is_signed_with_a_key_that_was_made_here(tmp_path):
    bundle, key = shutil.copytree(DEMO, tmp_path / "bundle"), tmp_path / "release"
    said = done("make-key", key)
    (trusted,) = read_trusted_keys([tmp_path / "release.pub"])
    assert trusted.fingerprint in said

    assert trusted.fingerprint in done("sign", bundle, "--key", key)
    assert load_bundle(bundle, [trusted]).signed_by == trusted.fingerprint


def test_a_key_that_others_may_read_signs_nothing(tmp_path):
    bundle, key = shutil.copytree(DEMO, tmp_path / "bundle"), tmp_path / "release"
    done("make-key", key)
    key.chmod(0o644)
    found = run("sign", bundle, "--key", key)

    assert found.exit_code == 1
    assert "found mode 0644; needed 0600" in found.output
    assert not (bundle / "manifest.sig").exists()
