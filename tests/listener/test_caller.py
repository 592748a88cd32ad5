"""Whom we call may answer anything: an association with it costs us no more than it should."""

import random
import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import repeat
from typing import Any

import pytest
from pydicom.dataset import Dataset

from listener import caller as caller_module
from listener import inventory, retrieval
from listener.dicomweb.client import InstanceListed
from listener.errors import SourceFailed
from listener.inventory import list_instances
from listener.ledger import Ledger
from listener.recorder import Recorder
from listener.remote import Source
from listener.retrieval import fetch
from listener.settings import ListenerSettings
from listener.spool import Spool
from tests.fuzz import archives, wire
from tests.fuzz.datasets import deflated, sound_instance
from tests.fuzz.services import instance_of
from tests.fuzz.source import Answer, Asked, Held, Play

HELD = Held.of(random.Random(0))
MUCH_MIB = 150


@pytest.fixture
def source(free_port: int) -> Source:
    return Source(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port)


@pytest.fixture
def settings(settings_for: Any) -> ListenerSettings:
    made: ListenerSettings = settings_for(association_timeout_seconds=1.5)
    return made


@pytest.fixture
def archive(source: Source) -> Iterator[archives.Archive]:
    with ExitStack() as stack:
        found = archives.Archive(source.name, source.port, archives.GET)
        stack.enter_context(found.open())
        yield found


def play(stage: str, answer: Answer, **changes: Any) -> Play:
    return Play("", archives.KIND, stage, answer, HELD, **changes)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def refusal(source: Source, settings: ListenerSettings, most_seconds: float = 30) -> str:
    """Why a source is not believed; it may take no more memory or time than is right."""
    before, begun = peak_mib(), time.monotonic()
    with pytest.raises(SourceFailed) as caught:
        list_instances(source, settings, HELD.study)
    assert peak_mib() - before < MUCH_MIB
    assert time.monotonic() - begun < most_seconds
    return caught.value.found


def pending(asked: Asked, identifier: bytes) -> bytes:
    return archives.response(asked, archives.PENDING, identifier)


def test_a_transfer_syntax_that_was_not_proposed_is_not_spoken(
    archive: archives.Archive, source: Source, settings: ListenerSettings
) -> None:
    large = deflated(wire.explicit(0x00081195, b"UT", bytes(200 << 20)))
    archive.play = play("series", lambda asked, _held: iter([pending(asked, large)]))
    archive.play.syntax = wire.DEFLATED

    assert "does not answer" in refusal(source, settings)
    assert not archive.play.reached.is_set(), "nothing was asked"


def test_an_answer_that_is_never_whole_is_not_kept(
    archive: archives.Archive, source: Source, settings_for: Any
) -> None:
    patient = settings_for(association_timeout_seconds=60)

    def command(asked: Asked, _held: Held) -> Iterator[bytes]:
        return repeat(wire.data(wire.fragment(asked.context, 1, bytes(16_000))))

    def dataset(asked: Asked, _held: Held) -> Iterator[bytes]:
        yield wire.data(wire.fragment(asked.context, 3, archives.command(asked, archives.PENDING)))
        yield from repeat(wire.data(wire.fragment(asked.context, 0, bytes(16_000))))

    for each in (command, dataset):
        archive.play = play("series", each)
        assert refusal(source, patient) == "answers C-FIND with nothing"


def test_an_answer_that_comes_without_an_end_in_empty_pieces_is_not_waited_for(
    archive: archives.Archive, source: Source, settings: ListenerSettings
) -> None:
    empty = wire.fragment(1, 0, b"")
    archive.play = play("series", lambda _asked, _held: repeat(wire.data(empty)))
    assert refusal(source, settings) == "answers C-FIND with nothing"


def test_answers_that_drip_without_an_end_are_not_waited_for(
    archive: archives.Archive,
    source: Source,
    settings: ListenerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inventory, "PROGRESS_TIMEOUTS", 2)

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        while True:
            time.sleep(0.3)
            yield pending(asked, archives.match(asked, held))

    archive.play = play("series", answer)
    assert refusal(source, settings, 10) == "gives no whole answer within 3 s"


