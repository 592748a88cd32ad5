"""Members that look at regions: what each is given, and what it must be given."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.worker.region_study import RADIOMICS, RECIPE, WEIGHED, write_region_bundle
from worker.bundle import RegionModels, Selected, load_bundle
from worker.crops import look
from worker.radiomics.extraction import VERSION
from worker.radiomics.vector import Vector
from worker.region_ensemble import RegionEnsemble, most_weighed, scaled_features
from worker.scene import survey
from worker.seal import BadBundle

VECTOR = Vector(("a", "b", "c"), np.array([1.0, 20.0, 300.0]), "any", "1", "hash")


def selected(*names):
    return Selected(names, tuple(0.0 for _ in names), tuple(1.0 for _ in names))


def test_features_come_in_the_member_s_order_on_its_scale_and_0_fills_up():
    scaled = scaled_features(VECTOR, Selected(("c", "a"), (100.0, 3.0), (50.0, 4.0)), 4)

    assert scaled.tolist() == [4.0, -0.5, 0.0, 0.0]


def test_a_feature_that_was_not_measured_is_not_made_up():
    with pytest.raises(KeyError, match="d"):
        scaled_features(VECTOR, selected("d"), 4)


def test_the_features_that_most_members_weigh_come_first():
    features = (selected("c", "a"), selected("b", "a"), selected("a", "b"))
    models = RegionModels((), (), features)

    assert most_weighed(models, 2) == ("a", "b")
    assert most_weighed(models, 5) == ("a", "b", "c")
    assert most_weighed(RegionModels((), (), ()), 5) == ()


@pytest.fixture(scope="session")
def view(estimated_regions):
    outcome = estimated_regions.outcome
    scene = survey(outcome.volume.voxels, outcome.volume.affine)
    return look(scene, outcome.regions[1].mask, RECIPE)


def test_a_member_sees_its_crops_and_its_features(view, analysis):
    ensemble = analysis._ensemble
    odds = ensemble.member_log_odds("sublentiform", 1, view)

    member = ensemble._members["sublentiform"][1]
    values = dict(zip(view.radiomics.names, view.radiomics.values, strict=True))
    weighed = torch.tensor([[values[name] for name in WEIGHED] + [0.0, 0.0]])
    with torch.inference_mode():
        logits = member(torch.from_numpy(view.crops), weighed.float().expand(len(view.crops), -1))
    assert odds == pytest.approx((logits[:, 1] - logits[:, 0]).numpy(), abs=1e-5)
    other = replace(view, radiomics=replace(view.radiomics, values=view.radiomics.values + 1))
    assert (ensemble.member_log_odds("sublentiform", 1, other) != odds).all()


def test_a_member_trained_with_fewer_features_than_its_network_takes_is_fine(tmp_path, view):
    bundle = load_bundle(write_region_bundle(tmp_path / "few", features=WEIGHED[:1]))

    score = RegionEnsemble(bundle).scores({"ventricles": view, "sublentiform": view})

    assert 0 < score["sublentiform"].probability < 1


@pytest.mark.parametrize("count", [5, None])
def test_features_that_the_network_does_not_take_are_refused_at_the_start(region_bundle, count):
    bundle = load_bundle(region_bundle)
    names = RECIPE.radiomics.names[: count or 0]
    features = (selected(*names),) * 2 if count else ()
    models = replace(bundle.regions["ventricles"], features=features)
    damaged = replace(bundle, regions={**bundle.regions, "ventricles": models})

    with pytest.raises(BadBundle, match="features for a member that looks at ventricles"):
        RegionEnsemble(damaged)


def told_otherwise(region_bundle, **changes):
    bundle = load_bundle(region_bundle)
    return replace(bundle, measured_with=replace(bundle.measured_with, **changes))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"library": "pyradiomics"}, "library pyradiomics, expected flash-radiomics"),
        ({"config_hash": "0" * 64}, f"config_hash {'0' * 64}, expected {RADIOMICS.config_hash}"),
    ],
)
def test_features_of_another_library_or_configuration_are_refused_at_the_start(
    region_bundle, changes, found
):
    with pytest.raises(BadBundle, match=found) as refusal:
        RegionEnsemble(told_otherwise(region_bundle, **changes))
    assert "run it with the release of monro" in str(refusal.value)


@pytest.mark.parametrize("version", [VERSION, "0.9.0"])
def test_features_that_differ_on_the_specimen_are_refused_whatever_the_version(
    region_bundle, version
):
    specimen = dict(load_bundle(region_bundle).measured_with.specimen)
    specimen[WEIGHED[1]] *= 1.0001

    with pytest.raises(BadBundle, match=f"1 of 2 features of the specimen, such as {WEIGHED[1]}"):
        RegionEnsemble(told_otherwise(region_bundle, version=version, specimen=specimen))


def test_another_version_that_measures_the_specimen_alike_is_told_and_taken(region_bundle, caplog):
    RegionEnsemble(told_otherwise(region_bundle, version="0.9.0"))

    assert f"flash-radiomics 0.9.0 in training and are with {VERSION} here" in caplog.text


def test_the_same_version_is_taken_without_a_word(region_bundle, caplog):
    RegionEnsemble(load_bundle(region_bundle))

    assert "specimen" not in caplog.text


def test_weights_of_another_network_are_refused(region_bundle):
    bundle = load_bundle(region_bundle)
    wider = replace(bundle.network, config={**bundle.network.config, "aspp_channels": 16})

    with pytest.raises(BadBundle, match="weights that do not fit"):
        RegionEnsemble(replace(bundle, network=wider))
