"""What coil and receiver make of a head's signal: unevenness, noise, whole stored values."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from trainer.head import Raster, smooth_knots
from trainer.scanner import Scanner
from trainer.shapes import Field

# Grey values per unit of a tissue's mean, of which the brightest tissue has about 100.
GREY_VALUES: Final = 4.0
UNEVEN: Final = 0.15  # deviation of the logarithm of a coil's sensitivity, at most
NOISE: Final = (1.5, 3.5)  # deviation of either channel, in units of a tissue's mean


@dataclass(frozen=True, eq=False)
class Coil:
    """Sensitivity of a coil.

    Attributes:
        strength: deviation of its logarithm.
        knots: of the logarithm, of unit deviation.
    """

    strength: float
    knots: Field

    def over(self, raster: Raster) -> Field:
        """Sensitivity at each voxel, about 1."""
        sensitivity: Field = np.exp(np.float32(self.strength) * raster.stretched(self.knots))
        return sensitivity


def draw_coil(rng: np.random.Generator, scanner: Scanner) -> Coil:
    """Draw a coil for one patient."""
    return Coil(rng.uniform(0, UNEVEN) * scanner.bias, smooth_knots(4, rng))


def acquire(clean: Field, rng: np.random.Generator, scanner: Scanner) -> Field:
    """The magnitude of complex noise upon a signal, in whole stored values.

    Args:
        clean: grey values.
        rng: of the noise.
        scanner: that it is seen with.
    """
    noise = np.float32(rng.uniform(*NOISE) * GREY_VALUES * scanner.gain * scanner.noise)
    slope = np.float32(scanner.slope)
    real = clean + noise * rng.standard_normal(clean.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(clean.shape, dtype=np.float32)
    magnitude: Field = np.rint(np.hypot(real, imaginary) / slope) * slope
    return magnitude
