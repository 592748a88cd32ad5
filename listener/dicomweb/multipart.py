"""Bodies of many instances: multipart/related, read and written as streams (PS3.18 8.6.1.2).

What is held in memory is a piece of the body at a time, whatever the body holds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from listener.errors import MonroError

DICOM: Final = "application/dicom"
RELATED: Final = "multipart/related"
PIECE_BYTES: Final = 256 << 10

MOST_BETWEEN_BYTES: Final = 1 << 20
"""Before the first part, after the last or within a header: of no part, and read for nothing."""


KNOWN: Final = frozenset(
    {
        DICOM,
        RELATED,
        "application/dicom+json",
        "application/dicom+xml",
        "application/json",
        "application/octet-stream",
        "application/pdf",
        "application/xml",
        "application/zip",
        "image/gif",
        "image/jls",
        "image/jp2",
        "image/jpeg",
        "image/jph",
        "image/png",
        "multipart/form-data",
        "multipart/mixed",
        "text/html",
        "text/plain",
        "text/xml",
        "video/mp4",
        "video/mpeg",
    }
)
"""Media types that may be named in a log: others may hold anything, a patient's name among it."""


class BadMultipart(MonroError):
    """A body is not the multipart/related that its header says, or was cut short."""


@dataclass(frozen=True)
class PartBegun:
    """A part begins; names of its headers are in lower case."""

    headers: Mapping[str, str]


@dataclass(frozen=True)
class PartEnded:
    """All of a part has come."""


Event = PartBegun | memoryview | PartEnded
"""What a body brings; content is a view into the piece that it came in."""

Part = tuple[Mapping[str, str], Iterator[bytes]]
"""Headers and content; to be taken before the next part, which drops what is left of it."""


class MultipartReader:
    """Takes a body apart as it comes.

    Attributes:
        is_finished: whether the closing boundary was there.
    """

    def __init__(self, boundary: bytes) -> None:
        """Begin a body.

        Raises:
            BadMultipart: the boundary is none (RFC 2046 5.1.1).
        """
        if not boundary:
            raise BadMultipart("the Content-Type of a multipart body must name its boundary")
        self.is_finished = False
        self._between = 0
        self._events: list[Event] = []
        self._headers: dict[str, str] = {}
        self._name, self._value = b"", b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_field": self._on_name,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header,
                    "on_headers_finished": self._on_begun,
                    "on_part_data": self._on_data,
                    "on_part_end": self._on_ended,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _bad(error) from None

    def feed(self, piece: bytes) -> Sequence[Event]:
        """Say what the next piece of the body brings.

        Raises:
            BadMultipart: it does not follow from what came before.
        """
        self._events = []
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _bad(error) from None
        self._between = 0 if self._events else self._between + len(piece)
        if self._between > MOST_BETWEEN_BYTES:
            raise BadMultipart(
                f"a multipart body has more than {MOST_BETWEEN_BYTES:,} bytes that are of no part"
            )
        return self._events

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name, self._value = b"", b""

    def _on_begun(self) -> None:
        self._events.append(PartBegun(dict(self._headers)))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(memoryview(data)[start:end])

    def _on_ended(self) -> None:
        self._events.append(PartEnded())

    def _on_end(self) -> None:
        self.is_finished = True


def parts(pieces: Iterable[bytes], boundary: bytes) -> Iterator[Part]:
    """Take a body apart, part by part.

    Raises:
        BadMultipart: it is none, or was cut short; raised by the part that is, too.
    """
    events = _events(pieces, boundary)
    for event in events:
        if isinstance(event, PartBegun):
            yield event.headers, _content(events)


def _events(pieces: Iterable[bytes], boundary: bytes) -> Iterator[Event]:
    reader = MultipartReader(boundary)
    for piece in pieces:
        yield from reader.feed(piece)
        if reader.is_finished:
            return
    if not reader.is_finished:
        raise BadMultipart("a multipart body ends without its closing boundary")


def _content(events: Iterator[Event]) -> Iterator[bytes]:
    for event in events:
        if not isinstance(event, memoryview):
            return
        yield bytes(event)


class MultipartFiles:
    """PS3.10 files as a body, read as it is sent.

    Attributes:
        content_type: of the body, with its boundary.
        size: of the body in bytes.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        boundary = token_hex(24)
        self.content_type = f'{RELATED}; type="{DICOM}"; boundary={boundary}'
        self._files = files
        self._before = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
        self._after = b"\r\n"
        self._last = f"--{boundary}--\r\n".encode()
        frame = len(self._before) + len(self._after)
        self.size = sum(path.stat().st_size + frame for path in files) + len(self._last)

    def __iter__(self) -> Iterator[bytes]:
        """The body in pieces."""
        for path in self._files:
            yield self._before
            with path.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece
            yield self._after
        yield self._last


def media_type(header: str | None) -> tuple[str, Mapping[str, str]]:
    """A Content-Type header as type and parameters, in lower case but for the values.

    >>> media_type('Multipart/Related; type="application/dicom"; boundary=a')
    ('multipart/related', {'type': 'application/dicom', 'boundary': 'a'})
    """
    kind, options = parse_options_header(header)
    return kind.decode("latin-1").strip(), {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in options.items()
    }


def in_words(kind: str) -> str:
    """A media type that another has sent, for people: by its name where that is one of ours.

    >>> in_words("image/png"), in_words("DOE^JANE/x"), in_words("")
    ('image/png', 'a media type that is not known', 'no media type')
    """
    if not kind:
        return "no media type"
    return kind if kind in KNOWN else "a media type that is not known"


def _bad(error: Any) -> BadMultipart:
    return BadMultipart(f"a body is no multipart/related: {error}")
