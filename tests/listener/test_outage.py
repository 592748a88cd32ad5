"""A PACS that is away for days: everything waits, nothing is judged twice, all of it arrives."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from listener.confirmation import STORAGE_COMMITMENT, DimseConfirmer
from listener.delivery import Courier
from listener.ledger import Ledger
from listener.node import steward
from listener.retention import purge
from listener.spool import Spool
from tests.listener.archive import Archive
from tests.listener.conftest import a_result, dispatcher, keep

DAYS = 2
HOUR = 3600.0
STUDIES_A_DAY = 2


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_days_without_a_pacs_are_made_up_for_without_a_second_inference(
    tmp_path: Path,
    broker: redis.Redis,
    settings_for: Any,
    an_mr_slice: Callable[..., Dataset],
) -> None:
    clock = Clock()
    settings = settings_for(keep_days=1, retry_cap_seconds=HOUR, confirm_first_seconds=1)
    spool = Spool(settings.spool)
    ledger = Ledger(settings.ledger_url, clock)
    ledger.set_destinations(["pacs"])
    bell = dispatcher(broker, ledger, settings.resend_seconds)
    courier = Courier(settings.destinations[0], settings, ledger)
    confirmer = DimseConfirmer(settings.destinations[0], settings, ledger)
    jobs: dict[str, tuple[str, str]] = {}

    def an_hour_passes() -> None:
        clock.now += HOUR
        steward(ledger, bell, settings)
        courier.deliver_due()
        confirmer.confirm_due()
        assert purge(spool, ledger, settings) == []

    for _day in range(DAYS):
        for _ in range(STUDIES_A_DAY):
            overlay = a_result(tmp_path, an_mr_slice(), SecondaryCaptureImageStorage, "overlay", 1)
            report = a_result(tmp_path, an_mr_slice(), Comprehensive3DSRStorage, "report", 2)
            study_uid = f"1.2.{len(jobs) + 1}"
            keep(ledger, tmp_path, study_uid, overlay, report)
            jobs[study_uid] = (overlay.sop_uid, report.sop_uid)
        for _hour in range(24):
            an_hour_passes()
    assert ledger.counts()["deliveries"] == {"PENDING": 2 * len(jobs)}
    attempts = [row["attempts"] for uid in jobs for row in known(ledger, uid)["deliveries"]]
    assert max(attempts) <= DAYS * 24 + 20  # a pause that grows to an hour: no hammering

    archive = Archive(settings.destinations[0].port, (STORAGE_COMMITMENT,))
    with archive.open():
        for _ in range(4):
            clock.now += HOUR
            steward(ledger, bell, settings)
            courier.deliver_due()
            confirmer.confirm_due()

    assert ledger.counts()["deliveries"] == {"CONFIRMED": 2 * len(jobs)}
    assert Counter(archive.stored) == Counter(uid for of_job in jobs.values() for uid in of_job)
    for overlay_uid, report_uid in jobs.values():
        assert archive.stored.index(overlay_uid) < archive.stored.index(report_uid)
    for uid in jobs:
        assert [(job["state"], job["attempts"]) for job in known(ledger, uid)["jobs"]] == [
            ("REPORTED", 1)
        ]
    assert broker.keys() == []  # no worker was ever called
    ledger.close()


def known(ledger: Ledger, study_uid: str) -> Any:
    """What the ledger knows of a study."""
    found = ledger.study(study_uid)
    assert found is not None
    return found
