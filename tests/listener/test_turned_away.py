"""What is turned away at the door is counted by reason, whichever way it was to come in."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import acse

from listener.dicomweb.server import WebServer
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.turned_away import Kind, Reason, Service, TurnedAway
from tests.listener.dicomweb.conftest import HEADERS, Answer, Web, body_of, file_of

Listening = Callable[..., AbstractContextManager[Any]]
OURS = {"ae_title": "SENDER"}


def association(reason: Reason, count: int = 1) -> dict[Kind, int]:
    return {("association", Service.DIMSE, reason): count}


@pytest.mark.parametrize(
    ("changes", "titles", "reason"),
    [
        ({}, {"called": "OTHER"}, Reason.CALLED),
        ({}, {"calling": "STRANGER"}, Reason.UNKNOWN),
        ({"peers": [OURS | {"max_associations": 1}]}, {}, Reason.ENOUGH),
        ({"max_associations": 1}, {}, Reason.BUSY),
    ],
)
def test_a_rejected_association_is_counted_by_its_reason(
    tmp_path: Path,
    ledger: Ledger,
    listening: Listening,
    changes: dict[str, Any],
    titles: dict[str, str],
    reason: Reason,
) -> None:
    settings = {"open_node": False, "peers": [OURS], **changes}
    with listening(Spool(tmp_path / "spool"), ledger, **settings) as send:
        first = send.associate()
        assert first.is_established
        assert send.refused == {}
        assert send.associate(**titles).is_rejected
        assert send.refused == association(reason)
        assert send.associate(**titles).is_rejected
        assert send.refused == association(reason, 2)
        first.release()


def test_who_means_another_application_context_is_rejected_for_it(
    tmp_path: Path, ledger: Ledger, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        assert send.associate().is_established
        monkeypatch.setattr(acse, "APPLICATION_CONTEXT_NAME", "1.2.840.10008.3.1.1.9")
        rejected = send.associate()
        assert rejected.is_rejected
        said = rejected.acceptor.primitive
        assert (said.result, said.result_source, said.diagnostic) == (1, 1, 2)
        assert send.refused == association(Reason.CONTEXT)


@pytest.mark.parametrize("quickly", [True, False])
def test_what_a_full_disk_turns_away_is_counted(
    tmp_path: Path, ledger: Ledger, listening: Listening, mr_slice: Dataset, quickly: bool
) -> None:
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger, quick_store=quickly) as send:
        begun = send.associate(mr_slice)
        spool.keep_free = 1 << 62  # it fills while the study comes in
        assert [begun.send_c_store(mr_slice).Status for _ in range(2)] == [0xA700] * 2
        begun.release()
        assert send.associate(mr_slice).is_rejected
        assert send.refused == {
            ("instance", Service.DIMSE, Reason.FULL): 2,
            **association(Reason.FULL),
        }


@pytest.mark.parametrize("quickly", [True, False])
def test_an_instance_that_is_not_sound_is_counted(
    tmp_path: Path, ledger: Ledger, listening: Listening, mr_slice: Dataset, quickly: bool
) -> None:
    with listening(Spool(tmp_path / "spool"), ledger, quick_store=quickly) as send:
        del mr_slice.StudyInstanceUID
        assert send(mr_slice) == 0xC000
        assert send.refused == {("instance", Service.DIMSE, Reason.MALFORMED): 1}


def test_requests_of_stow_rs_and_their_instances_are_counted(
    tmp_path: Path,
    ledger: Ledger,
    settings_for: Callable[..., ListenerSettings],
    free_port: int,
    mr_slice: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = tmp_path / "token"
    secret.write_text("a secret")
    senders = [{"name": "gateway", "token_file": str(secret)}]
    spool, turned_away = Spool(tmp_path / "spool"), TurnedAway(1)
    settings = settings_for(web_port=free_port, open_node=False, peers=[OURS], web_senders=senders)
    server = WebServer(settings, spool, ledger, turned_away=turned_away.clicker(0))
    server.start()

    def send(token: str) -> Answer:
        headers = {**HEADERS, "Authorization": f"Bearer {token}"}
        return Web(settings).post(body_of(file_of(mr_slice)), headers=headers)

    try:
        assert send("a guess").status == 401
        spool.keep_free = 1 << 62
        assert send("a secret").status == 503
        monkeypatch.setattr(Spool, "has_room_for", lambda *_: True)
        assert send("a secret").failures == {mr_slice.SOPInstanceUID: 0xA700}
    finally:
        server.stop()
    assert {kind: count for kind, count in turned_away.totals.items() if count} == {
        ("association", Service.STOW, Reason.UNKNOWN): 1,
        ("association", Service.STOW, Reason.FULL): 1,
        ("instance", Service.STOW, Reason.FULL): 1,
    }


def test_threads_of_a_process_lose_no_count() -> None:
    turned_away = TurnedAway(2)
    clickers = [turned_away.clicker(number) for number in range(2)]

    def click() -> None:
        for _ in range(2_000):
            for each in clickers:
                each.instance(Service.DIMSE, Reason.FULL)

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turned_away.totals["instance", Service.DIMSE, Reason.FULL] == 16_000
