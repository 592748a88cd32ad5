"""Cases ready for training: prepared volumes, labels, groups.

A group is a patient: all of a patient's volumes fall into the same fold.
"""

import hashlib
import inspect
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer import phantom
from trainer.phantom import Spectrum
from worker import preprocess
from worker.preprocess import Recipe, prepare


@dataclass(frozen=True, eq=False)
class Cohort:
    """Prepared cases.

    Attributes:
        voxels: float16 (N, X, Y, Z); exact, since prepared volumes are rounded to float16.
        labels: int64 (N,), 1 for positive.
        groups: int64 (N,), the patient.
    """

    voxels: NDArray[np.float16]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of cases."""
        return int(self.labels.size)


def phantom_cohort(
    seeds: Sequence[int],
    recipe: Recipe,
    spectrum: Spectrum,
    cache: Path,
    processes: int,
    on_progress: Callable[[int, int], None],
) -> Cohort:
    """Phantoms of these seeds; odd seeds are positive.

    Args:
        seeds: one patient each.
        recipe: how they are prepared.
        spectrum: how the disease shows in the positives.
        cache: folder where prepared phantoms are kept for the next time.
        processes: rendering at a time.
        on_progress: called with the phantoms done and to do.
    """
    folder = cache / _cache_key(recipe, spectrum)
    folder.mkdir(parents=True, exist_ok=True)
    prepare_one = partial(_prepared, recipe=recipe, spectrum=spectrum, folder=folder)
    volumes = []
    with multiprocessing.get_context("forkserver").Pool(processes) as pool:
        for volume in pool.imap(prepare_one, seeds, chunksize=2):
            volumes.append(volume)
            on_progress(len(volumes), len(seeds))
    labels = np.array([is_positive(seed) for seed in seeds], dtype=np.int64)
    return Cohort(np.stack(volumes), labels, np.array(seeds, dtype=np.int64))


def is_positive(seed: int) -> bool:
    """Odd seeds have a fistula."""
    return seed % 2 == 1


def _prepared(seed: int, recipe: Recipe, spectrum: Spectrum, folder: Path) -> NDArray[np.float16]:
    """One prepared phantom, from the cache where it is there."""
    path = folder / f"{seed}.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float16)
    case = phantom.draw_case(seed, is_positive(seed), spectrum)
    rendered = phantom.render(case)
    volume = prepare(rendered.voxels, rendered.affine, recipe).voxels.astype(np.float16)
    partial_path = path.with_suffix(".partial.npy")
    np.save(partial_path, volume)
    partial_path.rename(path)
    return volume


def _cache_key(recipe: Recipe, spectrum: Spectrum) -> str:
    """Changes with anything that changes a volume, the code that makes it included."""
    sources = inspect.getsource(phantom) + inspect.getsource(preprocess)
    return hashlib.sha256(f"{recipe} {spectrum} {sources}".encode()).hexdigest()[:16]
