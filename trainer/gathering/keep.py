"""What is kept of a volume, by the recipe that a cohort is gathered with.

A recipe of whole heads keeps one prepared volume (worker/preprocess.py), a recipe of crops the
views of its regions (worker/crops.py): each the very input of the networks in service.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy import ndimage

from trainer.cohort import save_volume, volume_path, write_json
from trainer.regional.cohort import REGIONS, save_views, views_path
from worker.crops import CropRecipe, look
from worker.preprocess import Mask, Recipe, prepare
from worker.regions import regions_of
from worker.scene import survey
from worker.volume import Volume

DRAWN = "drawn"
PROPOSED = "proposed"


@dataclass(frozen=True)
class Kept:
    """What was kept of a volume.

    Attributes:
        name: sha256 that names the file.
        affine: of a prepared grid, 4 x 4 row by row, voxel -> RAS mm; empty for views.
        masks: region to "drawn" or "proposed"; empty for whole heads.
    """

    name: str
    affine: tuple[float, ...] = ()
    masks: Mapping[str, str] = field(default_factory=dict)


def keep(read: Volume, recipe: Recipe | CropRecipe, folder: Path, drawn: Path | None) -> Kept:
    """Prepare a volume and keep it in a cohort's folder.

    Args:
        read: the volume.
        recipe: how to prepare it.
        folder: of the cohort.
        drawn: folder of a reader's masks, REGION.nii.gz each; what is missing is proposed.

    Raises:
        UnusableStudy: a region cannot be found or looked at.
        NoHead: the volume holds none.
    """
    match recipe:
        case Recipe():
            return _whole_head(read, recipe, folder)
        case CropRecipe():
            return _regions(read, recipe, folder, drawn)


def is_kept(folder: Path, recipe: Recipe | CropRecipe, name: str) -> bool:
    """Whether all files of this name are still there."""
    match recipe:
        case Recipe():
            return volume_path(folder, name).exists() and affine_path(folder, name).exists()
        case CropRecipe():
            return views_path(folder, name).exists()


def affine_path(folder: Path, name: str) -> Path:
    """Where a cohort's folder keeps the affine of a volume."""
    return volume_path(folder, name).with_suffix(".json")


def mask_files(drawn: Path | None) -> dict[str, Path]:
    """The masks that a reader drew, by region."""
    if drawn is None:
        return {}
    paths = {region: drawn / f"{region}.nii.gz" for region in REGIONS}
    return {region: path for region, path in paths.items() if path.exists()}


def _whole_head(read: Volume, recipe: Recipe, folder: Path) -> Kept:
    prepared = prepare(read.voxels, read.affine, recipe)
    name = save_volume(folder, prepared.voxels.astype(np.float16))
    affine = tuple(float(number) for number in prepared.affine.ravel())
    write_json(affine_path(folder, name), {"affine": affine})
    return Kept(name, affine)


def _regions(read: Volume, recipe: CropRecipe, folder: Path, drawn: Path | None) -> Kept:
    files = mask_files(drawn)
    scene = survey(read.voxels, read.affine)
    masks = regions_of(scene, {region: _on_grid(path, read) for region, path in files.items()})
    views = {region: look(scene, masks[region], recipe) for region in REGIONS}
    told = {region: DRAWN if region in files else PROPOSED for region in REGIONS}
    return Kept(save_views(folder, views), masks=told)


def _on_grid(path: Path, read: Volume) -> Mask:
    """A reader's mask on the volume's grid, whatever grid it was drawn on; nearest voxel."""
    load: Any = nibabel.load  # nibabel declares types for some of its functions only
    image = load(path)
    drawn = np.asarray(image.dataobj) > 0
    to_drawn = np.linalg.solve(image.affine, read.affine)
    found = ndimage.affine_transform(
        drawn.astype(np.uint8), to_drawn, output_shape=read.voxels.shape, order=0
    )
    mask: Mask = found > 0
    return mask
