"""What results are called: kinds of object, coded concepts, titles, series descriptions.

Everything that differs between analyses stands in `ANALYSES`. Codes of scheme 99MONRO are ours
(PS3.16 section 8: designators beginning with 99 are private); the rest are of DCM, SCT, LN, UCUM.
Code meanings and series descriptions hold at most 64 characters (VR LO).
"""

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pydicom.sr.coding import Code
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from listener.entries import Answered
from listener.segmentation import (
    MAKER,
    PROPERTY_CATEGORY,
    SUBLENTIFORM,
    VENTRICLES,
    RegionOfInterest,
)
from worker.analyses.interface import Origin
from worker.bundle import NOT_SUGGESTED as LABEL_NOT_SUGGESTED
from worker.bundle import SUGGESTED as LABEL_SUGGESTED
from worker.ensemble import Band
from worker.quality import Reason

MANUFACTURER: Final = MAKER
PRODUCT: Final = "monro"
SCHEME: Final = "99MONRO"
SCHEME_UID: Final = "2.25.284277530700154896118269514537801595844"
SCHEME_NAME: Final = "monro private codes"


def private(value: str, meaning: str) -> Code:
    """A code of our own scheme."""
    return Code(value, SCHEME, meaning)


# Concepts.
LANGUAGE: Final = Code("en-US", "RFC5646", "English (United States)")
PROBABILITY: Final = Code("122157", "DCM", "Probability")
PERCENT: Final = Code("%", "UCUM", "Percent")
NOT_ANALYSED: Final = private("NOT-ANALYSED", "Not analysed")
CONCLUSIONS: Final = Code("121076", "DCM", "Conclusions")
CONCLUSION: Final = Code("121077", "DCM", "Conclusion")
FINDINGS: Final = Code("121070", "DCM", "Findings")
FINDING: Final = Code("121071", "DCM", "Finding")
ARTIFICIAL_INTELLIGENCE: Final = Code("123110", "DCM", "Artificial Intelligence")
# CID 100 holds it, unlike the more telling codes for MRI of the brain: no complaint of validators.
PROCEDURE: Final = Code("25056-3", "LN", "MRI unspecified body region")
SOURCE_IMAGE: Final = Code("121322", "DCM", "Source image for image processing operation")
NO_UNITS: Final = Code("1", "UCUM", "no units")
MILLILITRE: Final = Code("mL", "UCUM", "milliliter")
VOLUME: Final = Code("118565006", "SCT", "Volume")
SALIENCY: Final = Code("130404", "DCM", "Saliency")
ANATOMICAL_STRUCTURE: Final = Code(*PROPERTY_CATEGORY)
REGION_ORIGIN: Final = private("REGION-ORIGIN", "Origin of the region")
ORIGINS: Final[Mapping[Origin, Code]] = MappingProxyType(
    {
        "proposed": private("REGION-PROPOSED", "Proposed by software, not seen by a reader"),
        "drawn": private("REGION-DRAWN", "Segmentation by a reader"),
    }
)
REGION_NOT_MEASURED: Final = private("REGION-NOT-MEAS", "Region not measured")
SPATIAL_CONCEPT: Final = Code("309825002", "SCT", "Spatial and Relational Concept")
PROCESSING_ALGORITHM: Final = Code("Newcode1", "99IHE", "Processing Algorithm")
PROCESSING_EQUIPMENT: Final = Code("109102", "DCM", "Processing Equipment")

# A warm orange as PCS-values scaled to 16 bits (PS3.3 C.10.7.1.1): L* 70, a* 40, b* 70.
WARM_CIELAB: Final = (45874, 43176, 50886)

# Values. A low score does not exclude the finding, so none of them says that it is absent.
UNDETERMINED: Final = Code("373068000", "SCT", "Undetermined")
BANDS: Final = MappingProxyType(
    {
        Band.SUGGESTED: private("SUGGESTED", "Suggested"),
        Band.NOT_SUGGESTED: private("NOT-SUGGESTED", "Not suggested; does not exclude"),
        Band.UNDETERMINED: UNDETERMINED,
    }
)
LABEL_SETS: Final[Mapping[frozenset[str], Code]] = MappingProxyType(
    {
        frozenset({LABEL_SUGGESTED}): private("SET-SUGGESTED", "{suggested}"),
        frozenset({LABEL_NOT_SUGGESTED}): private("SET-NOT-SUGG", "{not suggested}"),
        frozenset({LABEL_SUGGESTED, LABEL_NOT_SUGGESTED}): private("SET-BOTH", "{both}"),
        frozenset(): private("SET-NONE", "{none}"),
    }
)


def reason_code(reason: Reason) -> Code:
    """Why a study was not analysed."""
    return private(reason.value, reason.meaning)


