"""What a worker spends on one series at most."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Limits:
    """What is read of one series; what asks for more is refused before that is spent.

    Attributes:
        series_bytes: of its files, and of what deflated ones are inflated to.
        slices: files and frames.
        slice_pixels: of one slice.
        voxels: of the series. A head at 0.5 mm is 512 x 512 x 400; as float32, twice, the default
            costs 1 GiB.
        decode_seconds: for all its pixels; 500 frames take some ten.
    """

    series_bytes: int = 2 << 30
    slices: int = 2000
    slice_pixels: int = 2048 * 2048
    voxels: int = 512**3
    decode_seconds: float = 300.0

    @property
    def needed(self) -> str:
        """What is needed, in plain words."""
        return (
            f"a series of at most {self.slices} slices, {self.slice_pixels / 1e6:.1f} million "
            f"pixels in each, {self.voxels / 1e6:.0f} million voxels and "
            f"{self.series_bytes / 1024**3:.1f} GiB"
        )


LIMITS: Final = Limits()

MOST_PIECES: Final = 1_000_000
"""Elements and items of all headers of a series: of 800 slices of a maker who writes a thousand."""
