"""Series -> Volume: the only code that turns DICOM geometry into numbers.

Axes, stated here for all of monro: world coordinates are RAS+ in mm, so x grows to the patient's
Right, y to Anterior, z to Superior. DICOM writes LPS (PS3.3 C.7.6.2.1.1): RAS x = -LPS x,
RAS y = -LPS y, z is the same. Voxel axis 0 of a volume runs to the Right, axis 1 to Anterior,
axis 2 to Superior, each as nearly as a permutation and flips of the acquired axes allow; how far a
tilted scan departs from the world axes stays in the affine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Slice:
    """Where one source image lies in the patient.

    Attributes:
        frame: number within a multi-frame instance, from 1; None for a single-frame instance.
        position: (3,) LPS mm, centre of the first pixel (ImagePositionPatient).
        row: (3,) LPS, unit, direction in which the column index grows.
        column: (3,) LPS, unit, direction in which the row index grows.
        row_spacing: mm between rows (PixelSpacing[0]); column_spacing likewise (PixelSpacing[1]).
    """

    sop_uid: str
    sop_class_uid: str
    frame: int | None
    instance_number: int | None
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    row_spacing: float
    column_spacing: float
    thickness_mm: float | None
    rows: int
    columns: int

    def pixel_to_ras(self) -> NDArray[np.float64]:
        """The 4x4 affine from (column index, row index, 0, 1) to RAS mm."""
        lps = np.eye(4)
        lps[:3, 0] = self.row * self.column_spacing
        lps[:3, 1] = self.column * self.row_spacing
        lps[:3, 2] = np.cross(self.row, self.column)
        lps[:3, 3] = self.position
        return LPS_TO_RAS @ lps


@dataclass(frozen=True, eq=False)
class Volume:
    """One series as a block of voxels and as the planes it was acquired in.

    Attributes:
        voxels: (X, Y, Z) float32, rescaled (PS3.3 C.7.6.16.2.9); axes run R, A, S.
        affine: (4, 4), voxel index to RAS mm.
        slices: sorted along the slice normal, row x column.
        planes: (slices, rows, columns) float32, the same values as acquired, in slice order.
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    slices: tuple[Slice, ...]
    planes: NDArray[np.float32]


LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
