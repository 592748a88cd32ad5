"""Whatever happens to a study is in the trail: real associations, a whole listener."""

import base64
import getpass
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dictionary
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE
from typer.testing import CliRunner

from listener.__main__ import app
from listener.audit import codes
from listener.audit.codes import Code
from listener.audit.tally import Party
from listener.audit.trail import open_audit
from listener.caller import call
from listener.confirmation import DimseConfirmer
from listener.delivery import Courier
from listener.entries import Received, Result
from listener.ledger import Ledger
from listener.node import Node
from listener.remote import Entity
from listener.retention import purge
from listener.scout import Scout
from listener.series import InstanceKey
from listener.settings import ListenerSettings
from listener.spool import Spool
from tests.listener.archive import Archive
from tests.listener.audit.reading import DESTINATION, NODE, SOURCE, Message, messages
from tests.listener.test_scout import Pacs

TRANSFERRED, ACCESSED, DELETED = "110104", "110103", "110105"
ACTIVITY, QUERY, ALERT = "110100", "110112", "110113"

HOST = socket.gethostname()


def trail(settings: ListenerSettings, event: str | None = None) -> list[Message]:
    return messages(settings.spool / "audit/audit.log", event)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def associate(settings: ListenerSettings, *datasets: Dataset, called: str = "MONRO") -> Any:
    entity = AE(ae_title="SENDER")
    entity.add_requested_context("1.2.840.10008.1.1")
    for dataset in datasets:
        entity.add_requested_context(dataset.SOPClassUID, ExplicitVRLittleEndian)
    return call(entity, Entity(ae_title=called, host="127.0.0.1", port=settings.port), None)


def send(settings: ListenerSettings, *datasets: Dataset) -> None:
    association = associate(settings, *datasets)
    assert [association.send_c_store(each).Status for each in datasets] == [0] * len(datasets)
    association.release()


@pytest.fixture(name="ours")
def our_settings(settings_for: Callable[..., ListenerSettings]) -> ListenerSettings:
    return settings_for(receivers=1, retry_first_seconds=0.01, retry_cap_seconds=0.02)


@pytest.mark.parametrize("quick", [True, False])
def test_an_association_leaves_one_message_for_each_study_that_it_brought(
    settings_for: Any, an_mr_slice: Callable[..., Dataset], quick: bool
) -> None:
    settings = settings_for(receivers=1, quick_store=quick)
    slices = [an_mr_slice(study=uid) for uid in ("1.2.3", "1.2.3", "1.2.4")]
    slices[1].SOPClassUID = slices[1].file_meta.MediaStorageSOPClassUID = (
        SecondaryCaptureImageStorage
    )
    with Node(settings):
        send(settings, *slices)

    first, second = sorted(trail(settings, TRANSFERRED), key=lambda each: each.study)
    assert (first.study, second.study) == ("1.2.3", "1.2.4")
    assert first.classes == {MRImageStorage: 1, SecondaryCaptureImageStorage: 1}
    assert second.classes == {MRImageStorage: 1}
    assert (first.action, first.outcome) == ("C", "0")
    sender, receiver = first.participant(SOURCE), first.participant(DESTINATION)
    assert dict(sender.attrib) == {
        "UserID": "SENDER",
        "AlternativeUserID": "AETITLES=SENDER",
        "UserIsRequestor": "true",
        "NetworkAccessPointID": "127.0.0.1",
        "NetworkAccessPointTypeCode": "2",
    }
    assert receiver.get("AlternativeUserID") == "AETITLES=MONRO"
    assert receiver.get("NetworkAccessPointID") == HOST


def test_what_was_held_already_was_read_and_not_created(
    ours: ListenerSettings, mr_slice: Dataset
) -> None:
    with Node(ours):
        send(ours, mr_slice)
        send(ours, mr_slice, mr_slice)

    found = trail(ours, TRANSFERRED)
    assert [(each.action, each.classes) for each in found] == [
        ("C", {MRImageStorage: 1}),
        ("R", {MRImageStorage: 2}),
    ]


def test_an_aborted_association_tells_what_it_brought_until_then(
    ours: ListenerSettings, mr_slice: Dataset
) -> None:
    with Node(ours):
        association = associate(ours, mr_slice)
        association.send_c_store(mr_slice)
        association.abort()
        until(lambda: trail(ours, TRANSFERRED))

    (found,) = trail(ours, TRANSFERRED)
    assert found.classes == {MRImageStorage: 1}


def test_an_association_that_is_open_at_the_end_is_told_of(
    ours: ListenerSettings, mr_slice: Dataset
) -> None:
    with Node(ours):
        association = associate(ours, mr_slice)
        association.send_c_store(mr_slice)
    association.abort()

    (found,) = trail(ours, TRANSFERRED)
    assert found.participant(SOURCE).get("UserID") == "SENDER"


