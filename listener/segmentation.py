"""What a DICOM segmentation says of itself in its header, and what analyses look for in it.

Proposals of ours carry the codes of this table, and the segmentations that readers send back are
told by the same codes, by what other codes mean, or else by the labels that people give to
segments. A region may consist of several segments, such as a left and a right one. Pixels are not
read here.
"""

import datetime
import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from listener.errors import BadAttribute
from listener.reading import Allowance
from listener.series import Header, InstanceKey, read_instance, sequence_items
from listener.wording import REGION_FILLERS, words_of

SEGMENTATIONS: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation Storage
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation Storage
    }
)

MAKER: Final = "monro project"
"""Manufacturer of what we make ourselves."""


# --- which segments an analysis takes ---


class Concept(NamedTuple):
    """A coded concept: code value, coding scheme designator, code meaning."""

    value: str
    scheme: str
    meaning: str


PROPERTY_CATEGORY: Final = Concept("123037004", "SCT", "Anatomical Structure")
"""Of every segment that we propose."""


CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def spelling(label: str) -> str:
    """A label in one word, without case, hyphens, plural, side and fillers.

    >>> spelling("Left-Lateral-Ventricle"), spelling("lateral_ventricles R"), spelling("Left")
    ('lateralventricle', 'lateralventricle', '')
    """
    words = (word for word in words_of(CAMEL.sub(" ", label)) if not word.isdecimal())
    return "".join(word.removesuffix("s") for word in words if word not in REGION_FILLERS)


@dataclass(frozen=True)
class RegionOfInterest:
    """A region that an analysis works on.

    Attributes:
        name: ours.
        concept: property type of the region's segment where we propose it.
        codes: value and scheme of what others call it, or a part of it.
        labels: what people call it, or a part of it, in any spelling.
    """

    name: str
    concept: Concept
    codes: frozenset[tuple[str, str]]
    labels: tuple[str, ...]

    def is_coded_by(self, code: tuple[str, str] | None) -> bool:
        """Whether a property type is this region or a part of it."""
        return code in self.codes or code == self.concept[:2]

    def is_called(self, label: str) -> bool:
        """Whether a label is one of this region or of a part of it."""
        return spelling(label) in self._spellings

    @cached_property
    def _spellings(self) -> frozenset[str]:
        return frozenset(map(spelling, self.labels))


VENTRICLES: Final = RegionOfInterest(
    name="ventricles",
    concept=Concept("35764002", "SCT", "Brain ventricle"),
    codes=frozenset(
        {
            ("66720007", "SCT"),  # lateral ventricle
            ("49841001", "SCT"),  # third ventricle
            ("35918002", "SCT"),  # fourth ventricle
            # SNOMED-RT codes of the same, which older viewers write.
            ("T-A1600", "SRT"),
            ("T-A1650", "SRT"),
            ("T-A1740", "SRT"),
            ("T-A1820", "SRT"),
        }
    ),
    labels=(
        "ventricles",
        "ventricular system",
        "ventricle system",
        "ventricular CSF",
        "lateral ventricles",
        "ventricles, lateral",
        "third ventricle",
        "3rd ventricle",
        "fourth ventricle",
        "4th ventricle",
        "lat vent",
        "inf lat vent",  # FreeSurfer: the temporal horn
        "Ventrikel",
        "Ventrikelsystem",
        "Seitenventrikel",
    ),
)

SUBLENTIFORM: Final = RegionOfInterest(
    name="sublentiform",
    concept=Concept("INF-SUBLENT", "99MONRO", "Parenchyma below the lentiform nucleus"),
    codes=frozenset(),
    labels=(
        "sublentiform",
        "sublenticular",
        "infralentiform",
        "below lentiform",
        "beneath lentiform",
        "under lentiform",
        "inferior to lentiform",
        "INF-SUBLENT",
    ),
)

REGIONS: Final[Mapping[str, tuple[RegionOfInterest, ...]]] = MappingProxyType(
    {"infection": (VENTRICLES, SUBLENTIFORM)}
)
"""What each analysis that takes segmentations looks for in them."""


# --- what a segmentation says ---


@dataclass(frozen=True)
class Segment:
    """One segment, as its description has it.

    Attributes:
        property_code: value and scheme of the segmented property type; None where it has none.
        property_meaning: of that code, in words.
        algorithm_type: AUTOMATIC, SEMIAUTOMATIC, MANUAL or empty.
    """

    number: int
    label: str
    property_code: tuple[str, str] | None
    algorithm_type: str
    property_meaning: str = ""


@dataclass(frozen=True)
class Segmentation:
    """Header facts of one instance.

    Attributes:
        content_at: ContentDate and ContentTime, local time there.
        referenced_series: UIDs of the series it says it refers to; empty where it names none.
        referenced_instances: UIDs of the images that it or its frames refer to.
        is_own: we made it ourselves: nobody corrected it.
    """

    key: InstanceKey
    sop_class: str
    content_at: datetime.datetime
    segments: tuple[Segment, ...]
    referenced_series: frozenset[str]
    referenced_instances: frozenset[str]
    is_own: bool

    def refers_to(self, series_uid: str, instances: Collection[str]) -> bool:
        """Whether a series is segmented here.

        Args:
            series_uid: of the series.
            instances: UIDs of its instances, which tell where no series is named.
        """
        if self.referenced_series:
            return series_uid in self.referenced_series
        return not self.referenced_instances.isdisjoint(instances)

    def regions_for(self, analysis: str) -> dict[str, tuple[int, ...]]:
        """Name of each region that an analysis takes, and the numbers of its segments here."""
        named = [(_region_of(segment, REGIONS[analysis]), segment) for segment in self.segments]
        return {
            region.name: numbers
            for region in REGIONS[analysis]
            if (numbers := tuple(segment.number for found, segment in named if found is region))
        }


