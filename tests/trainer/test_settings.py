"""The configuration comes from a file and the environment, and refuses to guess."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from listener.errors import BadSettings
from trainer.settings import TrainingConfig, read_config
from worker.preprocess import DEMO_RECIPE, PAPER_RECIPE

COMPACT = Path(__file__).parents[2] / "deploy" / "recipes" / "compact.toml"


def test_the_defaults_are_the_paper_s():
    config = read_config(None)

    assert config.preparation == PAPER_RECIPE
    assert config.network.name == "densenet121"
    assert (config.fit.learning_rate, config.fit.weight_decay) == (1e-3, 0.1)
    assert (config.fit.batch_size, config.fit.folds) == (4, 5)
    assert config.fit.epochs == 450 + 200
    assert config.bundle.occlusion.patch == config.bundle.occlusion.stride == (12, 13, 13)


def test_the_demo_s_file_is_sound():
    config = read_config(COMPACT)

    assert config.preparation == DEMO_RECIPE
    assert config.bundle.statement == "Trained on synthetic phantoms only: no clinical meaning."


def test_the_environment_wins_over_the_file(monkeypatch):
    monkeypatch.setenv("MONRO_TRAINER_FIT__FIRST_EPOCHS", "3")

    config = read_config(COMPACT)

    assert config.fit.epochs == 3
    assert config.fit.schedule == "cosine"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "[fit]\nfolds = 1\n",
            "config.toml, [fit] folds: found 1; expected whole number, at least 2 (members of the",
        ),
        (
            "[fit]\nepochs = 3\n",
            "[fit] epochs: found a key that is not known; expected one of folds, seed,",
        ),
        ("[fitt]\n", "fitt: found a key that is not known; expected one of analysis,"),
        ("fit = 3\n", "fit: found 3; expected object"),
        ('[fit]\nhonest = "best"\n', "[fit] honest: found 'best'; expected one of last, ema"),
        (
            "[preparation]\nspacing_mm = [1, 1]\nshape = [1, 1, 1]\n",
            "[preparation] spacing_mm, entry 3: found nothing; expected",
        ),
        (
            "[preparation]\nspacing_mm = [1, 1, 'a']\nshape = [1, 1, 1]\n",
            "[preparation] spacing_mm, entry 3: found 'a'; expected number",
        ),
        (
            "[bundle.occlusion]\nmode = 'paper'\npatch = [2, 2, 2]\nstrides = [2, 2, 2]\n",
            "[bundle.occlusion] stride: found nothing; expected list of 3",
        ),
        (
            "[bundle.occlusion]\nmode = 'paper'\npatch = [2, 2, 2]\nstrides = [2, 2, 2]\n",
            "[bundle.occlusion] strides: found a key that is not known; expected one of mode,",
        ),
        ("[fit\n", "name a TOML file"),
    ],
)
def test_what_a_file_has_wrong_is_named(tmp_path, text, complaint):
    (tmp_path / "config.toml").write_text(text)

    with pytest.raises(BadSettings) as raised:
        read_config(tmp_path / "config.toml")
    assert complaint in str(raised.value)


@pytest.mark.parametrize("path", [None, COMPACT])
def test_what_a_variable_has_wrong_is_named_by_the_variable(monkeypatch, path):
    monkeypatch.setenv("MONRO_TRAINER_FIT__FIRST_EPOCHS", "few")

    with pytest.raises(BadSettings) as raised:
        read_config(path)
    complaint, step = str(raised.value).splitlines()
    assert complaint.startswith(
        "MONRO_TRAINER_FIT__FIRST_EPOCHS: found 'few'; expected whole number, at least 1"
    )
    assert "docs/configuration.md" in step


def test_a_section_in_a_variable_that_is_not_json_is_named(monkeypatch):
    monkeypatch.setenv("MONRO_TRAINER_FIT", "{folds: 3}")

    with pytest.raises(BadSettings, match="MONRO_TRAINER_FIT: found text that is not JSON"):
        read_config(None)


def test_a_misspelt_name_in_the_environment_stops_the_start(monkeypatch):
    monkeypatch.setenv("MONRO_TRAINER_FITT__FOLDS", "3")

    with pytest.raises(BadSettings, match="unknown setting MONRO_TRAINER_FITT__FOLDS"):
        read_config(None)


def test_it_survives_the_way_through_json():
    config = read_config(COMPACT)

    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


def test_it_cannot_be_changed_afterwards():
    with pytest.raises(ValidationError, match="frozen"):
        read_config(None).analysis = "infection"