@pytest.mark.parametrize("rows", [True, False])
def test_a_killed_receiver_leaves_a_message_that_says_so(
    settings_for: Any, mr_slice: Dataset, rows: bool
) -> None:
    settings = settings_for(receivers=1, poll_seconds=0.1)
    with Node(settings) as node:
        association = associate(settings, mr_slice)
        assert association.send_c_store(mr_slice).Status == 0
        if rows:
            until(lambda: node.ledger.path_of(mr_slice.StudyInstanceUID))
        (dead,) = node.receivers.pids
        os.kill(dead, signal.SIGKILL)
        until(lambda: trail(settings, TRANSFERRED))

    (found,) = trail(settings, TRANSFERRED)
    assert (found.study, found.outcome) == (mr_slice.StudyInstanceUID, "4")
    assert found.participant(SOURCE).get("UserID") == "unknown"


def test_the_trail_is_for_our_eyes_only_and_does_not_name_patients(
    ours: ListenerSettings, an_mr_slice: Callable[..., Dataset], capfd: pytest.CaptureFixture[str]
) -> None:
    other = an_mr_slice(study="1.2.4")
    other.PatientID = "ANOTHER-ID"
    with Node(ours):
        send(ours, an_mr_slice(study="1.2.3"), other)
        send(ours, an_mr_slice(study="1.2.5"))

    folder = ours.spool / "audit"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"audit.log": 0o600, "key": 0o600}
    content = (folder / "audit.log").read_text()
    assert "PLANTED" not in content
    assert "ANOTHER" not in content
    assert "PLANTED" not in capfd.readouterr().err
    patients = {each.study: each.patient[0] for each in trail(ours, TRANSFERRED)}
    assert patients["1.2.3"] == patients["1.2.5"] != patients["1.2.4"]
    assert all(len(each) == 32 for each in patients.values())