def _region_of(segment: Segment, regions: Collection[RegionOfInterest]) -> RegionOfInterest | None:
    """The region that a segment names: by its code, or what that means, or else by its label."""
    by_code = (region for region in regions if region.is_coded_by(segment.property_code))
    by_meaning = (region for region in regions if region.is_called(segment.property_meaning))
    by_label = (region for region in regions if region.is_called(segment.label))
    return next(by_code, None) or next(by_meaning, None) or next(by_label, None)


def read_segmentation(path: Path, allowance: Allowance | None = None) -> Segmentation:
    """Read what a segmentation says of itself.

    Args:
        path: of a DICOM file with preamble and file meta.
        allowance: of all those that are read together; None for what a header may have.

    Raises:
        BadAttribute: it cannot be parsed, is no segmentation, or lacks what tells of what and when
            it is.
        OSError: see `series.read_instance`.
    """
    dataset = read_instance(path, pixels=False, allowance=allowance)
    header = Header(dataset)
    key = InstanceKey(
        header.text("StudyInstanceUID"),
        header.text("SeriesInstanceUID"),
        header.text("SOPInstanceUID"),
    )
    sop_class = header.text("SOPClassUID")
    if sop_class not in SEGMENTATIONS:
        raise _bad(key, "its SOP class is none of a segmentation's")
    references = frozenset(_referenced_series(dataset)), frozenset(_referenced_instances(dataset))
    if not any(references):
        raise _bad(key, "it names no images that it segments")
    return Segmentation(
        key=key,
        sop_class=sop_class,
        content_at=_content_at(header, key),
        segments=_segments(dataset, key),
        referenced_series=references[0],
        referenced_instances=references[1],
        is_own=header.text("Manufacturer") == MAKER and _is_derived(key.sop_uid),
    )


def _bad(key: InstanceKey, found: str) -> BadAttribute:
    return BadAttribute(
        f"segmentation {key.sop_uid}: {found}; save it again as DICOM SEG in a viewer that shows "
        "it on its images, and send that"
    )


def _content_at(header: Header, key: InstanceKey) -> datetime.datetime:
    try:
        date, time = DA(header.text("ContentDate")), TM(header.text("ContentTime"))
    except ValueError:
        date, time = None, None
    if date is None or time is None:  # pydicom makes None of an empty text
        raise _bad(key, "its ContentDate and ContentTime do not say when it was made")
    return datetime.datetime.combine(date, time)


def _segments(dataset: Dataset, key: InstanceKey) -> tuple[Segment, ...]:
    items = sequence_items(dataset, "SegmentSequence")
    if not items:
        raise _bad(key, "its SegmentSequence describes no segment")
    segments = [_segment(Header(item), key) for item in items]
    numbers = {segment.number for segment in segments}
    if len(numbers) < len(segments):
        raise _bad(key, "two of its segments have the same SegmentNumber")
    return tuple(segments)


def _segment(header: Header, key: InstanceKey) -> Segment:
    number = header.whole("SegmentNumber")
    if number is None:
        raise _bad(key, "a segment has no SegmentNumber")
    kind = "SegmentedPropertyTypeCodeSequence"
    value, scheme = header.text(f"{kind}.CodeValue"), header.text(f"{kind}.CodingSchemeDesignator")
    return Segment(
        number,
        header.text("SegmentLabel"),
        (value, scheme) if value and scheme else None,
        header.code("SegmentAlgorithmType"),
        header.text(f"{kind}.CodeMeaning"),
    )


def _referenced_series(dataset: Dataset) -> Iterator[str]:
    for series in sequence_items(dataset, "ReferencedSeriesSequence"):
        if uid := Header(series).text("SeriesInstanceUID"):
            yield uid


def _referenced_instances(dataset: Dataset) -> Iterator[str]:
    """Those of the series it refers to, and those that its frames derive from."""
    groups = (
        *sequence_items(dataset, "SharedFunctionalGroupsSequence"),
        *sequence_items(dataset, "PerFrameFunctionalGroupsSequence"),
    )
    images = (
        *(
            image
            for series in sequence_items(dataset, "ReferencedSeriesSequence")
            for image in sequence_items(series, "ReferencedInstanceSequence")
        ),
        *(
            image
            for group in groups
            for derivation in sequence_items(group, "DerivationImageSequence")
            for image in sequence_items(derivation, "SourceImageSequence")
        ),
    )
    for image in images:
        if uid := Header(image).text("ReferencedSOPInstanceUID"):
            yield uid


def _is_derived(uid: str) -> bool:
    """Whether a UID was made from a name, as ours are; viewers draw theirs at random."""
    root, _, number = uid.rpartition(".")
    try:
        return root == "2.25" and uuid.UUID(int=int(number)).version == 5
    except ValueError:  # more than 128 bits
        return False
