"""Delivery by STOW-RS to a real HTTP service, whatever it answers."""

import json
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import select

from listener.delivery import Courier
from listener.dicomweb.multipart import media_type, parts
from listener.entries import Result
from listener.knock import answers
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import deliveries as deliveries_table
from tests.listener.dicomweb.conftest import Web
from tests.listener.dicomweb.service import Asked, Reply, Service, element, stored


def sent_in(asked: Asked) -> bytes:
    _kind, options = media_type(asked.headers["content-type"])
    (sent,) = [b"".join(each) for _, each in parts([asked.body], options["boundary"].encode())]
    return sent


class Pacs:
    """A service that answers each instance as it is told to, and notes what it was sent."""

    def __init__(self, answer: Callable[[str, str], Reply]) -> None:
        self._answer = answer
        self.service = Service(self._on_store)
        self.seen: list[str] = []

    def _on_store(self, asked: Asked) -> Reply:
        assert (asked.method, asked.path) == ("POST", "/dicom-web/studies")
        came = dcmread(BytesIO(sent_in(asked)))
        self.seen.append(str(came.SOPInstanceUID))
        return self._answer(str(came.SOPInstanceUID), str(came.SOPClassUID))


@pytest.fixture
def courier(
    ledger: Ledger, settings_for: Callable[..., ListenerSettings], free_port: int
) -> Courier:
    pacs = {"name": "pacs", "url": f"http://127.0.0.1:{free_port}/dicom-web"}
    settings = settings_for(
        destinations=[pacs], retry_first_seconds=0.01, retry_cap_seconds=0.02,
        association_timeout_seconds=2,
    )  # fmt: skip
    return Courier(settings.destinations[0], settings, ledger)


def deliver(courier: Courier, port: int, pacs: Pacs, rounds: int = 2) -> list[str]:
    with pacs.service.open(port):
        for _ in range(rounds):
            courier.deliver_due()
            time.sleep(0.05)
    return pacs.seen


def states(ledger: Ledger) -> dict[str, int]:
    return ledger.counts()["deliveries"]


def deliveries(ledger: Ledger) -> list[dict[str, Any]]:
    known = ledger.study("1")
    assert known is not None
    rows: list[dict[str, Any]] = known["deliveries"]
    return rows


def sent_as(ledger: Ledger) -> set[str]:
    with ledger.reading() as connection:
        return set(connection.scalars(select(deliveries_table.c.sent_as)))


def keeping(uid: str, _sop_class: str) -> Reply:
    return stored(200, {}, uid)


def failing(reason: int, status: int = 409) -> Callable[[str, str], Reply]:
    return lambda uid, _sop_class: stored(status, {uid: reason})


def test_the_report_follows_once_the_overlay_was_acknowledged(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int
) -> None:
    overlay, report, _ = outbox
    pacs = Pacs(keeping)
    assert deliver(courier, free_port, pacs, rounds=1) == [overlay.sop_uid]
    assert deliver(courier, free_port, pacs, rounds=1) == [overlay.sop_uid, report.sop_uid]

    assert states(ledger) == {"SENT": 2}
    assert sent_as(ledger) == {overlay.sop_uid, report.sop_uid}


def test_the_bytes_that_were_kept_are_the_bytes_that_are_sent(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int
) -> None:
    pacs = Pacs(keeping)
    deliver(courier, free_port, pacs)

    for result, asked in zip(outbox[:2], pacs.service.asked, strict=True):
        assert sent_in(asked) == result.path.read_bytes()


def test_a_destination_that_knows_no_3d_report_gets_the_enhanced_one(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int
) -> None:
    overlay, report, enhanced = outbox

    def answer(uid: str, sop_class: str) -> Reply:
        return stored(409, {uid: 0x0122}) if sop_class == report.sop_class else keeping(uid, "")

    seen = deliver(courier, free_port, Pacs(answer))

    assert seen == [overlay.sop_uid, report.sop_uid, enhanced.sop_uid]
    assert states(ledger) == {"SENT": 2}
    assert sent_as(ledger) == {overlay.sop_uid, enhanced.sop_uid}


def test_a_class_that_the_destination_does_not_know_at_all_is_parked_by_name(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int
) -> None:
    deliver(courier, free_port, Pacs(failing(0x0122)))

    assert states(ledger) == {"PARKED": 1, "PENDING": 1}
    assert outbox[0].sop_class in deliveries(ledger)[0]["message"]


@pytest.mark.parametrize("reason", [0xB000, 0xB006, 0xB007])
def test_a_warning_counts_as_stored(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int, reason: int
) -> None:
    def answer(uid: str, _sop_class: str) -> Reply:
        item = {"00081155": element("UI", uid), "00081196": element("US", reason)}
        body = json.dumps({"00081199": element("SQ", item)})
        return Reply(202, body.encode(), {"Content-Type": "application/dicom+json"})

    deliver(courier, free_port, Pacs(answer))
    assert states(ledger) == {"SENT": 2}
    assert {row["message"] for row in deliveries(ledger)} == {f"0x{reason:04X} Warning"}


