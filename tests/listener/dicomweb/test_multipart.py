"""Multipart bodies come out as they went in, in whatever pieces they come."""

import random
from pathlib import Path

import pytest

from listener.dicomweb.multipart import (
    MOST_BETWEEN_BYTES,
    BadMultipart,
    MultipartFiles,
    MultipartReader,
    PartBegun,
    PartEnded,
    media_type,
    parts,
)

BODY = (
    b"--edge\r\nContent-Type: application/dicom\r\n\r\nfirst\r\n"
    b'--edge\r\nContent-Type: application/dicom; transfer-syntax="1.2"\r\nContent-Length: 0\r\n\r\n'
    b"\r\n--edge\r\n\r\nbare\r\n--edgy but no edge\r\n--edg\r\n\r\n--edge--\r\nan epilogue"
)
CONTENTS = [b"first", b"", b"bare\r\n--edgy but no edge\r\n--edg\r\n"]


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def contents(pieces: list[bytes], boundary: bytes = b"edge") -> list[bytes]:
    return [b"".join(content) for _headers, content in parts(pieces, boundary)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 1000])
def test_parts_need_no_content_disposition_and_may_come_in_any_pieces(size: int) -> None:
    assert contents(in_pieces(BODY, size)) == CONTENTS


def test_headers_are_handed_over_with_names_in_lower_case() -> None:
    headers = [headers for headers, _content in parts([BODY], b"edge")]

    assert headers[0] == {"content-type": "application/dicom"}
    kind, options = media_type(headers[1]["content-type"])
    assert (kind, options) == ("application/dicom", {"transfer-syntax": "1.2"})
    assert headers[2] == {}


def test_content_that_looks_like_the_boundary_is_content() -> None:
    """Whatever bytes stand in a part, in whatever pieces: all of them come out, and no others."""
    chance = random.Random(1)
    for _ in range(300):
        content = b"".join(chance.choices([b"\r", b"\n", b"-", b"--ed", b"edg", b"x"], k=40))
        body = b"--edge\r\n\r\n" + content + b"\r\n--edge--"
        assert contents(in_pieces(body, chance.randint(1, 20))) == [content]


def test_a_part_that_is_left_aside_does_not_spill_into_the_next() -> None:
    pieces = in_pieces(BODY, 5)
    begun = [next(content, b"") for _headers, content in parts(pieces, b"edge")]
    assert [whole.startswith(first) for whole, first in zip(CONTENTS, begun, strict=True)] == [
        True
    ] * 3

    kept = []
    for number, (_headers, content) in enumerate(parts(pieces, b"edge")):
        if number == 2:
            kept.append(b"".join(content))
    assert kept == CONTENTS[2:]


@pytest.mark.parametrize("end", [len(BODY) - len(b"\r\n--edge--\r\nan epilogue"), 60, 20])
def test_a_body_that_was_cut_short_is_said_to_be(end: int) -> None:
    with pytest.raises(BadMultipart):
        contents([BODY[:end]])


@pytest.mark.parametrize(
    "body",
    [
        b"\x89PNG",
        b"--other\r\n\r\n",
        b"--edge\r\nno colon\r\n\r\n",
        b"--edge\r\nX: " + b"a" * 5000 + b"\r\n\r\n",
        b"--edge\r\n" + b"X: a\r\n" * 100 + b"\r\n",
    ],
)
def test_what_is_no_multipart_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(BadMultipart):
        contents(in_pieces(body, 11))


@pytest.mark.parametrize("boundary", [b"", b"e" * 1000])
def test_a_boundary_that_is_none_is_refused(boundary: bytes) -> None:
    with pytest.raises(BadMultipart):
        MultipartReader(boundary)


def test_content_is_handed_over_as_it_comes() -> None:
    reader = MultipartReader(b"edge")
    begun, piece = reader.feed(b"--edge\r\n\r\nmuch")
    assert (begun, piece) == (PartBegun({}), b"much")
    assert [bytes(each) for each in reader.feed(b" more") if isinstance(each, memoryview)] == [
        b" more"
    ]
    assert reader.feed(b"\r\n--edge--") == [PartEnded()]
    assert reader.is_finished


def test_files_are_written_as_a_body_of_the_size_that_it_says(tmp_path: Path) -> None:
    written = [b"one", b"", b"\r\n--" * 1000]
    paths = [tmp_path / str(number) for number in range(len(written))]
    for path, content in zip(paths, written, strict=True):
        path.write_bytes(content)

    body = MultipartFiles(paths)
    pieces = list(body)

    kind, options = media_type(body.content_type)
    assert (kind, options["type"]) == ("multipart/related", "application/dicom")
    assert sum(map(len, pieces)) == body.size
    assert contents(pieces, options["boundary"].encode()) == written


@pytest.mark.parametrize("begun", [b"", b"--edge\r\n\r\na\r\n--edge--"], ids=["before", "after"])
def test_what_is_of_no_part_is_not_read_without_an_end(begun: bytes) -> None:
    reader = MultipartReader(b"edge")
    reader.feed(begun)
    with pytest.raises(BadMultipart, match="of no part"):
        for _ in range(3):
            reader.feed(b"\r\n" * (MOST_BETWEEN_BYTES // 4))
