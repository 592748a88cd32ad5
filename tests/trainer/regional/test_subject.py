"""A frozen bundle of regions is evaluated, compared and recalibrated as one of whole heads is."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import special

from tests.trainer.regional.conftest import MODEL, regions_of_toys
from trainer.cohort import Cohort
from trainer.compare import compare
from trainer.recalibrate import CannotRecalibrate, recalibrate
from trainer.regional.cohort import REGIONS
from trainer.regional.export import export_regions
from trainer.reporting.evaluate import evaluate_bundle
from trainer.reporting.report import write_report
from trainer.subject import NotComparable, open_subject
from worker.bundle import load_bundle
from worker.preprocess import Recipe


def ignore(*_):
    pass


@pytest.fixture(scope="module")
def folder(trained, toy_regions, tmp_path_factory):
    """The trained members as a bundle."""
    folder = tmp_path_factory.mktemp("bundles") / "toy"
    export_regions(folder, trained, toy_regions, MODEL, {}, "none", ignore)
    return folder


@pytest.fixture(scope="module")
def others():
    """Patients of the same kind whom nobody trained on."""
    return regions_of_toys(1)


@pytest.fixture(scope="module")
def subject(folder, others):
    return open_subject(folder, others)


def test_a_bundle_of_regions_is_validated_on_patients_it_has_not_seen(subject, others, tmp_path):
    found = evaluate_bundle(subject, 5, ignore)

    assert (found.design, found.same_cohort) == ("external validation", False)
    assert found.discrimination.auroc > 0.8
    assert len(found.members) == 2
    assert found.facts["region that decides"] == "sublentiform"
    expected = [subject.predict(exam).probability for exam in range(len(others))]
    np.testing.assert_allclose(found.scores.after, expected)
    page = write_report(tmp_path, found).read_text()
    assert "infection" in page
    for word in ("fistula", "yelogra", "contrast-enhanced", "Occlusion"):
        assert word not in page.split('id="tripod"')[0], word
    assert json.loads((tmp_path / "metrics.json").read_text())["cohort"]["exams"] == 40


def test_log_odds_and_temperatures_of_a_region_make_the_members_probabilities(subject):
    odds = subject.log_odds(3)

    assert tuple(odds) == REGIONS
    calibrated = special.expit(odds["sublentiform"] / subject.temperatures["sublentiform"])
    assert subject.predict(3).members == pytest.approx(calibrated)


def test_two_bundles_of_regions_are_compared(subject, folder, toy_regions):
    found = compare(subject, subject, ignore)
    assert (found.exams, found.may_replace) == (40, True)

    seen = open_subject(folder, toy_regions)
    told = compare(seen, seen, ignore)
    assert "was trained on 40 of these exams" in told.obstacles[0]


def test_every_region_is_calibrated_anew_and_the_weights_stay(folder, others, tmp_path):
    rng = np.random.default_rng(0)
    wrong = rng.permutation(40)[:8]
    exams = [
        replace(exam, label=1 - exam.label) if number in wrong else exam
        for number, exam in enumerate(others.exams)
    ]
    labelled = replace(others, exams=tuple(exams))
    before = load_bundle(folder)

    found = recalibrate(
        open_subject(folder, labelled), tmp_path / "new", "1.1.0", "a command", ignore
    )

    after = load_bundle(tmp_path / "new")
    assert (after.version, after.weights_sha256) == ("1.1.0", before.weights_sha256)
    factors = {
        name: np.array(after.regions[name].temperatures) / before.regions[name].temperatures
        for name in REGIONS
    }
    for each in factors.values():
        assert np.ptp(each) == pytest.approx(0, abs=1e-9)
    assert factors["sublentiform"][0] == pytest.approx(found.factor)
    assert factors["ventricles"][0] != pytest.approx(found.factor)
    assert found.brier_after < found.brier_before + 0.01
    assert (after.threshold_low, after.threshold_high) != (
        before.threshold_low,
        before.threshold_high,
    )
    assert "40 exams of 40 patients" in (after.folder / "docs" / "README.md").read_text()
    again = open_subject(after.folder, labelled)
    with pytest.raises(CannotRecalibrate, match="40 of these exams made this bundle"):
        recalibrate(again, tmp_path / "newer", "1.2.0", "a command", ignore)


def test_a_cohort_of_whole_heads_is_not_for_a_bundle_of_regions(folder, toy_regions):
    recipe = Recipe(spacing_mm=(8.0, 8.0, 8.0), shape=(20, 22, 22))
    heads = Cohort(toy_regions.exams, np.zeros((40, 1, 1, 1), np.float16), recipe)

    with pytest.raises(NotComparable, match="about fistula, the bundle about infection"):
        open_subject(folder, heads)


def test_features_of_another_version_are_not_judged(folder, others):
    library, _, config_hash = others.measured_with

    with pytest.raises(NotComparable, match=r"features are of flash-radiomics 0.9.0.*gather"):
        open_subject(folder, replace(others, measured_with=(library, "0.9.0", config_hash)))


def test_a_cohort_with_other_crops_is_refused(folder, others):
    other = replace(others, recipe=replace(others.recipe, margin=2))

    with pytest.raises(NotComparable, match="another recipe"):
        open_subject(folder, other)
