"""Delivery to a real Storage SCP on loopback, whatever it answers."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt

from listener.delivery import Courier
from listener.entries import Pending, Result
from listener.ledger import Ledger
from listener.settings import ListenerSettings

CLASSES = (SecondaryCaptureImageStorage, Comprehensive3DSRStorage, EnhancedSRStorage)


@contextmanager
def destination(
    port: int, status: int = 0x0000, classes: Sequence[str] = CLASSES
) -> Iterator[list[str]]:
    """A PACS that answers everything with `status`; yields the UIDs that it was sent."""
    seen: list[str] = []

    def on_store(event: evt.Event) -> int:
        seen.append(str(event.request.AffectedSOPInstanceUID))  # type: ignore[union-attr]
        return status

    entity = AE(ae_title="PACS")
    for sop_class in classes:
        entity.add_supported_context(sop_class)
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]
    )
    assert server is not None
    try:
        yield seen
    finally:
        server.shutdown()


@pytest.fixture
def courier(ledger: Ledger, settings_for: Callable[..., ListenerSettings]) -> Courier:
    settings = settings_for(retry_first_seconds=0.01, retry_cap_seconds=0.02)
    return Courier(settings.destinations[0], settings, ledger)


def port_of(courier: Courier) -> int:
    return courier._destination.port


def states(ledger: Ledger) -> dict[str, int]:
    return ledger.counts()["deliveries"]


def test_the_report_follows_once_the_overlay_was_acknowledged(
    ledger: Ledger, outbox: list[Result], courier: Courier
) -> None:
    overlay, report, _ = outbox
    with destination(port_of(courier)) as seen:
        courier.deliver_due()
        assert seen == [overlay.sop_uid]
        courier.deliver_due()

    assert seen == [overlay.sop_uid, report.sop_uid]
    assert states(ledger) == {"SENT": 2}


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111])
def test_a_warning_counts_as_stored_and_so_does_a_duplicate_of_ours(
    ledger: Ledger, outbox: list[Result], courier: Courier, status: int
) -> None:
    with destination(port_of(courier), status=status):
        courier.deliver_due()

    assert states(ledger) == {"PENDING": 1, "SENT": 1}


@pytest.mark.parametrize("status", [0xA700, 0x0110, 0x0210])
def test_a_temporary_failure_is_tried_again(
    ledger: Ledger, outbox: list[Result], courier: Courier, status: int
) -> None:
    with destination(port_of(courier), status=status) as seen:
        courier.deliver_due()
        time.sleep(0.05)
        courier.deliver_due()

    assert seen == [outbox[0].sop_uid] * 2
    assert states(ledger) == {"PENDING": 2}


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0122])
def test_a_permanent_rejection_parks_the_result_and_holds_the_report_back(
    ledger: Ledger, outbox: list[Result], courier: Courier, status: int
) -> None:
    with destination(port_of(courier), status=status) as seen:
        courier.deliver_due()
        courier.deliver_due()

    assert seen == [outbox[0].sop_uid]
    assert states(ledger) == {"PARKED": 1, "PENDING": 1}
    known = ledger.study("1")
    assert known is not None
    assert f"0x{status:04X}" in known["deliveries"][0]["message"]


def test_a_destination_that_knows_no_3d_report_gets_the_enhanced_one(
    ledger: Ledger, outbox: list[Result], courier: Courier
) -> None:
    overlay, _, enhanced = outbox
    classes = (SecondaryCaptureImageStorage, EnhancedSRStorage)
    with destination(port_of(courier), classes=classes) as seen:
        courier.deliver_due()
        courier.deliver_due()

    assert seen == [overlay.sop_uid, enhanced.sop_uid]


def test_a_class_that_the_destination_does_not_know_at_all_is_parked_by_name(
    ledger: Ledger, outbox: list[Result], courier: Courier
) -> None:
    with destination(port_of(courier), classes=(EnhancedSRStorage, Comprehensive3DSRStorage)):
        courier.deliver_due()

    known = ledger.study("1")
    assert known is not None
    assert SecondaryCaptureImageStorage in known["deliveries"][0]["message"]
    assert states(ledger) == {"PARKED": 1, "PENDING": 1}


def test_nobody_there_is_no_reason_to_give_up(
    ledger: Ledger, outbox: list[Result], courier: Courier
) -> None:
    for _ in range(3):
        courier.deliver_due()
        time.sleep(0.05)
    with destination(port_of(courier)):
        courier.deliver_due()
        courier.deliver_due()

    assert states(ledger) == {"SENT": 2}


def test_a_host_name_that_does_not_resolve_is_no_reason_to_give_up(
    ledger: Ledger, outbox: list[Result], settings_for: Callable[..., ListenerSettings]
) -> None:
    nowhere = {"name": "pacs", "ae_title": "PACS", "host": "pacs.invalid", "port": 104}
    settings = settings_for(destinations=[nowhere])
    Courier(settings.destinations[0], settings, ledger).deliver_due()

    known = ledger.study("1")
    assert known is not None
    assert known["deliveries"][0]["message"] == "the destination does not answer"
    assert states(ledger) == {"PENDING": 2}


@pytest.mark.parametrize("names", [["pacs", "research"]], indirect=True)
def test_a_second_destination_is_not_held_up_by_the_first(
    ledger: Ledger,
    outbox: list[Result],
    courier: Courier,
    settings_for: Callable[..., ListenerSettings],
) -> None:
    research = {
        "name": "research",
        "ae_title": "PACS",
        "host": "127.0.0.1",
        "port": port_of(courier),
    }
    other = settings_for(destinations=[research])
    with destination(port_of(courier), status=0xA700):
        courier.deliver_due()
    with destination(port_of(courier)) as seen:
        second = Courier(other.destinations[0], other, ledger)
        second.deliver_due()
        second.deliver_due()

    assert len(seen) == 2
    assert states(ledger) == {"PENDING": 2, "SENT": 2}


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about an empty file
@pytest.mark.parametrize("kept_bytes", [0, 140, 200])
def test_a_damaged_result_waits_with_a_note_and_the_next_job_is_delivered(
    ledger: Ledger, outbox: list[Result], next_outbox: Result, courier: Courier, kept_bytes: int
) -> None:
    damaged = outbox[0]
    damaged.path.write_bytes(damaged.path.read_bytes()[:kept_bytes])
    with destination(port_of(courier)) as seen:
        courier.deliver_due()

    assert seen == [next_outbox.sop_uid]
    known = ledger.study("1")
    assert known is not None
    assert "cannot be read" in known["deliveries"][0]["message"]
    assert states(ledger) == {"PENDING": 2, "SENT": 1}


def test_what_nobody_foresaw_of_one_job_does_not_hold_up_the_next(
    ledger: Ledger,
    outbox: list[Result],
    next_outbox: Result,
    courier: Courier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deliver = courier._deliver

    def stumble(of_job: Sequence[Pending]) -> None:
        if of_job[0].study_uid == "1":
            raise KeyError("unforeseen")
        deliver(of_job)

    monkeypatch.setattr(courier, "_deliver", stumble)
    with destination(port_of(courier)) as seen:
        courier.deliver_due()

    assert seen == [next_outbox.sop_uid]
    known = ledger.study("1")
    assert known is not None
    assert "KeyError" in known["deliveries"][0]["message"]


def test_who_loses_the_watch_hands_nothing_more_over(
    ledger: Ledger, outbox: list[Result], settings_for: Callable[..., ListenerSettings]
) -> None:
    overlay, _report, _ = outbox
    settings = settings_for()
    still_ours = iter([True, True, False])
    courier = Courier(
        settings.destinations[0], settings, ledger, on_duty=lambda: next(still_ours, False)
    )
    with destination(port_of(courier)) as seen:
        courier.deliver_due()
        courier.deliver_due()

    assert seen == [overlay.sop_uid]
    assert states(ledger) == {"PENDING": 1, "SENT": 1}
