"""Prepared volumes for other tools, as NIfTI."""

import json
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from trainer.cohort import BadCohort, read_cohort
from trainer.gathering.keep import affine_path
from trainer.nifti import nifti_image


def export_nifti(folder: Path, out: Path) -> list[Path]:
    """Write every volume of a cohort as float32 .nii.gz, named by its exam.

    Args:
        folder: of a cohort that was gathered.
        out: made where it is missing.

    Raises:
        BadCohort: the cohort cannot be read, or a volume has no affine.
    """
    cohort = read_cohort(folder)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for exam, voxels in zip(cohort.exams, cohort.voxels, strict=True):
        image = nifti_image(voxels.astype(np.float32), _affine(folder, exam.volume))
        paths.append(out / f"{exam.exam}.nii.gz")
        nibabel.save(image, paths[-1])
    return paths


def _affine(folder: Path, volume: str) -> NDArray[np.float64]:
    """4 x 4, voxel -> RAS mm."""
    try:
        written = json.loads(affine_path(folder, volume).read_bytes())
        return np.array(written["affine"], dtype=np.float64).reshape(4, 4)
    except (OSError, ValueError, KeyError) as error:
        found = f"the affine of a volume cannot be read ({type(error).__name__})"
        raise BadCohort(folder, found, "gather it again: python -m trainer gather") from error
