"""Peers that are slow, silent, endless or many end in time, and others are served meanwhile."""

import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom.association import Association

from listener import doorkeeper
from listener.ledger import Ledger
from listener.spool import Spool
from tests.fuzz import wire
from tests.fuzz.datasets import PIXELS, header
from tests.fuzz.sessions import messages, stored

HUGE_BYTES = 40 << 20  # in PDUs below the largest that is read
LARGEST_BYTES = 4 << 20
OTHER_BYTES = 8 << 20  # PDUs on their way, and what else the listener does meanwhile

TIMEOUT_SECONDS = 1.0
# For threads to notice, on a busy machine.
SLACK_SECONDS = 2.0

STORE = messages(wire.PLAIN, wire.command(wire.store_fields("1.2.3").items()), bytes(1000))
ECHO = messages(wire.ECHO, wire.command(wire.echo_fields().items()), None)


@pytest.fixture(params=[True, False], ids=["quick", "usual"])
def quick(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


def acceptors() -> list[Association]:
    """Threads of connections that somebody opened to us."""
    threads = [each for each in threading.enumerate() if isinstance(each, Association)]
    return [each for each in threads if each.is_acceptor]


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def says_nothing(_peer: wire.Peer) -> bytes:
    return b""


def proposes_byte_by_byte(_peer: wire.Peer) -> bytes:
    return wire.proposal()


def is_silent_once_accepted(peer: wire.Peer) -> bytes:
    peer.send(wire.proposal())
    assert peer.hear(5)
    return b""


def stops_within_a_pdu(peer: wire.Peer) -> bytes:
    is_silent_once_accepted(peer)
    peer.send(b"".join(STORE)[:-500])
    return b""


def stops_between_two_values(peer: wire.Peer) -> bytes:
    is_silent_once_accepted(peer)
    peer.send(STORE[0], wire.data(wire.fragment(wire.PLAIN, 0, bytes(100))))
    return b""


def stores_byte_by_byte(peer: wire.Peer) -> bytes:
    is_silent_once_accepted(peer)
    return b"".join(STORE)


@pytest.mark.parametrize(
    "begins",
    [
        says_nothing,
        proposes_byte_by_byte,
        is_silent_once_accepted,
        stops_within_a_pdu,
        stops_between_two_values,
        stores_byte_by_byte,
    ],
)
def test_a_peer_that_takes_too_long_is_closed_in_time_and_others_are_served_meanwhile(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    an_mr_slice: Callable[[], Dataset],
    quick: bool,
    begins: Callable[[wire.Peer], bytes],
) -> None:
    spool = Spool(tmp_path / "spool")
    changes = {"quick_store": quick, "association_timeout_seconds": TIMEOUT_SECONDS}
    with (
        listening(spool, ledger, **changes) as send,
        wire.Peer(send.settings.port, 20) as peer,
    ):
        trickle = begins(peer)
        begun = time.monotonic()
        assert send(an_mr_slice()) == 0x0000
        for byte in trickle:
            if not peer.send(bytes([byte])) or is_closed(peer):
                break
            time.sleep(0.1)
        until(lambda: is_closed(peer))
        assert time.monotonic() - begun < TIMEOUT_SECONDS + SLACK_SECONDS
        until(lambda: acceptors() == [])
        assert send(an_mr_slice()) == 0x0000

    assert [path for path in spool.root.rglob("*.part") if path.is_file()] == []


@pytest.mark.parametrize("drip", ["bytes of an instance", "questions whether we are there"])
def test_a_peer_that_sends_little_for_long_is_closed_and_one_at_a_pace_is_not(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    quick: bool,
    drip: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("listener.pace.PROGRESS_TIMEOUTS", 2)
    spool = Spool(tmp_path / "spool")
    head, drop = b"", b"".join(ECHO)
    if drip == "bytes of an instance":
        head, drop = STORE[0], wire.data(wire.fragment(wire.PLAIN, 0, b"x"))
    # Each drop comes long before its time is over, so that only all of them together are too slow.
    changes = {"quick_store": quick, "association_timeout_seconds": TIMEOUT_SECONDS}
    least_rates = {"closed": 10 * len(drop) / 0.1, "kept": len(drop) / 0.1 / 10}
    lasted = {}
    for becomes, rate in least_rates.items():
        with (
            listening(spool, ledger, **changes, least_rate=int(rate)) as send,
            wire.Peer(send.settings.port, 20) as peer,
        ):
            is_silent_once_accepted(peer)
            peer.send(head)
            begun = time.monotonic()
            while time.monotonic() - begun < 4.5 and peer.send(drop) and not is_closed(peer):
                time.sleep(0.05)
            lasted[becomes] = time.monotonic() - begun
    assert 1.5 < lasted["closed"] < 2 + SLACK_SECONDS
    assert lasted["kept"] >= 4.5
    assert "sent too little for the time it took" in caplog.text
    assert [path for path in spool.root.rglob("*.part") if path.is_file()] == []


def is_closed(peer: wire.Peer) -> bool:
    """Whether the listener closed the connection; what it said before is passed over."""
    while True:
        begun = time.monotonic()
        if not peer.hear(0.05):
            return time.monotonic() - begun < 0.04


def test_a_peer_that_leaves_before_it_proposes_leaves_no_thread_behind(
    tmp_path: Path, ledger: Ledger, listening: Any, quick: bool, mr_slice: Dataset
) -> None:
    with listening(Spool(tmp_path / "spool"), ledger, quick_store=quick) as send:
        for _ in range(20):  # as a load balancer looks whether a port is open
            socket.create_connection(("127.0.0.1", send.settings.port)).close()
        assert send(mr_slice) == 0x0000  # it was accepted after all of them
        until(lambda: acceptors() == [], 5)


def test_connections_that_propose_nothing_are_not_counted_among_associations(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset
) -> None:
    with listening(Spool(tmp_path / "spool"), ledger, max_associations=2) as send:
        silent = [socket.create_connection(("127.0.0.1", send.settings.port)) for _ in range(5)]
        until(lambda: len(acceptors()) == len(silent))
        assert send(mr_slice) == 0x0000
        for each in silent:
            each.close()


def test_who_opens_too_many_connections_loses_the_oldest_of_them_and_others_keep_theirs(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    mr_slice: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doorkeeper, "MOST_SILENT", 5)
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        port = send.settings.port
        patient = wire.Peer(port, 20)
        until(lambda: len(acceptors()) == 1)
        flood = [
            socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0))
            for _ in range(200)
        ]
        until(lambda: len(acceptors()) <= 5)
        assert send(mr_slice) == 0x0000
        assert not is_closed(patient)
        patient.send(wire.proposal())
        assert patient.hear(5)
        assert patient.answer.kinds == {"accepted": 1}
        for each in (patient._socket, *flood):
            each.close()
        until(lambda: acceptors() == [], 5)


