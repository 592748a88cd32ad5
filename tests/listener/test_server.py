"""The application entity at a real edge: associations over loopback."""

import logging
import socket
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DICOSCTImageStorage,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
)
from pynetdicom.dsutils import encode
from pynetdicom.service_class import NonPatientObjectStorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from listener.entrance import open_ports
from listener.errors import CannotListen
from listener.ledger import Ledger
from listener.server import (
    ENCAPSULATED_UNCOMPRESSED,
    INDUSTRIAL_STORAGE,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
)
from listener.spool import Spool


def sent_bytes(dataset: Dataset) -> bytes:
    """The dataset as it goes over the network."""
    return encode(dataset, is_implicit_vr=False, is_little_endian=True) or b""


def eventually(condition: Any, seconds: float = 5) -> bool:
    """Wait for something that is written a moment after the answer."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def test_success_means_that_the_bytes_are_in_the_spool_as_they_were_sent(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset
) -> None:
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger) as send:
        assert send(mr_slice) == 0x0000
        (key, path), *others = spool.received()

    assert others == []
    assert key.sop_uid == mr_slice.SOPInstanceUID
    assert path.read_bytes().endswith(sent_bytes(mr_slice))
    assert dcmread(path).PatientName == "PLANTED^NAME"


def test_an_acknowledged_instance_is_in_the_ledger_a_moment_later(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset
) -> None:
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        send(mr_slice)

    (instance,) = ledger.instances_of(mr_slice.StudyInstanceUID)
    assert (instance.sop_uid, instance.state) == (mr_slice.SOPInstanceUID, "waiting")


def test_an_instance_sent_twice_is_held_and_counted_once(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset
) -> None:
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        assert [send(mr_slice), send(mr_slice, mr_slice)] == [0x0000, 0x0000]

    assert ledger.counts()["instances"] == {"waiting": 1}


def test_another_image_under_a_known_uid_is_acknowledged_kept_and_reported(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset
) -> None:
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger) as send:
        send(mr_slice)
        mr_slice.PixelData = bytes(31) + b"\x01"
        assert send(mr_slice) == 0x0000

    assert ledger.counts()["instances"] == {"quarantined": 1, "waiting": 1}
    assert len(list(spool.quarantined())) == 1
    events = ledger.study(mr_slice.StudyInstanceUID)["events"]  # type: ignore[index]
    assert [event["what"] for event in events] == ["instance quarantined"]


def test_a_full_spool_is_refused_and_leaves_no_trace(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset
) -> None:
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger) as send:
        association = send.associate(mr_slice)
        spool.keep_free = 1 << 62  # it fills while the study comes in
        assert association.send_c_store(mr_slice).Status == 0xA700
        association.release()

    assert ledger.instances_of(mr_slice.StudyInstanceUID) == []
    assert list(tmp_path.rglob("*.dcm")) == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about the UIDs we plant
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", None),
        ("StudyInstanceUID", "../../etc"),
        ("SeriesInstanceUID", ""),
        ("SeriesInstanceUID", "1.2.3/4"),
        ("SeriesInstanceUID", "1." * 40 + "1"),
        ("SOPInstanceUID", None),
    ],
)
def test_a_dataset_without_sound_uids_is_refused(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset, keyword: str, value: Any
) -> None:
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger) as send:
        association = send.associate(mr_slice)
        command_uid = mr_slice.SOPInstanceUID
        if value is None:
            del mr_slice[keyword]
        else:
            mr_slice.add_new(keyword, "UI" if value else "LO", value)
        status = store_raw(association, mr_slice, command_uid)
        association.release()

    assert 0xC000 <= status <= 0xCFFF
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".dcm", ".part")] == []


def test_a_dataset_that_contradicts_its_command_is_refused(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset
) -> None:
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        association = send.associate(mr_slice)
        assert 0xC000 <= store_raw(association, mr_slice, "1.2.3.4") <= 0xCFFF
        association.release()


def test_a_class_that_was_not_agreed_on_is_refused_by_name(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset
) -> None:
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        association = send.associate(mr_slice)
        status = store_raw(
            association, mr_slice, mr_slice.SOPInstanceUID, command_class=CTImageStorage
        )
        association.release()

    assert status == 0x0122


def store_raw(
    association: Any, dataset: Dataset, command_uid: str, command_class: str | None = None
) -> int:
    """Send what no decent SCU would: the command says one thing, the dataset another."""
    from pynetdicom.dimse_primitives import C_STORE

    (context,) = [
        cx for cx in association.accepted_contexts if cx.abstract_syntax == dataset.SOPClassUID
    ]
    request = C_STORE()
    request.MessageID = 1
    request.Priority = 2
    request.AffectedSOPClassUID = command_class or dataset.SOPClassUID
    request.AffectedSOPInstanceUID = command_uid
    request.DataSet = BytesIO(sent_bytes(dataset))
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.001)
    association.dimse.send_msg(request, context.context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return int(response.Status)


@pytest.mark.parametrize(
    "syntax", [JPEG2000Lossless, DeflatedExplicitVRLittleEndian, ENCAPSULATED_UNCOMPRESSED]
)
def test_a_transfer_syntax_is_kept_as_received(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset, syntax: str
) -> None:
    mr_slice.file_meta.TransferSyntaxUID = syntax
    spool = Spool(tmp_path / "spool")
    if UID(syntax).is_encapsulated:
        from pydicom.encaps import encapsulate

        mr_slice.PixelData = encapsulate([b"\xff\x4f\xff\x51not really a code stream"])
        mr_slice["PixelData"].VR = "OB"
    with listening(spool, ledger) as send:
        assert send(mr_slice) == 0x0000

    ((_, path),) = spool.received()
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert dcmread(path).PixelData == mr_slice.PixelData


SIEMENS_CSA_NON_IMAGE = "1.3.12.2.1107.5.9.1"


@pytest.mark.parametrize("sop_class", [SIEMENS_CSA_NON_IMAGE, DICOSCTImageStorage])
def test_an_object_of_a_class_that_pynetdicom_does_not_know_is_kept(
    tmp_path: Path, ledger: Ledger, listening: Any, mr_slice: Dataset, sop_class: str
) -> None:
    mr_slice.SOPClassUID = mr_slice.file_meta.MediaStorageSOPClassUID = sop_class
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger) as send:
        assert send(mr_slice) == 0x0000
        association = send.associate(mr_slice)
        assert store_raw(association, mr_slice, mr_slice.SOPInstanceUID, CTImageStorage) == 0x0122
        association.release()

    ((_, path),) = spool.received()
    assert dcmread(path).SOPClassUID == sop_class


def current(kind: str) -> set[str]:
    """What pydicom's dictionary knows of a kind and does not call retired."""
    return {
        uid for uid, (_, what, _, gone, _) in UID_dictionary.items() if (what, gone) == (kind, "")
    }


