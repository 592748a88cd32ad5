"""How an answer is written: the DICOM JSON model, or the native DICOM model in XML.

Senders say by `Accept` what they read (PS3.18 8.3.3, RFC 9110 12.5.1); where they like both alike,
it is JSON.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from pydicom.datadict import keyword_for_tag

from listener.dicomweb.model import JSON, Attributes
from listener.dicomweb.multipart import media_type

XML: Final = "application/dicom+xml"
NATIVE_MODEL: Final = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
ANYTHING: Final = ("application/*", "*/*")

# What a sender may name that reads it, the most specific first.
NAMES: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        JSON: (JSON, "application/json", *ANYTHING),
        XML: (XML, "application/xml", "text/xml", *ANYTHING),
    }
)


def wanted(accept: str | None) -> str | None:
    """The media type to answer in; None: the sender reads neither.

    >>> wanted("application/dicom+xml, application/json;q=0.5")
    'application/dicom+xml'
    >>> wanted(None)
    'application/dicom+json'
    """
    if not accept or not accept.strip():
        return JSON
    liked = dict(_liked(each) for each in accept.split(","))
    best = max(NAMES, key=lambda kind: _quality(kind, liked))
    return best if _quality(best, liked) > 0 else None


def written(found: Attributes, kind: str) -> bytes:
    """A dataset in one of the two models.

    Args:
        found: the dataset.
        kind: what `wanted` said.
    """
    return WRITERS[kind](found)


def _json(found: Attributes) -> bytes:
    return json.dumps(found, separators=(",", ":")).encode()


def _xml(found: Attributes) -> bytes:
    """PS3.19 A.1."""
    model = Element("NativeDicomModel", {"xmlns": NATIVE_MODEL, "xml:space": "preserve"})
    _add(found, model)
    text: bytes = tostring(model, encoding="utf-8", xml_declaration=True)
    return text


WRITERS: Final[Mapping[str, Callable[[Attributes], bytes]]] = MappingProxyType(
    {JSON: _json, XML: _xml}
)


def _add(found: Attributes, to: Element) -> None:
    for tag, each in sorted(found.items()):
        named = {"tag": tag, "vr": each["vr"], "keyword": keyword_for_tag(int(tag, 16))}
        element = SubElement(to, "DicomAttribute", named)
        for number, value in enumerate(each.get("Value", ()), start=1):
            place = {"number": str(number)}
            if each["vr"] == "SQ":
                _add(value, SubElement(element, "Item", place))
            else:
                SubElement(element, "Value", place).text = str(value)


def _liked(item: str) -> tuple[str, float]:
    kind, options = media_type(item)
    try:
        return kind, float(options.get("q", 1))
    except ValueError:
        return kind, 0.0


def _quality(kind: str, liked: Mapping[str, float]) -> float:
    return next((liked[name] for name in NAMES[kind] if name in liked), 0.0)
