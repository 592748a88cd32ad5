"""Header values that people paste, so that the rules can be tried on a study that is not here.

Two ways to write them: blocks of lines such as `SeriesDescription = t1_mprage_sag`, one block for
each series, or JSON: a list of objects by keyword, or of datasets in the DICOM JSON model.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import VR

from listener.errors import BadAttribute, MonroError
from listener.reading import BROKEN
from listener.series import SeriesFacts, facts_of

MOST_SERIES: Final = 100
MOST_CHARACTERS: Final = 500_000
MOST_INSTANCES: Final = 100_000

INSTANCES: Final = "Instances"
"""Our own word among the keywords: how many images the series has."""

MR_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.4"

USUAL: Final[Mapping[str, str]] = {
    "SOPClassUID": MR_IMAGE,
    "Modality": "MR",
    "SamplesPerPixel": "1",
    "PhotometricInterpretation": "MONOCHROME2",
    "SOPInstanceUID": "1.2.3",
    "StudyInstanceUID": "1.2.3",
}
"""What is taken for granted unless something else is pasted."""

WHOLE: Final = frozenset({VR.US, VR.UL, VR.SS, VR.SL})
REAL: Final = frozenset({VR.FL, VR.FD})

EXAMPLE: Final = """\
SeriesDescription = t1_mprage_sag_p2_iso +KM
ImageType = ORIGINAL\\PRIMARY\\M\\NORM
ScanningSequence = GR\\IR
SequenceVariant = SK\\SP\\MP
MRAcquisitionType = 3D
RepetitionTime = 1900
EchoTime = 2.9
InversionTime = 900
FlipAngle = 9
SliceThickness = 1
ImageOrientationPatient = 0\\1\\0\\0\\0\\-1
Instances = 176

SeriesDescription = t2_tse_tra
ImageType = ORIGINAL\\PRIMARY\\M\\NORM
ScanningSequence = SE
RepetitionTime = 5000
EchoTime = 100
PixelSpacing = 0.5\\0.5
SliceThickness = 5
ImageOrientationPatient = 1\\0\\0\\0\\1\\0
Instances = 25
"""


class BadHeaders(MonroError):
    """What was pasted cannot be read as header values; the value itself is never repeated."""

    def __init__(self, place: str, found: str, expected: str) -> None:
        super().__init__(place, found, expected)
        self.place, self.found, self.expected = place, found, expected

    def __str__(self) -> str:
        return f"{self.place}: {self.found}, where {self.expected} was expected"


def read_pasted(text: str) -> tuple[SeriesFacts, ...]:
    """The series that were pasted.

    Raises:
        BadHeaders: something cannot be read.
    """
    if len(text) > MOST_CHARACTERS:
        raise BadHeaders("the text", f"{len(text)} characters", f"at most {MOST_CHARACTERS}")
    written = _json(text) if text.lstrip()[:1] in {"[", "{"} else list(_blocks(text))
    if not written:
        raise BadHeaders("the text", "nothing", "header values of at least one series")
    if len(written) > MOST_SERIES:
        raise BadHeaders("the text", f"{len(written)} series", f"at most {MOST_SERIES}")
    return tuple(_facts(number, values) for number, values in enumerate(written, start=1))


def _json(text: str) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(text)
    except RecursionError:
        raise BadHeaders("the text", "brackets in brackets without end", "JSON") from None
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        raise BadHeaders(f"line {line}", "something else", "JSON") from None
    listed = found if isinstance(found, list) else [found]
    if not all(isinstance(each, dict) for each in listed):
        raise BadHeaders("the text", "something else", "a list of JSON objects, one for a series")
    return listed


def _blocks(text: str) -> Iterator[Mapping[str, str]]:
    block: dict[str, str] = {}
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if not line.strip():
            if block:
                yield block
            block = {}
            continue
        keyword, sign, value = line.partition("=")
        if not sign:
            raise BadHeaders(f"line {number}", "no equals sign", "Keyword = value")
        block[keyword.strip()] = value.strip()


def _facts(number: int, values: Mapping[str, Any]) -> SeriesFacts:
    place = f"series {number}"
    known = {"SeriesInstanceUID": f"1.2.3.{number}", "SeriesNumber": str(number), **USUAL}
    dataset = Dataset()
    for keyword, value in known.items():
        _put(dataset, place, keyword, value)
    instances = _instances(place, values.get(INSTANCES, 1))
    given = {name: value for name, value in values.items() if name != INSTANCES}
    if given and all(tag_for_keyword(each) is None for each in given):
        try:
            dataset.update(Dataset.from_json(dict(given)))
        except BROKEN:
            expected = "attributes by keyword, or the DICOM JSON model"
            raise BadHeaders(place, "something else", expected) from None
    else:
        for keyword, value in given.items():
            _put(dataset, place, keyword, value)
    try:
        return facts_of(dataset, instances)
    except BadAttribute:
        raise BadHeaders(place, "something else", "UIDs of digits and dots") from None


def _put(dataset: Dataset, place: str, keyword: str, value: Any) -> None:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise BadHeaders(
            place, "a keyword that DICOM does not know", "keywords such as SeriesDescription"
        )
    vr = VR(dictionary_VR(tag).split(" or ")[0])
    if vr is VR.SQ:
        raise BadHeaders(f"{place}, {keyword}", "one value", "the sequence in DICOM JSON")
    parts = value if isinstance(value, list) else str(value).split("\\")
    try:
        dataset.add(DataElement(tag, vr, _converted(vr, parts), validation_mode=0))
        _ = dataset[tag].value
    except BROKEN:
        raise BadHeaders(f"{place}, {keyword}", "no such value", f"a value of type {vr}") from None


def _converted(vr: VR, parts: list[Any]) -> Any:
    if vr in WHOLE:
        parts = [int(each) for each in parts]
    elif vr in REAL:
        parts = [float(each) for each in parts]
    else:
        parts = [str(each).strip() for each in parts]
    return parts[0] if len(parts) == 1 else parts


def _instances(place: str, value: Any) -> int:
    try:
        found = int(value)
    except (ArithmeticError, TypeError, ValueError):
        found = 0
    if not 1 <= found <= MOST_INSTANCES:
        expected = f"a number from 1 to {MOST_INSTANCES}"
        raise BadHeaders(f"{place}, {INSTANCES}", "something else", expected)
    return found
