"""A repaired copy of what a source header says of patient, study, scanner and series.

Results have to land in the study they speak of, so patient and study are told as the source tells
them; scanners and archives write dirty headers, so what would make a result invalid is mended:
left out or emptied, never invented. Only the attributes of the tables below are copied.

Identifiers are the exception: one that is too long for its VR is passed on whole, since a
shortened identifier names somebody else.
"""

import logging
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.valuerep import format_number_as_ds

from listener.series import BROKEN

log = logging.getLogger(__name__)

# Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): type 2, present even if empty.
REQUIRED: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
# Patient, General Study and Patient Study modules (PS3.3 C.7.2.2): type 3, copied if usable.
OPTIONAL: Final = (
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthTime",
    "EthnicGroup",
    "PatientComments",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyDescription",
    "ProcedureCodeSequence",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianIdentificationSequence",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "AdmittingDiagnosesDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "MedicalAlerts",
    "Allergies",
    "Occupation",
    "AdditionalPatientHistory",
    "PregnancyStatus",
    "PatientState",
    "AdmissionID",
    "TimezoneOffsetFromUTC",
)
PATIENT_AND_STUDY: Final = ("StudyInstanceUID", *REQUIRED, *OPTIONAL)
# General Equipment module (PS3.3 C.7.5.1) of the scanner.
SCANNER: Final = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
)
# What an overlay shares with its source, and how a reader finds the source again.
SERIES: Final = (
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "PatientPosition",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)

IDENTIFIERS: Final = frozenset(
    {
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "OtherPatientIDs",
        "OtherPatientNames",
        "AccessionNumber",
        "StudyID",
        "AdmissionID",
    }
)
MULTIPLE: Final = frozenset(
    {
        "OtherPatientIDs",
        "OtherPatientNames",
        "PhysiciansOfRecord",
        "NameOfPhysiciansReadingStudy",
        "AdmittingDiagnosesDescription",
        "DeidentificationMethod",
        "MedicalAlerts",
        "Allergies",
        "SoftwareVersions",
        "LossyImageCompressionRatio",
        "LossyImageCompressionMethod",
    }
)
# Defined terms and enumerated values that validators insist on.
ALLOWED: Final = MappingProxyType(
    {
        "PatientSex": frozenset({"M", "F", "O"}),
        "PatientIdentityRemoved": frozenset({"YES", "NO"}),
        "PregnancyStatus": frozenset("1234"),
        "LossyImageCompression": frozenset({"00", "01"}),
        "TypeOfPatientID": frozenset({"TEXT", "RFID", "BARCODE"}),
    }
)
# An item has to hold one attribute of each group (type 1 and 1C in the macro that describes it).
ESSENTIAL: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = MappingProxyType(
    {
        "OtherPatientIDsSequence": (("PatientID",), ("TypeOfPatientID",)),
        "ReferringPhysicianIdentificationSequence": (
            ("PersonIdentificationCodeSequence",),
            ("InstitutionName", "InstitutionCodeSequence"),
        ),
        "IssuerOfAccessionNumberSequence": (("LocalNamespaceEntityID", "UniversalEntityID"),),
    }
)
CODE: Final = (
    ("CodeValue", "LongCodeValue", "URNCodeValue"),
    ("CodingSchemeDesignator",),
    ("CodeMeaning",),
)

