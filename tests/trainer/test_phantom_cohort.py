"""Phantoms become prepared cases, once."""

import numpy as np
import pytest

from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_cohort import is_positive, phantom_cohort
from worker.preprocess import Recipe, prepare

RECIPE = Recipe(spacing_mm=(8.0, 8.0, 8.0), shape=(30, 33, 33))


def ignore(done, total):
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cohort(cache):
    return phantom_cohort((4, 5), RECIPE, OVERT, cache, 1, ignore)


def test_cases_are_prepared_as_the_service_would(cohort):
    phantom = render(draw_case(5, positive=True, spectrum=OVERT))

    expected = prepare(phantom.voxels, phantom.affine, RECIPE).voxels

    np.testing.assert_array_equal(cohort.voxels[1], expected)


def test_odd_seeds_are_positive_and_every_seed_is_a_patient(cohort):
    assert cohort.labels.tolist() == [0, 1] == [is_positive(4), is_positive(5)]
    assert cohort.groups.tolist() == [0, 1]


def test_a_cached_phantom_is_not_made_again(cohort, cache):
    (path,) = cache.rglob("4.npy")
    np.save(path, np.full(RECIPE.shape, 0.25, dtype=np.float16))

    again = phantom_cohort((4,), RECIPE, OVERT, cache, 1, ignore)

    assert (again.voxels == 0.25).all()


def test_another_recipe_has_a_cache_of_its_own(cohort, cache):
    heard = []
    coarser = Recipe(spacing_mm=(16.0, 16.0, 16.0), shape=(15, 17, 17))

    other = phantom_cohort(
        (4,), coarser, OVERT, cache, 1, lambda done, total: heard.append((done, total))
    )

    assert other.voxels.shape == (1, 15, 17, 17)
    assert heard == [(1, 1)]
    assert len(list(cache.rglob("4.npy"))) == 2