class Phase(enum.IntEnum):
    """The order of delivery: a phase begins once all of the one before is acknowledged.

    Extras come last: a destination that does not take them must not hold a report up.
    """

    OVERLAYS = 1
    REPORT = 2
    SUMMARY = 3
    EXTRAS = 4


class Kind(enum.StrEnum):
    """What a result object is; goes into its UID."""

    REPORT = "report"
    REPORT_ENHANCED = "report-enhanced"
    SUMMARY = "summary"
    OVERLAY = "overlay"
    REGION = "region"
    FLOAT_MAP = "float-map"
    EARLY = "early"
    EARLY_ENHANCED = "early-enhanced"
    REFUSAL = "refusal"
    REFUSAL_ENHANCED = "refusal-enhanced"
    REFUSAL_SUMMARY = "refusal-summary"
    PROPOSAL = "proposal"
    NOTE = "note"


@dataclass(frozen=True)
class KindTerms:
    """What all analyses share about one kind of object.

    Attributes:
        number: added to the analysis' base to give the series number.
        alternative_of: the kind of which this is another encoding; a destination gets one of them.
    """

    number: int
    sop_class: str
    phase: Phase
    alternative_of: Kind | None = None


KINDS: Final = MappingProxyType(
    {
        Kind.REPORT: KindTerms(1, Comprehensive3DSRStorage, Phase.REPORT),
        Kind.REPORT_ENHANCED: KindTerms(1, EnhancedSRStorage, Phase.REPORT, Kind.REPORT),
        Kind.SUMMARY: KindTerms(2, EnhancedSRStorage, Phase.SUMMARY),
        Kind.OVERLAY: KindTerms(3, SecondaryCaptureImageStorage, Phase.OVERLAYS),
        Kind.REGION: KindTerms(4, SegmentationStorage, Phase.EXTRAS),
        Kind.FLOAT_MAP: KindTerms(5, ParametricMapStorage, Phase.EXTRAS),
        Kind.EARLY: KindTerms(6, Comprehensive3DSRStorage, Phase.REPORT),
        Kind.EARLY_ENHANCED: KindTerms(6, EnhancedSRStorage, Phase.REPORT, Kind.EARLY),
        Kind.REFUSAL: KindTerms(7, Comprehensive3DSRStorage, Phase.REPORT),
        Kind.REFUSAL_ENHANCED: KindTerms(7, EnhancedSRStorage, Phase.REPORT, Kind.REFUSAL),
        Kind.REFUSAL_SUMMARY: KindTerms(8, EnhancedSRStorage, Phase.SUMMARY),
        Kind.PROPOSAL: KindTerms(9, SegmentationStorage, Phase.EXTRAS),
        Kind.NOTE: KindTerms(10, EnhancedSRStorage, Phase.SUMMARY),
    }
)
# For people and for machines, in one encoding or the other: a document names its predecessor among
# documents of its own family. There is no early summary.
_MEASUREMENTS: Final[Mapping[Answered, Kind]] = MappingProxyType(
    {"early": Kind.EARLY, "report": Kind.REPORT, "refusal": Kind.REFUSAL}
)
_MEASUREMENTS_ENHANCED: Final[Mapping[Answered, Kind]] = MappingProxyType(
    {
        "early": Kind.EARLY_ENHANCED,
        "report": Kind.REPORT_ENHANCED,
        "refusal": Kind.REFUSAL_ENHANCED,
    }
)
_SUMMARIES: Final[Mapping[Answered, Kind]] = MappingProxyType(
    {"report": Kind.SUMMARY, "refusal": Kind.REFUSAL_SUMMARY, "proposal": Kind.NOTE}
)
FAMILY: Final[Mapping[Kind, Mapping[Answered, Kind]]] = MappingProxyType(
    {
        kind: family
        for family in (_MEASUREMENTS, _MEASUREMENTS_ENHANCED, _SUMMARIES)
        for kind in family.values()
    }
)


def feature_code(name: str) -> Code:
    """A handcrafted feature of a region, by its name in PyRadiomics.

    >>> feature_code("original_firstorder_Mean").value
    'RADF-AEACA056'
    """
    digest = hashlib.sha256(name.encode()).hexdigest()[:8].upper()
    return private(f"RADF-{digest}", name)


@dataclass(frozen=True)
class RegionTerms:
    """What a region of an analysis is called.

    Attributes:
        interest: its code, and how a reader's segments are told (listener/segmentation.py).
        label: in prose and as the label of its segment.
        colour: of its outline in overlays, red, green, blue.
        colour_name: the same as a word.
        cielab: of its segment, as PCS-values scaled to 16 bits (PS3.3 C.10.7.1.1).
    """

    interest: RegionOfInterest
    label: str
    colour: tuple[int, int, int]
    colour_name: str
    cielab: tuple[int, int, int]

    @property
    def code(self) -> Code:
        """Of the region, as a finding site and as a segmented property."""
        return Code(*self.interest.concept)


