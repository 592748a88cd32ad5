"""Scanners and their protocols, as far as a phantom shows them.

Makers and models are invented. What differs is what differs between hospitals: field strength,
noise, coil, how strongly contrast shows, slices, the order they are sent in, rescaling, and names.
"""

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Scanner:
    """One scanner with one protocol.

    The defaults are a fat-suppressed sagittal T1 after gadolinium and change nothing, bit for bit:
    a phantom's own scanner.

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
        contrast: tissues, by their names in head.TISSUES, and the factor on their mean signal.
        gain: factor on all grey values.
        slice_ratio: distance of sagittal slices over distance of pixels.
        left_first: whether a sagittal series runs from left to right; most run the other way.
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

# The same scanners with a protocol of axial T2 turbo spin echo.
AXIAL_T2: Final = Scanner(
    protocol="AX T2 TSE",
    series="AX T2 TSE (SYNTHETIC)",
    repetition_ms=4000.0,
    echo_ms=100.0,
)
LYRA_T2: Final = replace(
    LYRA,
    series="t2_tse_tra",
    protocol="t2_tse_tra",
    repetition_ms=4500.0,
    echo_ms=102.0,
    contrast=(("scalp", 1.15), ("grey matter", 1.04)),
)
HALO_T2: Final = replace(
    HALO,
    series="Ax T2 FSE",
    protocol="BRAIN ROUTINE",
    repetition_ms=4200.0,
    echo_ms=98.0,
    contrast=(("white matter", 1.05), ("lentiform nucleus", 1.08)),
)
NIMBUS_T2: Final = replace(
    NIMBUS,
    series="T2W_TSE",
    protocol="T2W_TSE",
    repetition_ms=3600.0,
    echo_ms=90.0,
    contrast=(("csf", 0.95), ("ventricle", 0.95), ("white matter", 1.06)),
)
CARINA_T2: Final = replace(
    CARINA,
    series="T2 TSE tra",
    protocol="Head^Routine",
    repetition_ms=4000.0,
    echo_ms=105.0,
    contrast=(("scalp", 1.3), ("grey matter", 0.96)),
)

T2_SCANNERS: Final = (LYRA_T2, HALO_T2, NIMBUS_T2, CARINA_T2)
