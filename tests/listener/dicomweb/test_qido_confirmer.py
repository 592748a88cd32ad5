"""What a DICOMweb service kept is seen by QIDO-RS, and what it lost is sent again."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from listener.confirmation import MISSES_BEFORE_RESENDING
from listener.delivery import Courier
from listener.dicomweb.qido_confirmer import QidoConfirmer
from listener.entries import Result
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from tests.listener.dicomweb.service import Asked, Reply, Service, element, in_json


class Archive:
    """A service that takes everything, and shows of it what `shows` says."""

    def __init__(self) -> None:
        self.service = Service(self._answer)
        self.shows: Callable[[str], bool] = lambda _uid: True
        self.search: Reply | None = None
        self.results: list[Result] = []

    def _answer(self, asked: Asked) -> Reply:
        if asked.method == "POST":
            return Reply(200)
        if self.search is not None:
            return self.search
        if asked.path == "/dicom-web/studies":
            return in_json({"0020000D": element("UI", "1")})
        if dict(asked.fields)["offset"] != "0":
            return Reply(204)
        _, _, _, _study, _, series_uid, what = asked.path.split("/")
        assert what == "instances"
        here = [each for each in self.results if each.series_uid == series_uid]
        return in_json(
            *(
                {"00080018": element("UI", each.sop_uid)}
                for each in here
                if self.shows(each.sop_uid)
            )
        )


@pytest.fixture
def settings(
    settings_for: Callable[..., ListenerSettings], free_port: int, request: pytest.FixtureRequest
) -> ListenerSettings:
    confirm: str = getattr(request, "param", "auto")
    pacs = {"name": "pacs", "url": f"http://127.0.0.1:{free_port}/dicom-web", "confirm": confirm}
    return settings_for(
        destinations=[pacs], retry_first_seconds=0.01, retry_cap_seconds=0.02,
        confirm_first_seconds=0.01, association_timeout_seconds=2,
    )  # fmt: skip


@pytest.fixture
def courier(ledger: Ledger, settings: ListenerSettings) -> Courier:
    return Courier(settings.destinations[0], settings, ledger)


@pytest.fixture
def archive(outbox: list[Result]) -> Archive:
    made = Archive()
    made.results = outbox
    return made


def rounds(courier: Courier, archive: Archive, port: int, number: int) -> None:
    with archive.service.open(port):
        for _ in range(number):
            courier.deliver_due()
            time.sleep(0.05)
            courier._confirmer.confirm_due()
            time.sleep(0.05)


def deliveries(ledger: Ledger) -> list[dict[str, Any]]:
    known = ledger.study("1")
    assert known is not None
    rows: list[dict[str, Any]] = known["deliveries"]
    return rows


def states(ledger: Ledger) -> dict[str, int]:
    return ledger.counts()["deliveries"]


def posts(archive: Archive) -> int:
    return len([asked for asked in archive.service.asked if asked.method == "POST"])


def test_what_is_shown_is_confirmed(
    ledger: Ledger, courier: Courier, archive: Archive, free_port: int
) -> None:
    rounds(courier, archive, free_port, 2)

    assert isinstance(courier._confirmer, QidoConfirmer)
    assert states(ledger) == {"CONFIRMED": 2}
    assert {row["message"] for row in deliveries(ledger)} == {"shown by the destination"}


def test_what_is_missed_too_often_is_sent_again(
    ledger: Ledger, outbox: list[Result], courier: Courier, archive: Archive, free_port: int
) -> None:
    overlay = outbox[0]
    archive.shows = lambda uid: uid != overlay.sop_uid
    rounds(courier, archive, free_port, MISSES_BEFORE_RESENDING + 3)
    assert states(ledger) != {"CONFIRMED": 2}
    assert posts(archive) > 2

    archive.shows = lambda _uid: True
    rounds(courier, archive, free_port, 3)
    assert states(ledger) == {"CONFIRMED": 2}


def test_what_an_archive_shows_late_is_not_sent_twice(
    ledger: Ledger, courier: Courier, archive: Archive, free_port: int
) -> None:
    archive.shows = lambda _uid: False
    rounds(courier, archive, free_port, MISSES_BEFORE_RESENDING - 1)
    archive.shows = lambda _uid: True
    rounds(courier, archive, free_port, 2)

    assert states(ledger) == {"CONFIRMED": 2}
    assert posts(archive) == 2


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_service_that_shows_nothing_at_all_is_taken_at_its_word(
    ledger: Ledger, courier: Courier, archive: Archive, free_port: int, status: int
) -> None:
    archive.search = Reply(status)
    rounds(courier, archive, free_port, 5)

    assert states(ledger) == {"SENT": 2}
    assert posts(archive) == 2
    assert "does not offer QIDO-RS" in deliveries(ledger)[0]["message"]


@pytest.mark.parametrize("status", [401, 500, 503])
def test_a_service_that_does_not_tell_is_asked_again_and_sent_nothing(
    ledger: Ledger, courier: Courier, archive: Archive, free_port: int, status: int
) -> None:
    archive.search = Reply(status)
    rounds(courier, archive, free_port, 5)
    assert states(ledger) == {"SENT": 2}
    assert f"HTTP {status}" in deliveries(ledger)[0]["message"]
    assert posts(archive) == 2

    archive.search = None
    rounds(courier, archive, free_port, 3)
    assert states(ledger) == {"CONFIRMED": 2}


@pytest.mark.parametrize("settings", ["none"], indirect=True)
def test_a_service_that_is_not_to_be_asked_is_not(
    ledger: Ledger, courier: Courier, archive: Archive, free_port: int
) -> None:
    rounds(courier, archive, free_port, 2)

    assert states(ledger) == {"SENT": 2}
    assert {asked.method for asked in archive.service.asked} == {"POST"}