@dataclass(frozen=True)
class AnalysisTerms:
    """What results of one analysis are called.

    Attributes:
        series_base: series numbers are this plus the number of the kind.
        finding: the concept that is suggested, not suggested or undetermined.
        finding_in_prose: with its article, within a sentence.
        disagreement: of the members, as a standard deviation.
        unusualness: of the scan, as a percentile of the reference cohort.
        label_set: what conformal prediction cannot rule out.
        hot_region: where the occlusion map is hottest, as a segmented property.
        site: where it is looked for, as a code and as BodyPartExamined.
        summary_title: of the text summary; must not be that of a radiologist's report.
        tracking: what is tracked from report to report.
        map_name: what the map is called.
        map_caveat: what it does not show.
        descriptions: of the series.
        regions: that are looked at, where that is not the whole head.
    """

    series_base: int
    finding: Code
    finding_in_prose: str
    disagreement: Code
    unusualness: Code
    label_set: Code
    hot_region: Code
    site: Code
    body_part: str
    summary_title: Code
    tracking: str
    map_name: str
    map_caveat: str
    descriptions: Mapping[Kind, str]
    regions: Mapping[str, RegionTerms] = field(default_factory=dict)


def _descriptions(short: str, map_: str) -> Mapping[Kind, str]:
    """Series descriptions; each is at most 64 characters (PS3.5, VR LO)."""
    told = {
        Kind.REPORT: "result",
        Kind.REPORT_ENHANCED: "result",
        Kind.SUMMARY: "summary",
        Kind.OVERLAY: map_,
        Kind.REGION: "hot region",
        Kind.FLOAT_MAP: f"{map_} (float)",
        Kind.EARLY: "early result",
        Kind.EARLY_ENHANCED: "early result",
        Kind.REFUSAL: "not analysed",
        Kind.REFUSAL_ENHANCED: "not analysed",
        Kind.REFUSAL_SUMMARY: "not analysed",
        Kind.PROPOSAL: "proposed regions",
        Kind.NOTE: "waits for a reader",
    }
    return MappingProxyType(
        {kind: f"AI {short} {words} - INVESTIGATIONAL" for kind, words in told.items()}
    )


ANALYSES: Final = MappingProxyType(
    {
        "fistula": AnalysisTerms(
            series_base=9000,
            finding=private("CVF", "CSF-venous fistula"),
            finding_in_prose="a CSF-venous fistula",
            disagreement=private("CVF-SD", "Disagreement between ensemble members"),
            unusualness=private("CVF-OOD", "Out-of-distribution percentile"),
            label_set=private("CVF-SET", "Conformal prediction set"),
            hot_region=private("CVF-HOT", "Region that spoke most for the AI result"),
            site=Code("12738006", "SCT", "Brain"),
            body_part="BRAIN",
            summary_title=private("CVF-SUMMARY", "AI result summary - INVESTIGATIONAL"),
            tracking="monro CSF-venous fistula assessment",
            map_name="occlusion map",
            map_caveat="the map shows where the model looked, not where a fistula is",
            descriptions=_descriptions("CVF", "occlusion map"),
        ),
        "infection": AnalysisTerms(
            series_base=9100,
            finding=private("CNSI", "CSF-signal alteration in CNS infection"),
            finding_in_prose="a CSF-signal alteration in CNS infection",
            disagreement=private("CNSI-SD", "Disagreement between ensemble members"),
            unusualness=private("CNSI-OOD", "Out-of-distribution percentile"),
            label_set=private("CNSI-SET", "Conformal prediction set"),
            hot_region=private("CNSI-HOT", "Region that spoke most for the AI result"),
            site=Code("12738006", "SCT", "Brain"),
            body_part="BRAIN",
            summary_title=private("CNSI-SUMMARY", "AI result summary - INVESTIGATIONAL"),
            tracking="monro CNS infection assessment",
            map_name="Grad-CAM map",
            map_caveat="the map shows where the models looked, not where an infection is",
            descriptions=_descriptions("CNSI", "Grad-CAM map"),
            regions=MappingProxyType(
                {
                    VENTRICLES.name: RegionTerms(
                        VENTRICLES,
                        "Ventricular system",
                        (86, 180, 233),
                        "blue",
                        (45219, 29555, 23387),
                    ),
                    SUBLENTIFORM.name: RegionTerms(
                        SUBLENTIFORM,
                        "Sub-lentiform parenchyma",
                        (0, 200, 140),
                        "green",
                        (47185, 18504, 38550),
                    ),
                }
            ),
        ),
    }
)