# PS3.5 table 6.2-1. A pattern for values with a grammar, a length in characters for text.
GRAMMAR: Final = MappingProxyType(
    {
        "AS": re.compile(r"\d{3}[DWMY]"),
        "CS": re.compile(r"[A-Z0-9_ ]{1,16}"),
        "DA": re.compile(r"\d{8}"),
        "DS": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"),
        "IS": re.compile(r"[+-]?\d{1,12}"),
        "TM": re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
        "UI": re.compile(r"(?=.{1,64}$)(0|[1-9]\d*)(\.(0|[1-9]\d*))*"),
        "US": re.compile(r"\d{1,5}"),
    }
)
LENGTH: Final = MappingProxyType(
    {"SH": 16, "LO": 64, "PN": 64, "ST": 1024, "LT": 10240, "UC": 2**16, "UT": 2**16}
)
DS_LENGTH: Final = 16
# Text that may run over several lines.
PROSE: Final = frozenset({"ST", "LT", "UT"})
TIMEZONE: Final = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")
UTF_8: Final = "ISO_IR 192"
LATIN_1: Final = "ISO_IR 100"
# One character set without code extensions: every tool can read these as they are.
PLAIN_CHARSETS: Final = frozenset(
    {
        *(f"ISO_IR {part}" for part in (100, 101, 109, 110, 144, 127, 126, 138, 148, 166, 192)),
        "GB18030",
    }
)


class Unusable(ValueError):
    """A value that a result cannot carry; says why, never what the value is."""


def repair(source: Dataset) -> Dataset:
    """Copy the attributes of the tables above, each mended, emptied or left out.

    Args:
        source: header of one source instance; it is not changed.

    Returns:
        A header in one character set without code extensions. Each repair is logged by keyword.
    """
    header = Dataset()
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote the value
        for keyword in (*PATIENT_AND_STUDY, *SCANNER, *SERIES):
            if (value := _usable(source, keyword)) is not None:
                setattr(header, keyword, value)
            elif keyword in REQUIRED or _is_known_empty(source, keyword):
                header[keyword] = _empty(keyword)
        charset = _charset(source, header)
    if charset:
        header.SpecificCharacterSet = charset
    return header


def copied(header: Dataset, keywords: Iterable[str]) -> Dataset:
    """Those of the attributes that a repaired header holds, in its character set."""
    part = Dataset()
    for keyword in ("SpecificCharacterSet", *keywords):
        if keyword in header:
            part[keyword] = deepcopy(header[keyword])
    return part


def fits_its_charset(dataset: Dataset) -> bool:
    """Whether the declared character set, one of `PLAIN_CHARSETS`, holds all text of a dataset."""
    return _fits(dataset, python_encoding[dataset.get("SpecificCharacterSet", "ISO_IR 6")])


def _usable(source: Dataset, keyword: str) -> Any:
    """The value of one attribute as a result may carry it; None where there is none."""
    try:
        return _mended(keyword, _read(source, keyword))
    except Unusable as why:
        log.info("header of a source image: %s left out: %s", keyword, why)
        return None


def _read(source: Dataset, keyword: str) -> Any:
    try:
        return source.get(keyword)
    except BROKEN as error:
        raise Unusable(f"it cannot be read ({type(error).__name__})") from error


def _is_known_empty(source: Dataset, keyword: str) -> bool:
    """Whether the source says that it has no value: patient and study agree in that as well."""
    return keyword in OPTIONAL and keyword in source and dictionary_VR(keyword) != "SQ"


def _empty(keyword: str) -> DataElement:
    vr = dictionary_VR(keyword)
    return DataElement(keyword, vr, empty_value_for_VR(vr))


def _mended(keyword: str, value: Any) -> Any:
    """The value as a result may carry it; None where there is none.

    Raises:
        Unusable: nothing of it can be kept.
    """
    if isinstance(value, Items):
        return _mended_items(keyword, value)
    parts = [part for part in _parts(value) if str(part).strip()]
    if len(parts) > 1 and keyword not in MULTIPLE | IDENTIFIERS:
        raise Unusable(f"it holds {len(parts)} values where one is allowed")
    mended = [_mended_part(keyword, str(part).strip()) for part in parts]
    return mended[0] if len(mended) == 1 else mended or None


def _mended_part(keyword: str, text: str) -> str | int:
    """One value, read as the text that it is on the wire."""
    vr = dictionary_VR(keyword)
    if keyword in ALLOWED and text not in ALLOWED[keyword]:
        raise Unusable("it is none of the values that the standard allows")
    if keyword == "TimezoneOffsetFromUTC" and not TIMEZONE.fullmatch(text):
        raise Unusable("it is not an offset from UTC")
    if vr in GRAMMAR:
        return _mended_number(vr, text)
    return _mended_text(keyword, vr, text)


