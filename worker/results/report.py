"""SR A: the measurement report for machines (TID 1500), modelled on IHE AIR Rev. 1.3."""

from collections import defaultdict
from collections.abc import Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from listener.series import Header
from worker.analyses.interface import RegionFinding, Unmeasured
from worker.results import terms
from worker.results.document import english
from worker.results.letterhead import software_version
from worker.results.outcome import Estimated, Judged, Outcome
from worker.results.uids import derive
from worker.volume import Slice

RESEARCH_USE_ONLY = "Research use only. Not for primary diagnosis."
MAP_FOLLOWS = "Early report: the {} is being made, and a report with it will replace this"


def report(judged: Estimated) -> Dataset:
    """The measurement report of a judged study, or the early one of its score alone: its content.

    Args:
        judged: what to report; without a map where the report is an early one.
    """
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking(judged),
        algorithm_id=_algorithm(judged),
        finding_sites=[FindingSite(anatomic_location=judged.terms.site)],
        measurements=_measurements(judged),
        qualitative_evaluations=_evaluations(judged),
        source_images=_images(judged),
    )
    groups = [
        group,
        *(_region(judged, each) for each in judged.regions),
        *(_unmeasured(judged, each) for each in judged.unmeasured),
    ]
    return tree(judged, groups)


def tree(outcome: Outcome, groups: Sequence[MeasurementsAndQualitativeEvaluations]) -> Dataset:
    """The content tree around groups (TID 1500): language, observer, procedure, groups."""
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(outcome)),
        procedure_reported=terms.PROCEDURE,
        imaging_measurements=list(groups),
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=english(),
    )
    root: Dataset = content[0]
    return root


def tracking(outcome: Outcome) -> TrackingIdentifier:
    """What is tracked from report to report: the finding in this study."""
    return TrackingIdentifier(uid=outcome.lineage.tracking_uid, identifier=outcome.terms.tracking)


def _observer(outcome: Outcome) -> ObserverContext:
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=outcome.lineage.station_uid,
            name=terms.PRODUCT,
            manufacturer_name=terms.MANUFACTURER,
            model_name=f"{terms.PRODUCT} {software_version()}",
            serial_number=outcome.lineage.site,
        ),
    )


def _algorithm(judged: Estimated) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=judged.bundle.name,
        version=judged.bundle.version,
        parameters=parameters(judged),
        family=terms.ARTIFICIAL_INTELLIGENCE,
    )


def parameters(judged: Estimated) -> list[str]:
    """How the model was run, one sentence each."""
    bundle = judged.bundle
    sentences = [
        f"Ensemble of {len(judged.prediction.members)} members, mean of calibrated probabilities",
        f"Thresholds: suggested from {100 * bundle.threshold_high:.1f} %, "
        f"not suggested below {100 * bundle.threshold_low:.1f} %",
        f"Out-of-distribution limit: percentile {bundle.ood_limit:.1f} of the reference cohort",
        f"Weights sha256: {judged.lineage.weights_sha256}",
        f"Intended input: {bundle.intended_input}",
        *_feature_parameters(judged),
        _map_parameters(judged),
        RESEARCH_USE_ONLY,
    ]
    return sentences + [bundle.statement] * bool(bundle.statement)


def _feature_parameters(judged: Estimated) -> list[str]:
    made = judged.measured_with
    return [] if made is None else [f"Handcrafted features: {made}"]


def _map_parameters(judged: Estimated) -> str:
    if not isinstance(judged, Judged):
        return MAP_FOLLOWS.format(judged.terms.map_name)
    return judged.map.parameters


def _measurements(judged: Estimated) -> list[Measurement]:
    prediction = judged.prediction
    return [
        _percentage(terms.PROBABILITY, 100 * prediction.probability),
        _percentage(judged.terms.disagreement, 100 * prediction.disagreement),
        _percentage(judged.terms.unusualness, prediction.ood_percentile),
    ]


def _region(judged: Estimated, region: RegionFinding) -> MeasurementsAndQualitativeEvaluations:
    """What was measured of one region."""
    volume = Measurement(terms.VOLUME, round(region.volume_ml, 1), terms.MILLILITRE)
    scored = (
        []
        if region.score is None
        else [_percentage(terms.PROBABILITY, 100 * region.score.probability)]
    )
    features = [
        Measurement(terms.feature_code(name), float(f"{value:.6g}"), terms.NO_UNITS)
        for name, value in region.features
    ]
    origin = QualitativeEvaluation(terms.REGION_ORIGIN, terms.ORIGINS[region.origin])
    return _group_of_region(judged, region.name, [volume, *scored, *features], origin)


def _unmeasured(judged: Estimated, region: Unmeasured) -> MeasurementsAndQualitativeEvaluations:
    """No number of a region that was not looked at, and why."""
    reason = terms.reason_code(region.refusal.reason)
    coded = QualitativeEvaluation(terms.REGION_NOT_MEASURED, reason)
    return _group_of_region(judged, region.name, [], coded)


def _group_of_region(
    judged: Estimated, name: str, measurements: list[Measurement], said: QualitativeEvaluation
) -> MeasurementsAndQualitativeEvaluations:
    named = judged.terms.regions[name]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derive("tracking", judged.lineage.tracking_uid, name),
            identifier=f"{judged.terms.tracking}: {named.label}",
        ),
        algorithm_id=_algorithm(judged),
        finding_sites=[FindingSite(anatomic_location=named.code)],
        measurements=measurements or None,
        qualitative_evaluations=[said],
        source_images=_images(judged),
    )


def _percentage(name: Code, value: float) -> Measurement:
    return Measurement(name=name, value=round(value, 1), unit=terms.PERCENT)


def _evaluations(judged: Estimated) -> list[QualitativeEvaluation]:
    labels = terms.LABEL_SETS[judged.prediction.conformal]
    return [
        QualitativeEvaluation(judged.terms.finding, terms.BANDS[judged.prediction.band]),
        QualitativeEvaluation(judged.terms.label_set, labels),
    ]


def _images(judged: Estimated) -> list[SourceImageForMeasurementGroup]:
    """Every image used, once; frames are named only where not all of an instance were used."""
    slices: dict[str, list[Slice]] = defaultdict(list)
    for each in judged.volume.slices:
        slices[each.sop_uid].append(each)
    frames = {
        each.SOPInstanceUID: Header(each).whole("NumberOfFrames") or 1 for each in judged.sources
    }
    return [
        SourceImageForMeasurementGroup(
            referenced_sop_class_uid=used[0].sop_class_uid,
            referenced_sop_instance_uid=sop_uid,
            referenced_frame_numbers=_frames(used) if len(used) < frames[sop_uid] else None,
        )
        for sop_uid, used in slices.items()
    ]


def _frames(used: Sequence[Slice]) -> list[int]:
    return sorted(each.frame for each in used if each.frame is not None)
