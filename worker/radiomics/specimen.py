"""Fixed voxels whose features show whether this installation measures as another one did.

Nothing in them is random or rounded: whole numbers, divided by a power of two. Their features are
in every bundle that weighs features, as they were where its members were trained.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from worker.preprocess import Mask, Voxels
from worker.radiomics.config import Radiomics
from worker.radiomics.extraction import Spacing, extract

SHAPE: Final = (30, 26, 9)
SPACING_MM: Final[Spacing] = (0.9, 0.9, 5.0)  # of an axial T2
# Processors and compilers add in another order, which moves the tenth digit; a voxel that changes
# its grey level moves the third.
ALIKE: Final = 1e-5


def voxels() -> Voxels:
    """(X, Y, Z) around 1, as `scene.survey` leaves a brain: two slow waves and a fine texture."""
    i, j, k = np.indices(SHAPE)
    slow = (3 * i * j + 11 * k * k + 2 * i * k) % 97
    fine = (31 * i + 57 * j + 91 * k + i * i * j + 7 * j * j * k) % 61
    found: Voxels = ((160 + slow + fine) / 256).astype(np.float32)
    return found


def region() -> Mask:
    """(X, Y, Z): an ellipsoid, off the middle, in seven slices."""
    i, j, k = np.indices(SHAPE)
    mask: Mask = 16 * (i - 14) ** 2 + 25 * (j - 13) ** 2 + 196 * (k - 4) ** 2 < 2400
    return mask


def measure(config: Radiomics) -> dict[str, float]:
    """Every feature of the specimen by this installation.

    Raises:
        UnusableRegion: it cannot be measured in this way.
    """
    small = replace(config, min_voxels=1)
    found = extract(voxels(), SPACING_MM, region(), small)
    return dict(zip(found.names, found.values.tolist(), strict=True))


def differing(found: Mapping[str, float], told: Mapping[str, float]) -> list[str]:
    """The features of which two installations have other values.

    >>> differing({"a": 1.0, "b": 2.0}, {"a": 1.000001, "b": 2.1})
    ['b']
    """
    return [
        name
        for name, value in told.items()
        if not math.isclose(found[name], value, rel_tol=ALIKE, abs_tol=ALIKE**2)
    ]
