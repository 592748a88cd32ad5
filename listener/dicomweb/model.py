"""The DICOM JSON model as far as we speak it: attributes by tag (PS3.18 F.2)."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

JSON: Final = "application/dicom+json"

# PS3.6
SOP_CLASS: Final = "00080016"
SOP_INSTANCE: Final = "00080018"
MODALITY: Final = "00080060"
REFERENCED_CLASS: Final = "00081150"
REFERENCED_INSTANCE: Final = "00081155"
RETRIEVE_URL: Final = "00081190"
WARNING_REASON: Final = "00081196"
FAILURE_REASON: Final = "00081197"
FAILED_SEQUENCE: Final = "00081198"
REFERENCED_SEQUENCE: Final = "00081199"
OTHER_FAILURES: Final = "0008119A"
SERIES: Final = "0020000E"
INSTANCES_OF_SERIES: Final = "00201209"

Attributes = Mapping[str, Any]
"""A dataset: tag to value representation and values."""


def attribute(vr: str, values: Iterable[Any]) -> Mapping[str, Any]:
    """One attribute.

    >>> attribute("US", [272])
    {'vr': 'US', 'Value': [272]}
    >>> attribute("UR", [])
    {'vr': 'UR'}
    """
    found = list(values)
    return {"vr": vr, "Value": found} if found else {"vr": vr}


def text_of(found: Attributes, tag: str) -> str:
    """The first value of an attribute; empty where there is none."""
    values = found.get(tag, {}).get("Value") or ("",)
    return "" if values[0] is None else str(values[0]).strip()


def items_of(found: Attributes, tag: str) -> Iterable[Attributes]:
    """The items of a sequence."""
    items: Iterable[Attributes] = found.get(tag, {}).get("Value", ())
    return items
