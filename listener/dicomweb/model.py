"""The DICOM JSON model as far as we speak it: attributes by tag (PS3.18 F.2)."""

import re
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Mapping
from json import JSONDecoder
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

LARGEST_ITEM_BYTES: Final = 1 << 20
"""Of what a search finds. Services that answer with whole headers take some ten thousand."""

SPACE: Final = re.compile(r"[ \t\r\n]*")

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


def items_in(pieces: Iterable[bytes]) -> Iterator[Attributes]:
    """The items of a JSON array as it comes, one at a time.

    Three bytes of JSON become seventy in memory: an array is never kept whole.

    >>> list(items_in([b'[{"00080018":', b' {"vr": "UI"}}, {}]']))
    [{'00080018': {'vr': 'UI'}}, {}]

    Raises:
        ValueError, TypeError, RecursionError: this is no array of datasets.
    """
    text, at = _Text(pieces), 0
    opened, at = text.mark(at)
    if opened != "[":
        raise ValueError("no array")
    mark, at = text.mark(at + 1)
    while mark != "]":
        item, end = JSONDecoder().raw_decode(text.ahead, at)
        if not isinstance(item, dict):
            raise TypeError(type(item))
        if end - at > LARGEST_ITEM_BYTES:
            raise ValueError("too large")
        yield item
        mark, at = text.mark(end)
        if mark == ",":
            mark, at = text.mark(at + 1)
            if mark == "]":
                raise ValueError("no item")
        elif mark != "]":
            raise ValueError("no comma")


class _Text:
    """What is ahead of a reader: an item and more, or all that is left."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.ahead = ""
        self._pieces, self._decoder = iter(pieces), getincrementaldecoder("utf-8-sig")()
        self._is_over = False

    def mark(self, at: int) -> tuple[str, int]:
        """The next character that is no space, empty at the end; and where it is now."""
        while True:
            at = self._refill(at)
            match = SPACE.match(self.ahead, at)
            at = match.end() if match else at
            if at < len(self.ahead) or self._is_over:
                return self.ahead[at : at + 1], self._refill(at)

    def _refill(self, at: int) -> int:
        """Have an item ahead; returns where `at` is now."""
        if self._is_over or len(self.ahead) - at > LARGEST_ITEM_BYTES:
            return at
        found, size = [self.ahead[at:]], len(self.ahead) - at
        while size <= LARGEST_ITEM_BYTES and not self._is_over:
            piece = next(self._pieces, None)
            self._is_over = piece is None
            found.append(self._decoder.decode(piece or b"", self._is_over))
            size += len(found[-1])
        self.ahead = "".join(found)
        return 0
