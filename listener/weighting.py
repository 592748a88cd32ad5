"""How a series is weighted, told by its headers: a table of physics and words.

TR, TE and TI are in ms, flip angles in degrees. What the headers name is believed first, then
physics, then words; where all are silent, the weighting is unknown: no guessing.
"""

import enum
from collections.abc import Callable
from typing import Final

from listener.series import SeriesFacts
from listener.wording import (
    FLUID_WORDS,
    OTHER_WEIGHTING_WORDS,
    says_t1,
    says_t2,
    words_of,
)


class Weighting(enum.Enum):
    """How the image is weighted, as far as the headers tell; T2 with fluid bright, not T2*."""

    T1 = "T1"
    T2 = "T2"
    OTHER = "neither T1 nor T2"
    UNKNOWN = "unknown"


def weighting(facts: SeriesFacts) -> Weighting:
    """The verdict of the first row of WEIGHTING_ROWS that applies."""
    return next((found for _, found, holds in WEIGHTING_ROWS if holds(facts)), Weighting.UNKNOWN)


def _named_words(facts: SeriesFacts) -> frozenset[str]:
    return frozenset(words_of(facts.description, facts.protocol, facts.sequence_name))


def _says_t1(facts: SeriesFacts) -> bool:
    return says_t1(_named_words(facts))


def _says_t2(facts: SeriesFacts) -> bool:
    return says_t2(_named_words(facts))


def says(words: frozenset[str]) -> Callable[[SeriesFacts], bool]:
    """Whether a series' own names hold one of these words."""
    return lambda facts: not words.isdisjoint(_named_words(facts))


def between(value: float | None, low: float, high: float) -> bool:
    """Whether a value is known and within limits."""
    return value is not None and low <= value <= high


def above(value: float | None, limit: float) -> bool:
    """Whether a value is known and above a limit."""
    return value is not None and value > limit


def _gradient(facts: SeriesFacts) -> bool:
    return "GR" in facts.scanning_sequence and "SE" not in facts.scanning_sequence


def _spin(facts: SeriesFacts) -> bool:
    return "SE" in facts.scanning_sequence and "GR" not in facts.scanning_sequence


def _inverted(facts: SeriesFacts) -> bool:
    return "IR" in facts.scanning_sequence or (facts.inversion_time or 0) > 0


def _prepared(facts: SeriesFacts) -> bool:
    """A magnetisation-prepared gradient echo: MPRAGE, BRAVO, TFE."""
    return _gradient(facts) and (_inverted(facts) or "MP" in facts.sequence_variant)


def _balanced(facts: SeriesFacts) -> bool:
    """A steady state without spoiling or inversion: FIESTA, TrueFISP, balanced FFE."""
    variant = set(facts.sequence_variant)
    return _gradient(facts) and not _inverted(facts) and "SS" in variant and "SP" not in variant


# AcquisitionContrast, PS3.3 C.8.13.3.1.1: these are the terms that are neither T1 nor T2.
OTHER_CONTRASTS: Final = frozenset(
    {
        "DIFFUSION",
        "FLOW_ENCODED",
        "FLUID_ATTENUATED",
        "PERFUSION",
        "PROTON_DENSITY",
        "STIR",
        "TAGGING",
        "TEMPERATURE",
        "T2_STAR",
        "TOF",
        "MAGNETIZATION_TRANSFER",
    }
)

