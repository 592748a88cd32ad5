"""A dataset as a user agent wants it: in JSON (PS3.18 F) or XML (PS3.19 A.1), as Accept asks."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from pydicom.datadict import keyword_for_tag

from listener.dicomweb.model import JSON, Attributes
from listener.dicomweb.multipart import media_type

XML: Final = "application/dicom+xml"
NATIVE: Final = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

ALSO_CALLED: Final[Mapping[str, str]] = MappingProxyType({"application/json": JSON})
"""What older user agents say for ours."""


def in_json(dataset: Attributes) -> bytes:
    """A dataset in the DICOM JSON model."""
    return json.dumps(dataset, separators=(",", ":")).encode()


def in_xml(dataset: Attributes) -> bytes:
    """A dataset in the Native DICOM Model."""
    root = Element("NativeDicomModel", {"xmlns": NATIVE, "xml:space": "preserve"})
    _add(root, dataset)
    written: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return written


WRITERS: Final[Mapping[str, Callable[[Attributes], bytes]]] = MappingProxyType(
    {JSON: in_json, XML: in_xml}
)
"""By media type, the default first (PS3.18 10.5.4)."""


def chosen(accept: str) -> str | None:
    """The media type to answer in (RFC 9110 12.5.1); None where none of ours is acceptable.

    >>> chosen("application/dicom+json;q=0.5, application/dicom+xml")
    'application/dicom+xml'
    >>> chosen("")
    'application/dicom+json'
    >>> chosen("text/html")
    """
    if not accept.strip():
        return JSON
    ranges: dict[str, float] = {}
    for each in accept.split(","):
        kind, options = media_type(each.strip())
        kind = ALSO_CALLED.get(kind, kind)
        ranges[kind] = max(_quality(options.get("q", "1")), ranges.get(kind, 0.0))
    best = max(WRITERS, key=lambda kind: _quality_of(kind, ranges))  # of equals, the first
    return best if _quality_of(best, ranges) > 0 else None


def _quality_of(kind: str, ranges: Mapping[str, float]) -> float:
    """How much a media type is wanted, by the narrowest range that it is in."""
    for each in (kind, "application/*", "*/*"):
        if each in ranges:
            return ranges[each]
    return 0.0


def _quality(said: str) -> float:
    try:
        return float(said)
    except ValueError:
        return 0.0


def _add(parent: Element, dataset: Attributes) -> None:
    for tag, attribute in dataset.items():
        named = {"tag": tag, "vr": attribute["vr"], "keyword": keyword_for_tag(tag)}
        element = SubElement(parent, "DicomAttribute", named)
        for number, value in enumerate(attribute.get("Value", ()), 1):
            if attribute["vr"] == "SQ":
                _add(SubElement(element, "Item", {"number": str(number)}), value)
            else:
                text = str(int(value)) if isinstance(value, int) else str(value)
                SubElement(element, "Value", {"number": str(number)}).text = text
