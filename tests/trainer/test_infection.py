"""Infection changes fluid, and only in those who have it."""

import numpy as np
import pytest

from trainer.infection import draw_infection
from trainer.phantom import OVERT, draw_case


def test_the_same_seed_draws_the_same_patient():
    assert draw_infection(7, positive=True) == draw_infection(7, positive=True)
    assert draw_infection(7, positive=True) != draw_infection(8, positive=True)


def test_without_infection_fluid_is_as_usual():
    negative = draw_infection(4, positive=False)

    assert negative.shown == negative.usual
    assert negative.usual.dimming == 0


def test_the_healthy_twin_of_a_positive_is_the_negative_of_its_seed_but_for_the_label():
    positive, negative = (draw_infection(9, positive=each) for each in (True, False))

    assert positive.healthy().shown == negative.shown
    assert positive.head == negative.head


def test_fluid_loses_three_to_eight_percent_and_gains_grain_and_spaces():
    shown = [draw_infection(seed, positive=True) for seed in range(500)]
    clear = [each for each in shown if each.shown.dimming > 0.01]

    dimming = np.array([each.shown.dimming for each in clear])
    assert 0.03 <= dimming.min() < dimming.max() <= 0.08
    assert all(each.shown.grain > each.usual.grain for each in shown)
    assert all(each.shown.spaces >= each.usual.spaces for each in shown)
    assert all(each.shown.space_mm > each.usual.space_mm for each in shown)


def test_a_quarter_of_the_positives_shows_hardly_anything():
    faint = [draw_infection(seed, positive=True).shown.dimming < 0.01 for seed in range(2000)]

    assert np.mean(faint) == pytest.approx(0.25, abs=0.03)


def test_more_severe_infection_changes_more():
    mild, usual = (draw_infection(5, True, severity) for severity in (0.2, 1.0))

    assert mild.usual == usual.usual
    assert mild.shown.dimming < usual.shown.dimming
    assert mild.shown.grain < usual.shown.grain


def test_a_head_with_hypotension_can_have_an_infection_too():
    head = draw_case(11, positive=True, spectrum=OVERT)

    both = draw_infection(11, positive=True, head=head)

    assert both.head == head
    assert both.shown == draw_infection(11, positive=True).shown
