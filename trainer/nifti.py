"""Arrays as NIfTI images.

NIfTI's world runs to the patient's right, anterior and superior, as monro's does, so that voxels
and affines go over as they are.
"""

from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

SCANNER_COORDINATES = 1
"""NIFTI_XFORM_SCANNER_ANAT: where the head lay in the scanner."""


def nifti_image(voxels: NDArray[np.generic], affine: NDArray[np.float64]) -> Any:
    """An image of voxels (X, Y, Z) with their affine, voxel -> RAS mm."""
    make: Any = Nifti1Image  # nibabel declares types for some of its functions only
    image = make(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=SCANNER_COORDINATES)
    image.set_qform(affine, code=SCANNER_COORDINATES)
    return image
