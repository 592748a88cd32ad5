"""The specimen: the same voxels everywhere, by whose features installations are compared."""

import hashlib

import numpy as np

from worker.radiomics.config import PAPER_RADIOMICS, Radiomics
from worker.radiomics.specimen import differing, measure, region, voxels


def test_the_specimen_is_the_same_for_ever():
    # Frozen: bundles hold features of it.
    content = voxels().tobytes() + region().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "5d53025b019951e8"
    assert voxels().dtype == np.float32


def test_every_feature_of_the_paper_has_a_value_and_none_is_a_lucky_number():
    found = measure(PAPER_RADIOMICS)

    assert tuple(found) == PAPER_RADIOMICS.names
    assert len({f"{value:.9g}" for value in found.values()}) > 0.9 * len(found)
    assert sum(value in (0.0, 1.0) for value in found.values()) < 5


def test_a_configuration_for_large_regions_is_measured_all_the_same():
    large = Radiomics(families=("firstorder",), min_voxels=100_000)

    assert measure(large) == measure(Radiomics(families=("firstorder",), min_voxels=1))


def test_another_way_of_measuring_shows():
    told = measure(PAPER_RADIOMICS)
    bins = measure(Radiomics(log_sigmas_mm=(1.0, 2.0, 3.0, 4.0, 5.0), bin_count=31))
    space = measure(Radiomics(log_sigmas_mm=(1.0, 2.0, 3.0, 4.0, 5.0), in_plane=False))

    assert differing(told, told) == []
    assert len(differing(bins, told)) > 300
    assert len(differing(space, told)) > 300
