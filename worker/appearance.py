"""How an input looks, in a few numbers: when scanners or protocols change, these drift.

The same numbers of the cohort that a bundle was trained on are in the bundle, as its `inputs`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from worker.bundle import PARTS, Spread
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


def spreads(cohort: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """How a cohort's values are spread, by number: parted into tenths, where values differ enough.

    >>> spreads([{"a": value} for value in (1.0, 1.0, 1.0, 2.0)])["a"]
    Spread(edges=(2.0,), share=(0.75, 0.25))
    """
    return {name: _spread(np.array([each[name] for each in cohort])) for name in cohort[0]}


def _spread(values: NDArray[np.float64]) -> Spread:
    tenths = np.quantile(values, np.arange(1, PARTS) / PARTS, method="higher")
    # Six digits are enough, and must be those that values are compared with.
    edges = sorted({float(f"{edge:.6g}") for edge in tenths if edge > values.min()})
    part = np.searchsorted(edges, values, side="right")
    share = np.bincount(part, minlength=len(edges) + 1) / values.size
    return Spread(tuple(edges), tuple(float(f"{each:.6g}") for each in share))
