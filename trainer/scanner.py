"""Scanners and their protocols, as far as a phantom shows them.

Makers and models are invented. What differs is what differs between hospitals: field strength,
noise, coil, how strongly contrast shows, slices, the order they are sent in, rescaling, and names.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Scanner:
    """One scanner with its protocol of a fat-suppressed T1 after gadolinium.

    The defaults change nothing, bit for bit: a phantom's own scanner.

    Attributes:
        manufacturer: invented.
        model: invented.
        field_tesla: strength of the main field.
        protocol: ProtocolName.
        series: SeriesDescription.
        repetition_ms: TR.
        echo_ms: TE.
        noise: factor on the noise.
        bias: factor on the logarithm of the coil's unevenness.
        contrast: tissues, by their names in phantom.MEANS, and the factor on their mean signal.
        gain: factor on all grey values.
        slice_ratio: distance of slices over distance of pixels.
        left_first: whether the series runs from left to right; usually it runs from right to left.
        slope: grey values per stored value; 1 is not written into the header.
    """

    manufacturer: str = "monro"
    model: str = "phantom"
    field_tesla: float = 3.0
    protocol: str = "SAG T1 3D TSE FS +C"
    series: str = "SAG T1 3D TSE FS +C (SYNTHETIC)"
    repetition_ms: float = 600.0
    echo_ms: float = 7.2
    noise: float = 1.0
    bias: float = 1.0
    contrast: tuple[tuple[str, float], ...] = ()
    gain: float = 1.0
    slice_ratio: float = 1.0
    left_first: bool = False
    slope: float = 1.0


PHANTOM_SCANNER: Final = Scanner()

# The scanners of a synthetic cohort. Less field: more noise and an evener coil.
LYRA: Final = Scanner(
    manufacturer="Aster",
    model="Lyra 3T",
    series="t1_space_fs_sag_KM",
    protocol="t1_space_fs_sag_KM",
    repetition_ms=650.0,
    echo_ms=11.0,
    bias=1.3,
    contrast=(("scalp", 0.85), ("cerebellum", 1.05)),
)
HALO: Final = Scanner(
    manufacturer="Borealis",
    model="Halo 1.5T",
    field_tesla=1.5,
    series="Sag T1 CUBE FS +C",
    protocol="BRAIN SIH",
    repetition_ms=550.0,
    echo_ms=14.0,
    noise=1.6,
    bias=0.5,
    contrast=(("sinus", 0.92), ("dura", 0.96), ("pituitary", 0.95)),
    slice_ratio=1.1,
    left_first=True,
)
NIMBUS: Final = Scanner(
    manufacturer="Cumulus",
    model="Nimbus 3T",
    series="3D BrainVIEW T1 FS GD",
    protocol="3D BrainVIEW T1 FS GD",
    repetition_ms=500.0,
    echo_ms=28.0,
    noise=0.8,
    bias=1.1,
    contrast=(("grey matter", 1.08), ("csf", 1.2), ("ventricle", 1.2), ("sinus", 1.06)),
    gain=2.5,
    slope=2.5,
)
CARINA: Final = Scanner(
    manufacturer="Aster",
    model="Carina 1.5T",
    field_tesla=1.5,
    series="T1 TSE 3D sag FS post contrast",
    protocol="Head^SIH",
    noise=1.3,
    bias=0.6,
    contrast=(("white matter", 0.96), ("scalp", 1.3)),
    slice_ratio=0.9,
)

SCANNERS: Final = (LYRA, HALO, NIMBUS, CARINA)