def test_a_source_that_only_says_it_will_hand_over_is_not_waited_for(
    archive: archives.Archive,
    source: Source,
    settings: ListenerSettings,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrieval, "PROGRESS_TIMEOUTS", 2)

    def answer(asked: Asked, _held: Held) -> Iterator[bytes]:
        completed = iter((1, 2, 3))
        while True:
            time.sleep(0.3)
            count = struct.pack("<H", next(completed, 3))
            yield archives.response(asked, archives.PENDING, x1020=b"\1\0", x1021=count)

    archive.play = play("files", answer)
    wanted = [InstanceListed(HELD.series, HELD.offered, wire.MR_IMAGE, "MR")]
    recorder, begun = Recorder(ledger), time.monotonic()
    try:
        with pytest.raises(SourceFailed) as caught:
            fetch(source, settings, HELD.study, wanted, Spool(settings.spool), recorder)
    finally:
        recorder.close()
    assert caught.value.found == "hands nothing more over within 3 s"
    assert 3.5 < time.monotonic() - begun < 10, "each instance gives it more time"


def test_a_pdu_of_four_gigabytes_ends_the_association(
    archive: archives.Archive, source: Source, settings: ListenerSettings
) -> None:
    def answer(_asked: Asked, _held: Held) -> Iterator[bytes]:
        yield wire.pdu(wire.P_DATA, b"", 0xFFFFFFF0)
        yield from repeat(bytes(1 << 16))

    archive.play = play("series", answer)
    assert refusal(source, settings) == "answers C-FIND with nothing"


def test_answers_that_pile_up_are_not_kept_without_an_end(
    archive: archives.Archive,
    source: Source,
    settings: ListenerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caller_module, "MOST_WAITING_BYTES", 200_000)
    read = inventory._uid

    def slowly(found: Dataset, keyword: str) -> str:
        time.sleep(0.01)
        return read(found, keyword)

    monkeypatch.setattr(inventory, "_uid", slowly)
    archive.play = play(
        "series", lambda asked, held: repeat(pending(asked, archives.match(asked, held)))
    )
    assert refusal(source, settings) == "answers C-FIND with nothing"


def test_an_answer_to_the_proposal_that_is_none_is_no_more_than_that(
    archive: archives.Archive, source: Source, settings: ListenerSettings
) -> None:
    for drawn in range(60):
        dice = random.Random(drawn)
        made = archives.FAMILIES["archive: association"][1](dice, "archive: association")
        archive.play = play("association", made.answer)
        found = refusal(source, settings)
        assert "C-FIND" in found or "cannot be called" in found


def test_a_study_has_no_more_instances_than_any_study(
    archive: archives.Archive,
    source: Source,
    settings: ListenerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inventory, "MOST_INSTANCES", 2)
    archive.play = play("none", lambda _asked, _held: iter(()))
    assert refusal(source, settings) == "lists more than 2 instances"


@pytest.mark.parametrize("kind", ["the same", "others"])
def test_a_source_does_not_hand_over_without_an_end(
    archive: archives.Archive,
    source: Source,
    settings: ListenerSettings,
    ledger: Ledger,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrieval, "MOST_UNASKED", 5)
    dice = random.Random(1)

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        while True:
            given = instance_of(held) if kind == "the same" else sound_instance(dice)
            yield archives.stored(asked, given)

    archive.play = play("files", answer)
    wanted = [InstanceListed(HELD.series, HELD.offered, wire.MR_IMAGE, "MR")]
    spool, recorder = Spool(settings.spool), Recorder(ledger)
    try:
        with pytest.raises(SourceFailed) as caught:
            fetch(source, settings, HELD.study, wanted, spool, recorder)
    finally:
        recorder.close()
    assert caught.value.found == "hands over more than it was asked for"
    kept = [key.sop_uid for key, _path in spool.received()]
    assert kept == ([HELD.offered] if kind == "the same" else [])


def test_a_sound_source_is_believed(
    archive: archives.Archive, source: Source, settings: ListenerSettings
) -> None:
    archive.play = play("none", lambda _asked, _held: iter(()))
    found = list_instances(source, settings, HELD.study)
    assert [each.sop_uid for each in found] == list(HELD.sops)


def test_nobody_there_cannot_be_called(source: Source, settings: ListenerSettings) -> None:
    with socket.create_server(("127.0.0.1", source.port)):
        assert "does not answer" in refusal(source, settings)