@pytest.mark.parametrize("before", [b"", wire.proposal()], ids=["first", "accepted"])
def test_a_pdu_that_claims_to_be_4_gib_ends_its_connection(
    tmp_path: Path, ledger: Ledger, listening: Any, quick: bool, before: bytes
) -> None:
    with (
        listening(Spool(tmp_path / "spool"), ledger, quick_store=quick) as send,
        wire.Peer(send.settings.port, 20) as peer,
    ):
        peer.send(before)
        assert not before or peer.hear(5)
        peer.send(struct.pack(">BBL", wire.P_DATA, 0, 0xFFFFFFFF), bytes(100_000))
        until(lambda: is_closed(peer), 5)


def test_an_instance_that_does_not_end_is_not_kept(
    tmp_path: Path, ledger: Ledger, listening: Any, quick: bool
) -> None:
    spool = Spool(tmp_path / "spool")
    dataset = b"".join(header("1.2", "1.2.1", "1.2.1.1")) + PIXELS + bytes(300_000)
    changes = {"quick_store": quick, "largest_instance": 100_000}
    with (
        listening(spool, ledger, **changes) as send,
        wire.Peer(send.settings.port, 20) as peer,
    ):
        peer.send(wire.proposal())
        assert peer.hear(5)
        peer.send(*stored("1.2.1.1", dataset))
        assert peer.hear(5)
        said = set(peer.answer.kinds) - {"accepted"}

    assert said == ({"status 0xC000"} if quick else {"aborted"})
    assert [path for path in spool.root.rglob("*") if path.suffix in (".dcm", ".part")] == []


def test_of_an_instance_that_is_too_large_no_more_is_held_in_memory_than_is_allowed(
    tmp_path: Path, ledger: Ledger, listening: Any, quick: bool
) -> None:
    dataset = b"".join(header("1.2", "1.2.1", "1.2.1.1")) + PIXELS + bytes(HUGE_BYTES)
    pdus = stored("1.2.1.1", dataset)
    changes = {"quick_store": quick, "largest_instance": LARGEST_BYTES}
    with (
        listening(Spool(tmp_path / "spool"), ledger, **changes) as send,
        wire.Peer(send.settings.port, 20) as peer,
    ):
        peer.send(wire.proposal())
        assert peer.hear(5)
        tracemalloc.start()
        try:
            for pdu in pdus:
                peer.send(pdu)
            assert peer.hear(5)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peer.answer.kinds["status 0xC000" if quick else "aborted"] == 1
    assert peak < 2 * LARGEST_BYTES + OTHER_BYTES, f"{peak:,} bytes of {HUGE_BYTES:,}"


