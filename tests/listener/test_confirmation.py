"""A real archive on loopback says what it kept: commitment, C-FIND, both, neither, or nonsense."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from listener.backoff import Backoff
from listener.confirmation import (
    STORAGE_COMMITMENT,
    STUDY_ROOT_FIND,
    Confirmations,
    DimseConfirmer,
)
from listener.delivery import Courier
from listener.entries import Result
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from listener.spool import Spool
from tests.listener.archive import Archive


@pytest.fixture
def settings(settings_for: Callable[..., ListenerSettings]) -> ListenerSettings:
    return settings_for(
        retry_first_seconds=0.01,
        retry_cap_seconds=0.02,
        confirm_first_seconds=0.001,
        commitment_seconds=0.5,
    )


def ways(settings: ListenerSettings, confirm: str) -> ListenerSettings:
    destination = settings.destinations[0].model_copy(update={"confirm": confirm})
    return settings.model_copy(update={"destinations": (destination,)})


def courier_of(settings: ListenerSettings, ledger: Ledger) -> Courier:
    return Courier(settings.destinations[0], settings, ledger)


def confirmer_of(settings: ListenerSettings, ledger: Ledger) -> DimseConfirmer:
    return DimseConfirmer(settings.destinations[0], settings, ledger)


def states(ledger: Ledger) -> dict[str, int]:
    return ledger.counts()["deliveries"]


def messages(ledger: Ledger) -> set[str]:
    known = ledger.study("1")
    assert known is not None
    return {row["message"] for row in known["deliveries"]}


def until(condition: Callable[[], bool], what: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


def deliver(settings: ListenerSettings, ledger: Ledger) -> None:
    """Send everything, phase by phase."""
    for _ in range(2):
        courier_of(settings, ledger).deliver_due()
    time.sleep(0.01)


@pytest.fixture
def archive(settings: ListenerSettings) -> Callable[..., Archive]:
    """An archive at the destination's port."""

    def make(*offered: str, **how: Any) -> Archive:
        return Archive(settings.destinations[0].port, offered, **how)

    return make


