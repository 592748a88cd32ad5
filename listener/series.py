"""One series as its headers describe it: identity, physics, geometry, contrast; no pixels.

Classic single-frame and enhanced multi-frame MR are told in the same, classic terms (PS3.3
C.8.3.1), so that no rule downstream needs to know which of the two it reads. Lengths are in mm,
times in ms, volumes in ml. A value that is absent, empty or malformed is None or an empty text:
scanners write dirty headers, and a dirty header is no reason to lose a study.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from listener import reading
from listener.errors import BadAttribute
from listener.reading import Allowance, TooMuch, read_file

# PS3.5 9.1: digits and dots, at most 64 characters. A UID becomes a file name, so nothing else.
UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")
UID_LENGTH: Final = 64

# What broken files and elements raise. An OSError may be the disk's: `may_pass` tells.
BROKEN: Final = reading.BROKEN

# Makers write some 300 pieces for a frame: these are 1,000 frames. As many items take 150 MiB, and
# some seconds.
LARGEST_HEADER_BYTES: Final = 64 << 20
MOST_PIECES: Final = 300_000

# The most that a value with explicit VR may hold; those that are looked at have some hundred.
LONGEST_VALUE_BYTES: Final = 65534

LARGEST_WHOLE: Final = 2**32 - 1

# Of a scanner's label: each of its parts may have 64 (PS3.5 6.2, LO) and 16 (SH).
LONGEST_LABEL: Final = 100

# StationName of what `selftest` sends, so that it is told from what scanners send.
SELFTEST_STATION: Final = "MONRO SELFTEST"

TIMING: Final = "MRTimingAndRelatedParametersSequence"
MEASURES: Final = "PixelMeasuresSequence"
AGENT: Final = "ContrastBolusAgentSequence"

# Enhanced attribute, its value, and the classic term for it (PS3.3 C.8.13.4 and C.8.3.1.1).
SEQUENCE_TERMS: Final = (
    ("EchoPulseSequence", "SPIN", "SE"),
    ("EchoPulseSequence", "GRADIENT", "GR"),
    ("EchoPulseSequence", "BOTH", "SE"),
    ("EchoPulseSequence", "BOTH", "GR"),
    ("InversionRecovery", "YES", "IR"),
    ("EchoPlanarPulseSequence", "YES", "EP"),
)
VARIANT_TERMS: Final = (
    ("SegmentedKSpaceTraversal", "PARTIAL", "SK"),
    ("SteadyStatePulseSequence", "FREE_PRECESSION", "SS"),
    ("SteadyStatePulseSequence", "TRANSVERSE", "SS"),
    ("SteadyStatePulseSequence", "TIME_REVERSED", "SS"),
    ("Spoiling", "RF", "SP"),
    ("Spoiling", "RF_AND_GRADIENT", "SP"),
    ("TimeOfFlightContrast", "YES", "TOF"),
    ("PhaseContrast", "YES", "PC"),
    ("MagnetizationTransfer", "ON_RESONANCE", "MTC"),
    ("MagnetizationTransfer", "OFF_RESONANCE", "MTC"),
)


@dataclass(frozen=True)
class InstanceKey:
    """The UIDs that name one instance; safe to build a path from.

    Raises:
        BadAttribute: one of them is not a UID.
    """

    study_uid: str
    series_uid: str
    sop_uid: str

    def __post_init__(self) -> None:
        require_uid("StudyInstanceUID", self.study_uid)
        require_uid("SeriesInstanceUID", self.series_uid)
        require_uid("SOPInstanceUID", self.sop_uid)


@dataclass(frozen=True)
class SeriesFacts:
    """What the headers say about one series: all that selection and the header checks look at.

    Attributes:
        instances: files of the series; `frames` is of one file, 1 for classic images.
        image_type: ImageType, upper case; for enhanced MR the frame type where that says more.
        scanning_sequence: SE, GR, IR, EP: enhanced attributes are translated to these terms.
        sequence_variant: SK, SS, SP, MP, TOF and so on, translated likewise.
        orientation: ImageOrientationPatient, six direction cosines (LPS), of the first frame.
        b_value: the largest of any frame in s/mm²; scanners write 0 on plain images too.
        contrast_administered: YES, NO or empty (PS3.3 C.8.13.5.7, enhanced MR only).
    """

    study_uid: str
    series_uid: str
    sop_class: str
    instances: int
    modality: str = ""
    series_number: int | None = None
    description: str = ""
    protocol: str = ""
    study_description: str = ""
    body_part: str = ""
    anatomy: tuple[str, ...] = ()
    image_type: tuple[str, ...] = ()
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    scan_options: tuple[str, ...] = ()
    sequence_name: str = ""
    mr_acquisition_type: str = ""
    acquisition_contrast: str = ""
    complex_component: str = ""
    echo_time: float | None = None
    repetition_time: float | None = None
    inversion_time: float | None = None
    flip_angle: float | None = None
    b_value: float | None = None
    temporal_positions: int | None = None
    angio: bool = False
    contrast_agent: str = ""
    contrast_route: str = ""
    contrast_volume: float | None = None
    contrast_administered: str = ""
    rows: int | None = None
    columns: int | None = None
    frames: int = 1
    samples_per_pixel: int | None = None
    photometric: str = ""
    pixel_spacing: tuple[float, float] | None = None
    slice_thickness: float | None = None
    spacing_between: float | None = None
    orientation: tuple[float, ...] | None = None
    manufacturer: str = ""
    model: str = ""
    station: str = ""

    @property
    def scanner(self) -> str:
        """What the images come from, such as `SIEMENS Prisma MR01`; empty where nothing says so."""
        told = " ".join(filter(None, (self.manufacturer, self.model, self.station)))
        return "".join(filter(str.isprintable, told))[:LONGEST_LABEL].strip()

    @property
    def slices(self) -> int:
        """Images of the series, over all files and frames."""
        return self.instances * self.frames

    @property
    def slice_step(self) -> float | None:
        """Distance from slice to slice in mm, as far as the header tells."""
        return self.spacing_between or self.slice_thickness

    @property
    def plane(self) -> str:
        """`sagittal`, `coronal`, `axial`, or empty; oblique images count as the nearest one."""
        if self.orientation is None:
            return ""
        normal = _cross(self.orientation[:3], self.orientation[3:])
        steepest = max(range(3), key=lambda axis: abs(normal[axis]))
        return ("sagittal", "coronal", "axial")[steepest]


def may_pass(error: BaseException | None) -> bool:
    """Whether the machine failed rather than what was read, so that another try may succeed.

    pydicom tells of a sequence cut short by an OSError as well, which has no errno; it raises the
    same one over a fault of the disk in that place, which then lies beneath.
    """
    while isinstance(error, OSError):
        if error.errno is not None:
            return True
        error = error.__context__
    return False


def read_instance(
    path: Path,
    *,
    pixels: bool,
    allowance: Allowance | None = None,
    only: Collection[int] | None = None,
) -> Dataset:
    """Read a DICOM file with preamble and file meta, with or without its pixels.

    Args:
        path: of the file.
        pixels: whether they are read.
        allowance: of the series, say; None for what a header may have.
        only: elements that are looked at, which is quicker; None for all.

    Raises:
        BadAttribute: what the file holds cannot be parsed, or is more than is read.
        OSError: the file is not to be had at present; nothing is known of what it holds.
    """
    allowance = allowance or Allowance(LARGEST_HEADER_BYTES, MOST_PIECES)
    try:
        return read_file(path, pixels=pixels, allowance=allowance, only=only)
    except TooMuch as error:
        raise BadAttribute(
            f"an instance has {error} where at most {allowance.most_bytes >> 20} MiB are read; if "
            "it is an image, ask the sender to send it without what is not part of it"
        ) from error
    except BROKEN as error:
        if may_pass(error):
            raise
        raise BadAttribute(
            f"an instance cannot be read as DICOM ({type(error).__name__}) where a file with "
            "preamble and parsable attributes was expected; ask the sender to send it again"
        ) from error


def read_series_facts(path: Path, instances: int) -> SeriesFacts:
    """Read the facts of a series from one of its files.

    Args:
        path: any instance of the series, a DICOM file with preamble and file meta.
        instances: how many files the series has.

    Raises:
        BadAttribute: the file cannot be parsed, or its UIDs are not UIDs.
        OSError: see `read_instance`.
    """
    return facts_of(read_instance(path, pixels=False), instances)


def require_names(dataset: Dataset) -> None:
    """Raise BadAttribute unless a dataset has the UIDs that others refer to it by."""
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        value = _get(dataset, keyword)
        require_uid(keyword, value if isinstance(value, str) else "")


class Header:
    """Looks attributes up where classic and where enhanced images keep them.

    A place is a keyword, or functional groups and a keyword joined by dots. Each place is looked
    for in every layer before the next place is. What is absent, empty or malformed is passed over.
    """

    def __init__(self, *layers: Dataset) -> None:
        self.layers = layers

    def texts(self, *places: str) -> tuple[str, ...]:
        """The first value that holds some text, part by part; runs of blanks become one."""
        for value in self._values(places):
            found = tuple(" ".join(str(part).split()) for part in _parts(value))
            if any(found):
                return found
        return ()

    def text(self, *places: str) -> str:
        """The first part of `texts`, or an empty text."""
        return next(iter(self.texts(*places)), "")

    def codes(self, *places: str) -> tuple[str, ...]:
        """`texts` in upper case, as code strings ought to be."""
        return tuple(text.upper() for text in self.texts(*places))

    def code(self, *places: str) -> str:
        """`text` in upper case."""
        return self.text(*places).upper()

    def numbers(self, *places: str) -> tuple[float, ...]:
        """The first value whose parts are all finite numbers."""
        for value in self._values(places):
            found = tuple(_number(part) for part in _parts(value))
            known = tuple(number for number in found if number is not None)
            if known and len(known) == len(found):
                return known
        return ()

    def number(self, *places: str) -> float | None:
        """The first part of `numbers`."""
        return next(iter(self.numbers(*places)), None)

    def whole(self, *places: str) -> int | None:
        """`number`, rounded; what no integer string holds (PS3.5 6.2, IS) counts as malformed."""
        number = self.number(*places)
        return None if number is None or abs(number) > LARGEST_WHOLE else round(number)

    def _values(self, places: Iterable[str]) -> Iterator[Any]:
        found = (_walk(layer, place) for place in places for layer in self.layers)
        return (value for value in found if value is not None)


def frame_headers(dataset: Dataset) -> tuple[Header, ...]:
    """A header for each frame: its own functional groups before the shared ones (PS3.3 C.7.6.16).

    An object without functional groups has one frame, described by the dataset itself.
    """
    shared = sequence_items(dataset, "SharedFunctionalGroupsSequence")[:1]
    frames = sequence_items(dataset, "PerFrameFunctionalGroupsSequence")
    return tuple(Header(frame, *shared, dataset) for frame in frames) or (Header(*shared, dataset),)


def _series_header(dataset: Dataset) -> Header:
    """The dataset itself before shared functional groups before those of the first frame."""
    shared = sequence_items(dataset, "SharedFunctionalGroupsSequence")[:1]
    frames = sequence_items(dataset, "PerFrameFunctionalGroupsSequence")[:1]
    return Header(dataset, *shared, *frames)


def _largest_b_value(dataset: Dataset) -> float | None:
    """In s/mm², over all frames: a diffusion series starts with a frame of b = 0."""
    places = ("DiffusionBValue", "MRDiffusionSequence.DiffusionBValue")
    values = (header.number(*places) for header in frame_headers(dataset))
    return max((value for value in values if value is not None), default=None)


def facts_of(dataset: Dataset, instances: int) -> SeriesFacts:
    """The facts of a series from the header of one of its instances.

    Raises:
        BadAttribute: its UIDs are not UIDs.
    """
    header = _series_header(dataset)
    key = InstanceKey(
        header.text("StudyInstanceUID"),
        header.text("SeriesInstanceUID"),
        header.text("SOPInstanceUID"),
    )
    return SeriesFacts(
        study_uid=key.study_uid,
        series_uid=key.series_uid,
        sop_class=header.text("SOPClassUID"),
        instances=instances,
        modality=header.code("Modality"),
        series_number=header.whole("SeriesNumber"),
        description=header.text("SeriesDescription"),
        protocol=header.text("ProtocolName"),
        study_description=header.text("StudyDescription"),
        body_part=header.code("BodyPartExamined"),
        anatomy=_anatomy(header),
        image_type=_image_type(header),
        scanning_sequence=_in_classic_terms(header, "ScanningSequence", SEQUENCE_TERMS),
        sequence_variant=_in_classic_terms(header, "SequenceVariant", VARIANT_TERMS),
        scan_options=header.codes("ScanOptions"),
        sequence_name=header.text("SequenceName", "PulseSequenceName"),
        mr_acquisition_type=header.code("MRAcquisitionType"),
        acquisition_contrast=header.code(
            "AcquisitionContrast", "MRImageFrameTypeSequence.AcquisitionContrast"
        ),
        complex_component=header.code(
            "ComplexImageComponent", "MRImageFrameTypeSequence.ComplexImageComponent"
        ),
        echo_time=header.number("EchoTime", "MREchoSequence.EffectiveEchoTime"),
        repetition_time=header.number("RepetitionTime", f"{TIMING}.RepetitionTime"),
        inversion_time=header.number(
            "InversionTime", "InversionTimes", "MRModifierSequence.InversionTimes"
        ),
        flip_angle=header.number("FlipAngle", f"{TIMING}.FlipAngle"),
        b_value=_largest_b_value(dataset),
        temporal_positions=header.whole("NumberOfTemporalPositions"),
        angio=header.code("AngioFlag") == "Y",
        contrast_agent=_contrast_agent(header),
        contrast_route=header.text(
            "ContrastBolusRoute",
            "ContrastBolusAdministrationRouteSequence.CodeMeaning",
            f"{AGENT}.ContrastBolusAdministrationRouteSequence.CodeMeaning",
        ),
        contrast_volume=header.number(
            "ContrastBolusVolume",
            "ContrastBolusTotalDose",
            f"{AGENT}.ContrastBolusVolume",
        ),
        contrast_administered=header.code(
            "ContrastBolusUsageSequence.ContrastBolusAgentAdministered"
        ),
        rows=header.whole("Rows"),
        columns=header.whole("Columns"),
        frames=max(1, header.whole("NumberOfFrames") or 1),
        samples_per_pixel=header.whole("SamplesPerPixel"),
        photometric=header.code("PhotometricInterpretation"),
        pixel_spacing=_spacing(header.numbers("PixelSpacing", f"{MEASURES}.PixelSpacing")),
        slice_thickness=_length(header.number("SliceThickness", f"{MEASURES}.SliceThickness")),
        spacing_between=_length(
            header.number("SpacingBetweenSlices", f"{MEASURES}.SpacingBetweenSlices")
        ),
        orientation=_orientation(
            header.numbers(
                "ImageOrientationPatient", "PlaneOrientationSequence.ImageOrientationPatient"
            )
        ),
        manufacturer=header.text("Manufacturer"),
        model=header.text("ManufacturerModelName"),
        station=header.text("StationName"),
    )


def _contrast_agent(header: Header) -> str:
    """The name of the agent, or its code where the name was left out."""
    return header.text(
        "ContrastBolusAgent",
        "ContrastBolusAgentSequence.CodeMeaning",
        "ContrastBolusAgentSequence.CodeValue",
        "ContrastBolusIngredient",
        "ContrastBolusAgentSequence.ContrastBolusIngredientCodeSequence.CodeMeaning",
    )


def _anatomy(header: Header) -> tuple[str, ...]:
    """Codes and meanings of the anatomic region, upper case."""
    region = "AnatomicRegionSequence"
    found = (
        header.code(f"{group}{region}.{part}")
        for group in ("", "FrameAnatomySequence.")
        for part in ("CodeValue", "CodeMeaning")
    )
    return tuple(dict.fromkeys(text for text in found if text))


def _image_type(header: Header) -> tuple[str, ...]:
    """ImageType; an enhanced object that says MIXED is told by the type of its first frame."""
    own = header.codes("ImageType")
    frame = header.codes("MRImageFrameTypeSequence.FrameType")
    return frame if frame and (not own or "MIXED" in own) else own


def _in_classic_terms(
    header: Header, keyword: str, terms: tuple[tuple[str, str, str], ...]
) -> tuple[str, ...]:
    """The classic attribute, or what the enhanced attributes in `terms` amount to."""
    own = header.codes(keyword)
    if own:
        return own
    spoken = (
        term
        for place, value, term in terms
        if value in (header.code(place), header.code(f"MRModifierSequence.{place}"))
    )
    return tuple(dict.fromkeys(spoken))


def require_uid(keyword: str, value: str) -> None:
    """Raise BadAttribute unless a value is a UID, which is safe as a file name."""
    # The value itself is left out: what is no UID may be anything, a patient's name included.
    if len(value) > UID_LENGTH or not UID.fullmatch(value):
        raise BadAttribute(
            f"{keyword} of {len(value)} characters is not a UID: digits and dots, 1 to "
            f"{UID_LENGTH} characters, were expected; ask the sender to mend the object"
        )


def _walk(item: Dataset, place: str) -> Any:
    """The value at `place`, through the first items of sequences; None where there is none."""
    *groups, keyword = place.split(".")
    for group in groups:
        inner = sequence_items(item, group)
        if not inner:
            return None
        item = inner[0]
    return _get(item, keyword)


def sequence_items(item: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence; none where it is absent or cannot be parsed."""
    value = _get(item, keyword)
    return tuple(value) if isinstance(value, Sequence) else ()


def _get(item: Dataset, keyword: str) -> Any:
    """The value of an element, None where it is absent, absurdly long, or cannot be parsed."""
    try:
        tag = _tag_of(keyword)
        if tag not in item:
            return None
        raw: Any = item.get_item(tag)
        if isinstance(raw, RawDataElement) and len(raw.value or b"") > LONGEST_VALUE_BYTES:
            return None  # each backslash of it would become an object
        return item[tag].value
    except BROKEN:
        return None


@cache
def _tag_of(keyword: str) -> BaseTag:
    return Tag(keyword)


def _parts(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple | MultiValue) else (value,)


def _number(value: Any) -> float | None:
    """A finite number, or None for empty, malformed, infinite and not-a-number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _length(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


def _spacing(numbers: tuple[float, ...]) -> tuple[float, float] | None:
    return (numbers[0], numbers[1]) if len(numbers) == 2 and min(numbers) > 0 else None


def _orientation(numbers: tuple[float, ...]) -> tuple[float, ...] | None:
    return numbers if len(numbers) == 6 else None


def _cross(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, float]:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )
