"""Proposed regions as a segmentation that a reader can mend and send back, and a note that says so.

The reader's viewer shows the segments under our codes and labels; what comes back is told by them
(listener/segmentation.py).
"""

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset

from worker.analyses.interface import RegionFinding
from worker.results import terms
from worker.results.letterhead import Letterhead, software_version
from worker.results.multiframe import identity, on_letterhead, sources
from worker.results.outcome import Proposed, Seen
from worker.results.outlines import region_on
from worker.results.summary import CAUTION, inputs, replacement, text, unmeasured
from worker.results.terms import Kind
from worker.results.uids import derive


def proposal(letterhead: Letterhead, seen: Seen) -> Dataset:
    """The proposed regions of an outcome, one segment each."""
    masks = [
        [region_on(each.mask, seen.volume.affine, slice_) for each in seen.proposed]
        for slice_ in seen.volume.slices
    ]
    built = Segmentation(
        source_images=sources(seen),
        pixel_array=np.moveaxis(np.array(masks, dtype=np.uint8), 1, -1),
        **identity(letterhead, seen, Kind.PROPOSAL),
        segmentation_type="BINARY",
        segment_descriptions=[
            _segment(seen, each, number) for number, each in enumerate(seen.proposed, start=1)
        ],
        content_label="PROPOSED_REGIONS",
        content_description="Proposed by software; to be mended by a reader",
    )
    return on_letterhead(letterhead, seen, Kind.PROPOSAL, built)


def _segment(seen: Seen, region: RegionFinding, number: int) -> SegmentDescription:
    named = seen.terms.regions[region.name]
    segment = SegmentDescription(
        segment_number=number,
        segment_label=named.label,
        segmented_property_category=terms.ANATOMICAL_STRUCTURE,
        segmented_property_type=named.code,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=f"{terms.PRODUCT} proposal of regions",
            version=software_version(),
            family=terms.ARTIFICIAL_INTELLIGENCE,
        ),
        tracking_uid=derive("tracking", seen.lineage.tracking_uid, region.name),
        tracking_id=f"{seen.terms.tracking}: {named.label}",
    )
    segment.RecommendedDisplayCIELabValue = list(named.cielab)
    return segment


def note(proposed: Proposed) -> Dataset:
    """Say that nothing was judged yet, and what is waited for: the content of a document."""
    return text(proposed, conclusions(proposed), findings(proposed))


def conclusions(proposed: Proposed) -> list[str]:
    """That nothing was concluded, and what a reader is asked for."""
    return [
        f"{proposed.terms.finding.meaning}: not analysed yet. A reader is asked to look at the "
        f"proposed regions in series {proposed.series_number(Kind.PROPOSAL)}.",
        "Mend the segments where they are wrong, and send the segmentation, mended or not, back "
        "as a new object: the analysis follows.",
        CAUTION,
    ]


def findings(proposed: Proposed) -> list[str]:
    """What is proposed."""
    return [
        *(
            f"{proposed.terms.regions[each.name].label}: {each.volume_ml:.1f} ml proposed."
            for each in proposed.proposed
        ),
        *unmeasured(proposed),
        inputs(proposed),
        *map(str, proposed.unused),
        *replacement(proposed),
    ]