def test_a_duplicate_of_ours_counts_as_stored(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int
) -> None:
    deliver(courier, free_port, Pacs(failing(0x0111)))
    assert states(ledger) == {"SENT": 2}


@pytest.mark.parametrize("reason", [0xA700, 0x0110])
def test_a_temporary_failure_is_tried_again(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int, reason: int
) -> None:
    seen = deliver(courier, free_port, Pacs(failing(reason)))

    assert seen == [outbox[0].sop_uid] * 2
    assert states(ledger) == {"PENDING": 2}


@pytest.mark.parametrize("reason", [0xA900, 0xC000, 0xC122])
def test_a_permanent_rejection_parks_the_result_and_holds_the_report_back(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int, reason: int
) -> None:
    seen = deliver(courier, free_port, Pacs(failing(reason)))

    assert seen == [outbox[0].sop_uid]
    assert states(ledger) == {"PARKED": 1, "PENDING": 1}
    assert f"0x{reason:04X}" in deliveries(ledger)[0]["message"]


@pytest.mark.parametrize("status", [400, 409, 413, 415])
def test_what_http_refuses_of_the_object_parks_it(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int, status: int
) -> None:
    deliver(courier, free_port, Pacs(lambda *_: Reply(status)))

    assert states(ledger) == {"PARKED": 1, "PENDING": 1}
    assert f"HTTP {status}" in deliveries(ledger)[0]["message"]


@pytest.mark.parametrize("status", [301, 401, 403, 404, 429, 500, 502, 503])
def test_what_is_wrong_with_the_service_or_our_rights_is_waited_out(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int, status: int
) -> None:
    seen = deliver(courier, free_port, Pacs(lambda *_: Reply(status)))

    assert len(seen) == 2
    assert states(ledger) == {"PENDING": 2}
    assert f"HTTP {status}" in deliveries(ledger)[0]["message"]
    deliver(courier, free_port, Pacs(keeping))
    assert states(ledger) == {"SENT": 2}


def test_an_answer_that_does_not_tell_of_the_object_is_no_success(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int
) -> None:
    deliver(courier, free_port, Pacs(lambda *_: stored(202, {}, "1.2.3")))
    assert states(ledger) == {"PENDING": 2}


def test_nobody_there_is_no_reason_to_give_up(
    ledger: Ledger, outbox: list[Result], courier: Courier, free_port: int
) -> None:
    for _ in range(3):
        courier.deliver_due()
        time.sleep(0.05)
    assert states(ledger) == {"PENDING": 2}
    deliver(courier, free_port, Pacs(keeping))
    assert states(ledger) == {"SENT": 2}


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about an empty file
@pytest.mark.parametrize("kept_bytes", [0, 140, 200])
def test_a_damaged_result_waits_with_a_note_and_the_next_job_is_delivered(
    ledger: Ledger, outbox: list[Result], next_outbox: Result, courier: Courier, free_port: int,
    kept_bytes: int,
) -> None:  # fmt: skip
    damaged = outbox[0]
    damaged.path.write_bytes(damaged.path.read_bytes()[:kept_bytes])

    assert deliver(courier, free_port, Pacs(keeping), rounds=1) == [next_outbox.sop_uid]
    assert "cannot be read" in deliveries(ledger)[0]["message"]


def test_one_monro_delivers_to_another(
    ledger: Ledger, outbox: list[Result], web: Web, spool: Spool,
    settings_for: Callable[..., ListenerSettings],
) -> None:  # fmt: skip
    settings = settings_for(destinations=[{"name": "pacs", "url": web.url}])
    courier = Courier(settings.destinations[0], settings, ledger)
    courier.deliver_due()
    courier.deliver_due()

    assert states(ledger) == {"SENT": 2}
    kept = {key.sop_uid: path for key, path in spool.received()}
    for result in outbox[:2]:
        assert kept[result.sop_uid].read_bytes() == result.path.read_bytes()


def test_whether_a_destination_answers_is_asked_without_sending(
    settings_for: Callable[..., ListenerSettings],
) -> None:
    for status, expected in ((200, True), (204, True), (404, True), (401, False), (503, False)):
        service = Service(lambda _asked, status=status: Reply(status, b"[]"))
        with service.open():
            settings = settings_for(destinations=[{"name": "pacs", "url": service.url}])
            assert answers(settings.destinations[0], settings) is expected
        assert [asked.method for asked in service.asked] == ["GET"]
    assert answers(settings.destinations[0], settings) is False
