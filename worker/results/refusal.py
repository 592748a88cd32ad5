"""The refusal pair: a coded reason for machines, and in plain words for people (R13)."""

from highdicom.sr import (
    AlgorithmIdentification,
    FindingSite,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
)
from pydicom.dataset import Dataset

from listener.selection import MR_IMAGES
from worker.results import terms
from worker.results.letterhead import software_version
from worker.results.outcome import NotJudged
from worker.results.report import RESEARCH_USE_ONLY, tracking, tree
from worker.results.summary import CAUTION, DIGITS_OF_SHA256, inputs, replacement, text


def refusal(refused: NotJudged) -> Dataset:
    """The measurement report of a study that was not judged: no number, a coded reason."""
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking(refused),
        algorithm_id=AlgorithmIdentification(
            name=f"{terms.PRODUCT} check of the input",
            version=software_version(),
            parameters=[*_asked(refused), RESEARCH_USE_ONLY],
        ),
        finding_sites=[FindingSite(anatomic_location=refused.terms.site)],
        qualitative_evaluations=[
            QualitativeEvaluation(refused.terms.finding, terms.UNDETERMINED),
            QualitativeEvaluation(terms.NOT_ANALYSED, terms.reason_code(refused.refusal.reason)),
        ],
        source_images=_images(refused),
    )
    return tree(refused, [group])


def _asked(refused: NotJudged) -> list[str]:
    """The model that the input was checked for, though it may not have been run."""
    lineage = refused.lineage
    return [f"Checked for model {lineage.bundle}", f"Its weights sha256: {lineage.weights_sha256}"]


def _images(refused: NotJudged) -> list[SourceImageForMeasurementGroup]:
    """The images that the analysis might have read.

    The evidence names the rest of the study as well, but a reference of value type IMAGE to a
    report or a document (PS3.3 C.18.4) makes readers drop the whole refusal.
    """
    return [
        SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)
        for source in refused.sources
        if source.SOPClassUID in MR_IMAGES
    ]


def refusal_summary(refused: NotJudged) -> Dataset:
    """The same in words: what was found, what is needed, and that nothing was concluded."""
    return text(refused, conclusions(refused), findings(refused))


def conclusions(refused: NotJudged) -> list[str]:
    """That nothing was concluded, and why."""
    return [
        f"{refused.terms.finding.meaning}: not analysed. {refused.refusal.reason.meaning}.",
        f"Nothing was concluded: {refused.terms.finding_in_prose} is neither suggested nor "
        "excluded.",
        CAUTION,
    ]


def findings(refused: NotJudged) -> list[str]:
    """What was found and what is needed."""
    return [
        f"Found: {refused.refusal.found}.",
        f"Needed: {refused.refusal.needed}.",
        inputs(refused),
        f"Model asked: {refused.lineage.bundle}; weights sha256 "
        f"{refused.lineage.weights_sha256[:DIGITS_OF_SHA256]}.",
        *map(str, refused.unused),
        *replacement(refused),
    ]