def test_every_current_transfer_syntax_is_accepted() -> None:
    assert current("Transfer Syntax") <= set(TRANSFER_SYNTAXES)


def test_every_current_storage_class_whose_objects_belong_to_a_study_is_accepted() -> None:
    left = {
        uid
        for uid in current("SOP Class") - STORAGE_CLASSES - INDUSTRIAL_STORAGE
        if UID(uid).name.endswith("Storage") or " Storage - " in UID(uid).name
        if uid_to_service_class(uid) is not NonPatientObjectStorageServiceClass
    }

    assert left == {MediaStorageDirectoryStorage}  # a DICOMDIR: for media, not for networks


def test_echo_is_answered(tmp_path: Path, ledger: Ledger, listening: Any) -> None:
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        association = send.associate()
        assert association.send_c_echo().Status == 0x0000
        association.release()


@pytest.mark.parametrize(
    ("peer", "calling", "called", "accepted"),
    [
        ({"ae_title": "PACS", "address": "127.0.0.1"}, "PACS", "MONRO", True),
        ({"ae_title": "PACS", "address": "127.0.0.0/8"}, "PACS", "MONRO", True),
        ({"ae_title": "PACS"}, "PACS", "MONRO", True),
        ({"ae_title": "PACS"}, "OTHER", "MONRO", False),
        ({"ae_title": "PACS"}, "PACS", "OTHER", False),
        ({"ae_title": "PACS", "address": "10.0.0.5"}, "PACS", "MONRO", False),
    ],
)
def test_only_those_on_the_list_may_associate(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    peer: dict[str, str],
    calling: str,
    called: str,
    accepted: bool,
) -> None:
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger, open_node=False, peers=[peer]) as send:
        association = send.associate(calling=calling, called=called)
        assert association.is_established is accepted
        assert association.is_rejected is not accepted
        if accepted:
            association.release()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no socket for both IP versions")
def test_a_peer_of_ip_version_4_is_known_where_both_versions_are_listened_to(
    tmp_path: Path, ledger: Ledger, listening: Any
) -> None:
    peer = {"ae_title": "SENDER", "address": "127.0.0.1"}
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger, bind="::", open_node=False, peers=[peer]) as send:
        association = send.associate()
        assert association.is_established
        association.release()


def test_a_released_association_is_told_from_a_broken_one(
    tmp_path: Path, ledger: Ledger, listening: Any, an_mr_slice: Any
) -> None:
    kept, broken = an_mr_slice(), an_mr_slice()
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        send(kept)
        association = send.associate(broken)
        association.send_c_store(broken)
        assert eventually(lambda: len(ledger.gathering()) == 2)
        assert {s.open_associations for s in ledger.gathering()} == {0, 1}
        association.abort()
        assert eventually(lambda: sum(s.open_associations for s in ledger.gathering()) == 0)

    released = {s.study_uid: s.released_at is not None for s in ledger.gathering()}
    assert released == {kept.StudyInstanceUID: True, broken.StudyInstanceUID: False}


def test_nothing_that_names_the_patient_is_logged(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    mr_slice: Dataset,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        send(mr_slice)
        mr_slice.PixelData = bytes(31) + b"\x01"
        send(mr_slice)
        association = send.associate(mr_slice)
        store_raw(association, mr_slice, "1.2.3.4")
        association.release()

    assert "quarantined" in caplog.text
    assert "PLANTED" not in caplog.text


def test_a_port_that_is_taken_is_named(tmp_path: Path, ledger: Ledger, listening: Any) -> None:
    with (
        listening(Spool(tmp_path / "spool"), ledger) as send,
        pytest.raises(CannotListen, match=str(send.settings.port)),
    ):
        open_ports(send.settings)


def test_a_disk_that_will_soon_be_full_takes_no_new_study_and_resumes_by_itself(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    an_mr_slice: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spool = Spool(tmp_path / "spool", keep_free=1000)
    free = 1500
    monkeypatch.setattr(spool, "free_bytes", lambda: free)
    with listening(spool, ledger, room_for_study=600) as send:
        refused = send.associate(an_mr_slice())
        assert refused.is_rejected
        answer = refused.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        echo = send.associate()  # who stores nothing is welcome
        assert echo.is_established
        echo.release()

        free = 10_000
        assert send(an_mr_slice()) == 0x0000
