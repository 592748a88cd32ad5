"""A cohort, a run and a bundle that are made up: what was judged is drawn, not learned."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.bern import BernItems
from trainer.cohort import Cohort, Exam, digest
from trainer.export import Content, write_bundle
from trainer.flow import Flow
from trainer.folds import draw_folds
from trainer.loop import Epoch
from trainer.operation import Operation
from trainer.reporting.evaluate import evaluate_bundle, evaluate_run
from trainer.reporting.report import write_report
from trainer.run import FoldResult, Run
from trainer.settings import TrainingConfig
from trainer.subject import Heads
from worker import nets
from worker.bundle import NOT_SUGGESTED, SUGGESTED, Reference, load_volume_bundle
from worker.ensemble import Ensemble
from worker.occlusion import OcclusionSpec
from worker.preprocess import Recipe

SHAPE = (12, 13, 13)
TINY = {"init_features": 4, "growth_rate": 4, "block_config": (2, 2)}
CONFIG = TrainingConfig(
    preparation=Recipe(spacing_mm=(16.0, 16.0, 16.0), shape=SHAPE),
    network={"name": "compact-densenet", "config": TINY},
    fit={"schedule": "cosine", "first_epochs": 3},
    bundle={
        "name": "made-up",
        "version": "0.0.1",
        "statement": "Drawn by dice: no clinical meaning.",
        "occlusion": OcclusionSpec("paper", (4, 5, 5), (4, 5, 5)),
    },
)
EXAMS = 80


def tiny_weights(seed):
    """A state dict of random weights."""
    torch.manual_seed(seed)
    network = nets.build("compact-densenet", **TINY)
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}


@dataclass(frozen=True, eq=False)
class MadeUpFold(FoldResult):
    """A fold whose weights are drawn anew each time."""

    def weights(self, kind):
        return tiny_weights(self.number)


def made_up_exam(number, volume):
    """The first ten patients have two exams each; a few facts are unknown."""
    rng = np.random.default_rng(number)
    patient = number - 10 if number in range(10, 20) else number
    label = patient % 2
    items = BernItems(
        pachymeningeal_enhancement=bool(rng.random() < 0.2 + 0.6 * label),
        venous_engorgement=None if number % 13 == 5 else bool(rng.random() < 0.2 + 0.6 * label),
        suprasellar_mm=float(rng.uniform(2, 6)),
        subdural_fluid=False,
        prepontine_mm=float(rng.uniform(3, 7)),
        mamillopontine_mm=6.5,
    )
    return Exam(
        exam=f"e{number:015x}",
        patient=f"d{patient:015x}",
        label=label,
        volume=digest(volume),
        bern=BernItems() if number == 40 else items,
        site="North" if number % 3 else "South",
        scanner="Maker <i>One</i>" if number % 20 else "Maker Two",
        field_tesla=3.0 if number % 2 else None,
        sex="FM"[number // 2 % 2],
        age_years=None if number == 7 else 25.0 + number % 60,
        days_to_myelogram=number % 30,
        leak=("fast" if number % 3 == 1 else "slow") if label else "",
        columns={"tilt": "yes" if number % 5 else "no"},
    )


@pytest.fixture(scope="session")
def cohort():
    rng = np.random.default_rng(0)
    voxels = np.zeros((EXAMS, *SHAPE), dtype=np.float16)
    voxels[:, 2:10, 2:11, 2:11] = rng.uniform(0.2, 1, (EXAMS, 8, 9, 9))
    exams = tuple(made_up_exam(number, volume) for number, volume in enumerate(voxels))
    patients = [exam.patient for exam in exams]
    flow = Flow().then("in the label table", [*patients, "another"], [])
    flow = flow.then("with a definite label", patients, ["indeterminate myelogram"])
    return Cohort(exams, voxels, CONFIG.preparation, "fistula", flow)


@pytest.fixture(scope="session")
def run(cohort):
    folds = draw_folds(cohort, CONFIG.fit.folds, CONFIG.fit.seed)
    results = []
    for number, held_out in enumerate(folds.held_out):
        rng = np.random.default_rng(number)
        sign = 2 * cohort.labels[held_out] - 1
        odds = (1 + number) * (1.2 * sign + rng.normal(0, 1.5, sign.size))
        epochs = tuple(Epoch(each, 0.7, 1e-3, 0.6, 0.5 + 0.1 * each, 0.5, 1.0) for each in range(3))
        judged = {"ema": odds, "last": odds + rng.normal(0, 1, odds.size), "best": odds + sign}
        reference = Reference(np.zeros(3), np.eye(3), np.arange(4.0))
        fold = MadeUpFold(number, Path("nowhere"), held_out, judged, epochs, reference)
        results.append(fold)
    facts = {
        "cohort_fingerprint": cohort.fingerprint,
        "folds_sha256": folds.sha256,
        "environment": {"torch": "2.13.0"},
    }
    return Run(Path("nowhere"), CONFIG, facts, tuple(results))


@pytest.fixture(scope="session")
def evaluation(run, cohort):
    return evaluate_run(run, cohort, maps=2, on_progress=lambda done, total: None)


def write_ensemble(folder, fingerprint):
    """A bundle of two members of random weights, trained on a cohort of that fingerprint."""
    weights = [tiny_weights(0), tiny_weights(1)]
    network = nets.build("compact-densenet", **TINY).eval()
    size = nets.features(network, torch.rand(1, 1, *SHAPE)).shape[1]
    reference = Reference(np.zeros(size), np.eye(size), np.linspace(0, 100, 50))
    operation = Operation((1.5, 2.5), 0.45, 0.55, {SUGGESTED: 0.51, NOT_SUGGESTED: 0.52})
    training = {
        "epochs": 3,
        "exams": EXAMS,
        "patients": 70,
        "positives": 40,
        "cohort_fingerprint": fingerprint,
        "folds_sha256": "none",
    }
    content = Content(CONFIG, weights, [reference] * 2, operation, training)
    write_bundle(folder, content, {}, "a command")
    return Ensemble(load_volume_bundle(folder))


@pytest.fixture(scope="session")
def ensemble(tmp_path_factory):
    return write_ensemble(tmp_path_factory.mktemp("bundle") / "made-up", "another cohort")


@pytest.fixture(scope="session")
def external(ensemble, cohort):
    return evaluate_bundle(Heads(ensemble, cohort), 0, lambda done, total: None)


@pytest.fixture(scope="session")
def report(tmp_path_factory, evaluation):
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, evaluation)
    return folder


@pytest.fixture(scope="session")
def relabelled(cohort):
    """The same exams with one label changed: another cohort."""
    first = replace(cohort.exams[0], label=1 - cohort.exams[0].label)
    return replace(cohort, exams=(first, *cohort.exams[1:]))
