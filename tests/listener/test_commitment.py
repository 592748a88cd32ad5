"""Others ask us to commit to what they sent; we look before we answer, and answer in the end."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from sqlalchemy import update

from listener.caller import call
from listener.commitment import Promises
from listener.confirmation import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, reference
from listener.ledger import Ledger
from listener.remote import Entity
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import instances


class Answers:
    """What an asker was told, on whatever association."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, Dataset]] = []
        self._told = threading.Event()

    def take(self, event: evt.Event) -> tuple[int, None]:
        request: Any = event.request
        self.reports.append((request.EventTypeID, event.event_information))
        self._told.set()
        return 0x0000, None

    def wait(self) -> tuple[int, Dataset]:
        assert self._told.wait(20), "no answer came"
        return self.reports[-1]


@contextmanager
def asker_listening(port: int) -> Iterator[Answers]:
    """The asker's own application entity, where it takes answers."""
    answers = Answers()
    entity = AE(ae_title="SENDER")
    entity.add_supported_context(STORAGE_COMMITMENT, scu_role=True, scp_role=True)
    server = entity.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, answers.take)],
    )
    assert server is not None
    try:
        yield answers
    finally:
        server.shutdown()


def request_for(*named: tuple[str, str], transaction_uid: str = "2.25.7") -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [reference(*each) for each in named]
    return request


def associated(settings: ListenerSettings, answers: Answers | None = None) -> Any:
    entity = AE(ae_title="SENDER")
    entity.add_requested_context(STORAGE_COMMITMENT)
    handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, answers.take)] if answers else []
    return call(
        entity,
        Entity(ae_title=settings.ae_title, host="127.0.0.1", port=settings.port),
        None,
        evt_handlers=handlers,
    )


def ask(association: Any, request: Dataset, action: int = 1) -> int:
    response, _ = association.send_n_action(
        request, action, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
    )
    return int(response.Status)


def named(dataset: Dataset) -> tuple[str, str]:
    return str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)


def open_to(port: int | None = None) -> dict[str, Any]:
    """Settings of a listener whose one peer listens at a port."""
    peer = {"ae_title": "SENDER", **({"port": port} if port else {})}
    return {"peers": (peer,), "open_node": False, "retry_first_seconds": 0.05}


def test_what_is_in_the_spool_is_committed_to_on_the_asker_s_association(
    tmp_path: Path, ledger: Ledger, listening: Any, an_mr_slice: Callable[..., Dataset]
) -> None:
    sent = [an_mr_slice() for _ in range(3)]
    answers = Answers()
    with listening(Spool(tmp_path / "spool"), ledger, **open_to()) as send:
        send(*sent)
        association = associated(send.settings, answers)
        assert ask(association, request_for(*map(named, sent))) == 0x0000
        event_type, report = answers.wait()
        time.sleep(0.1)
        association.release()

    assert event_type == 1
    assert report.TransactionUID == "2.25.7"
    assert [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for item in report.ReferencedSOPSequence
    ] == [named(each) for each in sent]
    assert "FailedSOPSequence" not in report
    assert ledger.counts()["promises"] == {"ANSWERED": 1}


def test_failures_are_named_one_by_one_with_their_reason(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    an_mr_slice: Callable[..., Dataset],
    free_port: int,
) -> None:
    good, damaged = an_mr_slice(), an_mr_slice()
    spool = Spool(tmp_path / "spool")
    absent = (str(good.SOPClassUID), generate_uid())
    other_class = ("1.2.840.10008.5.1.4.1.1.2", str(good.SOPInstanceUID))
    with (
        asker_listening(free_port) as answers,
        listening(spool, ledger, **open_to(free_port)) as send,
    ):
        send(good, damaged)
        (path,) = spool.find({str(damaged.SOPInstanceUID)}).values()
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        until(lambda: ledger.counts()["instances"] == {"waiting": 2})
        association = associated(send.settings)
        assert ask(association, request_for(named(good), named(damaged), absent)) == 0
        association.release()
        event_type, report = answers.wait()

        promises = Promises(ledger, spool)
        assert promises.failures([other_class]) == {str(good.SOPInstanceUID): 0x0119}

    assert event_type == 2
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [
        good.SOPInstanceUID
    ]
    assert {
        str(item.ReferencedSOPInstanceUID): item.FailureReason for item in report.FailedSOPSequence
    } == {str(damaged.SOPInstanceUID): 0x0110, absent[1]: 0x0112}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_answer_survives_a_restart_and_an_asker_that_is_away(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    an_mr_slice: Callable[..., Dataset],
    free_port: int,
) -> None:
    sent = an_mr_slice()
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger, **open_to(free_port)) as send:
        send(sent)
        association = associated(send.settings)
        assert ask(association, request_for(named(sent))) == 0
        association.release()
        until(lambda: _attempts(ledger) > 0)
    assert ledger.counts()["promises"] == {"ASKED": 1}

    with asker_listening(free_port) as answers, listening(spool, ledger, **open_to(free_port)):
        event_type, _ = answers.wait()

    assert event_type == 1


def _attempts(ledger: Ledger) -> int:
    with ledger.reading() as connection:
        return int(connection.exec_driver_sql("SELECT attempts FROM promises").scalar() or 0)