def test_a_result_is_confirmed_once_the_destination_committed_on_the_same_association(
    ledger: Ledger, outbox: list[Result], settings: ListenerSettings, archive: Any
) -> None:
    with archive(STORAGE_COMMITMENT, STUDY_ROOT_FIND).open() as pacs:
        deliver(settings, ledger)
        assert states(ledger) == {"SENT": 2}
        confirmer_of(settings, ledger).confirm_due()
        until(lambda: states(ledger) == {"CONFIRMED": 2}, lambda: states(ledger))

    (asked,) = pacs.asked
    named = {str(item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence}
    assert named == {outbox[0].sop_uid, outbox[1].sop_uid}
    assert messages(ledger) == {"committed to by the destination"}


def test_the_answer_may_come_on_an_association_of_its_own(
    tmp_path: Path,
    ledger: Ledger,
    outbox: list[Result],
    settings: ListenerSettings,
    archive: Any,
    listening: Any,
) -> None:
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        answer_to = (send.settings.ae_title, send.settings.port)
        with archive(STORAGE_COMMITMENT, answer_to=answer_to).open():
            deliver(settings, ledger)
            confirmer_of(settings, ledger).confirm_due()
            until(lambda: states(ledger) == {"CONFIRMED": 2}, lambda: states(ledger))


def test_what_the_destination_lost_is_sent_again(
    ledger: Ledger, outbox: list[Result], settings: ListenerSettings, archive: Any
) -> None:
    lost = archive(STORAGE_COMMITMENT)
    lost.keeps = lambda uid: uid != outbox[0].sop_uid or lost.stored.count(uid) > 1
    with lost.open() as pacs:
        deliver(settings, ledger)
        confirmer_of(settings, ledger).confirm_due()
        until(lambda: states(ledger) == {"CONFIRMED": 1, "PENDING": 1}, lambda: states(ledger))
        deliver(settings, ledger)
        confirmer_of(settings, ledger).confirm_due()
        until(lambda: states(ledger) == {"CONFIRMED": 2}, lambda: states(ledger))

    assert pacs.stored.count(outbox[0].sop_uid) == 2
    assert pacs.stored.count(outbox[1].sop_uid) == 1


def test_another_reason_not_to_commit_is_told_and_asked_about_again(
    ledger: Ledger, outbox: list[Result], settings: ListenerSettings, archive: Any
) -> None:
    with archive(STORAGE_COMMITMENT, keeps=lambda _uid: False, reason=0x0213).open() as pacs:
        deliver(settings, ledger)
        confirmer_of(settings, ledger).confirm_due()
        told = {"the destination does not commit to it: reason 0x0213"}
        until(lambda: messages(ledger) == told, lambda: messages(ledger))

    assert states(ledger) == {"SENT": 2}
    assert len(pacs.stored) == 2


@pytest.mark.parametrize("action_status", [0x0000, 0x0110])
def test_what_is_shown_is_not_confirmed_where_the_destination_says_that_it_does_not_commit(
    ledger: Ledger,
    outbox: list[Result],
    settings: ListenerSettings,
    archive: Any,
    action_status: int,
) -> None:
    quick = settings.model_copy(update={"commitment_seconds": 0.0})
    refusing = archive(
        STORAGE_COMMITMENT,
        STUDY_ROOT_FIND,
        commits=False,
        reason=0x0110,
        action_status=action_status,
    )
    with refusing.open() as pacs:
        deliver(settings, ledger)
        for dataset in pacs.held.values():
            dataset.StudyInstanceUID = "1"
        for asked in (1, 2):
            confirm_and_wait(quick, ledger)
            assert len(pacs.asked) == asked
            assert states(ledger) == {"SENT": 2}
            assert messages(ledger) == {"the destination does not commit to it: reason 0x0110"}
        confirm_and_wait(quick, ledger)

        again = "the destination does not commit to it: reason 0x0110; it is sent again"
        assert states(ledger) == {"PENDING": 2}
        assert messages(ledger) == {again}
        known = ledger.study("1")
        assert known is not None
        told = [event for event in known["events"] if event["detail"].endswith(again)]
        assert {event["what"] for event in told} == {"delivery to pacs not confirmed"}

        time.sleep(0.05)
        deliver(settings, ledger)
        pacs.commits, pacs.action_status = True, 0x0000
        confirm_and_wait(quick, ledger)
        assert states(ledger) == {"CONFIRMED": 2}
    assert pacs.stored.count(outbox[0].sop_uid) == 2


def confirm_and_wait(settings: ListenerSettings, ledger: Ledger) -> None:
    """Ask once more, and let the answer come."""
    confirmer_of(settings, ledger).confirm_due()
    asked = "commitment was asked for"
    until(lambda: asked not in messages(ledger), lambda: messages(ledger))
    time.sleep(0.05)


def test_where_requests_to_commit_are_not_supported_after_all_a_destination_shows_what_it_has(
    ledger: Ledger, outbox: list[Result], settings: ListenerSettings, archive: Any
) -> None:
    with archive(STORAGE_COMMITMENT, STUDY_ROOT_FIND, action_status=0x0123).open() as pacs:
        deliver(settings, ledger)
        for dataset in pacs.held.values():
            dataset.StudyInstanceUID = "1"
        confirmer_of(settings, ledger).confirm_due()

    assert states(ledger) == {"CONFIRMED": 2}
    assert messages(ledger) == {"shown by the destination"}


def test_without_commitment_a_destination_is_asked_what_it_shows(
    ledger: Ledger, outbox: list[Result], settings: ListenerSettings, archive: Any
) -> None:
    with archive(STUDY_ROOT_FIND).open() as pacs:
        deliver(settings, ledger)
        for dataset in pacs.held.values():
            dataset.StudyInstanceUID = "1"  # as the job of the outbox says
        confirmer_of(settings, ledger).confirm_due()

    assert states(ledger) == {"CONFIRMED": 2}
    assert messages(ledger) == {"shown by the destination"}


def test_what_is_not_shown_is_looked_for_a_few_times_and_then_sent_again(
    ledger: Ledger, outbox: list[Result], settings: ListenerSettings, archive: Any
) -> None:
    with archive(STUDY_ROOT_FIND, keeps=lambda _uid: False).open():
        deliver(settings, ledger)
        for _ in range(2):
            confirmer_of(settings, ledger).confirm_due()
            assert states(ledger) == {"SENT": 2}
            time.sleep(0.03)
        confirmer_of(settings, ledger).confirm_due()

    assert states(ledger) == {"PENDING": 2}


def test_a_destination_that_never_answers_its_requests_is_asked_what_it_shows(
    ledger: Ledger, outbox: list[Result], settings: ListenerSettings, archive: Any
) -> None:
    silent = archive(STORAGE_COMMITMENT, STUDY_ROOT_FIND, answers=False)
    quick = settings.model_copy(update={"commitment_seconds": 0.0})
    with silent.open() as pacs:
        deliver(settings, ledger)
        for dataset in pacs.held.values():
            dataset.StudyInstanceUID = "1"
        for _ in range(3):
            assert states(ledger) == {"SENT": 2}
            confirmer_of(quick, ledger).confirm_due()
            time.sleep(0.03)

    assert len(pacs.asked) == 2
    assert states(ledger) == {"CONFIRMED": 2}


@pytest.mark.parametrize(
    ("confirm", "told"),
    [
        ("auto", "the destination does not offer storage commitment or C-FIND: taken at its word"),
        ("commitment", "the destination does not offer storage commitment: taken at its word"),
        ("query", "the destination does not offer C-FIND: taken at its word"),
    ],
)
def test_a_destination_that_offers_no_way_is_taken_at_its_word_and_that_is_told(
    ledger: Ledger,
    outbox: list[Result],
    settings: ListenerSettings,
    archive: Any,
    confirm: str,
    told: str,
) -> None:
    with archive().open():
        deliver(settings, ledger)
        confirmer_of(ways(settings, confirm), ledger).confirm_due()

    assert states(ledger) == {"SENT": 2}
    assert messages(ledger) == {told}
    assert Confirmations(ledger, Backoff(0.01, 0.02)).due("pacs") == []


def test_a_site_may_do_without_confirmation(
    ledger: Ledger, outbox: list[Result], settings: ListenerSettings, archive: Any
) -> None:
    with archive(STORAGE_COMMITMENT).open() as pacs:
        deliver(settings, ledger)
        confirmer_of(ways(settings, "none"), ledger).confirm_due()

    assert pacs.asked == []
    assert states(ledger) == {"SENT": 2}


def test_a_destination_that_is_down_is_asked_later(
    ledger: Ledger, outbox: list[Result], settings: ListenerSettings, archive: Any
) -> None:
    with archive(STORAGE_COMMITMENT).open():
        deliver(settings, ledger)
    confirmer_of(settings, ledger).confirm_due()

    assert states(ledger) == {"SENT": 2}
    assert messages(ledger) == {"the destination does not answer"}


def test_an_answer_to_a_request_that_nobody_made_changes_nothing(
    ledger: Ledger, outbox: list[Result], settings: ListenerSettings, archive: Any
) -> None:
    with archive().open():
        deliver(settings, ledger)

    assert (
        Confirmations(ledger, Backoff(0.01, 0.02)).answered("2.25.1", {outbox[0].sop_uid}, {}) == 0
    )
    assert states(ledger) == {"SENT": 2}