def test_a_request_for_commitment_that_does_not_end_is_not_kept(
    tmp_path: Path, ledger: Ledger, listening: Any, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorkeeper, "LARGEST_REPORT_BYTES", 100_000)
    asked = wire.command(wire.action_fields().items())
    with (
        listening(Spool(tmp_path / "spool"), ledger, quick_store=quick) as send,
        wire.Peer(send.settings.port, 20) as peer,
    ):
        peer.send(wire.proposal())
        assert peer.hear(5)
        peer.send(*messages(wire.COMMITTING, asked, bytes(300_000))[:-1])
        until(lambda: is_closed(peer), 5)
        assert peer.answer.kinds["aborted"] == 1


def test_requests_beyond_what_waits_for_an_answer_end_the_association(
    tmp_path: Path, ledger: Ledger, listening: Any, quick: bool, mr_slice: Dataset
) -> None:
    with (
        listening(Spool(tmp_path / "spool"), ledger, quick_store=quick) as send,
        wire.Peer(send.settings.port, 20) as peer,
    ):
        peer.send(wire.proposal())
        assert peer.hear(5)
        peer.send(b"".join(ECHO * 5000))
        until(lambda: is_closed(peer))
        assert peer.answer.kinds["status 0x0000"] < 5000
        assert send(mr_slice) == 0x0000


MALFORMED = (
    wire.store_fields("1.2.3") | {0x0800: b"odd"},  # no number
    {number: value for number, value in wire.echo_fields().items() if number != 0x0800},
    wire.echo_fields() | {0x0100: b"\x30\0\x30\0"},  # two of them
)


@pytest.mark.parametrize("fields", MALFORMED, ids=["no number", "missing", "two"])
def test_an_association_that_ends_over_a_malformed_command_is_noted_as_closed(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    quick: bool,
    fields: dict[int, bytes],
) -> None:
    dataset = b"".join(header("1.2", "1.2.1", "1.2.1.1")) + PIXELS
    with (
        listening(Spool(tmp_path / "spool"), ledger, quick_store=quick) as send,
        wire.Peer(send.settings.port, 20) as peer,
    ):
        peer.send(wire.proposal())
        assert peer.hear(5)
        peer.send(*stored("1.2.1.1", dataset))
        assert peer.hear(5)
        until(lambda: [each.open_associations for each in ledger.gathering()] == [1])
        peer.send(*messages(wire.ECHO, wire.command(fields.items()), None))
        until(lambda: is_closed(peer), 5)
        until(lambda: [each.open_associations for each in ledger.gathering()] == [0], 5)
        until(lambda: acceptors() == [], 5)


def test_a_proposal_that_cannot_be_negotiated_is_aborted_and_leaves_no_thread_behind(
    tmp_path: Path, ledger: Ledger, listening: Any, quick: bool, mr_slice: Dataset
) -> None:
    before = threading.active_count()
    with listening(Spool(tmp_path / "spool"), ledger, quick_store=quick) as send:
        with wire.Peer(send.settings.port, 20) as peer:
            peer.send(wire.proposal(contexts=[("1.2.3", [])]))  # unknown, and in no syntax
            assert peer.hear(5)
            until(lambda: is_closed(peer), 5)
            assert peer.answer.kinds == {"aborted": 1}
        assert send(mr_slice) == 0x0000
    until(lambda: threading.active_count() <= before, 5)


@pytest.mark.filterwarnings("ignore")
def test_a_uid_of_no_known_value_representation_is_refused(
    tmp_path: Path, ledger: Ledger, listening: Any, quick: bool
) -> None:
    parts = header("1.2", "1.2.1", "1.2.1.1")
    dataset = b"".join(parts).replace(b"\x0d\0UI", b"\x0d\0Ui") + PIXELS
    with (
        listening(Spool(tmp_path / "spool"), ledger, quick_store=quick) as send,
        wire.Peer(send.settings.port, 20) as peer,
    ):
        peer.send(wire.proposal())
        assert peer.hear(5)
        peer.send(*stored("1.2.1.1", dataset))
        assert peer.hear(5)
        assert peer.answer.kinds["status 0xC000"] == 1