def test_a_request_that_is_repeated_is_answered_again(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    an_mr_slice: Callable[..., Dataset],
    free_port: int,
) -> None:
    sent = an_mr_slice()
    with (
        asker_listening(free_port) as answers,
        listening(Spool(tmp_path / "spool"), ledger, **open_to(free_port)) as send,
    ):
        send(sent)
        for times in (1, 2):
            association = associated(send.settings)
            assert ask(association, request_for(named(sent))) == 0
            association.release()
            until(lambda times=times: len(answers.reports) == times)  # type: ignore[misc]


def test_an_asker_that_left_without_a_port_is_waited_for_and_the_remedy_is_told(
    tmp_path: Path, ledger: Ledger, listening: Any
) -> None:
    def told() -> Any:
        with ledger.reading() as connection:
            return connection.exec_driver_sql("SELECT state, message FROM promises").one()

    with listening(Spool(tmp_path / "spool"), ledger, **open_to()) as send:
        association = associated(send.settings)
        assert ask(association, request_for(("1.2", "1.2.3"))) == 0
        association.abort()
        until(lambda: "name its port in MONRO_PEERS" in (told().message or ""))

    assert told().state == "ASKED"


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about the UIDs
@pytest.mark.parametrize(
    ("spoil", "action", "status"),
    [
        (lambda request: None, 2, 0x0123),
        (lambda request: request.pop("TransactionUID"), 1, 0x0115),
        (lambda request: request.pop("ReferencedSOPSequence"), 1, 0x0115),
        (lambda request: _name(request, "*"), 1, 0x0115),
        (lambda request: _name(request, "../1"), 1, 0x0115),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    spoil: Callable[[Dataset], object],
    action: int,
    status: int,
) -> None:
    request = request_for(("1.2", "1.2.3"))
    spoil(request)
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        association = associated(send.settings)
        assert ask(association, request, action) == status
        association.release()

    assert ledger.counts()["promises"] == {}


def _name(request: Dataset, uid: str) -> None:
    request.ReferencedSOPSequence[0].add_new("ReferencedSOPInstanceUID", "UI", uid)


def test_a_transaction_of_one_asker_is_not_another_s(tmp_path: Path, ledger: Ledger) -> None:
    promises = Promises(ledger, Spool(tmp_path / "spool"))
    promises.ask("2.25.9", "SENDER", "127.0.0.1", [("1.2", "1.2.3")])

    assert promises.is_of_another("2.25.9", "OTHER")
    assert not promises.is_of_another("2.25.9", "SENDER")
    assert not promises.is_of_another("2.25.8", "OTHER")


def test_a_file_whose_header_rotted_is_a_failure_and_holds_nobody_up(
    tmp_path: Path, ledger: Ledger, an_mr_slice: Callable[..., Dataset], listening: Any
) -> None:
    spool = Spool(tmp_path / "spool")
    rotten, sound = an_mr_slice(), an_mr_slice()
    with listening(spool, ledger) as send:
        send(rotten, sound)
    (path,) = spool.find({str(rotten.SOPInstanceUID)}).values()
    path.write_bytes(bytes(2000))

    failures = Promises(ledger, spool).failures([named(rotten), named(sound)])

    assert failures == {str(rotten.SOPInstanceUID): 0x0110}


def test_an_instance_whose_row_is_not_written_yet_is_found_in_the_spool(
    tmp_path: Path, ledger: Ledger, an_mr_slice: Callable[..., Dataset], listening: Any
) -> None:
    spool = Spool(tmp_path / "spool")
    sent = an_mr_slice()
    with listening(spool, ledger) as send:
        send(sent)
    other = Ledger(f"sqlite:///{tmp_path / 'empty.sqlite'}")

    assert Promises(other, spool).failures([named(sent)]) == {}
    other.close()


def test_who_sent_other_bytes_under_a_known_uid_is_not_committed_to_on_the_first_ones(
    tmp_path: Path, ledger: Ledger, an_mr_slice: Callable[..., Dataset], listening: Any
) -> None:
    spool = Spool(tmp_path / "spool")
    sent, other = an_mr_slice(), an_mr_slice()
    with listening(spool, ledger) as send:
        send(sent, other)
        sent.PatientName = "OTHER^BYTES"
        send(sent)
    both = [named(sent), named(other)]

    assert Promises(ledger, spool).failures(both) == {str(sent.SOPInstanceUID): 0x0110}
    # Nor before the rows are written.
    late = Ledger(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    assert Promises(late, spool).failures(both) == {str(sent.SOPInstanceUID): 0x0110}
    late.close()


def test_the_disk_is_walked_for_young_requests_only_and_never_for_what_was_purged(
    tmp_path: Path,
    ledger: Ledger,
    an_mr_slice: Callable[..., Dataset],
    listening: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spool = Spool(tmp_path / "spool")
    purged = an_mr_slice()
    with listening(spool, ledger) as send:
        send(purged)
    with ledger.writing() as connection:
        connection.execute(update(instances).values(purged_at=ledger.now))
    spool.remove(path for _key, path in list(spool.received()))
    walked: list[set[str]] = []
    walk = spool.find

    def find(sop_uids: set[str]) -> dict[str, Path]:
        walked.append(set(sop_uids))
        return walk(sop_uids)

    monkeypatch.setattr(spool, "find", find)
    gone = (named(purged)[0], "1.2.3")
    none = {str(purged.SOPInstanceUID): 0x0112, "1.2.3": 0x0112}

    assert Promises(ledger, spool).failures([named(purged), gone], ledger.now) == none
    assert walked == [{"1.2.3"}]
    assert Promises(ledger, spool).failures([named(purged), gone], ledger.now - 600) == none
    assert len(walked) == 1
