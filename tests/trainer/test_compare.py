"""Whether a bundle may replace another is a rule, not a matter of taste."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from trainer.cohort import Cohort
from trainer.compare import FEWEST, RULE, compare
from trainer.export import Content, write_bundle
from trainer.operation import Operation
from trainer.subject import Heads, NotComparable
from worker import nets
from worker.bundle import Reference, load_volume_bundle
from worker.ensemble import Band, Ensemble, Prediction
from worker.preprocess import Recipe

RECIPE = Recipe(spacing_mm=(8.0, 8.0, 8.0), shape=(20, 22, 22))
TRAINED_ELSEWHERE = {"training": {"volumes": ["elsewhere"]}}


class Judge:
    """Stands in for a subject whose answers a test decides."""

    def __init__(self, folder, name, probabilities, metadata, cohort):
        self.cohort, self.recipe = cohort, RECIPE
        (folder / name / "configs").mkdir(parents=True)
        (folder / name / "configs" / "metadata.json").write_text(json.dumps(metadata))
        facts = {"name": name, "version": "1", "folder": folder / name}
        self.bundle = SimpleNamespace(**facts, analysis="fistula")
        self._answers = iter(probabilities)

    def predict(self, _exam):
        probability = float(next(self._answers))
        band = (
            Band.SUGGESTED
            if probability > 0.7
            else Band.NOT_SUGGESTED
            if probability < 0.3
            else Band.UNDETERMINED
        )
        return Prediction(probability, (probability,), 0.0, 50.0, frozenset(), band)


@pytest.fixture
def sides(tmp_path, toy_cohort):
    def judged(probabilities_a, probabilities_b, metadata=TRAINED_ELSEWHERE, cohort=toy_cohort):
        one = Judge(tmp_path, "A", probabilities_a, metadata, cohort)
        other = Judge(tmp_path, "B", probabilities_b, TRAINED_ELSEWHERE, cohort)
        return compare(one, other, lambda done, total: None)

    return judged


@pytest.fixture
def good(toy_cohort):
    """Probabilities that mostly fit the labels."""
    rng = np.random.default_rng(0)
    return np.clip(0.2 + 0.6 * toy_cohort.labels + rng.normal(0, 0.15, len(toy_cohort)), 0, 1)


def test_an_equal_bundle_may_replace(sides, good):
    found = sides(good, good)

    assert found.may_replace
    assert found.auroc.difference == 0
    assert found.changed == {"positive": {}, "negative": {}}
    assert found.to_json()["rule"] == RULE


def test_a_worse_one_may_not_and_each_reason_is_named(sides, good):
    rng = np.random.default_rng(1)

    found = sides(good, rng.uniform(0, 1, len(good)))

    assert not found.may_replace
    assert [reason.split()[:3] for reason in found.obstacles] == [
        ["the", "AUROC", "may"],
        ["the", "Brier", "score"],
        [found.obstacles[2].split()[0], "positives", "are"],
    ]
    assert sum(found.changed["positive"].values()) > 0


def test_exams_that_a_bundle_was_trained_on_allow_no_verdict(sides, good, toy_cohort):
    seen = {exam.volume for exam in toy_cohort.exams}

    found = sides(good, good, {"training": {"volumes": sorted(seen)}})

    assert found.obstacles == ("A 1 was trained on 80 of these exams",)


def test_a_cohort_that_was_prepared_otherwise_is_refused(sides, good, toy_cohort):
    coarser = dataclasses.replace(toy_cohort.recipe, spacing_mm=(9.0, 9.0, 9.0))
    other = Cohort(toy_cohort.exams, toy_cohort.voxels, coarser)

    with pytest.raises(NotComparable, match="prepared by another recipe"):
        sides(good, good, cohort=other)


def test_few_patients_allow_no_verdict(sides, good, toy_cohort):
    few = Cohort(toy_cohort.exams[:20], toy_cohort.voxels[:20], toy_cohort.recipe)

    found = sides(good[:20], good[:20], cohort=few)

    assert found.obstacles == (
        f"5 patients are positive, and {FEWEST} are needed",
        f"5 patients are negative, and {FEWEST} are needed",
    )


def test_real_ensembles_are_compared(tmp_path, toy_cohort, toy_config):
    weights = nets.build("compact-densenet", **toy_config.network.config).eval().state_dict()
    features = weights["class_layers.out.weight"].shape[1]
    reference = Reference(np.zeros(features), np.eye(features), np.arange(5.0))
    operation = Operation((1.0,), 0.3, 0.7, {"suggested": 0.5, "not suggested": 0.5})
    plain = {name: tensor.contiguous() for name, tensor in weights.items()}
    trained_on = dict.fromkeys(("epochs", "exams", "patients", "positives"), 0)
    hashes = {"cohort_fingerprint": "another", "folds_sha256": ""}
    content = Content(toy_config, [plain], [reference], operation, trained_on | hashes)
    write_bundle(tmp_path / "bundle", content, {}, "none")
    ensemble = Ensemble(load_volume_bundle(tmp_path / "bundle"))
    heard = []

    subject = Heads(ensemble, toy_cohort)
    found = compare(subject, subject, lambda done, total: heard.append((done, total)))

    assert found.auroc.difference == 0
    assert found.one == found.other
    assert heard[-1] == (160, 160)
