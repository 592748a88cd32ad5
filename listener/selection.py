"""Which series an analysis wants, from header facts alone; a table of rules.

`must` rules decide whether a series can be wanted at all, `prefer` rules give points, and the
wanted series with the most points is chosen. Evidence of contrast is a preference, the strongest,
and not a must: an unenhanced T1 of the head is chosen, and then refused with its reason, which
tells a radiologist more than silence.

What the headers leave open is told by physics (TR, TE, TI, flip angle in ms and degrees), and what
physics leaves open by words. Where all three are silent, a series is not wanted: no guessing.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from listener.series import SeriesFacts
from listener.weighting import Weighting, above, between, says, weighting
from listener.wording import (
    DIFFUSION_PERFUSION_WORDS,
    FAT_SATURATION_WORDS,
    HEAD_WORDS,
    LOCALIZER_WORDS,
    OTHER_BODY_WORDS,
    Said,
    contrast_said,
    names_something,
    words_of,
)

ASKED_FOR: Final[tuple[str, ...]] = ("fistula",)
"""Analyses that a site asks for unless it says otherwise; those that are known stand in RULES."""

MR_IMAGES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
    }
)


# --- contrast ---


def contrast_evidence(facts: SeriesFacts) -> str | None:
    """What shows that a contrast agent was given before this series; None where nothing does.

    The series' own description comes first: scanners repeat the agent of an examination in the
    headers of series acquired before the injection, and people then write `pre`.
    """
    if Said.UNENHANCED is contrast_said(facts.description) or facts.contrast_administered == "NO":
        return None
    return next((sentence for sentence, holds in EVIDENCE if holds(facts)), None)


EVIDENCE: Final[tuple[tuple[str, Callable[[SeriesFacts], bool]], ...]] = (
    ("the header says that an agent was administered", lambda f: f.contrast_administered == "YES"),
    ("the header names a contrast agent", lambda f: names_something(f.contrast_agent)),
    ("the header gives a contrast volume", lambda f: (f.contrast_volume or 0) > 0),
    ("the header gives a route of contrast", lambda f: names_something(f.contrast_route)),
    (
        "the series description names contrast",
        lambda f: contrast_said(f.description) is Said.ENHANCED,
    ),
    ("the protocol name names contrast", lambda f: contrast_said(f.protocol) is Said.ENHANCED),
)


# --- body region ---


class Region(enum.Enum):
    """What the headers say of the body part; SILENT is left to the pixels (NOT-HEAD)."""

    HEAD = "head"
    OTHER = "another body part"
    SILENT = "nothing"


def region(facts: SeriesFacts) -> Region:
    """The body part, by the first text that names one: series, coded anatomy, then study."""
    levels = (
        (facts.description, facts.protocol),
        (facts.body_part, *facts.anatomy),
        (facts.study_description,),
    )
    spoken = (_region_of(texts) for texts in levels)
    return next((found for found in spoken if found is not Region.SILENT), Region.SILENT)


def _region_of(texts: tuple[str, ...]) -> Region:
    """One level of `region`; a text that names head and neck, or brain and spine, means head."""
    words = words_of(*texts)
    if not HEAD_WORDS.isdisjoint(words) or not BRAIN_AND_HEAD_CODES.isdisjoint(texts):
        return Region.HEAD
    return Region.SILENT if OTHER_BODY_WORDS.isdisjoint(words) else Region.OTHER


BRAIN_AND_HEAD_CODES: Final = frozenset({"T-A0100", "12738006", "T-D1100", "69536005"})


# --- the rules of each analysis ---


@dataclass(frozen=True)
class Rule:
    """One row of the table; `sentence` completes "the series ..."."""

    name: str
    kind: Literal["must", "prefer"]
    sentence: str
    holds: Callable[[SeriesFacts], bool]
    points: int = 0


DERIVED_TYPES: Final = frozenset(
    {
        "ADDITION",
        "COLLAPSE",
        "CSA REPORT",
        "DIVISION",
        "MASKED",
        "MAX_IP",
        "MAXIMUM",
        "MEAN",
        "MEAN_IP",
        "MINIP",
        "MIN_IP",
        "MINIMUM",
        "MIP",
        "MPR",
        "MULTIPLICATION",
        "PROJECTION IMAGE",
        "QUANTITY",
        "REFORMATTED",
        "RESAMPLED",
        "SUBTRACTION",
        "T1 MAP",
        "UNI",
    }
)
DIFFUSION_PERFUSION_TYPES: Final = frozenset(
    {"ADC", "ASL", "DIFFUSION", "FA", "FMRI", "PERFUSION", "TENSOR", "TRACEW", "TTP", "MTT"}
)
PHASE_TYPES: Final = frozenset(
    {"P", "PHASE", "PHASE MAP", "PHASE_MAP", "VELOCITY", "VELOCITY MAP", "R", "REAL", "I", "B0"}
    | {"IMAGINARY", "B0 MAP", "B1", "B1 MAP", "FIELD_MAP"}
)

HEAD_LENGTH_MM: Final = 120.0
FINE_MM: Final = 1.0  # perivascular spaces are about as wide
USUAL_TE_MS: Final = (70.0, 140.0)
THIN_MM: Final = 1.6  # 1 mm slices resampled to an isotropic 1.5 mm still count


def is_mr_image(facts: SeriesFacts) -> bool:
    """Classic or enhanced MR images; not spectroscopy, colour, or captures labelled MR."""
    return facts.modality == "MR" and facts.sop_class in MR_IMAGES


def _grey(facts: SeriesFacts) -> bool:
    return facts.samples_per_pixel == 1 and facts.photometric == "MONOCHROME2"


def _original(facts: SeriesFacts) -> bool:
    value_1 = facts.image_type[:1]
    return value_1 != ("DERIVED",) and DERIVED_TYPES.isdisjoint(facts.image_type[2:])


def _magnitude(facts: SeriesFacts) -> bool:
    return facts.complex_component in {"", "MAGNITUDE"} and PHASE_TYPES.isdisjoint(
        facts.image_type[2:]
    )


def _localizer(facts: SeriesFacts) -> bool:
    return "LOCALIZER" in facts.image_type or says(LOCALIZER_WORDS)(facts)


def _diffusion_or_perfusion(facts: SeriesFacts) -> bool:
    return (
        above(facts.b_value, 0)
        or not DIFFUSION_PERFUSION_TYPES.isdisjoint(facts.image_type[2:])
        or facts.acquisition_contrast in {"DIFFUSION", "PERFUSION"}
        or says(DIFFUSION_PERFUSION_WORDS)(facts)
    )


def _fat_saturated(facts: SeriesFacts) -> bool:
    return "FS" in facts.scan_options or says(FAT_SATURATION_WORDS)(facts)


def _covers_head(facts: SeriesFacts) -> bool:
    return facts.slices * (facts.slice_step or 0.0) >= HEAD_LENGTH_MM


USABLE: Final[tuple[Rule, ...]] = (
    Rule("mr", "must", "holds magnetic resonance images", is_mr_image),
    Rule("grey", "must", "is grey, and bright where the signal is strong", _grey),
    Rule("original", "must", "is original, not derived from other images", _original),
    Rule("magnitude", "must", "shows magnitude, not phase or a field map", _magnitude),
    Rule(
        "no-mosaic",
        "must",
        "holds one slice per image, not a mosaic",
        lambda f: "MOSAIC" not in f.image_type,
    ),
    Rule("no-localizer", "must", "is not a localizer", lambda f: not _localizer(f)),
    Rule(
        "no-diffusion",
        "must",
        "is neither diffusion nor perfusion nor functional imaging",
        lambda f: not _diffusion_or_perfusion(f),
    ),
    Rule(
        "one-time",
        "must",
        "shows one point in time",
        lambda f: (f.temporal_positions or 1) == 1,
    ),
    Rule(
        "head",
        "must",
        "shows the head, or says of no other body part",
        lambda f: region(f) is not Region.OTHER,
    ),
)
"""What every analysis asks of a series."""

COVERAGE: Final = Rule("coverage", "prefer", "is long enough for a whole head", _covers_head, 30)
NAMED_HEAD: Final = Rule(
    "named-head", "prefer", "names the head or brain", lambda f: region(f) is Region.HEAD, 5
)
NORMALISED: Final = Rule(
    "normalised",
    "prefer",
    "is corrected for coil sensitivity",
    lambda f: "NORM" in f.image_type,
    points=1,
)

RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "fistula": (
        *USABLE,
        Rule("t1", "must", "is T1-weighted", lambda f: weighting(f) is Weighting.T1),
        Rule(
            "contrast",
            "prefer",
            "was acquired with a contrast agent",
            lambda f: contrast_evidence(f) is not None,
            points=100,
        ),
        COVERAGE,
        Rule("sagittal", "prefer", "is sagittal", lambda f: f.plane == "sagittal", points=20),
        Rule("3d", "prefer", "is a 3D acquisition", lambda f: f.mr_acquisition_type == "3D", 15),
        Rule(
            "thin",
            "prefer",
            f"has slices at most {THIN_MM} mm apart",
            lambda f: between(f.slice_step, 0.1, THIN_MM),
            points=10,
        ),
        NAMED_HEAD,
        Rule("fat-saturated", "prefer", "is fat-saturated", _fat_saturated, points=3),
        NORMALISED,
    ),
    "infection": (
        *USABLE,
        Rule("axial", "must", "is axial", lambda f: f.plane == "axial"),
        Rule("t2", "must", "is T2-weighted", lambda f: weighting(f) is Weighting.T2),
        COVERAGE,
        Rule(
            "spin-echo",
            "prefer",
            f"is a spin echo with TE {USUAL_TE_MS[0]:g} to {USUAL_TE_MS[1]:g} ms",
            lambda f: "SE" in f.scanning_sequence and between(f.echo_time, *USUAL_TE_MS),
            points=20,
        ),
        Rule(
            "fine",
            "prefer",
            f"has pixels of at most {FINE_MM:g} mm",
            lambda f: f.pixel_spacing is not None and max(f.pixel_spacing) <= FINE_MM,
            points=15,
        ),
        NAMED_HEAD,
        Rule("no-fat-saturation", "prefer", "has its fat", lambda f: not _fat_saturated(f), 3),
        NORMALISED,
    ),
}

ANALYSES: Final[tuple[str, ...]] = tuple(RULES)
"""Analyses that are known, and that a site may ask for."""


# --- selecting ---


@dataclass(frozen=True)
class Verdict:
    """What became of one series; `decided_by` is the sentence of the rule that decided."""

    series_uid: str
    wanted: bool
    points: int
    decided_by: str


@dataclass(frozen=True)
class Selection:
    """The series an analysis uses, and what became of each.

    Attributes:
        chosen: series UID; None where no series of the study is wanted.
        verdicts: sorted by series UID, one for each series.
        holds_head_mr: some series is MR of the head, or no MR series names a body part: then the
            absence of a suitable series is worth a refusal; otherwise the study is not wanted at
            all. Localizers seldom name one, so a silent series says nothing beside a knee.
    """

    analysis: str
    chosen: str | None
    verdicts: tuple[Verdict, ...]
    holds_head_mr: bool


def select(analysis: str, series: Sequence[SeriesFacts]) -> Selection:
    """Choose the series of a study that `analysis` reads; the order given makes no difference.

    Among equal points the series with more slices wins, then the later one: people repeat what
    failed.
    """
    rules = RULES[analysis]
    ranked = sorted(series, key=lambda facts: _rank(rules, facts), reverse=True)
    best = next((facts for facts in ranked if _broken(rules, facts) is None), None)
    verdicts = (_verdict(rules, facts, best) for facts in series)
    return Selection(
        analysis=analysis,
        chosen=best.series_uid if best else None,
        verdicts=tuple(sorted(verdicts, key=lambda verdict: verdict.series_uid)),
        holds_head_mr=_holds_head_mr(series),
    )


def _holds_head_mr(series: Sequence[SeriesFacts]) -> bool:
    regions = {region(facts) for facts in series if is_mr_image(facts)}
    return Region.HEAD in regions or regions == {Region.SILENT}


def checked(analysis: str, facts: SeriesFacts) -> tuple[tuple[Rule, bool], ...]:
    """Each rule of an analysis, and whether it holds for a series."""
    return tuple((rule, rule.holds(facts)) for rule in RULES[analysis])


def rules_table(analysis: str) -> tuple[tuple[str, str, str, str], ...]:
    """The rules of an analysis as rows of text: name, kind, points, sentence."""
    return tuple(
        (
            rule.name,
            rule.kind,
            str(rule.points) if rule.points else "",
            f"the series {rule.sentence}",
        )
        for rule in RULES[analysis]
    )


def _broken(rules: Sequence[Rule], facts: SeriesFacts) -> Rule | None:
    """The first `must` that does not hold."""
    musts = (rule for rule in rules if rule.kind == "must")
    return next((rule for rule in musts if not rule.holds(facts)), None)


def _points(rules: Sequence[Rule], facts: SeriesFacts) -> int:
    return sum(rule.points for rule in rules if rule.kind == "prefer" and rule.holds(facts))


def _rank(rules: Sequence[Rule], facts: SeriesFacts) -> tuple[int, int, int, str]:
    number = -1 if facts.series_number is None else facts.series_number
    return _points(rules, facts), facts.slices, number, facts.series_uid


def _verdict(rules: Sequence[Rule], facts: SeriesFacts, best: SeriesFacts | None) -> Verdict:
    broken = _broken(rules, facts)
    if broken is not None:
        sentence = f"not wanted: a wanted series {broken.sentence}"
        return Verdict(facts.series_uid, wanted=False, points=0, decided_by=sentence)
    points = _points(rules, facts)
    return Verdict(facts.series_uid, True, points, decided_by=_compared(rules, facts, best))


def _compared(rules: Sequence[Rule], facts: SeriesFacts, best: SeriesFacts | None) -> str:
    """Why a wanted series was chosen, or what the chosen one has and it has not."""
    if best is None or facts.series_uid == best.series_uid:
        return "chosen: no other series of the study is preferred to it"
    ahead = (rule for rule in rules if rule.points and rule.holds(best) and not rule.holds(facts))
    return next(
        (f"wanted, but the chosen series {rule.sentence}" for rule in ahead),
        "wanted, but the chosen series has more slices or was acquired later",
    )
