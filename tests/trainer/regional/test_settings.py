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

    with pytest.raises(BadSettings, match="network"):
        read_any_config(tmp_path / "config.toml", "fistula")
