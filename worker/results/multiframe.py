"""The map as one object, for other software than viewers: off unless a site asks for it.

The float map is a Parametric Map with the effects in log odds; the region is a Segmentation of
where they are largest. Both lie on the pixels of the source slices. highdicom builds them; what it
takes from the clock or from chance is replaced, so that the same outcome gives the same bytes.
"""

from typing import Any, Final

import numpy as np
from highdicom import AlgorithmIdentificationSequence, VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from worker.results import terms
from worker.results.letterhead import Letterhead, library, software_version
from worker.results.outcome import Judged, Seen
from worker.results.overlay import put_place, reference
from worker.results.resliced import resliced
from worker.results.terms import Kind
from worker.results.uids import derive
from worker.volume import Slice

# The hot region: where the effect is at least this share of the largest one that speaks for the
# finding.
HOT: Final = 0.5

# What highdicom demands of a source image.
NAMELESS: Final = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
)  # fmt: skip


def float_map(letterhead: Letterhead, judged: Judged) -> Dataset:
    """The effects at every pixel of the source slices, in log odds."""
    effects = _stack(judged)
    largest = float(np.abs(effects).max())
    width = 2 * largest or 1.0
    built = ParametricMap(
        source_images=sources(judged),
        pixel_array=effects,
        **identity(letterhead, judged, Kind.FLOAT_MAP),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label="Log odds",
                lut_explanation=judged.map.quantity,
                unit=terms.NO_UNITS,
                value_range=(-largest, largest),
                slope=1.0,
                intercept=0.0,
                quantity_definition=terms.SALIENCY,
            )
        ],
        voi_lut_transformations=[
            VOILUTTransformation(
                window_center=0.0,
                window_width=width,
                # PS3.3 C.11.2.1.3: narrower windows need it.
                voi_lut_function=None if width >= 1 else "LINEAR_EXACT",
            )
        ],
        content_label=f"{judged.map.image_type}_MAP",
        content_description=judged.map.title,
    )
    return on_letterhead(letterhead, judged, Kind.FLOAT_MAP, built)


def hot_region(letterhead: Letterhead, judged: Judged) -> Dataset | None:
    """Where blanking lowers the log odds most; None where it lowers them nowhere."""
    on_slices = resliced(judged.volume, judged.map)
    largest = judged.map.warmest
    hot = np.stack(
        [
            (on_slices.effects(each) >= HOT * largest) & (on_slices.share(each) > HOT)
            for each in judged.volume.slices
        ]
    )
    if largest <= 0 or not hot.any():
        return None
    built = Segmentation(
        source_images=sources(judged),
        pixel_array=hot.astype(np.uint8),
        **identity(letterhead, judged, Kind.REGION),
        segmentation_type="BINARY",
        segment_descriptions=[_segment(judged)],
        content_label="HOT_REGION",
        content_description=f"Effect at least {100 * HOT:.0f} % of the largest",
    )
    return on_letterhead(letterhead, judged, Kind.REGION, built)


def _stack(judged: Judged) -> NDArray[np.float32]:
    """(slices, rows, columns)."""
    on_slices = resliced(judged.volume, judged.map)
    return np.stack([on_slices.effects(each) for each in judged.volume.slices])


def _segment(judged: Judged) -> SegmentDescription:
    segment = SegmentDescription(
        segment_number=1,
        segment_label="Hot region",
        segmented_property_category=terms.SPATIAL_CONCEPT,
        segmented_property_type=judged.terms.hot_region,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=judged.bundle.name,
            version=judged.bundle.version,
            family=terms.ARTIFICIAL_INTELLIGENCE,
        ),
        tracking_uid=judged.lineage.tracking_uid,
        tracking_id=judged.terms.tracking,
    )
    segment.RecommendedDisplayCIELabValue = list(terms.WARM_CIELAB)
    return segment


def identity(letterhead: Letterhead, seen: Seen, kind: Kind) -> dict[str, Any]:
    """What highdicom asks for of every object; the letterhead says it again."""
    return {
        "series_instance_uid": seen.lineage.series_uid(kind),
        "series_number": seen.series_number(kind),
        "sop_instance_uid": seen.lineage.uid(kind),
        "instance_number": 1,
        "manufacturer": terms.MANUFACTURER,
        "manufacturer_model_name": terms.PRODUCT,
        "software_versions": software_version(),
        "device_serial_number": letterhead.outcome.lineage.site,
    }


def sources(seen: Seen) -> list[Dataset]:
    """The slices as plain single-frame images, which is what highdicom stacks best.

    Nameless ones: who the patient is stands on the letterhead.
    """
    first = seen.sources[0]
    common = Dataset()
    for keyword in NAMELESS:
        setattr(common, keyword, "")
    common.StudyInstanceUID = seen.lineage.study_uid
    common.FrameOfReferenceUID = first.get("FrameOfReferenceUID") or derive(
        "frame of reference", first.SeriesInstanceUID
    )
    series_of = {each.SOPInstanceUID: each.SeriesInstanceUID for each in seen.sources}
    return [_source(common, each, series_of[each.sop_uid]) for each in seen.volume.slices]


def _source(common: Dataset, slice_: Slice, series_uid: str) -> Dataset:
    source = Dataset()
    source.update(common)
    source.SOPClassUID, source.SOPInstanceUID = MRImageStorage, slice_.sop_uid
    source.SeriesInstanceUID = series_uid
    source.Rows, source.Columns = slice_.rows, slice_.columns
    put_place(source, slice_)
    return source


def on_letterhead(letterhead: Letterhead, seen: Seen, kind: Kind, built: Dataset) -> Dataset:
    """Put what highdicom built on our letterhead, which says the same of every object."""
    instance = letterhead.instance(kind)
    instance.BodyPartExamined = seen.terms.body_part  # Laterality would be required without it
    for element in built:
        if element.tag not in instance:
            instance.add(element)
    instance.ContributingEquipmentSequence.append(library(letterhead))
    organisation = derive("dimensions", instance.SOPInstanceUID)
    for item in (*instance.DimensionOrganizationSequence, *instance.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    _name_sources(instance, seen)
    return instance


def _name_sources(instance: Dataset, seen: Seen) -> None:
    """Name sources as what they are: highdicom took frames for images of their own."""
    series = Dataset()
    series.SeriesInstanceUID = seen.sources[0].SeriesInstanceUID
    series.ReferencedInstanceSequence = [
        reference(each)
        for each in {slice_.sop_uid: slice_ for slice_ in seen.volume.slices}.values()
    ]
    instance.ReferencedSeriesSequence = [series]
    slice_at = {tuple(each.position.round(3)): each for each in seen.volume.slices}
    for group in instance.PerFrameFunctionalGroupsSequence:
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        source = slice_at[tuple(position.round(3))]
        for derivation in group.DerivationImageSequence:
            image = derivation.SourceImageSequence[0]
            image.update(reference(source))
            if source.frame is not None:
                image.ReferencedFrameNumber = source.frame
