"""Several processes receive at one port, and none of them is missed when it dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

from listener.caller import call
from listener.entrance import open_ports
from listener.entries import Received
from listener.errors import CannotListen
from listener.ledger import Ledger, process_name
from listener.node import Node
from listener.receivers import Receivers
from listener.remote import Entity
from listener.series import InstanceKey
from listener.settings import ListenerSettings
from listener.spool import Arrival, Held, Spool
from listener.turned_away import Reason, Service, TurnedAway
from tests.fuzz.wire import Peer, proposal


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@contextmanager
def receiving(settings: ListenerSettings) -> Iterator[Receivers]:
    receivers = Receivers(settings, open_ports(settings), TurnedAway(settings.receivers))
    try:
        yield receivers
    finally:
        receivers.stop()


def associate(settings: ListenerSettings, *datasets: Dataset) -> Any:
    entity = AE(ae_title="SENDER")
    entity.add_requested_context("1.2.840.10008.1.1")
    for dataset in datasets:
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    return call(
        entity, Entity(ae_title=settings.ae_title, host="127.0.0.1", port=settings.port), None
    )


def until_all_serve(settings: ListenerSettings, receivers: Receivers) -> None:
    """Wait until each process has accepted an association."""
    opened = []
    while min(receivers.served) == 0:
        opened.append(associate(settings))
        assert len(opened) < 50, "one of the receivers accepts nothing"
        time.sleep(0.1)
    for association in opened:
        association.release()
    until(lambda: sum(receivers.served) == 0)


def test_associations_are_shared_out_and_all_rows_are_written_before_the_end(
    settings_for: Any, an_mr_slice: Callable[..., Dataset]
) -> None:
    settings = settings_for(receivers=2)
    slices = [an_mr_slice(study="1.2.3") for _ in range(6)]
    with receiving(settings) as receivers:
        until_all_serve(settings, receivers)
        associations = [associate(settings, each) for each in slices]
        assert all(each.is_established for each in associations)
        until(lambda: sum(receivers.served) == len(associations))
        assert min(receivers.served) >= 2
        for association, dataset in zip(associations, slices, strict=True):
            assert association.send_c_store(dataset).Status == 0
            association.release()

    ledger = Ledger(settings.ledger_url)
    recorded = {row.sop_uid for row in ledger.instances_of("1.2.3")}
    ledger.close()
    assert recorded == {each.SOPInstanceUID for each in slices}


def test_connections_that_come_at_the_same_moment_are_shared_out_evenly(settings_for: Any) -> None:
    settings = settings_for(receivers=2)
    shares = []
    with receiving(settings) as receivers:
        until_all_serve(settings, receivers)
        for _ in range(5):
            with ExitStack() as stack:
                peers = [stack.enter_context(Peer(settings.port, 20)) for _ in range(8)]
                assert all(each.send(proposal()) and each.hear(20) for each in peers)
                until(lambda: sum(receivers.served) == 8)
                shares.append(tuple(receivers.served))
            until(lambda: sum(receivers.served) == 0)
    # A receiver that the machine lets wait may be too late once.
    assert shares.count((4, 4)) >= 4, shares


def test_a_file_that_rotted_is_healed_by_sending_it_again(
    settings_for: Any, an_mr_slice: Callable[..., Dataset]
) -> None:
    settings = settings_for(receivers=1)
    dataset = an_mr_slice(study="1.2.3")
    Spool(settings.spool)  # the ledger lies in it
    ledger = Ledger(settings.ledger_url)
    with receiving(settings):

        def send() -> None:
            association = associate(settings, dataset)
            assert association.send_c_store(dataset).Status == 0
            association.release()

        send()
        until(lambda: ledger.known("1.2.3"))
        (path,) = ledger.known("1.2.3")
        sound = path.read_bytes()
        path.write_bytes(sound[:-1] + b"!")
        send()
        assert path.read_bytes() == sound

    assert [row.state for row in ledger.instances_of("1.2.3")] == ["waiting"]
    ledger.close()


def test_no_more_associations_are_served_than_the_settings_allow_all_processes(
    settings_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(receivers=2, max_associations=2)
    with receiving(settings) as receivers:
        first, second = associate(settings), associate(settings)
        until(lambda: sum(receivers.served) == 2)
        third = associate(settings)
        assert (first.is_established, second.is_established) == (True, True)
        assert third.is_rejected
        first.release()
        until(lambda: sum(receivers.served) == 1)
        fourth = associate(settings)
        assert fourth.is_established
        for each in (second, fourth):
            each.release()


def test_a_receiver_that_died_is_replaced_and_its_rows_come_from_the_spool(
    settings_for: Any, an_mr_slice: Callable[..., Dataset]
) -> None:
    settings = settings_for(receivers=1, poll_seconds=0.1)
    before, after = an_mr_slice(study="1.2.3"), an_mr_slice(study="1.2.3")
    with Node(settings) as node:
        association = associate(settings, before)
        assert association.send_c_store(before).Status == 0
        (dead,) = node.receivers.pids
        os.kill(dead, signal.SIGKILL)  # its recorder has not written the row yet
        until(lambda: node.receivers.pids != [dead])
        until(lambda: len(node.ledger.instances_of("1.2.3")) == 1)
        again = associate(settings, after)
        assert again.send_c_store(after).Status == 0
        again.release()
        until(lambda: len(node.ledger.instances_of("1.2.3")) == 2)
        until(lambda: [each.open_associations for each in node.ledger.gathering()] == [0])


def test_what_each_process_turned_away_is_added_up_and_outlives_the_process(
    settings_for: Any,
) -> None:
    settings = settings_for(
        receivers=2, open_node=False, poll_seconds=0.1, peers=[{"ae_title": "OTHER"}]
    )
    kind = ("association", Service.DIMSE, Reason.UNKNOWN)
    with Node(settings) as node:
        turned_away = node.turned_away

        def rejected_by_each() -> bool:
            assert associate(settings).is_rejected
            return all(turned_away.of_process(number)[kind] >= 2 for number in range(2))

        until(rejected_by_each)
        before = turned_away.totals[kind]
        assert before == sum(turned_away.of_process(number)[kind] for number in range(3))
        died = node.receivers.pids
        for pid in died:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not set(node.receivers.pids) & set(died))
        assert turned_away.totals[kind] == before
        until(lambda: associate(settings).is_rejected)
        until(lambda: turned_away.totals[kind] > before)


@pytest.fixture
def outliving() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a receiver whose listener was killed."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_receiver_that_outlives_its_killed_listener_for_a_while_holds_no_study_up(
    settings_for: Any, monkeypatch: pytest.MonkeyPatch, outliving: subprocess.Popen[bytes]
) -> None:
    """Its last write may be slow; meanwhile the next listener starts and finds it alive."""
    settings = settings_for(receivers=1, poll_seconds=0.1)
    key = InstanceKey("1", "1.1", "1.1.1")
    settings.spool.mkdir()
    held = Held(key, settings.spool / "study", "f" * 64, 1, Arrival.NEW, 1000.0)
    with closing(Ledger(settings.ledger_url)) as ledger, monkeypatch.context() as earlier:
        its_name = process_name(outliving.pid)
        earlier.setattr("listener.ledger.reception.this_process", lambda: its_name)
        ledger.record([Received(held, "cut off", time.time())])
    with Node(settings) as node:
        assert [each.open_associations for each in node.ledger.gathering()] == [1]
        outliving.kill()
        outliving.wait()
        until(lambda: [each.open_associations for each in node.ledger.gathering()] == [0])


def test_receivers_end_when_their_listener_is_killed(settings_for: Any) -> None:
    settings = settings_for(receivers=2)
    destination = settings.destinations[0].model_dump_json()
    listener = subprocess.Popen(
        [sys.executable, "-m", "listener", "serve"],
        env={
            **os.environ,
            "MONRO_SPOOL": str(settings.spool),
            "MONRO_BROKER": settings.broker,
            "MONRO_SITE": settings.site,
            "MONRO_PORT": str(settings.port),
            "MONRO_OPEN_NODE": "true",
            "MONRO_RECEIVERS": "2",
            "MONRO_DESTINATIONS": f"[{destination}]",
        },
        stderr=subprocess.DEVNULL,
    )
    until(lambda: associate(settings).is_established)
    listener.kill()
    listener.wait()

    def is_free() -> bool:
        try:
            for port in open_ports(settings):
                port.socket.close()
        except CannotListen:
            return False
        return True

    until(is_free)
