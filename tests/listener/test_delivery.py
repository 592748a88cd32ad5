"""Delivery to a real Storage SCP on loopback, whatever it answers."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE, evt

from listener.delivery import Courier
from listener.entries import Answer, BundleRow, Pending, Plan, Received, Result
from listener.ledger import Ledger
from listener.series import InstanceKey
from listener.settings import ListenerSettings
from listener.spool import Arrival, Held

CLASSES = (SecondaryCaptureImageStorage, Comprehensive3DSRStorage, EnhancedSRStorage)
BUNDLE = BundleRow("fistula", "demo", "1.0.0", "a" * 64)


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
def names(request: pytest.FixtureRequest) -> list[str]:
    """The destinations that results go to."""
    return getattr(request, "param", ["pacs"])


@pytest.fixture
def outbox(
    tmp_path: Path, ledger: Ledger, an_mr_slice: Callable[..., Dataset], names: list[str]
) -> list[Result]:
    """The results of one job: an overlay and a report in two encodings."""
    ledger.set_destinations(names)
    overlay = a_result(tmp_path, an_mr_slice(), SecondaryCaptureImageStorage, "overlay", 1)
    report = a_result(tmp_path, an_mr_slice(), Comprehensive3DSRStorage, "report", 2)
    other = a_result(
        tmp_path, an_mr_slice(), EnhancedSRStorage, "report-enhanced", 2, report.sop_uid
    )
    keep(ledger, tmp_path, "1", overlay, report, other)
    return [overlay, report, other]


@pytest.fixture
def next_outbox(
    tmp_path: Path, ledger: Ledger, outbox: list[Result], an_mr_slice: Callable[..., Dataset]
) -> Result:
    """The one result of a job that was finished after `outbox`."""
    result = a_result(tmp_path, an_mr_slice(), Comprehensive3DSRStorage, "next", 1)
    keep(ledger, tmp_path, "2", result)
    return result


def keep(ledger: Ledger, folder: Path, study_uid: str, *found: Result) -> None:
    """Take a study as far as a job that found this."""
    key = InstanceKey(study_uid, f"{study_uid}.1", f"{study_uid}.1.1")
    held = Held(key, folder, "f" * 64, 1, Arrival.NEW, 1000.0)
    ledger.record([Received(held, None, time.time())])
    (study,) = ledger.gathering()
    ledger.complete(study, "quiet")
    plan = Plan("fistula", key.series_uid, tuple(ledger.instances_of(study_uid)))
    (job_id,) = ledger.plan(study_uid, 1, [(plan, BUNDLE)], {})
    with ledger.lease(job_id, "worker", 60, {BUNDLE.edition}) as lease:
        assert lease is not None
        ledger.keep(lease.job, Answer("REPORTED", found=found))


def a_result(
    folder: Path,
    dataset: Dataset,
    sop_class: str,
    kind: str,
    phase: int,
    alternative_of: str | None = None,
) -> Result:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    path = folder / f"{kind}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return Result(
        sop_uid=str(dataset.SOPInstanceUID),
        series_uid=str(generate_uid()),
        sop_class=sop_class,
        kind=kind,
        number=0,
        phase=phase,
        path=path,
        alternative_of=alternative_of,
    )


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
