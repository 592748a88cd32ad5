"""Datasets that would fill the memory are given up; all others are read as pydicom reads them."""

import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from listener import confirmation, series
from listener.errors import BadAttribute
from listener.handlers import read_key
from listener.ledger import Ledger
from listener.reading import Allowance, TooMuch, read_file
from listener.series import read_series_facts
from listener.spool import Spool
from tests.fuzz import wire
from tests.fuzz.datasets import PIXELS, deflated, header, implicit_header
from tests.fuzz.sessions import messages

UIDS = ("1.2", "1.2.1", "1.2.1.1")
HEAD = bytes(128) + b"DICM"
EMPTY_ITEMS = wire.ITEM * 200_000  # 1.6 MB; as objects, some 300 MB
MOST_MIB = 150

BOMBS = {
    "items of a sequence that ends somewhere": wire.explicit(
        0x00400555, b"SQ", EMPTY_ITEMS + wire.CLOSE_SEQUENCE, wire.UNDEFINED
    ),
    "items of a sequence of known length": wire.explicit(0x00400555, b"SQ", EMPTY_ITEMS),
    "items of a sequence that is UN": wire.explicit(0x00400555, b"UN", EMPTY_ITEMS),
    "elements": b"".join(wire.explicit(0x00400000 + tag, b"LO", b"") for tag in range(65536)) * 2,
    "items within an item": wire.explicit(
        0x00400555,
        b"SQ",
        wire.OPEN_ITEM + wire.explicit(0x00400555, b"SQ", EMPTY_ITEMS) + wire.CLOSE_ITEM,
    ),
    "character sets": wire.explicit(0x00400555, b"SQ", wire.OPEN_ITEM
        + wire.implicit(0x00080005, b"\\" * (8 << 20)) + wire.CLOSE_ITEM),
    "bytes": wire.explicit(0x00404000, b"UN", bytes(65 << 20)),
}  # fmt: skip


def meta(syntax: str) -> bytes:
    body = wire.explicit(0x00020010, b"UI", wire.even(syntax))
    return wire.explicit(0x00020000, b"UL", len(body).to_bytes(4, "little")) + body


