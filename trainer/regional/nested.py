"""One outer fold: inner folds choose, the whole training part trains, the outer fold judges once.

Nothing of the outer fold is seen before it is judged: features are selected and scaled, thresholds
found and settings chosen within the training part, and its inner folds see only their own parts.
Thresholds go from the inner networks to the outer one in units of each (patientwise.py).
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from trainer.folds import split
from trainer.regional.cohort import Views
from trainer.regional.learner import Lesson, Schedule, judge, train
from trainer.regional.patientwise import Slices, Thresholds, means, scale_of, thresholds
from trainer.regional.selection import Choice, choose, classifier_log_odds
from trainer.regional.settings import PlanarConfig, RegionalConfig
from trainer.statistics import auroc
from worker.bundle import Reference
from worker.ensemble import mahalanobis
from worker.nets import Planar, build_planar

Indices = NDArray[np.int64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Material:
    """One region of a cohort, and what is to be learnt from it.

    Attributes:
        views: of N exams.
        labels: (N,), 1 for positive.
        groups: (N,), a number per patient.
    """

    views: Views
    labels: Labels
    groups: Labels


@dataclass(frozen=True, eq=False)
class Member:
    """What came of one outer fold.

    Attributes:
        network: trained on the training part.
        choice: its features; None where it takes none.
        schedule: how it was trained.
        at: thresholds of the inner folds, in log odds of this network.
        slices: of the exams it has not seen.
        reference: how the cohort looks to it.
    """

    network: Planar
    choice: Choice | None
    schedule: Schedule
    at: Thresholds
    slices: Slices
    reference: Reference


def fit_member(
    material: Material,
    held_out: Indices,
    network: PlanarConfig,
    config: RegionalConfig,
    seed: int,
    device: torch.device,
) -> Member:
    """Choose, train and judge.

    Args:
        material: of all exams.
        held_out: exams that judge, and nothing else.
        network: what the member is.
        config: how it is fitted.
        seed: of everything random.
        device: to train on.
    """
    part = np.setdiff1d(np.arange(len(material.labels)), held_out)
    inner = _inner(material, part, config, seed)
    width = radiomics_width(network)
    number = best_number(material, inner, config) if width else 0
    trials = [
        (schedule, _judged_inside(material, inner, network, schedule, number, config, seed, device))
        for schedule in _schedules(config)
    ]
    schedule, judged = max(trials, key=lambda trial: auroc(*trial[1].patients()))
    choice = _choice(material, part, number, config)
    learnt = _train(material, part, network, choice, schedule, config, seed, device)
    lesson = _lesson(material, held_out, choice, width)
    vectors, odds = judge(learnt, lesson, device)
    unseen = _slices(material, held_out, odds)
    seen, odds_seen = judge(learnt, _lesson(material, part, choice, width), device)
    scale = scale_of(_labels(material, part), odds_seen)
    return Member(
        network=learnt,
        choice=choice,
        schedule=schedule,
        at=thresholds(judged).on(scale),
        slices=unseen,
        reference=_reference(
            _of_exams(material, part, seen), _of_exams(material, held_out, vectors)
        ),
    )


def radiomics_width(network: PlanarConfig) -> int:
    """How many handcrafted features a network takes; 0 for none."""
    return build_planar(network.name, **network.config).expected_radiomics


def best_number(
    material: Material, inner: list[tuple[Indices, Indices]], config: RegionalConfig
) -> int:
    """How many features serve best, by a classifier of features alone; of equals, the fewest.

    A network for every number would cost as many trainings, and say little more.
    """
    numbers = sorted(config.features.numbers)
    odds = {number: np.empty(len(material.labels)) for number in numbers}
    values, labels = material.views.radiomics, material.labels
    for part, unseen in inner:
        ranked = choose(values[part], labels[part], numbers[-1], config.features)
        for number in numbers:
            odds[number][unseen] = classifier_log_odds(
                values[part],
                labels[part],
                values[unseen],
                ranked.first(number),
                config.features.penalty_c,
            )
    exams = np.concatenate([unseen for _, unseen in inner])
    return max(numbers, key=lambda number: (auroc(labels[exams], odds[number][exams]), -number))


def _inner(
    material: Material, part: Indices, config: RegionalConfig, seed: int
) -> list[tuple[Indices, Indices]]:
    """Training and unseen exams of each inner fold, all of them within the part."""
    folds = split(material.labels[part], material.groups[part], config.fit.inner_folds, seed)
    return [(np.setdiff1d(part, part[fold]), part[fold]) for fold in folds]


def _schedules(config: RegionalConfig) -> list[Schedule]:
    fit = config.fit
    return [
        Schedule(rate, epochs, fit.batch_size, fit.weight_decay)
        for rate, epochs in product(fit.learning_rates, fit.epochs)
    ]


def _judged_inside(
    material: Material,
    inner: list[tuple[Indices, Indices]],
    network: PlanarConfig,
    schedule: Schedule,
    number: int,
    config: RegionalConfig,
    seed: int,
    device: torch.device,
) -> Slices:
    """Every slice of the training part, by the inner network that has not seen its patient.

    Log odds are in units of that network.
    """
    width = radiomics_width(network)
    found = []
    for part, unseen in inner:
        choice = _choice(material, part, number, config)
        learnt = _train(material, part, network, choice, schedule, config, seed, device)
        _, odds_seen = judge(learnt, _lesson(material, part, choice, width), device)
        scale = scale_of(_labels(material, part), odds_seen)
        _, odds = judge(learnt, _lesson(material, unseen, choice, width), device)
        found.append(_slices(material, unseen, scale.units(odds)))
    return Slices(
        np.concatenate([each.labels for each in found]),
        np.concatenate([each.log_odds for each in found]),
        np.concatenate([each.exam_of for each in found]),
    )


def _choice(
    material: Material, part: Indices, number: int, config: RegionalConfig
) -> Choice | None:
    if not number:
        return None
    values, labels = material.views.radiomics[part], material.labels[part]
    return choose(values, labels, number, config.features)


def _train(
    material: Material,
    part: Indices,
    network: PlanarConfig,
    choice: Choice | None,
    schedule: Schedule,
    config: RegionalConfig,
    seed: int,
    device: torch.device,
) -> Planar:
    lesson = _lesson(material, part, choice, radiomics_width(network))
    labels = _labels(material, part)
    return train(network, lesson, labels, schedule, config.augmentation, seed, device)


def _lesson(material: Material, exams: Indices, choice: Choice | None, width: int) -> Lesson:
    views = material.views
    crops = views.of(exams)
    if choice is None:
        return Lesson(views.crops[crops], None)
    return Lesson(views.crops[crops], choice.scaled(views.radiomics, width)[views.exam_of[crops]])


def _labels(material: Material, exams: Indices) -> Labels:
    """(M,) of the crops of some exams."""
    return material.labels[material.views.exam_of[material.views.of(exams)]]


def _slices(material: Material, exams: Indices, odds: NDArray[np.float64]) -> Slices:
    exam_of = material.views.exam_of[material.views.of(exams)]
    return Slices(material.labels[exam_of], odds, exam_of)


def _of_exams(
    material: Material, exams: Indices, vectors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(exams, F) mean over each exam's crops, as the service compares them."""
    exam_of = material.views.exam_of[material.views.of(exams)]
    _, place = np.unique(exam_of, return_inverse=True)
    return np.stack([means(column, place) for column in vectors.T], axis=1)


def _reference(seen: NDArray[np.float64], unseen: NDArray[np.float64]) -> Reference:
    """How exams look to a member: those it was trained on, and how far others are from them."""
    covariance = LedoitWolf().fit(seen)
    mean, precision = covariance.location_, covariance.precision_
    return Reference(mean, precision, np.sort(mahalanobis(unseen, mean, precision)))
