"""Prepared volumes for other tools, as NIfTI.

NIfTI's world runs to the patient's right, anterior and superior, as monro's does, so that voxels
and affines go over as they are.
"""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from trainer.cohort import BadCohort, read_cohort
from trainer.gathering.gather import affine_path

SCANNER_COORDINATES = 1
"""NIFTI_XFORM_SCANNER_ANAT: where the head lay in the scanner."""


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
        image = _image(voxels.astype(np.float32), _affine(folder, exam.volume))
        paths.append(out / f"{exam.exam}.nii.gz")
        nibabel.save(image, paths[-1])
    return paths


def _image(voxels: NDArray[np.float32], affine: NDArray[np.float64]) -> Any:
    make: Any = Nifti1Image  # nibabel declares types for some of its functions only
    image = make(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=SCANNER_COORDINATES)
    image.set_qform(affine, code=SCANNER_COORDINATES)
    return image


def _affine(folder: Path, volume: str) -> NDArray[np.float64]:
    """4 x 4, voxel -> RAS mm."""
    try:
        written = json.loads(affine_path(folder, volume).read_bytes())
        return np.array(written["affine"], dtype=np.float64).reshape(4, 4)
    except (OSError, ValueError, KeyError) as error:
        found = f"the affine of a volume cannot be read ({type(error).__name__})"
        raise BadCohort(folder, found, "gather it again: python -m trainer gather") from error
