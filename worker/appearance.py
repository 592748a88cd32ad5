"""How an input looks, in a few numbers: when scanners or protocols change, these drift.

The same numbers of the cohort that a bundle was trained on are in the bundle, as its `inputs`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from worker.bundle import DECILES
from worker.crops import RegionView
from worker.preprocess import Voxels


def of_head(voxels: Voxels) -> dict[str, float]:
    """Numbers of a prepared head.

    Args:
        voxels: (X, Y, Z) as `preprocess.prepare` makes them, 0 outside of the head.
    """
    head = voxels > 0
    values = voxels[head].astype(np.float64)
    steps = np.abs(np.diff(voxels.astype(np.float32), axis=0))[head[1:] & head[:-1]]
    return {
        "share of the grid that is head": float(head.mean()),
        "mean intensity": float(values.mean()) if values.size else 0.0,
        "spread of intensities": float(values.std()) if values.size else 0.0,
        "mean step between neighbours": float(steps.mean()) if steps.size else 0.0,
    }


def of_region(view: RegionView) -> dict[str, float]:
    """Numbers of a region and the slices around it.

    Args:
        view: as `crops.look` makes it; its crops are (N, channels, side, side).
    """
    image = view.crops[:, 0].astype(np.float64)
    steps = np.abs(np.diff(image, axis=-1))
    return {
        "volume of the region in ml": float(view.volume_ml),
        "slices with the region": float(len(view.crops)),
        "spread of intensities": float(image.std()),
        "mean step between neighbours": float(steps.mean()),
    }


def deciles(cohort: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """The nine values that part a cohort into tenths, by number.

    >>> deciles([{"a": float(value)} for value in range(11)])["a"][:3]
    (1.0, 2.0, 3.0)
    """
    shares = np.arange(1, DECILES) / DECILES

    def parted(values: NDArray[np.float64]) -> tuple[float, ...]:
        return tuple(float(f"{value:.6g}") for value in np.quantile(values, shares))

    return {name: parted(np.array([each[name] for each in cohort])) for name in cohort[0]}
