"""What results are called: kinds of object, coded concepts, titles, series descriptions.

Everything that differs between analyses stands in `ANALYSES`. Codes of scheme 99MONRO are ours
(PS3.16 section 8: designators beginning with 99 are private); the rest are of DCM, SCT, LN, UCUM.
Code meanings and series descriptions hold at most 64 characters (VR LO).
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom.sr.coding import Code
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
)

from worker.bundle import NOT_SUGGESTED as LABEL_NOT_SUGGESTED
from worker.bundle import SUGGESTED as LABEL_SUGGESTED
from worker.ensemble import Band
from worker.quality import Reason

MANUFACTURER: Final = "monro project"
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
PROCESSING_ALGORITHM: Final = Code("Newcode1", "99IHE", "Processing Algorithm")
PROCESSING_EQUIPMENT: Final = Code("109102", "DCM", "Processing Equipment")

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
    """The order of delivery: a phase begins once all of the one before is acknowledged."""

    OVERLAYS = 1
    REPORT = 2
    SUMMARY = 3


class Kind(enum.StrEnum):
    """What a result object is; goes into its UID."""

    REPORT = "report"
    REPORT_ENHANCED = "report-enhanced"
    SUMMARY = "summary"
    OVERLAY = "overlay"
    REFUSAL = "refusal"
    REFUSAL_ENHANCED = "refusal-enhanced"
    REFUSAL_SUMMARY = "refusal-summary"


@dataclass(frozen=True)
class KindTerms:
    """What all analyses share about one kind of object.

    Attributes:
        number: added to the analysis' base to give the series number; 4, 5 and 6 are kept for
            segmentation, float map and early report.
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
        Kind.REFUSAL: KindTerms(7, Comprehensive3DSRStorage, Phase.REPORT),
        Kind.REFUSAL_ENHANCED: KindTerms(7, EnhancedSRStorage, Phase.REPORT, Kind.REFUSAL),
        Kind.REFUSAL_SUMMARY: KindTerms(8, EnhancedSRStorage, Phase.SUMMARY),
    }
)
# A refusal of the same study is named as predecessor by a result, and the other way round.
COUNTERPART: Final = MappingProxyType(
    {
        Kind.REPORT: Kind.REFUSAL,
        Kind.REPORT_ENHANCED: Kind.REFUSAL_ENHANCED,
        Kind.SUMMARY: Kind.REFUSAL_SUMMARY,
        Kind.REFUSAL: Kind.REPORT,
        Kind.REFUSAL_ENHANCED: Kind.REPORT_ENHANCED,
        Kind.REFUSAL_SUMMARY: Kind.SUMMARY,
    }
)


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
        site: where it is looked for, as a code and as BodyPartExamined.
        summary_title: of the text summary; must not be that of a radiologist's report.
        tracking: what is tracked from report to report.
        map_caveat: what the occlusion map does not show.
        descriptions: of the series.
    """

    series_base: int
    finding: Code
    finding_in_prose: str
    disagreement: Code
    unusualness: Code
    label_set: Code
    site: Code
    body_part: str
    summary_title: Code
    tracking: str
    map_caveat: str
    descriptions: Mapping[Kind, str]


ANALYSES: Final = MappingProxyType(
    {
        "fistula": AnalysisTerms(
            series_base=9000,
            finding=private("CVF", "CSF-venous fistula"),
            finding_in_prose="a CSF-venous fistula",
            disagreement=private("CVF-SD", "Disagreement between ensemble members"),
            unusualness=private("CVF-OOD", "Out-of-distribution percentile"),
            label_set=private("CVF-SET", "Conformal prediction set"),
            site=Code("12738006", "SCT", "Brain"),
            body_part="BRAIN",
            summary_title=private("CVF-SUMMARY", "AI result summary - INVESTIGATIONAL"),
            tracking="monro CSF-venous fistula assessment",
            map_caveat="the map shows where the model looked, not where a fistula is",
            descriptions=MappingProxyType(
                {
                    Kind.REPORT: "AI CVF result - INVESTIGATIONAL",
                    Kind.REPORT_ENHANCED: "AI CVF result - INVESTIGATIONAL",
                    Kind.SUMMARY: "AI CVF summary - INVESTIGATIONAL",
                    Kind.OVERLAY: "AI CVF occlusion map - INVESTIGATIONAL",
                    Kind.REFUSAL: "AI CVF not analysed - INVESTIGATIONAL",
                    Kind.REFUSAL_ENHANCED: "AI CVF not analysed - INVESTIGATIONAL",
                    Kind.REFUSAL_SUMMARY: "AI CVF not analysed - INVESTIGATIONAL",
                }
            ),
        )
    }
)
