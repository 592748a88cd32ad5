"""The command line."""

import json

import pytest
from typer.testing import CliRunner

from trainer.__main__ import app


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


def test_a_phantom_is_written_with_its_truth(run, tmp_path):
    done = run("phantom", "--out", tmp_path, "--seed", 3, "--signs")

    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "study").glob("*.dcm"))) == 92
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert truth["positive"]
    assert truth["overt"]
    assert truth["seed"] == 3


def test_an_existing_folder_is_not_overwritten(run, tmp_path):
    done = run("fit", "--out", tmp_path)

    assert done.exit_code != 0
    assert "exists" in done.output


def test_every_command_explains_itself(run):
    for command in ("fit", "evaluate", "phantom"):
        assert run(command, "--help").exit_code == 0