@pytest.fixture
def memory() -> Any:
    """MiB that were used at most since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore")  # pydicom's, about what we made
@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("deflates", [False, True], ids=["plain", "deflated"])
def test_a_header_that_grows_in_memory_is_refused(
    tmp_path: Path, name: str, deflates: bool, monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    monkeypatch.setattr(series, "MOST_PIECES", 20_000)
    path = tmp_path / "1.dcm"
    dataset = b"".join(header(*UIDS)) + BOMBS[name] + PIXELS
    if deflates:
        path.write_bytes(HEAD + meta(DeflatedExplicitVRLittleEndian) + deflated(dataset))
    else:
        path.write_bytes(HEAD + meta(ExplicitVRLittleEndian) + dataset)
    del dataset
    tracemalloc.reset_peak()

    with pytest.raises(BadAttribute, match=r"too many .* where at most 64 MiB are read"):
        read_series_facts(path, 1)
    assert memory() < MOST_MIB


@pytest.mark.filterwarnings("ignore")
def test_pixels_that_grow_beyond_what_may_be_read_are_refused(tmp_path: Path, memory: Any) -> None:
    path = tmp_path / "1.dcm"
    dataset = b"".join(header(*UIDS)) + wire.explicit(0x7FE00010, b"OW", bytes(250 << 20))
    path.write_bytes(HEAD + meta(DeflatedExplicitVRLittleEndian) + deflated(dataset))
    del dataset
    tracemalloc.reset_peak()

    with pytest.raises(TooMuch, match="once inflated"):
        read_file(path, pixels=True, allowance=Allowance(10 << 20, 1000))
    assert read_series_facts(path, 1).rows == 4  # the header alone is small
    assert memory() < MOST_MIB


@pytest.mark.filterwarnings("ignore")
def test_a_length_that_was_made_up_reserves_no_memory(tmp_path: Path, memory: Any) -> None:
    path = tmp_path / "1.dcm"
    spoiled = wire.explicit(0x00400555, b"UT", b"", 0x7FFFFFF0)
    path.write_bytes(HEAD + meta(ExplicitVRLittleEndian) + b"".join(header(*UIDS)) + spoiled)

    assert (
        read_file(path, pixels=False, allowance=Allowance(1 << 30, 1000)).StudyInstanceUID == "1.2"
    )
    assert memory() < 80


@pytest.mark.filterwarnings("ignore")
def test_an_element_of_a_million_values_counts_as_malformed(tmp_path: Path, memory: Any) -> None:
    path = tmp_path / "1.dcm"
    dataset = (
        *implicit_header(*UIDS),
        wire.implicit(0x00080008, b"A\\" * 1_000_000),
        wire.implicit(0x00280030, b"1\\" * 1_000_000),
    )
    path.write_bytes(HEAD + meta(ImplicitVRLittleEndian) + b"".join(dataset))

    facts = read_series_facts(path, 1)

    assert (facts.image_type, facts.pixel_spacing) == ((), None)
    assert memory() < MOST_MIB


KEY_BOMBS: dict[str, tuple[Any, Callable[[], bytes]]] = {
    "values": (ImplicitVRLittleEndian, lambda: b"".join(
        implicit_header("1.2", "1.2.1", "\\".join(["1.2.1.1"] * 1_000_000)))),
    "items": (ExplicitVRLittleEndian, lambda: b"".join((
        *header(*UIDS)[:3], wire.explicit(0x00081140, b"SQ", EMPTY_ITEMS, wire.UNDEFINED)))),
    "zeros": (DeflatedExplicitVRLittleEndian, lambda: deflated(b"".join((
        wire.explicit(0x00080001, b"UN", bytes(250 << 20)), *header(*UIDS))))),
    "deflated items": (DeflatedExplicitVRLittleEndian, lambda: deflated(b"".join((
        *header(*UIDS)[:3], wire.explicit(0x00081140, b"SQ", EMPTY_ITEMS, wire.UNDEFINED))))),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KEY_BOMBS)
def test_no_dataset_grows_in_memory_while_its_uids_are_looked_for(name: str) -> None:
    syntax, make = KEY_BOMBS[name]
    dataset = BytesIO(make())
    tracemalloc.start()
    try:
        with pytest.raises(BadAttribute):
            read_key(dataset, syntax, wire.MR_IMAGE, "1.2.1.1")
        assert tracemalloc.get_traced_memory()[1] < MOST_MIB << 20
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore")
def test_a_request_for_commitment_of_a_million_items_is_refused(
    tmp_path: Path, ledger: Ledger, listening: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "MOST_REPORT_PIECES", 10_000)
    asked = wire.command(wire.action_fields().items())
    dataset = wire.implicit(0x00081195, b"1.2.3.4\0") + wire.implicit(
        0x00081199, wire.ITEM * 100_000
    )
    with (
        listening(Spool(tmp_path / "spool"), ledger) as send,
        wire.Peer(send.settings.port, 20) as peer,
    ):
        peer.send(wire.proposal())
        assert peer.hear(5)
        peer.send(*messages(wire.COMMITTING, asked, dataset))
        assert peer.hear(20)
        assert peer.answer.kinds["status 0x0115"] == 1


def test_a_broken_sequence_is_nobodys_loss(tmp_path: Path) -> None:
    path = tmp_path / "1.dcm"
    spoiled = wire.explicit(0x00081140, b"SQ", b"\1" * 11)
    parts = header(*UIDS)
    path.write_bytes(
        HEAD + meta(ExplicitVRLittleEndian) + b"".join((*parts[:3], spoiled, *parts[3:])) + PIXELS
    )

    assert read_series_facts(path, 1).rows == 4


@pytest.mark.filterwarnings("ignore")
def test_real_and_odd_files_are_read_as_pydicom_reads_them(shared_data: Path) -> None:
    files = [path for path in sorted((shared_data / "odd").rglob("*")) if path.is_file()]
    read = 0
    for path in files:
        for pixels in (False, True):
            try:
                usual = pydicom.dcmread(path, stop_before_pixels=not pixels)
            except Exception:  # noqa: BLE001 - anything may be wrong with these files
                continue
            found = read_file(path, pixels=pixels, allowance=Allowance(1 << 30, 1 << 30))
            assert same(found, usual), path
            read += 1
    assert read > 150


def same(one: Dataset, other: Dataset) -> bool:
    """Whether two datasets are equal, as far as their elements can be converted."""
    if list(one.keys()) != list(other.keys()):
        return False
    for tag in list(one.keys()):
        try:
            wanted = other[tag]
        except Exception:  # noqa: BLE001 - likewise
            continue
        if one[tag] != wanted:
            return False
    return True
