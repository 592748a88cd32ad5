"""Folds are independent jobs that survive being killed and do everything once."""

import csv
import importlib
import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trainer.folds import draw_folds
from trainer.run import (
    BadRun,
    fit_fold,
    read_epochs,
    read_run,
    start_run,
)
from trainer.statistics import auroc


@pytest.fixture(scope="module")
def folds(toy_cohort, toy_config):
    return draw_folds(toy_cohort, toy_config.fit.folds, toy_config.fit.seed)


def fit(folder, cohort, folds, config, numbers=(0, 1), on_epoch=lambda epoch: None):
    start_run(folder, cohort, folds, config, "fit")
    for number in numbers:
        fit_fold(folder, cohort, folds, number, config, on_epoch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy_cohort, toy_config, folds):
    folder = tmp_path_factory.mktemp("run")
    fit(folder, toy_cohort, folds, toy_config)
    return folder


@pytest.fixture(scope="module")
def run(folder, toy_cohort):
    return read_run(folder, toy_cohort)


def test_unseen_exams_are_told_apart_by_all_three_weights(run, toy_cohort):
    for fold in run.folds:
        for kind in ("best", "last", "ema"):
            assert auroc(toy_cohort.labels[fold.held_out], fold.log_odds[kind]) > 0.9


def test_every_exam_is_judged_by_the_member_that_had_not_seen_it(run, toy_cohort, folds):
    odds, fold_of = run.out_of_fold("ema", len(toy_cohort))

    assert np.isfinite(odds).all()
    for number, held_out in enumerate(folds.held_out):
        assert (fold_of[held_out] == number).all()


def test_the_best_epoch_is_the_first_with_the_highest_auroc(run):
    for fold in run.folds:
        best = max(epoch.auroc for epoch in fold.metrics)
        assert fold.metrics[fold.best_epoch].auroc == best
        assert all(epoch.auroc < best for epoch in fold.metrics[: fold.best_epoch])


def test_the_reference_is_of_the_cohort(run):
    for fold in run.folds:
        assert (np.diff(fold.reference.distances) >= 0).all()
        assert fold.reference.distances.size == fold.held_out.size


def test_a_fold_that_is_done_is_left_alone(folder, toy_cohort, toy_config, folds):
    heard = []

    fit_fold(folder, toy_cohort, folds, 0, toy_config, heard.append)

    assert heard == []
    assert not list(folder.rglob("checkpoint.pt"))


def test_another_configuration_is_refused_and_another_speed_is_not(
    folder, toy_cohort, toy_config, folds
):
    faster = toy_config.speed.model_copy(update={"channels_last": False})
    start_run(folder, toy_cohort, folds, toy_config.model_copy(update={"speed": faster}), "fit")

    other = toy_config.model_copy(update={"fit": toy_config.fit.model_copy(update={"seed": 1})})
    with pytest.raises(BadRun, match="another configuration; name a new folder"):
        start_run(folder, toy_cohort, folds, other, "fit")


def test_an_unfinished_fold_is_named_with_the_way_on(tmp_path, toy_cohort, toy_config, folds):
    fit(tmp_path, toy_cohort, folds, toy_config, numbers=(0,))

    with pytest.raises(BadRun, match=r"fold 1 is not done \(0 epochs\).*fit --fold 1"):
        read_run(tmp_path, toy_cohort)


def test_speed_ups_can_be_switched_off_and_change_nothing_a_reader_would_mind(
    tmp_path, toy_cohort, toy_config, folds, run
):
    plain = toy_config.speed.model_copy(
        update={"channels_last": False, "cohort_on_device": "off", "autocast": "off"}
    )
    fit(tmp_path, toy_cohort, folds, toy_config.model_copy(update={"speed": plain}), (0,))

    slow, fast = read_epochs(tmp_path, 0), run.folds[0].metrics
    assert slow[0].loss == pytest.approx(fast[0].loss, rel=1e-3)
    assert slow[-1].auroc == pytest.approx(fast[-1].auroc, abs=0.05)


def test_recomputing_activations_gives_the_same_weights(tmp_path, toy_cohort, toy_config, folds):
    """But for rounding: the same sums, at other times."""
    short = toy_config.fit.model_copy(update={"first_epochs": 1})
    losses = []
    for recompute in (False, True):
        speed = toy_config.speed.model_copy(update={"recompute": recompute})
        config = toy_config.model_copy(update={"fit": short, "speed": speed})
        fit(tmp_path / str(recompute), toy_cohort, folds, config, (0,))
        losses.append(read_epochs(tmp_path / str(recompute), 0)[0].loss)

    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    plain, recomputed = (
        load_file(tmp_path / str(recompute) / "fold_0" / "last.safetensors")
        for recompute in (False, True)
    )
    for name in plain:
        if "num_batches_tracked" not in name:
            torch.testing.assert_close(recomputed[name], plain[name], atol=1e-4, rtol=1e-3)


def killed_after(folder, cohort, folds, config, seconds):
    """Whether a SIGKILL met a fold at work."""
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=fit, args=(folder, cohort, folds, config, (0,)))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


def test_killed_ten_times_a_fold_ends_as_if_it_had_not_been(
    tmp_path, toy_cohort, toy_config, folds
):
    """Ten SIGKILLs at moments spread over the work; each epoch stands in the metrics once."""
    torch.set_num_threads(1)
    longer = toy_config.fit.model_copy(update={"first_epochs": 24})
    config = toy_config.model_copy(update={"fit": longer})
    rng = np.random.default_rng(0)
    # A process that has trained cannot fork one that trains: one that only forks does it. It
    # imports what the first step of a training would, which takes longer than this training.
    spawn = multiprocessing.get_context("spawn")
    imports = importlib.import_module, ("torch._dynamo",)
    with ProcessPoolExecutor(1, spawn, *imports) as nursery:

        def killed(name, seconds):
            arguments = (tmp_path / name, toy_cohort, folds, config, seconds)
            return nursery.submit(killed_after, *arguments).result()

        nursery.submit(read_epochs, tmp_path, 0).result()
        start = time.monotonic()
        assert not killed("unharmed", 120)
        whole = time.monotonic() - start
        for _ in range(10):
            assert killed("killed", whole * rng.uniform(0.02, 0.14))
    assert 0 < len(read_epochs(tmp_path / "killed", 0)) < config.fit.epochs
    fit(tmp_path / "killed", toy_cohort, folds, config, (0,))

    with (tmp_path / "killed" / "fold_0" / "metrics.csv").open() as stream:
        epochs = [int(row["epoch"]) for row in csv.DictReader(stream)]
    assert epochs == list(range(config.fit.epochs))
    assert not list((tmp_path / "killed").rglob("*.partial"))
    for kind in ("best", "last", "ema"):
        resumed, unharmed = (
            load_file(place / "fold_0" / f"{kind}.safetensors")
            for place in (tmp_path / "killed", tmp_path / "unharmed")
        )
        assert all(torch.equal(resumed[name], unharmed[name]) for name in unharmed)
