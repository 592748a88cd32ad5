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
from trainer.regional.cohort import DRAWN, PROPOSED, REGIONS, Proposal, save_views, views_path
from trainer.regional.settings import INFECTION
from worker.crops import CropRecipe, RegionView, look
from worker.drawn import no_pixel_of, read_drawn
from worker.preprocess import Mask, Recipe, prepare
from worker.quality import Reason, UnusableStudy
from worker.regions import regions_of
from worker.scene import Scene, survey
from worker.volume import Volume


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
        drawn: folder of a reader's masks, REGION.nii.gz each or all in one DICOM Segmentation; what
            is missing is proposed.

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


def drawn_files(drawn: Path | None) -> list[Path]:
    """What a reader drew: masks by region, or segmentations."""
    if drawn is None:
        return []
    masks = (_mask_path(drawn, region) for region in REGIONS)
    return [*(path for path in masks if path.exists()), *sorted(drawn.glob("*.dcm"))]


def _whole_head(read: Volume, recipe: Recipe, folder: Path) -> Kept:
    prepared = prepare(read.voxels, read.affine, recipe)
    name = save_volume(folder, prepared.voxels.astype(np.float16))
    affine = tuple(float(number) for number in prepared.affine.ravel())
    write_json(affine_path(folder, name), {"affine": affine})
    return Kept(name, affine)


def _regions(read: Volume, recipe: CropRecipe, folder: Path, drawn: Path | None) -> Kept:
    scene = survey(read.voxels, read.affine)
    found = {} if drawn is None else _drawn_masks(read, drawn)
    masks, missing = regions_of(scene, found)
    for refusal in missing.values():
        raise refusal  # members of every region are trained on every exam
    views = {region: look(scene, masks[region], recipe) for region in REGIONS}
    told = {region: DRAWN if region in found else PROPOSED for region in REGIONS}
    return Kept(save_views(folder, views, _proposals(scene, recipe, found)), masks=told)


def _proposals(scene: Scene, recipe: CropRecipe, drawn: Mapping[str, Mask]) -> dict[str, Proposal]:
    """What the service would look at before a reader drew these regions."""
    if not drawn:
        return {}
    masks, _ = regions_of(scene, {})
    return {
        region: Proposal(_view(scene, masks.get(region), recipe), dice(masks.get(region), mask))
        for region, mask in drawn.items()
    }


def _view(scene: Scene, mask: Mask | None, recipe: CropRecipe) -> RegionView | None:
    try:
        return None if mask is None else look(scene, mask, recipe)
    except UnusableStudy:
        return None


def dice(proposed: Mask | None, drawn: Mask) -> float:
    """Twice what both hold, over what each holds; 0 where nothing is proposed."""
    if proposed is None:
        return 0.0
    held = np.count_nonzero(proposed) + np.count_nonzero(drawn)
    return 2 * np.count_nonzero(proposed & drawn) / held


def _drawn_masks(read: Volume, folder: Path) -> dict[str, Mask]:
    """A reader's masks on the volume's grid, by region.

    Raises:
        UnusableStudy: BAD_DRAWING: what was drawn cannot be laid on the volume, or a region was
            drawn twice.
    """
    paths = {region: _mask_path(folder, region) for region in REGIONS}
    masks = {region: _on_grid(path, read) for region, path in paths.items() if path.exists()}
    for path in sorted(folder.glob("*.dcm")):
        drawn = read_drawn([path], INFECTION, read)
        if drawn is not None and drawn.emptied:
            raise no_pixel_of(drawn.emptied)
        for region, mask in ({} if drawn is None else drawn.masks).items():
            if region in masks:
                found = f"more than one drawing of the region {region}"
                raise UnusableStudy(Reason.BAD_DRAWING, found, "one of each region")
            masks[region] = mask
    return masks


def _mask_path(folder: Path, region: str) -> Path:
    return folder / f"{region}.nii.gz"


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
