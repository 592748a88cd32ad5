"""Settings come from the environment too, and wrong ones stop the start."""

import pytest
from pydantic import ValidationError

from trainer.settings import FitSettings


def test_the_environment_sets_a_value(monkeypatch):
    monkeypatch.setenv("MONRO_TRAINER_EPOCHS", "3")

    assert FitSettings().epochs == 3


def test_an_argument_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("MONRO_TRAINER_EPOCHS", "3")

    assert FitSettings(epochs=4).epochs == 4


def test_an_impossible_value_is_refused():
    with pytest.raises(ValidationError, match="folds"):
        FitSettings(folds=1)


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValidationError, match="frozen"):
        FitSettings().epochs = 5
