"""Proposals of the two regions of the infection analysis, for a reader to confirm.

The paper (Cüce et al., Front Med 2025;12:1659653) drew the ventricular system and the parenchyma
below the lentiform nucleus, perivascular spaces included, half by hand on axial T2. Here both are
found by brightness, form and place, without an atlas:

- ventricles: what is as bright as fluid within an ellipsoid in the middle of the head, in its
  largest pieces; sulci and cisterns hug the ellipsoid's surface and fall away. Temporal horns and
  the fourth ventricle lie below the ellipsoid: a reader adds them where they count.
- sub-lentiform: on either side a box that hangs from the roof of the lateral ventricles and from
  the tips of their frontal horns, beside the third ventricle at the height of the anterior
  commissure, turned as the head is turned; brain and small bright dots in it, no cistern, no
  bone. How far slices nod against the line of the commissures is not found out.

Axes and lengths as in scene.py.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from scipy import ndimage

from listener.segmentation import SUBLENTIFORM, VENTRICLES
from worker.preprocess import Mask
from worker.quality import Reason, UnusableStudy
from worker.scene import DARK, Scene

# Of a sulcus, fissure or cistern that the ellipsoid cuts, a third and more lies at its surface; of
# a ventricle, an eighth at most.
SURFACE: Final = 0.85
MOST_AT_SURFACE: Final = 0.25
# Parted along the middle plane, the fissure between the hemispheres falls off the ventricles.
SLIT_MM: Final = 3.0
PIECE_ML: Final = 0.15  # a third ventricle has 1 ml, a lacune less than this
PIECE_SHARE: Final = 0.1  # of the largest, beside the slit or in it: less is sulcus
MOST_PIECES: Final = 4  # beside the slit or in it: two ventricles, and two that noise cut off

VENTRICLES_ML: Final = (1.5, 250.0)  # slit ventricles of a child; severe hydrocephalus
VENTRICLES_NEEDED: Final = f"ventricles of {VENTRICLES_ML[0]:g} to {VENTRICLES_ML[1]:g} ml"

# The box, from the roof of the ventricles' bodies, the tips of the frontal horns, the middle plane.
BOX_BELOW_ROOF_MM: Final = 36.0  # its centre: a centimetre below the anterior commissure
BOX_BEHIND_TIPS_MM: Final = 23.0  # its centre: at the anterior commissure
BOX_BESIDE_MM: Final = 21.0  # its centre: below the middle of the putamen
BOX_HALF_MM: Final = (9.0, 11.0, 6.5)  # third ventricle's wall to insula; perforated substance
# Where the roof is measured: lateral ventricles only, and their bodies only.
BODY_BESIDE_MM: Final = (4.0, 24.0)
BODY_BEHIND_TIPS_MM: Final = (5.0, 40.0)
BODY_HEIGHT_MM: Final = 25.0  # frontal horns have 22
TIP_PERCENTILE: Final = 98.0
TALL_PERCENTILE: Final = 90.0
DOT_MM2: Final = 60.0  # in a slice: giant perivascular spaces have 8 mm across; cisterns more
LEAST_OF_BOX: Final = 0.3  # on either side; with less, slices are missing or it is all cistern


def regions_of(
    scene: Scene, drawn: Mapping[str, Mask]
) -> tuple[dict[str, Mask], dict[str, UnusableStudy]]:
    """Both regions as a reader drew them, and proposed where nobody did; ventricles first.

    Returns:
        The masks, and NO_REGION for each region that nobody drew and that cannot be found.
    """
    masks = {name: drawn[name] for name in (VENTRICLES.name, SUBLENTIFORM.name) if name in drawn}
    missing: dict[str, UnusableStudy] = {}
    if VENTRICLES.name not in masks:
        try:
            masks = {VENTRICLES.name: find_ventricles(scene), **masks}
        except UnusableStudy as refusal:
            missing[VENTRICLES.name] = refusal
    if SUBLENTIFORM.name not in masks:
        try:
            masks[SUBLENTIFORM.name] = _from_ventricles(scene, masks, missing)
        except UnusableStudy as refusal:
            missing[SUBLENTIFORM.name] = refusal
    return masks, missing


def _from_ventricles(
    scene: Scene, masks: Mapping[str, Mask], missing: Mapping[str, UnusableStudy]
) -> Mask:
    """The sub-lentiform region, which hangs from the ventricles.

    Raises:
        UnusableStudy: NO_REGION.
    """
    if (without := missing.get(VENTRICLES.name)) is not None:
        raise _no_region(without.found, VENTRICLES_NEEDED, SUBLENTIFORM.name)
    return find_sublentiform(scene, masks[VENTRICLES.name])


def find_ventricles(scene: Scene) -> Mask:
    """Propose the lateral ventricles and the third.

    Raises:
        UnusableStudy: NO_REGION.
    """
    fluid = (scene.voxels > scene.threshold) & (scene.level < 1)
    slit = np.abs(scene.beside) < SLIT_MM * scene.scale
    mask = _largest_inner(fluid & ~slit, scene) | _largest_inner(fluid & slit, scene)
    volume_ml = _volume_ml(mask, scene)
    least, most = VENTRICLES_ML
    if not least <= volume_ml <= most:
        found = f"{volume_ml:.1f} ml of fluid in the middle of the head"
        raise _no_region(found, VENTRICLES_NEEDED, VENTRICLES.name)
    return mask


def find_sublentiform(scene: Scene, ventricles: Mask) -> Mask:
    """Propose the parenchyma below the lentiform nuclei, with its perivascular spaces.

    Args:
        scene: what `survey` found.
        ventricles: bool (X, Y, Z), as proposed or as a reader mended them.

    Raises:
        UnusableStudy: NO_REGION.
    """
    roof_mm, tips_mm = _anchors(scene, ventricles)
    half = np.array(BOX_HALF_MM) * scene.scale
    box = (
        (np.abs(np.abs(scene.beside) - BOX_BESIDE_MM * scene.scale) < half[0])
        & (np.abs(scene.ahead - tips_mm + BOX_BEHIND_TIPS_MM * scene.scale) < half[1])
        & (np.abs(scene.above - roof_mm + BOX_BELOW_ROOF_MM * scene.scale) < half[2])
    )
    mask: Mask = box & _brain_and_dots(scene) & ~ventricles
    side_ml = float(np.prod(2 * half)) / 1000
    fewest = min(_volume_ml(mask & side, scene) for side in (scene.beside > 0, scene.beside <= 0))
    if fewest < LEAST_OF_BOX * side_ml:
        found = f"{fewest:.1f} ml of brain below the lentiform nucleus of one side"
        needed = f"slices down to the skull base, with {LEAST_OF_BOX * side_ml:.1f} ml there"
        raise _no_region(found, needed, SUBLENTIFORM.name)
    return mask


def _largest_inner(fluid: Mask, scene: Scene) -> Mask:
    """The largest pieces of fluid that do not hug the surface of the ellipsoid."""
    pieces, count = ndimage.label(fluid)
    numbers = np.arange(1, count + 1)
    volumes = np.bincount(pieces.ravel(), minlength=count + 1)[1:] * scene.voxel_ml
    hugging = ndimage.mean(scene.level > SURFACE, pieces, numbers) if count else numbers
    inner = numbers[(volumes > PIECE_ML * scene.scale**3) & (hugging < MOST_AT_SURFACE)]
    largest = sorted(inner, key=lambda number: -volumes[number - 1])[:MOST_PIECES]
    least = PIECE_SHARE * volumes[largest[0] - 1] if largest else 0.0
    return np.isin(pieces, [number for number in largest if volumes[number - 1] > least])


def _anchors(scene: Scene, ventricles: Mask) -> tuple[float, float]:
    """Height of the roof of the lateral ventricles' bodies, and the tips of the frontal horns.

    The roof is found to a fraction of a slice, from how much fluid each voxel holds.
    """
    near, far = (each * scene.scale for each in BODY_BESIDE_MM)
    beside = np.abs(scene.beside)
    lateral = ventricles & (beside > near) & (beside < far)
    if not lateral.any():
        needed = "both lateral ventricles, and slices below them"
        raise _no_region("no lateral ventricle", needed, SUBLENTIFORM.name)
    tips = float(np.percentile(scene.ahead[lateral], TIP_PERCENTILE))
    behind = tips - scene.ahead
    first, last = (each * scene.scale for each in BODY_BEHIND_TIPS_MM)
    body = lateral & (behind > first) & (behind < last)
    if not body.any():
        needed = "whole lateral ventricles"
        raise _no_region("no body of a lateral ventricle", needed, SUBLENTIFORM.name)
    body &= scene.above > scene.above[body].max() - BODY_HEIGHT_MM * scene.scale
    # The slices above and below hold what is left of the ventricle.
    around = ndimage.binary_dilation(body, np.ones((1, 1, 3), dtype=np.bool_))
    share = np.where(around, np.clip((scene.voxels - 1) / (scene.fluid - 1), 0, 1), 0)
    step = float(np.linalg.norm(scene.affine[:3, 2]))
    heights = share.sum(axis=2) * step
    tall = float(np.percentile(heights[body.any(axis=2)], TALL_PERCENTILE))
    middle = float((share * scene.above).sum() / share.sum())
    return middle + tall / 2, tips


def _brain_and_dots(scene: Scene) -> Mask:
    """Brain, and fluid in pieces that are small within their slice."""
    bright = scene.voxels > scene.threshold
    in_plane = np.zeros((3, 3, 3), dtype=np.bool_)
    in_plane[:, :, 1] = True
    pieces, _ = ndimage.label(bright, in_plane)
    pixel_mm2 = float(np.prod(np.linalg.norm(scene.affine[:3, :2], axis=0)))
    areas = np.bincount(pieces.ravel()) * pixel_mm2
    areas[0] = 0.0
    wide = areas > DOT_MM2 * scene.scale**2
    mask: Mask = (scene.voxels > DARK) & ~wide[pieces]
    return mask


def _volume_ml(mask: Mask, scene: Scene) -> float:
    return float(np.count_nonzero(mask)) * scene.voxel_ml


def _no_region(found: str, needed: str, region: str) -> UnusableStudy:
    drawn = f'a reader\'s Segmentation of the series, with a segment called "{region}"'
    return UnusableStudy(Reason.NO_REGION, found, f"{needed}; or {drawn}")
