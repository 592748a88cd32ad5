"""A member learns, and its schedule is what it says."""

import pytest
import torch

from trainer.loop import learning_rate
from trainer.settings import FitConfig


def torch_rates(schedule, optimiser, epochs):
    rates = []
    for _ in range(epochs):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return rates


@pytest.fixture
def optimiser():
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)


def test_one_period_and_then_restarts_is_what_torch_makes_of_both(optimiser):
    schedules = torch.optim.lr_scheduler
    expected = torch_rates(
        schedules.SequentialLR(
            optimiser,
            [
                schedules.CosineAnnealingLR(optimiser, T_max=45),
                schedules.CosineAnnealingWarmRestarts(optimiser, T_0=20),
            ],
            milestones=[45],
        ),
        optimiser,
        85,
    )
    fit = FitConfig(first_epochs=45, restart_epochs=20, restarts=2)

    assert fit.epochs == 85
    assert [learning_rate(fit, epoch) for epoch in range(85)] == pytest.approx(expected, abs=1e-9)


def test_restarts_within_the_first_period_are_what_torch_makes_of_them(optimiser):
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=20)
    expected = torch_rates(schedule, optimiser, 45)
    fit = FitConfig(schedule="restarts", first_epochs=45, restart_epochs=20)

    assert fit.epochs == 45
    assert [learning_rate(fit, epoch) for epoch in range(45)] == pytest.approx(expected, abs=1e-9)


def test_the_papers_schedule_is_the_default():
    assert FitConfig().epochs == 650
    assert learning_rate(FitConfig(), 0) == 1e-3
