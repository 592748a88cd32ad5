"""Where regions end: lines of one pixel on the source slices."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from worker.analyses.interface import RegionFinding
from worker.preprocess import Mask
from worker.results.outcome import Seen
from worker.results.picture import Bytes
from worker.results.resliced import on_plane
from worker.results.terms import RegionTerms
from worker.volume import Slice

HALF: Final = 0.5


def region_on(mask: Mask, affine: NDArray[np.float64], source: Slice) -> Mask:
    """A region at the pixels of a slice: (X, Y, Z) -> (rows, columns)."""
    found: Mask = on_plane(mask.astype(np.float32), affine, source) > HALF
    return found


@dataclass(frozen=True, eq=False)
class Outlines:
    """The regions of an outcome, to be drawn on its slices.

    Attributes:
        regions: each with what it is called.
        affine: 4 x 4, voxel of the masks -> RAS mm.
    """

    regions: tuple[tuple[RegionFinding, RegionTerms], ...]
    affine: NDArray[np.float64]

    @classmethod
    def of(cls, seen: Seen) -> "Outlines":
        """Those of an outcome; none where the whole head was looked at."""
        named = tuple((each, seen.terms.regions[each.name]) for each in seen.regions)
        return cls(named, seen.volume.affine)

    @property
    def legend(self) -> tuple[str, ...]:
        """What the lines mean, in a sentence; nothing where there are none."""
        if not self.regions:
            return ()
        told = (
            f"{named.label.lower()} {named.colour_name}"
            f" ({'by a reader' if region.origin == 'drawn' else 'proposed'})"
            for region, named in self.regions
        )
        return (f"Outlines: {', '.join(told)}.",)

    def draw(self, rgba: Bytes, source: Slice) -> None:
        """Draw them over a layer of one slice, opaque: (rows, columns, 4) in place."""
        for region, named in self.regions:
            inside = region_on(region.mask, self.affine, source)
            line = inside & ~ndimage.binary_erosion(inside, border_value=1)
            rgba[line] = (*named.colour, 255)
