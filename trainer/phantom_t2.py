"""The axial T2 look of a synthetic head, with known regions and known signs of infection.

The head is that of phantom.py: rendered with a case of its, both looks show one head at one place,
and fit over each other in world coordinates. Cerebrospinal fluid is bright, white matter darker
than grey, flowing blood black. Slices are thick: each is the mean of several thin ones.

Two regions come with each phantom, as voxels that they fill by more than half: the ventricular
system (the cartoon has lateral ventricles and the third) and the parenchyma below the lentiform
nucleus with its perivascular spaces: in the standard head a box without large fluid, whose place
and size differ from head to head.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trainer.acquisition import GREY_VALUES, Coil, acquire, draw_coil
from trainer.head import FIELD_OF_VIEW_MM, Head, Person, Shape, draw_person, rotation, tissue_means
from trainer.infection import VENTRICLES_SHARE, FluidSigns, InfectionCase
from trainer.phantom import ANATOMY_STREAM
from trainer.scanner import AXIAL_T2, Scanner
from trainer.shapes import Field, Grid, Point, box, capsule

# Streams of randomness per seed; infection.py draws from stream 4.
SPACES_STREAM, GRAIN_STREAM, COIL_STREAM, NOISE_STREAM, PLACE_STREAM, MOTTLE_STREAM = range(5, 11)

FIELD_MM: Final = 230.4  # of a slice, either way: 256 pixels of 0.9 mm
MATRIX: Final = 256
SLICES: Final = 24
WHOLE: Final = range(SLICES)
THICKNESS_MM: Final = 5.0
GAP_MM: Final = 0.5  # 10 %, as 2D sequences leave against crosstalk
MIDDLE_MM: Final = 21.0  # z of the middle of the stack: from the upper pons to above the vertex
THIN: Final = 4  # slices painted for the mean of a thick one

SPACE: Final = "perivascular space"
# Mean signal of each tissue; fluid is 100.
MEANS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "air": 2,
        "scalp": 60,
        "bone": 9,
        "dura": 12,
        "subdural": 92,
        "csf": 100,
        "grey matter": 52,
        "white matter": 38,
        "ventricle": 100,
        "lentiform nucleus": 43,
        "brainstem": 42,
        "cerebellum": 48,
        "pituitary": 50,
        "chiasm": 40,
        "mamillary body": 50,
        "sinus": 7,
    }
)
DARK: Final[Mapping[str, float]] = MappingProxyType(dict.fromkeys((*MEANS, SPACE), 0.0))
VENTRICLE: Final = MappingProxyType({**DARK, "ventricle": 1.0})
PARENCHYMA: Final = MappingProxyType({**DARK, "grey matter": 1.0, "white matter": 1.0, SPACE: 1.0})

# Below the lentiform nucleus, mm in the standard head, right side: at the height of the anterior
# commissure and a centimetre below, from the third ventricle's wall to the insula.
SUBLENTIFORM_CENTRE: Final = (21.0, 4.0, -8.5)
SUBLENTIFORM_HALF: Final = (9.0, 11.0, 6.5)
# Whoever hangs a box from the ventricles does not know where it lies in this head: deviations of
# its place along each axis, in mm, and of its size, as a share.
PLACE_MM: Final = 1.0
SIZE: Final = 0.05
# Perivascular spaces follow the lenticulostriate arteries: up from the base, and a little outwards.
MOST_SPACES: Final = 60
SPACE_LENGTH_MM: Final = (8.0, 16.0)
SPACE_LEAN_MM: Final = 3.0
GRAIN_MM: Final = 1.0  # deviation of the Gaussian that makes texture of noise
# Brain is nowhere even, in health neither, and in some more uneven than in others: over distances
# that a fine filter does not see. Deviation, percent of the signal of fluid.
MOTTLE_MM: Final = 3.0
MOTTLE: Final = (0.0, 15.0)


@dataclass(frozen=True, eq=False)
class AxialPhantom:
    """A rendered case.

    Attributes:
        case: what was rendered.
        voxels: float32 (X, Y, Z), grey values, whole multiples of the scanner's slope.
        affine: 4 x 4, voxel -> RAS mm.
        clean: float32 (X, Y, Z), the same without noise.
        ventricles: bool (X, Y, Z), the ventricular system.
        sublentiform: bool (X, Y, Z), parenchyma below the lentiform nuclei, with its spaces.
        scanner: what it was made with.
    """

    case: InfectionCase
    voxels: Field
    affine: NDArray[np.float64]
    clean: Field
    ventricles: NDArray[np.bool_]
    sublentiform: NDArray[np.bool_]
    scanner: Scanner = AXIAL_T2


def render_t2(
    case: InfectionCase,
    matrix: int = MATRIX,
    scanner: Scanner = AXIAL_T2,
    plan_deg: Point = (0.0, 0.0, 0.0),
    slices: range = WHOLE,
) -> AxialPhantom:
    """Paint a case; about four seconds at 256 x 256.

    Args:
        case: who.
        matrix: pixels of a slice, either way; fewer are quicker, and blur texture.
        scanner: how it is seen.
        plan_deg: turn of the stack of slices about x, y and z.
        slices: of the stack that are painted, from below; their noise is not that of the whole.
    """
    stack = _Stack(matrix, plan_deg)
    rng = np.random.default_rng([case.seed, ANATOMY_STREAM])
    person = draw_person(rng)
    coil = draw_coil(np.random.default_rng([case.seed, COIL_STREAM]), scanner)
    means = tissue_means(MEANS, person, scanner)
    percent = means["csf"] / 100
    grain = _grain(case, stack) * np.float32(percent)
    mottle = _mottle(case, stack) * np.float32(percent)
    look = _with_infection(means, case.shown)
    painted = [
        _paint(case, person, coil, look, stack.slab(at), grain[..., at], mottle[..., at])
        for at in slices
    ]
    parts = zip(*painted, strict=True)
    clean, ventricles, sublentiform = (np.stack(each, axis=-1) for each in parts)
    clean *= np.float32(GREY_VALUES * scanner.gain)
    noise = np.random.default_rng([case.seed, NOISE_STREAM])
    voxels = acquire(clean, noise, scanner)
    regions = ventricles > 0.5, sublentiform > 0.5
    affine = stack.affine.copy()
    affine[:3, 3] += affine[:3, 2] * slices[0]
    return AxialPhantom(case, voxels, affine, clean, *regions, scanner)


def _with_infection(means: Mapping[str, float], signs: FluidSigns) -> dict[str, float]:
    """Signal of each tissue, fluid dimmed where it is seen to be."""
    return {
        **means,
        "ventricle": means["ventricle"] * (1 - VENTRICLES_SHARE * signs.dimming),
        SPACE: means["csf"] * (1 - signs.dimming),
    }


def _paint(
    case: InfectionCase,
    person: Person,
    coil: Coil,
    look: Mapping[str, float],
    slab: "_Slab",
    grain: Field,
    mottle: Field,
) -> tuple[Field, Field, Field]:
    """Signal of a slice, and the shares that ventricles and sub-lentiform parenchyma fill."""
    # On T2 the dura does not enhance.
    head = Head(slab, person, dataclasses.replace(case.head.shown, dura_gain=1.0))
    region = _place(case)
    spaces = tuple(_spaces(case, head, region))
    signal, ventricle, parenchyma = head.paint(look, VENTRICLE, PARENCHYMA, more=spaces)
    sublentiform = parenchyma * head.share(_sublentiform(head, region))
    thin = signal * coil.over(slab), ventricle, sublentiform, parenchyma
    seen, ventricle, sublentiform, parenchyma = (each.mean(axis=2) for each in thin)
    grainy = sublentiform + np.float32(VENTRICLES_SHARE) * ventricle
    return seen + grainy * grain + parenchyma * mottle, ventricle, sublentiform


def _place(case: InfectionCase) -> tuple[Point, Point]:
    """Centre and half sides of the region of this head, right side, mm in the standard head."""
    rng = np.random.default_rng([case.seed, PLACE_STREAM])
    shift = np.clip(rng.normal(0, PLACE_MM, 3), -2 * PLACE_MM, 2 * PLACE_MM)
    size = np.clip(rng.normal(1, SIZE, 3), 1 - 2 * SIZE, 1 + 2 * SIZE)
    x, y, z = (np.array(SUBLENTIFORM_CENTRE) + shift).tolist()
    half_x, half_y, half_z = (np.array(SUBLENTIFORM_HALF) * size).tolist()
    return (x, y, z), (half_x, half_y, half_z)


def _sublentiform(head: Head, region: tuple[Point, Point]) -> Field:
    """Signed distance of the boxes below both lentiform nuclei."""
    return box((np.abs(head.x), head.y, head.z), *region)


def _spaces(case: InfectionCase, head: Head, region: tuple[Point, Point]) -> Iterator[Shape]:
    """Perivascular spaces; those of health are there in infection as well, and wider."""
    rng = np.random.default_rng([case.seed, SPACES_STREAM])
    (x, y, z), (half_x, half_y, half_z) = region
    for side in (-1, 1):
        for number in range(MOST_SPACES):
            right, ahead = rng.uniform((x - half_x, y - half_y), (x + half_x, y + half_y))
            bottom, length = rng.uniform(z - half_z, z), rng.uniform(*SPACE_LENGTH_MM)
            lean_x, lean_y = rng.uniform((0, -SPACE_LEAN_MM), SPACE_LEAN_MM)
            radius = case.shown.space_mm * float(np.exp(rng.normal(0, 0.25)))
            reach = bottom - radius, bottom + length + radius
            if number < case.shown.spaces and head.reaches(*reach):
                start = (side * right, ahead, bottom)
                end = (side * (right + lean_x), ahead + lean_y, bottom + length)
                yield SPACE, capsule(head.grid, start, end, radius)


def _grain(case: InfectionCase, stack: "_Stack") -> Field:
    """What infection adds to fluid, percent of its signal."""
    rng = np.random.default_rng([case.seed, GRAIN_STREAM])
    return np.float32(case.shown.grain) * _texture(rng, GRAIN_MM, stack)


def _mottle(case: InfectionCase, stack: "_Stack") -> Field:
    """Unevenness of brain, percent of the signal of fluid."""
    rng = np.random.default_rng([case.seed, MOTTLE_STREAM])
    return np.float32(rng.uniform(*MOTTLE)) * _texture(rng, MOTTLE_MM, stack)


def _texture(rng: np.random.Generator, width_mm: float, stack: "_Stack") -> Field:
    """(X, Y, Z) noise of unit deviation, smoothed by a Gaussian so wide, each slice its own."""
    noise = rng.standard_normal((stack.matrix, stack.matrix, SLICES), dtype=np.float32)
    sigma = width_mm / stack.pixel_mm
    texture: Field = ndimage.gaussian_filter(noise, (sigma, sigma, 0))
    texture /= texture.std()
    return texture


class _Stack:
    """A stack of axial slices, turned perhaps."""

    def __init__(self, matrix: int, plan_deg: Point) -> None:
        self.matrix = matrix
        self.pixel_mm = FIELD_MM / matrix
        edges = np.diag([self.pixel_mm, self.pixel_mm, THICKNESS_MM + GAP_MM])
        self.turn = rotation(np.deg2rad(plan_deg))
        middle = np.array([(matrix - 1) / 2, (matrix - 1) / 2, (SLICES - 1) / 2])
        self.affine = np.eye(4)
        self.affine[:3, :3] = self.turn @ edges
        self.affine[:3, 3] = np.array([0, 0, MIDDLE_MM]) - self.affine[:3, :3] @ middle

    def slab(self, at: int) -> "_Slab":
        """One of its slices."""
        return _Slab(self, at)


class _Slab:
    """One thick slice, as THIN thin ones."""

    def __init__(self, stack: _Stack, at: int) -> None:
        thin_mm = THICKNESS_MM / THIN
        self.edges_mm: Point = (stack.pixel_mm, stack.pixel_mm, thin_mm)
        along = np.arange(stack.matrix)
        depth = at + (np.arange(THIN) - (THIN - 1) / 2) * thin_mm / (THICKNESS_MM + GAP_MM)
        i, j, k = np.meshgrid(along, along, depth, indexing="ij", sparse=True)
        x, y, z = (
            (row[0] * i + row[1] * j + row[2] * k + row[3]).astype(np.float32)
            for row in stack.affine[:3]
        )
        self.grid: Grid = x, y, z

    def points(self) -> Grid:
        """Centres of the voxels, mm."""
        return self.grid

    def stretched(self, knots: Field) -> Field:
        """Trilinear values of a field; beyond the field of view it goes on as at its faces."""
        at = [
            (each / extent + 0.5) * n - 0.5
            for each, extent, n in zip(self.grid, FIELD_OF_VIEW_MM, knots.shape, strict=True)
        ]
        values: Field = ndimage.map_coordinates(knots, at, order=1, mode="nearest")
        return values
