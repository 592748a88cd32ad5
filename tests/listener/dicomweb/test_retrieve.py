"""What a service hands over is refused instance by instance, and not read without an end."""

import random
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest

from listener.dicomweb.client import InstanceListed
from listener.errors import SourceFailed
from listener.ledger import Ledger
from listener.recorder import Recorder
from listener.remote import WebSource
from listener.retrieval import fetch
from listener.settings import ListenerSettings
from listener.spool import Spool
from tests.fuzz import requests, services, wire
from tests.fuzz.services import EDGE, instance_of, reply
from tests.fuzz.source import Answer, Asked, Held, Play

HELD = Held.of(random.Random(0))
LARGEST_BYTES = 1 << 20


@pytest.fixture
def settings(settings_for: Any) -> ListenerSettings:
    made: ListenerSettings = settings_for(
        association_timeout_seconds=1.5, largest_instance=LARGEST_BYTES
    )
    return made


def fetched(answer: Answer, port: int, settings: ListenerSettings, ledger: Ledger) -> list[str]:
    """Instances that are kept of what a service answers."""
    service = services.Service("pacs", port)
    service.play = Play("", services.KIND, "files", answer, HELD)
    source = WebSource(name="pacs", url=f"http://127.0.0.1:{port}/dicom-web")
    wanted = [InstanceListed(HELD.series, HELD.offered, wire.MR_IMAGE, "MR")]
    spool, recorder = Spool(settings.spool), Recorder(ledger)
    try:
        with service.open():
            fetch(source, settings, HELD.study, wanted, spool, recorder)
    finally:
        recorder.close()
    assert list((settings.spool / "incoming").iterdir()) == []
    return [key.sop_uid for key, _path in spool.received()]


def test_an_instance_that_has_no_end_is_not_read_on(
    free_port: int, settings: ListenerSettings, ledger: Ledger
) -> None:
    def answer(_asked: Asked, held: Held) -> Iterator[bytes]:
        yield reply(requests.part(requests.file(instance_of(held)))[:-2], EDGE, length=None)
        yield from repeat(bytes(1 << 16))

    with pytest.raises(SourceFailed, match=f"instance of more than {2 * LARGEST_BYTES:,} bytes"):
        fetched(answer, free_port, settings, ledger)


def test_one_that_is_too_large_does_not_hold_up_the_next(
    free_port: int, settings: ListenerSettings, ledger: Ledger
) -> None:
    def answer(_asked: Asked, held: Held) -> Iterator[bytes]:
        sound = requests.file(instance_of(held))
        large = requests.part(sound + bytes(LARGEST_BYTES + 1))
        yield reply(requests.body(large, requests.part(sound)), EDGE)

    assert fetched(answer, free_port, settings, ledger) == [HELD.offered]