def test_a_site_may_choose_names(
    settings_for: Any, mr_slice: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(receivers=1, audit_names=True)
    with Node(settings):
        send(settings, mr_slice)

    (found,) = trail(settings, TRANSFERRED)
    assert found.patient == ("PLANTED-ID", "PLANTED^NAME")
    assert "PLANTED" not in capfd.readouterr().err
    assert not (settings.spool / "audit/key").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about what we plant
def test_what_a_sender_calls_things_cannot_break_a_message(
    settings_for: Any, mr_slice: Dataset
) -> None:
    settings = settings_for(receivers=1, audit_names=True)
    mr_slice.PatientID = 'A"<\x07>&\nB'
    mr_slice.PatientName = "x" * 3000
    with Node(settings):
        send(settings, mr_slice)

    (found,) = trail(settings, TRANSFERRED)
    assert found.patient == ('A"<\ufffd>& B', "x" * 1000)


def test_a_start_and_an_end_are_told_with_who_brought_them_about(ours: ListenerSettings) -> None:
    with Node(ours):
        pass

    start, stop = trail(ours, ACTIVITY)
    assert (start.kind, stop.kind) == ("110120", "110121")
    assert start.participant("110150").get("UserID") == str(os.getpid())
    assert start.participant("110151").get("UserID") == f"{getpass.getuser()}@{HOST}"


@pytest.mark.parametrize(
    ("called", "peers", "why"),
    [
        ("OTHER", [{"ae_title": "SENDER"}], "called 'OTHER'"),
        ("MONRO", [{"ae_title": "SENDER", "address": "10.0.0.1"}], "no peer, no certificate"),
        ("MONRO", [{"ae_title": "PACS"}], "no peer"),
    ],
)
def test_who_is_turned_away_raises_an_alert(
    settings_for: Any, called: str, peers: list[dict[str, str]], why: str
) -> None:
    settings = settings_for(receivers=1, open_node=False, peers=peers)
    with Node(settings):
        assert associate(settings, called=called).is_rejected

    (alert,) = trail(settings, ALERT)
    assert (alert.kind, alert.outcome) == ("110126", "4")
    assert why in alert.detail
    assert alert.subjects[NODE].get("ParticipantObjectID") == "127.0.0.1"
    assert alert.participants[1].get("UserID") == "SENDER"


def test_a_stranger_at_the_port_of_tls_raises_an_alert(
    settings_for: Any, free_port: int, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = {name: tmp_path / name for name in ("certificate", "key", "authorities")}
    certificate.cert_chain_pems[0].write_to_path(paths["certificate"])
    certificate.private_key_pem.write_to_path(paths["key"])
    authority.cert_pem.write_to_path(paths["authorities"])
    settings = settings_for(receivers=1, tls=paths, tls_port=free_port)
    with Node(settings), socket.create_connection(("127.0.0.1", free_port)) as stranger:
        stranger.sendall(b"no handshake at all" * 10)
        until(lambda: trail(settings, ALERT))

    (alert,) = trail(settings, ALERT)
    assert "TLS connection refused" in alert.detail


def test_one_message_tells_what_a_destination_got_of_a_job_and_one_what_it_did_not(
    ours: ListenerSettings, ledger: Ledger, outbox: list[Result]
) -> None:
    destination = ours.destinations[0]
    archive = Archive(destination.port, ())  # takes overlays and the plain reports
    overlay, report, _ = outbox
    with archive.open(), open_audit(ours) as audit:
        courier = Courier(destination, ours, ledger, audit)
        courier.deliver_due()
        report.path.write_bytes(b"torn")
        courier.deliver_due()

    sent, failed = trail(ours, TRANSFERRED)
    assert (sent.study, sent.classes) == ("1", {overlay.sop_class: 1})
    assert (sent.action, sent.outcome, failed.outcome) == ("R", "0", "4")
    assert failed.classes == {Comprehensive3DSRStorage: 1}
    assert sent.participant(SOURCE).get("UserIsRequestor") == "true"
    assert sent.participant(DESTINATION).get("UserID") == "PACS"


def test_what_we_ask_an_archive_is_told_as_it_was_asked(
    ours: ListenerSettings, ledger: Ledger, outbox: list[Result]
) -> None:
    ways = ours.destinations[0].model_copy(update={"confirm": "query"})
    archive = Archive(ways.port, ("1.2.840.10008.5.1.4.1.2.2.1",))
    with archive.open(), open_audit(ours) as audit:
        Courier(ways, ours, ledger).deliver_due()
        ledger._clock = lambda: time.time() + 100
        DimseConfirmer(ways, ours, ledger, audit).confirm_due()

    (asked,) = trail(ours, QUERY)
    assert asked.participant(DESTINATION).get("UserID") == "PACS"
    assert asked.detail == ExplicitVRLittleEndian
    assert b"IMAGE" in asked_dataset(asked)


def asked_dataset(asked: Message) -> bytes:
    return base64.b64decode(asked.root.findtext(".//ParticipantObjectQuery"))


@pytest.mark.parametrize(("names", "told"), [(False, False), (True, True)])
def test_a_question_after_a_patient_names_them_only_where_the_site_chose_names(
    settings_for: Any, names: bool, told: bool
) -> None:
    settings = settings_for(audit_names=names)
    wanted = Dataset()
    wanted.PatientID, wanted.StudyInstanceUID = "PLANTED-ID", "1.2.3"
    with open_audit(settings) as audit:
        audit.queried(Party("PACS", "pacs"), "1.2.840.10008.5.1.4.1.2.2.1", wanted)

    (asked,) = trail(settings, QUERY)
    assert (b"PLANTED" in asked_dataset(asked)) == told
    assert b"1.2.3" in asked_dataset(asked)
    assert wanted.PatientID == "PLANTED-ID"


def test_a_source_is_asked_and_hands_over_what_we_lack(
    settings_for: Any, ledger: Ledger, free_port: int, an_mr_slice: Callable[..., Dataset]
) -> None:
    held = [an_mr_slice("1.2.3", "1.2.3.1") for _ in range(3)]
    source = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": free_port}
    settings = settings_for(sources=[source], counted_seconds=0)
    with Pacs(free_port, held=held).open(), open_audit(settings) as audit:
        receive_one(settings, ledger, held[0])
        Scout(settings.sources[0], settings, ledger, Spool(settings.spool), audit).ask_due()

    assert len(trail(settings, QUERY)) == 2  # for the series, and for the instances of one
    (fetched,) = trail(settings, TRANSFERRED)
    assert fetched.classes == {MRImageStorage: 2}
    assert fetched.participant(SOURCE).get("UserID") == "PACS"
    assert fetched.participant(DESTINATION).get("UserIsRequestor") == "true"


def test_a_study_that_an_operator_pulls_is_told_of_from_question_to_arrival(
    settings_for: Any,
    free_port: int,
    an_mr_slice: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = [an_mr_slice("1.2.3", "1.2.3.1") for _ in range(3)]
    source = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": free_port}
    settings = settings_for(sources=[source])
    set_environment(monkeypatch, settings)
    monkeypatch.setenv("MONRO_SOURCES", json.dumps([source]))
    monkeypatch.setenv("MONRO_KEEP_FREE", "0")
    with Pacs(free_port, held=held).open():
        done = CliRunner().invoke(app, ["pull", "1.2.3"])

    assert done.exit_code == 0, done.stderr
    told = [each.event for each in trail(settings)]
    assert told == [QUERY, QUERY, TRANSFERRED, ALERT]
    assert trail(settings, TRANSFERRED)[0].classes == {MRImageStorage: 3}


def receive_one(settings: ListenerSettings, ledger: Ledger, dataset: Dataset) -> None:
    from tests.listener.conftest import start_listening

    with start_listening(Spool(settings.spool), ledger) as send_one:
        send_one(dataset)


def test_a_purged_study_is_told_of_with_the_patient_it_was_of(
    settings_for: Any, ledger: Ledger, mr_slice: Dataset
) -> None:
    settings = settings_for(keep_days=30)
    spool, long_ago = Spool(settings.spool), time.time() - 31 * 24 * 3600
    held = spool.write(InstanceKey("1", "1.1", "1.1.1"), b"", b"replaced below")
    mr_slice.save_as(held.path, enforce_file_format=True)
    ledger.record([Received(replace(held, written_at=long_ago), None, long_ago)])
    (study,) = ledger.gathering()
    ledger.complete(study, "quiet")
    ledger.plan("1", 1, [], {"1.1": "no analysis wants it"})
    with open_audit(settings) as audit:
        assert purge(spool, ledger, settings, audit) == ["1"]

    (gone,) = trail(settings, DELETED)
    assert (gone.study, gone.classes) == ("1", {None: 1})
    assert len(gone.patient[0]) == 32


@pytest.fixture
def environment(
    ours: ListenerSettings, monkeypatch: pytest.MonkeyPatch, mr_slice: Dataset
) -> Iterator[str]:
    """A listener's settings as a shell has them, and a study that it received."""
    with Node(ours):
        send(ours, mr_slice)
    set_environment(monkeypatch, ours)
    return str(mr_slice.StudyInstanceUID)


def set_environment(monkeypatch: pytest.MonkeyPatch, settings: ListenerSettings) -> None:
    for name, value in {
        "MONRO_SPOOL": str(settings.spool),
        "MONRO_BROKER": settings.broker,
        "MONRO_SITE": settings.site,
        "MONRO_OPEN_NODE": "true",
        "MONRO_DESTINATIONS": json.dumps(
            [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}]
        ),
    }.items():
        monkeypatch.setenv(name, value)


def test_who_looks_at_a_study_is_told(environment: str, ours: ListenerSettings) -> None:
    assert CliRunner().invoke(app, ["show", environment]).exit_code == 0

    (looked,) = trail(ours, ACCESSED)
    assert (looked.study, looked.action) == (environment, "R")
    assert looked.participants[0].get("UserID") == f"{getpass.getuser()}@{HOST}"
    assert len(looked.patient[0]) == 32


@pytest.mark.parametrize("command", ["status", "account"])
def test_who_lists_all_studies_is_told(
    environment: str, ours: ListenerSettings, command: str
) -> None:
    done = CliRunner().invoke(app, [command, "--json"])
    assert done.exit_code == 0
    assert environment in done.stdout

    (looked,) = trail(ours, QUERY)
    assert looked.action == "E"
    assert looked.participants[0].get("UserID") == f"{getpass.getuser()}@{HOST}"


@pytest.mark.parametrize("command", ["retry", "cancel", "reconcile"])
def test_what_an_operator_does_is_told(
    environment: str, ours: ListenerSettings, command: str
) -> None:
    on_study = [] if command == "reconcile" else [environment]
    assert CliRunner().invoke(app, [command, *on_study]).exit_code == 0

    (act,) = trail(ours, ALERT)
    assert (act.kind, act.outcome, act.detail) == ("110132", "0", command)
    (subject,) = act.subjects.values()
    assert [subject.get("ParticipantObjectID")] == (on_study or [HOST])
    assert act.participants[0].get("UserIsRequestor") == "true"


def test_what_an_operator_attempts_in_vain_is_told(
    environment: str, ours: ListenerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONRO_LEDGER", "sqlite:////nowhere/ledger.sqlite")
    assert CliRunner().invoke(app, ["retry", environment]).exit_code == 1

    (act,) = trail(ours, ALERT)
    assert act.outcome == "4"


def test_a_site_may_choose_to_have_no_trail(settings_for: Any, mr_slice: Dataset) -> None:
    settings = settings_for(receivers=1, audit="none")
    with Node(settings):
        send(settings, mr_slice)

    assert not (settings.spool / "audit").exists()
    ((_, path),) = Spool(settings.spool).received()
    assert dcmread(path).PatientID == "PLANTED-ID"


def test_codes_mean_what_the_standard_says() -> None:
    ours = [each for each in vars(codes).values() if isinstance(each, Code)]
    of_dicom = [each for each in ours if each.scheme == "DCM"]

    assert len(of_dicom) > 10
    for each in of_dicom:
        keyword = "".join(word[0].upper() + word[1:] for word in each.meaning.split())
        theirs = getattr(dictionary.DCM, keyword)
        assert (each.value, each.meaning) == (theirs.value, theirs.meaning)