def _mended_number(vr: str, text: str) -> str | int:
    """A date, time, number, code string or UID; all that has a grammar."""
    if not GRAMMAR[vr].fullmatch(text) or (vr == "DA" and not _is_date(text)):
        raise Unusable(f"it is not a value of VR {vr}")
    if vr == "US":
        return int(text)
    if vr == "DS" and len(text) > DS_LENGTH:
        return format_number_as_ds(float(text))
    return text


def _mended_text(keyword: str, vr: str, text: str) -> str:
    """Text without control characters, cut to the length of its VR unless it identifies."""
    clean = "".join(c for c in text if not _is_control(c) or (c in "\r\n\t" and vr in PROSE))
    if vr == "PN":
        clean = _mended_name(clean)
    if clean != text:
        log.info("header of a source image: %s rid of characters not allowed there", keyword)
    if _length(vr, clean) <= LENGTH[vr]:
        return clean
    if keyword in IDENTIFIERS:
        log.info("header of a source image: %s passed on although too long", keyword)
        return clean
    log.info("header of a source image: %s cut to %d characters", keyword, LENGTH[vr])
    return clean[: LENGTH[vr]].rstrip()


def _mended_name(name: str) -> str:
    """A name of at most three spellings of at most five parts (PS3.5 6.2.1); none is dropped.

    >>> _mended_name("A^B^C^D^E^F")
    'A^B^C^D^E F'
    """
    spellings = [_joined(spelling.split("^"), "^", 5) for spelling in name.split("=")]
    return _joined(spellings, "=", 3)


def _joined(parts: Sequence[str], delimiter: str, at_most: int) -> str:
    return delimiter.join([*parts[: at_most - 1], " ".join(parts[at_most - 1 :])]).rstrip(delimiter)


def _length(vr: str, text: str) -> int:
    """Each spelling of a name has a length of its own."""
    return max(map(len, text.split("="))) if vr == "PN" else len(text)


def _mended_items(keyword: str, items: Items) -> list[Dataset] | None:
    """The usable items of a sequence; private attributes are not copied."""
    mended = [_mended_item(item) for item in items]
    usable = [item for item in mended if _is_whole(keyword, item)]
    if len(usable) < len(items) or not items:
        log.info(
            "header of a source image: %s: %d of %d items usable", keyword, len(usable), len(items)
        )
    return usable or None


def _mended_item(item: Dataset) -> Dataset:
    mended = Dataset()
    for tag in sorted(item.keys()):
        keyword = keyword_for_tag(tag)
        if keyword and (value := _usable(item, keyword)) is not None:
            setattr(mended, keyword, value)
    return mended


def _is_whole(keyword: str, item: Dataset) -> bool:
    """Whether an item says what it is there for."""
    groups = CODE if keyword.endswith("CodeSequence") else ESSENTIAL.get(keyword, ())
    return len(item) > 0 and all(any(part in item for part in group) for group in groups)


def _parts(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, MultiValue) else [value]


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return True


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def _charset(source: Dataset, header: Dataset) -> str:
    """The source's character set where it is plain and in use, UTF-8 otherwise.

    Undeclared characters above ASCII were read as Latin-1, and Latin-1 writes the same bytes.
    """
    declared = "\\".join(map(str, _parts(source.get("SpecificCharacterSet"))))
    if not declared and _fits(header, "ascii"):
        return ""
    charset = declared or LATIN_1
    if charset in PLAIN_CHARSETS and _fits(header, python_encoding[charset]):
        return charset
    log.info("header of a source image: SpecificCharacterSet set to %s", UTF_8)
    return UTF_8


def _fits(dataset: Dataset, encoding: str) -> bool:
    try:
        for element in dataset.iterall():
            if element.VR in LENGTH:
                for part in _parts(element.value):
                    str(part).encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
