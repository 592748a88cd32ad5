"""Answers to searches are read item by item, however large or strange they are."""

import itertools
from collections.abc import Iterable

import pytest

from listener.dicomweb.model import LARGEST_ITEM_BYTES, items_in

SHORTLY_BYTES = 4 * LARGEST_ITEM_BYTES


def in_crumbs(content: bytes) -> Iterable[bytes]:
    return (content[at : at + 1] for at in range(len(content)))


@pytest.mark.parametrize("content", [b"[]", b" [ ] ", b"\xef\xbb\xbf[]", b"[]\n garbage"])
def test_an_empty_array_has_no_items(content: bytes) -> None:
    assert list(items_in([content])) == []


def test_items_come_as_they_are_whatever_pieces_they_come_in() -> None:
    content = '[{"a": "\u00e4, ]\\""} ,\n{"b": [1, {"c": null}]}]'.encode()
    expected = [{"a": '\u00e4, ]"'}, {"b": [1, {"c": None}]}]
    assert list(items_in([content])) == expected
    assert list(items_in(in_crumbs(content))) == expected


def test_items_larger_than_a_piece_and_many_of_them_come_whole() -> None:
    item = b'{"a": "' + b"x" * 100_000 + b'"}'
    content = b"[" + b",".join([item] * 40) + b"]"
    pieces = (content[at : at + 7000] for at in range(0, len(content), 7000))
    assert [len(each["a"]) for each in items_in(pieces)] == [100_000] * 40


def test_no_more_is_read_than_an_item_ahead() -> None:
    taken = itertools.count()
    endless = (b"[" if next(taken) == 0 else b"{}," * 1000 for _ in itertools.repeat(None))
    assert list(itertools.islice(items_in(endless), 1000)) == [{}] * 1000
    assert next(taken) * 3000 < SHORTLY_BYTES


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"{}",
        b"<html>",
        b"[{}",
        b"[{},]",
        b"[,{}]",
        b"[{} {}]",
        b"[1]",
        b"[null]",
        b"[[]]",
        b'["',
        b'[{"a": ' + b"[" * 100_000,
        b"\xff\xfe",
        b'[{"a": ' + b"9" * 5000 + b"}]",
        b'[{"a": "' + b"x" * LARGEST_ITEM_BYTES + b'"}]',
    ],
)
def test_what_is_no_array_of_datasets_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises((ValueError, TypeError, RecursionError)):
        list(items_in([content]))
