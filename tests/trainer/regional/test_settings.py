from pathlib import Path

import pytest

from listener.errors import BadSettings
from trainer.regional.settings import RegionalConfig, read_any_config
from trainer.settings import TrainingConfig
from worker.crops import PAPER_CROPS
from worker.nets import build_planar

RECIPES = Path(__file__).parents[3] / "deploy" / "recipes"


def test_the_paper_s_configuration_is_that_of_the_analysis_asked_for():
    found = read_any_config(None, "infection")

    assert isinstance(found, RegionalConfig)
    assert found.preparation == PAPER_CROPS
    assert (found.fit.folds, found.fit.inner_folds) == (5, 4)
    assert isinstance(read_any_config(None, "fistula"), TrainingConfig)


def test_a_file_says_which_analysis_it_is_for():
    assert isinstance(
        read_any_config(RECIPES / "compact-infection.toml", "fistula"), RegionalConfig
    )
    assert isinstance(read_any_config(RECIPES / "compact.toml", "fistula"), TrainingConfig)


def test_the_demo_s_networks_are_small_and_fit_its_crops():
    import torch

    config = read_any_config(RECIPES / "compact-infection.toml", "infection")
    side = config.preparation.side
    for each in config.models.values():
        network = build_planar(each.name, **each.config).eval()
        radiomics = torch.zeros(1, network.expected_radiomics)
        assert network(torch.zeros(1, 3, side, side), radiomics).shape == (1, 2)
        assert sum(parameter.numel() for parameter in network.parameters()) < 200_000


def test_the_inner_folds_of_the_demo_choose_features_and_thresholds_only():
    config = read_any_config(RECIPES / "compact-infection.toml", "infection")

    assert len(config.fit.learning_rates) == len(config.fit.epochs) == 1
    assert len(config.features.numbers) > 1


def test_a_section_of_the_other_analysis_is_refused(tmp_path):
    (tmp_path / "config.toml").write_text(
        'analysis = "infection"\n[network]\nname = "densenet121"\n'
    )

    with pytest.raises(BadSettings, match="network: found a key that is not known"):
        read_any_config(tmp_path / "config.toml", "fistula")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "[models.Mine]\nname = 3\n",
            "[models.Mine] name: found 3; expected text (known to worker/nets)",
        ),
        (
            "[fit]\nlearning_rates = []\n",
            "[fit] learning_rates: found a list of 0; expected list of numbers, at least 1",
        ),
        ("[fit]\nepochs = [3, 'x']\n", "[fit] epochs, entry 2: found 'x'; expected whole number"),
        ("[preparation.radiomics]\nbin = 3\n", "[preparation.radiomics] bin: found a key"),
    ],
)
def test_what_a_file_has_wrong_is_named_in_plain_words(tmp_path, text, complaint):
    (tmp_path / "config.toml").write_text(text)

    with pytest.raises(BadSettings) as raised:
        read_any_config(tmp_path / "config.toml", "infection")
    assert complaint in str(raised.value)


def test_a_variable_cannot_turn_a_file_to_the_other_analysis(monkeypatch):
    monkeypatch.setenv("MONRO_TRAINER_ANALYSIS", "fistula")

    with pytest.raises(BadSettings, match="ANALYSIS: found 'fistula'; expected infection"):
        read_any_config(RECIPES / "compact-infection.toml", "infection")
