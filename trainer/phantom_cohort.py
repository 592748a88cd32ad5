"""Prepared phantoms without the way through DICOM: for tests, maps and quick judgements.

`synthesize` and `gather` go the whole way that a lab's own cohort goes.
"""

import hashlib
import inspect
import multiprocessing
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainer import acquisition, head, phantom, scanner, shapes
from trainer.cohort import Cohort, Exam, digest
from trainer.phantom import Spectrum
from worker import preprocess
from worker.preprocess import Recipe, prepare


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
    exams = tuple(
        Exam(name := f"{seed:016x}", name, int(is_positive(seed)), digest(volume))
        for seed, volume in zip(seeds, volumes, strict=True)
    )
    return Cohort(exams, np.stack(volumes), recipe)


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


# All that a prepared phantom is made by.
MAKERS: Final = (shapes, head, acquisition, phantom, scanner, preprocess)


def _cache_key(recipe: Recipe, spectrum: Spectrum) -> str:
    """Changes with anything that changes a volume, the code that makes it included."""
    sources = "".join(map(inspect.getsource, MAKERS))
    return hashlib.sha256(f"{recipe} {spectrum} {sources}".encode()).hexdigest()[:16]
