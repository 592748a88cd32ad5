"""The answer goes to who asked, also where a busy machine stops threads at the worst moment."""

import threading
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.sop_class import MRImageStorage

from listener.caller import call, caller
from listener.checkpoint import Checkpoint
from listener.remote import Entity

SUCCESS = 0x0000
PATIENCE_SECONDS = 2.0

# An answer takes less than the reactor's stop, and that less than the sender's.
REACTOR_STOPPED_SECONDS = 0.1
SENDER_STOPPED_SECONDS = 0.2


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactor is stopped having passed the checkpoint, the sender before it awaits an answer.

    So it is with fewer processors than threads that have something to do.
    """
    wait, send = Event.wait, DIMSEServiceProvider.send_msg

    def wait_and_be_stopped(self: Event, timeout: float | None = None) -> bool:
        done = wait(self, timeout)
        if threading.current_thread().name.startswith("RequestorThread"):
            time.sleep(REACTOR_STOPPED_SECONDS)
        return done

    def send_and_be_stopped(self: DIMSEServiceProvider, primitive: Any, context_id: int) -> None:
        send(self, primitive, context_id)
        if threading.current_thread() is threading.main_thread():
            time.sleep(SENDER_STOPPED_SECONDS)

    monkeypatch.setattr(Event, "wait", wait_and_be_stopped)
    monkeypatch.setattr(DIMSEServiceProvider, "send_msg", send_and_be_stopped)


@pytest.fixture
def archive(free_port: int) -> Iterator[Entity]:
    """Takes every instance."""
    entity = AE(ae_title="ARCHIVE")
    entity.add_supported_context(MRImageStorage)
    handlers = [(evt.EVT_C_STORE, lambda _event: SUCCESS)]
    server = entity.start_server(("127.0.0.1", free_port), block=False, evt_handlers=handlers)
    yield Entity(ae_title="ARCHIVE", host="127.0.0.1", port=free_port)
    server.shutdown()


def stores(association: Association, slices: list[Dataset]) -> list[int | None]:
    """The answer to each, until there is none."""
    found: list[int | None] = []
    while slices and None not in found:
        found.append(association.send_c_store(slices.pop()).get("Status"))
    return found


def test_every_answer_reaches_the_sender(
    busy: None, archive: Entity, an_mr_slice: Callable[..., Dataset]
) -> None:
    ours = caller("MONRO", PATIENCE_SECONDS)
    ours.add_requested_context(MRImageStorage, an_mr_slice().file_meta.TransferSyntaxUID)
    association = call(ours, archive, None)
    try:
        found = stores(association, [an_mr_slice() for _ in range(5)])
    finally:
        association.release()
    assert found == [SUCCESS] * 5
    assert association.is_released


def test_pynetdicom_by_itself_loses_an_answer(
    busy: None, archive: Entity, an_mr_slice: Callable[..., Dataset]
) -> None:
    # If this fails, pynetdicom was mended, and listener/checkpoint.py may go.
    ours = caller("MONRO", PATIENCE_SECONDS)
    ours.add_requested_context(MRImageStorage, an_mr_slice().file_meta.TransferSyntaxUID)
    association = ours.associate(archive.host, archive.port, ae_title=archive.ae_title)
    # Before the first one the reactor has only just begun.
    assert None in stores(association, [an_mr_slice() for _ in range(2)])
    assert association.is_aborted


def test_an_open_checkpoint_is_passed_and_a_closed_one_is_not() -> None:
    association: Any = type("Reactor", (), {"_is_paused": True})()
    checkpoint = Checkpoint(association)
    assert checkpoint.wait()
    assert not association._is_paused
    association._is_paused = True
    checkpoint.clear()
    assert not checkpoint.wait(timeout=0.01)
    assert association._is_paused, "who waits is stopped"