# TR, TE and TI in ms, flip angles in degrees; the first row that holds decides.
WEIGHTING_ROWS: Final[tuple[tuple[str, Weighting, Callable[[SeriesFacts], bool]], ...]] = (
    (
        "AcquisitionContrast names another weighting",
        Weighting.OTHER,
        lambda f: f.acquisition_contrast in OTHER_CONTRASTS,
    ),
    (
        "time of flight, phase contrast or angiography",
        Weighting.OTHER,
        lambda f: f.angio or not {"TOF", "PC"}.isdisjoint(f.sequence_variant),
    ),
    (
        "the name says STIR, SWI, PD, angiography, a map or the like",
        Weighting.OTHER,
        says(OTHER_WEIGHTING_WORDS),
    ),
    (
        "the name says FLAIR and not T1",
        Weighting.OTHER,
        lambda f: says(FLUID_WORDS)(f) and not _says_t1(f),
    ),
    ("echo planar", Weighting.OTHER, lambda f: "EP" in f.scanning_sequence),
    (
        "inversion, TI of 1500 and more, TE above 40: FLAIR",
        Weighting.OTHER,
        lambda f: _inverted(f) and above(f.inversion_time, 1499) and above(f.echo_time, 40),
    ),
    (
        "gradient echo, the name says T2 and not T1: T2*",
        Weighting.OTHER,
        lambda f: _gradient(f) and _says_t2(f) and not _says_t1(f),
    ),
    (
        "AcquisitionContrast is T2",
        Weighting.T2,
        lambda f: f.acquisition_contrast == "T2",
    ),
    ("the name says T2 and not T1", Weighting.T2, lambda f: _says_t2(f) and not _says_t1(f)),
    (
        "spin echo without inversion, TE 60 and more, TR 2000 and more: SE, TSE, SPACE, CUBE",
        Weighting.T2,
        lambda f: (
            _spin(f)
            and not _inverted(f)
            and above(f.echo_time, 59)
            and above(f.repetition_time, 1999)
        ),
    ),
    ("TE above 40", Weighting.OTHER, lambda f: above(f.echo_time, 40)),
    (
        "gradient echo, TE above 12: T2* or SWI",
        Weighting.OTHER,
        lambda f: _gradient(f) and above(f.echo_time, 12),
    ),
    (
        "inversion, TI of 1500 and more: FLAIR",
        Weighting.OTHER,
        lambda f: _inverted(f) and above(f.inversion_time, 1499),
    ),
    (
        "spin echo, inversion, TI up to 300: STIR",
        Weighting.OTHER,
        lambda f: _spin(f) and between(f.inversion_time, 1, 300),
    ),
    (
        "spin echo without inversion, TR above 2000: PD or T2",
        Weighting.OTHER,
        lambda f: _spin(f) and not _inverted(f) and above(f.repetition_time, 2000),
    ),
    (
        "balanced steady state",
        Weighting.OTHER,
        lambda f: _balanced(f) and above(f.flip_angle, 29),
    ),
    (
        "AcquisitionContrast is T1",
        Weighting.T1,
        lambda f: f.acquisition_contrast == "T1" or "T1" in f.image_type[2:],
    ),
    (
        "spin echo, TE up to 35, TR 200 to 1200: SE, TSE, SPACE, CUBE, VISTA",
        Weighting.T1,
        lambda f: (
            _spin(f)
            and not _inverted(f)
            and between(f.echo_time, 1, 35)
            and between(f.repetition_time, 200, 1200)
        ),
    ),
    (
        "spin echo, inversion, TE up to 35, TI 400 to 1300: T1 FLAIR",
        Weighting.T1,
        lambda f: _spin(f) and between(f.echo_time, 1, 35) and between(f.inversion_time, 400, 1300),
    ),
    (
        "prepared gradient echo, TE up to 8, TI 300 to 1400 or flip up to 20: MPRAGE, BRAVO, TFE",
        Weighting.T1,
        lambda f: (
            _prepared(f)
            and between(f.echo_time, 0.5, 8)
            and (
                between(f.inversion_time, 300, 1400)
                or (f.inversion_time is None and between(f.flip_angle, 4, 20))
            )
        ),
    ),
    (
        "spoiled 3D gradient echo, TR 4 to 50, TE up to 8, flip 8 to 50: SPGR, FLASH, VIBE",
        Weighting.T1,
        lambda f: (
            _gradient(f)
            and not _balanced(f)
            and between(f.repetition_time, 4, 50)
            and between(f.echo_time, 0.5, 8)
            and between(f.flip_angle, 8, 50)
        ),
    ),
    (
        "spoiled 2D gradient echo, TR 50 to 400, TE up to 8, flip 50 and more: FLASH",
        Weighting.T1,
        lambda f: (
            _gradient(f)
            and not _balanced(f)
            and between(f.repetition_time, 50, 400)
            and between(f.echo_time, 0.5, 8)
            and between(f.flip_angle, 50, 100)
        ),
    ),
    ("the name says T1", Weighting.T1, _says_t1),
)
