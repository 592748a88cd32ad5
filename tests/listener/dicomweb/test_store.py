"""STOW-RS over real HTTP: what is kept, what is not, and what the sender is told of each."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from urllib3 import HTTPHeaderDict

from listener import spool as spool_module
from listener.accounting import account
from listener.completion import Patience, plan_studies, reason_to_complete
from listener.dicomweb.store import MOST_NAMELESS
from listener.entries import BundleRow
from listener.ledger import Ledger
from listener.spool import Spool
from tests.listener.dicomweb.conftest import EDGE, HEADERS, Answer, Web, body_of, file_of
from tests.listener.segmentations import segmentation, t2_series

Serving = Callable[..., AbstractContextManager[Web]]


def eventually(condition: Callable[[], object], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def kept(spool: Spool) -> list[str]:
    return sorted(key.sop_uid for key, _path in spool.received())


def test_a_study_is_kept_byte_for_byte_and_accounted_for(
    web: Web, spool: Spool, ledger: Ledger, an_mr_slice: Callable[..., Dataset]
) -> None:
    study = an_mr_slice().StudyInstanceUID
    slices = [an_mr_slice(study=study, number=number) for number in range(5)]
    answer = web.send(*slices, path=f"/studies/{study}")

    assert answer.status == 200
    assert answer.uids() == [each.SOPInstanceUID for each in slices]
    assert answer.failures == {}
    by_uid = {key.sop_uid: path for key, path in spool.received()}
    for each in slices:
        assert by_uid[each.SOPInstanceUID].read_bytes() == file_of(each)
    eventually(lambda: len(ledger.instances_of(study)) == 5)
    (found,) = account(spool, ledger)
    assert (found.agrees, found.on_disk) == (True, 5)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_of_a_reader_is_taken_and_planned(
    web: Web, ledger: Ledger, kind: str
) -> None:
    ledger.register_bundle(BundleRow("infection", "demo", "1.0.0", "b" * 64))
    images = t2_series("1.2", "1.2.1")
    corrected = segmentation(images, kind=kind)
    for sent in (images, [corrected]):
        assert web.send(*sent).status == 200
    eventually(lambda: len(ledger.instances_of("1.2")) == 4)

    (study,) = ledger.gathering()
    ledger.complete(study, "quiet")
    (job_id,) = plan_studies(ledger, ["infection"])
    known = ledger.study("1.2")
    assert known is not None
    assert f"{job_id} with segmentation {corrected.SOPInstanceUID}" in str(known["events"])


def test_success_is_answered_only_once_the_bytes_are_on_stable_storage(
    web: Web, spool: Spool, mr_slice: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_to, may_sync, synced = threading.Event(), threading.Event(), []
    fsync = spool_module.os.fsync

    def slow_fsync(descriptor: int) -> None:
        asked_to.set()
        assert may_sync.wait(10)
        fsync(descriptor)
        synced.append(
            (Path(f"/proc/self/fd/{descriptor}").readlink(), os.fstat(descriptor).st_size)
        )

    monkeypatch.setattr(spool_module.os, "fsync", slow_fsync)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(web.send(mr_slice)))
    thread.start()
    assert asked_to.wait(10)
    time.sleep(0.3)
    assert answers == [], "answered before the file was synced"
    may_sync.set()
    thread.join()

    assert answers[0].status == 200
    (folder,) = spool.root.glob("studies/*/*")
    size = len(file_of(mr_slice))
    assert [at for path, at in synced if path.parent == folder] == [size], "the whole file"
    assert folder in {path for path, _size in synced}, "and its name"
    assert kept(spool) == [mr_slice.SOPInstanceUID]


def test_the_end_of_a_request_is_a_sign_that_the_study_is_complete(
    web: Web, ledger: Ledger, mr_slice: Dataset
) -> None:
    web.send(mr_slice)

    eventually(lambda: ledger.gathering() and ledger.gathering()[0].released_at)
    (study,) = ledger.gathering()
    assert study.open_associations == 0
    reason = reason_to_complete(study, time.time() + 11, Patience(60, 10, 600))
    assert reason is not None
    assert reason.startswith("association released")


def test_the_same_again_is_kept_once_and_other_bytes_are_quarantined(
    web: Web, spool: Spool, mr_slice: Dataset
) -> None:
    assert web.send(mr_slice).status == 200
    assert web.send(mr_slice).status == 200
    assert len(list(spool.quarantined())) == 0

    mr_slice.InstanceNumber = 99
    answer = web.send(mr_slice)

    assert (answer.status, answer.uids()) == (200, [mr_slice.SOPInstanceUID])
    ((_key, apart),) = spool.quarantined()
    assert dcmread(apart).InstanceNumber == 99
    ((_key, first),) = spool.received()
    assert dcmread(first).InstanceNumber == 1


def test_an_instance_that_cannot_be_kept_does_not_hold_up_the_others(
    web: Web, spool: Spool, an_mr_slice: Callable[..., Dataset]
) -> None:
    study = an_mr_slice().StudyInstanceUID
    good, stranger, late = an_mr_slice(study), an_mr_slice(), an_mr_slice(study)
    nobody = an_mr_slice(study)
    del nobody.SeriesInstanceUID
    body = body_of(*map(file_of, (good, stranger)), b"no file", *map(file_of, (nobody, late)))
    answer = web.post(body, path=f"/studies/{study}")

    assert answer.status == 202
    assert answer.uids() == [good.SOPInstanceUID, late.SOPInstanceUID]
    assert answer.failures == {stranger.SOPInstanceUID: 0xA900, nobody.SOPInstanceUID: 0xC000}
    assert answer.others == [0xC000]
    assert kept(spool) == sorted([good.SOPInstanceUID, late.SOPInstanceUID])
    assert list((spool.root / "incoming").iterdir()) == []


def test_a_request_of_which_nothing_is_kept_is_a_conflict(web: Web, mr_slice: Dataset) -> None:
    mr_slice.SOPClassUID = mr_slice.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.38.1"
    answer = web.send(mr_slice)

    assert answer.status == 409
    assert answer.failures == {mr_slice.SOPInstanceUID: 0x0122}


def test_a_part_of_another_kind_is_told_apart(web: Web, mr_slice: Dataset) -> None:
    answer = web.post(body_of(file_of(mr_slice), content_type="application/pdf"))
    assert (answer.status, answer.others) == (409, [0xC000])


def test_whatever_goes_wrong_with_one_instance_is_answered(
    web: Web, spool: Spool, mr_slice: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(5, "PLANTED")

    monkeypatch.setattr(Spool, "_claim", fail)
    answer = web.send(mr_slice)

    assert (answer.status, answer.failures) == (409, {mr_slice.SOPInstanceUID: 0x0110})
    assert list((spool.root / "incoming").iterdir()) == []


# --- bodies that are none, or break off ---


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/dicom", 415),
        ("multipart/form-data; boundary=edge", 415),
        ('multipart/related; type="application/dicom+json"; boundary=edge', 415),
        ('multipart/related; type="application/dicom"', 400),
        ("", 415),
    ],
)
def test_other_media_types_are_refused(
    web: Web, mr_slice: Dataset, content_type: str, status: int
) -> None:
    answer = web.post(body_of(file_of(mr_slice)), headers={"Content-Type": content_type})
    assert answer.status == status


def test_a_compressed_body_is_refused(web: Web) -> None:
    assert web.post(b"x", headers={**HEADERS, "Content-Encoding": "gzip"}).status == 415


def test_a_path_that_names_no_study_is_refused(web: Web, mr_slice: Dataset) -> None:
    assert web.send(mr_slice, path="/studies/..%2Fetc").status in (400, 404)
    assert web.send(mr_slice, path="/studies/PLANTED").status == 400
    assert web.send(mr_slice, path="/elsewhere").status == 404


# --- in which form the answer comes ---


def accepting(*accept: str) -> HTTPHeaderDict:
    headers = HTTPHeaderDict(HEADERS)
    for each in accept:
        headers.add("Accept", each)
    return headers


@pytest.mark.parametrize(
    "accept", ["application/dicom+xml", "application/dicom+json;q=0.5, application/dicom+xml"]
)
def test_an_answer_comes_in_xml_where_that_is_asked_for(
    web: Web, an_mr_slice: Callable[..., Dataset], accept: str
) -> None:
    study = an_mr_slice().StudyInstanceUID
    good, stranger = an_mr_slice(study), an_mr_slice()
    body = body_of(*map(file_of, (good, stranger)))
    answer = web.post(body, path=f"/studies/{study}", headers=accepting(accept))

    assert (answer.status, answer.headers["Content-Type"]) == (202, "application/dicom+xml")
    names = {"": "http://dicom.nema.org/PS3.19/models/NativeDICOM"}
    root = ElementTree.fromstring(answer.text)
    kept, failed, reason = (
        [each.text for each in root.iterfind(f"{path}/Value[@number='1']", names)]
        for path in (
            "*[@keyword='ReferencedSOPSequence']/Item/*[@tag='00081155']",
            "*[@keyword='FailedSOPSequence']/Item/*[@tag='00081155']",
            "*[@keyword='FailedSOPSequence']/Item/*[@keyword='FailureReason'][@vr='US']",
        )
    )
    assert (kept, failed) == ([good.SOPInstanceUID], [stranger.SOPInstanceUID])
    assert reason == [str(0xA900)]


@pytest.mark.parametrize(
    "accept", [[], ["*/*"], ["application/*"], ["application/json"], ["text/html", "*/*;q=0.1"]]
)
def test_an_answer_comes_in_json_otherwise(web: Web, mr_slice: Dataset, accept: list[str]) -> None:
    answer = web.post(body_of(file_of(mr_slice)), headers=accepting(*accept))
    assert answer.uids() == [mr_slice.SOPInstanceUID]


@pytest.mark.parametrize("accept", ["text/html", "application/dicom+json;q=0", "PLANTED"])
def test_who_takes_no_answer_of_ours_is_told_before_anything_is_kept(
    web: Web, spool: Spool, mr_slice: Dataset, accept: str
) -> None:
    answer = web.post(body_of(file_of(mr_slice)), headers=accepting(accept))
    assert answer.status == 406
    assert b"application/dicom+json or application/dicom+xml" in answer.text
    assert b"PLANTED" not in answer.text
    assert kept(spool) == []


def test_other_methods_are_not_offered(web: Web) -> None:
    answer = web.post(None, method="GET")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


def test_what_nobody_foresaw_is_answered(
    web: Web, mr_slice: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("PLANTED")

    monkeypatch.setattr("listener.dicomweb.service.status_of", fail)
    answer = web.send(mr_slice)

    assert (answer.status, answer.text) == (500, b"the listener's log says why")


@pytest.mark.parametrize("body", [b"", b"no boundary anywhere", b"--edge--\r\n"])
def test_a_body_without_any_part_is_refused(web: Web, body: bytes) -> None:
    assert web.post(body).status == 400


def test_of_a_body_that_is_not_closed_the_last_part_is_not_kept(
    web: Web, spool: Spool, an_mr_slice: Callable[..., Dataset]
) -> None:
    first, last = an_mr_slice(), an_mr_slice()
    body = body_of(file_of(first), file_of(last)).removesuffix(f"\r\n--{EDGE}--\r\n".encode())
    answer = web.post(body)

    assert (answer.status, answer.uids()) == (202, [first.SOPInstanceUID])
    assert answer.failures == {last.SOPInstanceUID: 0xC000}
    assert kept(spool) == [first.SOPInstanceUID]


def request_head(length: int, web: Web) -> bytes:
    lines = [
        "POST /studies HTTP/1.1",
        f"Host: 127.0.0.1:{web.address[1]}",
        f"Content-Type: {HEADERS['Content-Type']}",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def begin(connection: socket.socket, head: bytes, body: bytes) -> None:
    """Send the head of a request, and the body's first bytes once the request is served."""
    connection.sendall(head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
    connection.sendall(body[:50])


def test_of_a_connection_that_breaks_within_a_part_only_that_part_is_lost(
    web: Web, spool: Spool, ledger: Ledger, an_mr_slice: Callable[..., Dataset]
) -> None:
    study = an_mr_slice().StudyInstanceUID
    first, last = an_mr_slice(study), an_mr_slice(study)
    body = body_of(file_of(first), file_of(last))
    with socket.create_connection(web.address) as connection:
        connection.sendall(request_head(len(body), web) + body[:-60])
        eventually(lambda: kept(spool) == [first.SOPInstanceUID])
        eventually(lambda: list((spool.root / "incoming").iterdir()))

    eventually(lambda: list((spool.root / "incoming").iterdir()) == [])
    eventually(lambda: len(ledger.instances_of(study)) == 1)
    assert kept(spool) == [first.SOPInstanceUID]
    eventually(lambda: ledger.gathering()[0].open_associations == 0)
    assert ledger.gathering()[0].released_at is None, "it had not said all it wanted to say"


def test_a_body_that_stops_coming_is_given_up(
    serving: Serving, spool: Spool, an_mr_slice: Callable[..., Dataset]
) -> None:
    first, last = an_mr_slice(), an_mr_slice()
    body = body_of(file_of(first), file_of(last))
    with (
        serving(association_timeout_seconds=0.3) as web,
        socket.create_connection(web.address, 5) as connection,
    ):
        connection.sendall(request_head(len(body), web) + body[:-60])
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        while connection.recv(1000):
            pass
        assert kept(spool) == [first.SOPInstanceUID]
        assert list((spool.root / "incoming").iterdir()) == []


def test_a_slow_body_that_keeps_coming_is_taken(
    serving: Serving, spool: Spool, mr_slice: Dataset
) -> None:
    body = body_of(file_of(mr_slice))

    def dripping() -> Iterator[bytes]:
        for start in range(0, len(body), 200):
            time.sleep(0.1)
            yield body[start : start + 200]

    with serving(association_timeout_seconds=0.4) as web:
        assert web.post(dripping()).status == 200
    assert kept(spool) == [mr_slice.SOPInstanceUID]


def test_a_body_that_drips_without_end_is_given_up_and_what_was_whole_is_kept(
    serving: Serving, spool: Spool, an_mr_slice: Callable[..., Dataset]
) -> None:
    first, last = an_mr_slice(), an_mr_slice()
    body = body_of(file_of(first), file_of(last))
    with (
        serving(association_timeout_seconds=0.2, max_associations=1) as web,
        socket.create_connection(web.address, 5) as connection,
    ):
        connection.sendall(request_head(2 * len(body), web) + body[:-60])
        connection.settimeout(0.05)
        begun, answer = time.monotonic(), b""
        while not answer.endswith(b" came") and time.monotonic() - begun < 10:
            with suppress(TimeoutError):
                answer += connection.recv(1000)
            with suppress(OSError):
                connection.sendall(b"" if answer else b"x")
        most_seconds = 2 + len(body) / 1024
        assert time.monotonic() - begun < most_seconds + 2
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b"less than 1024 bytes a second came")
        eventually(lambda: web.send(last).status == 200)
    assert kept(spool) == sorted([first.SOPInstanceUID, last.SOPInstanceUID])
    assert list((spool.root / "incoming").iterdir()) == []


def test_pieces_may_be_cut_anywhere(web: Web, spool: Spool, mr_slice: Dataset) -> None:
    body = body_of(file_of(mr_slice))
    assert web.post(body[at : at + 1] for at in range(len(body))).status == 200
    ((_key, path),) = spool.received()
    assert path.read_bytes() == file_of(mr_slice)


def test_a_request_for_parts_without_end_is_broken_off(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.dicomweb.store.MOST_PARTS", 10)
    answer = web.post(body_of(*[b""] * 20))
    assert answer.status == 400
    assert b"10 parts" in answer.text


# --- room ---


def answer_to_head(web: Web, length: int) -> bytes:
    """What is answered before anything of the body was sent."""
    with socket.create_connection(web.address, 5) as connection:
        connection.sendall(request_head(length, web))
        return connection.recv(1000)


def test_a_full_disk_is_said_to_be_full_before_anything_is_sent(
    serving: Serving, spool: Spool
) -> None:
    spool.keep_free = spool.free_bytes() - 50_000_000
    with serving(room_for_study=100_000_000) as web:
        answer = answer_to_head(web, 100)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in answer.lower()


def test_a_body_that_is_larger_than_the_room_is_not_begun(web: Web, spool: Spool) -> None:
    spool.keep_free = spool.free_bytes() - 50_000_000
    assert answer_to_head(web, 100_000_000).startswith(b"HTTP/1.1 503 ")


def test_a_disk_that_fills_up_on_the_way_is_told_of_each_instance(
    web: Web, spool: Spool, monkeypatch: pytest.MonkeyPatch, an_mr_slice: Callable[..., Dataset]
) -> None:
    slices = [an_mr_slice() for _ in range(3)]
    free = spool.free_bytes

    def shrinking(self: Spool) -> int:
        return free() if len(kept(self)) < 2 else -1

    monkeypatch.setattr(Spool, "free_bytes", shrinking)
    answer = web.send(*slices)
    assert (answer.status, len(answer.uids())) == (202, 2)
    assert answer.failures == {slices[2].SOPInstanceUID: 0xA700}

    monkeypatch.setattr(Spool, "has_room_for", lambda *_: True)
    again = web.send(slices[2])
    assert (again.status, again.failures) == (503, {slices[2].SOPInstanceUID: 0xA700})
    assert "Retry-After" in again.headers
    assert list((spool.root / "incoming").iterdir()) == []


def test_more_requests_than_are_served_at_a_time_are_asked_to_come_again(
    serving: Serving, mr_slice: Dataset
) -> None:
    body = body_of(file_of(mr_slice))
    with serving(max_associations=1) as web:
        with socket.create_connection(web.address) as connection:
            begin(connection, request_head(len(body), web), body)
            answer = web.send(mr_slice)
            assert answer.status == 503
            assert "Retry-After" in answer.headers
        eventually(lambda: web.send(mr_slice).status == 200)


def test_a_sender_that_has_enough_requests_leaves_room_for_others(
    serving: Serving, tmp_path: Path, mr_slice: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    senders = []
    for name in ("greedy", "other"):
        (tmp_path / name).write_text(name)
        senders.append({"name": name, "token_file": tmp_path / name, "max_requests": 1})
    body = body_of(file_of(mr_slice))

    def send(name: str) -> Answer:
        return web.post(body, headers={**HEADERS, "Authorization": f"Bearer {name}"})

    with serving(web_senders=senders, peers=[{"ae_title": "PACS"}], open_node=False) as web:
        with socket.create_connection(web.address) as connection:
            head = request_head(len(body), web).replace(
                b"\r\n\r\n", b"\r\nAuthorization: Bearer greedy\r\n\r\n"
            )
            begin(connection, head, body)
            refused = send("greedy")
            assert refused.status == 503
            assert "Retry-After" in refused.headers
            assert "it has 1 already" in caplog.text
            assert send("other").status == 200
        eventually(lambda: send("greedy").status == 200)


def test_no_patient_is_named_in_a_log(
    web: Web, mr_slice: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = Dataset()
    nobody.update(mr_slice)
    nobody.file_meta = mr_slice.file_meta
    nobody.StudyInstanceUID = "1.2.3"
    del nobody.SeriesInstanceUID
    web.send(mr_slice)
    web.send(nobody)
    web.post(b"--edge\r\nPLANTED^NAME: \x00\x01\r\n\r\nPLANTED^NAME\r\n--edge--")
    web.post(b"", path="/studies?PatientName=PLANTED")

    assert "series" in caplog.text.lower()
    assert "PLANTED" not in caplog.text


def test_rows_that_were_not_written_yet_are_written_when_the_service_stops(
    serving: Serving, ledger: Ledger, mr_slice: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.recorder.BATCH_SECONDS", 30)
    with serving() as web:
        web.send(mr_slice)
    assert len(ledger.instances_of(str(mr_slice.StudyInstanceUID))) == 1


def test_a_body_of_many_parts_that_are_no_files_is_not_read_to_its_end(
    web: Web, spool: Spool, mr_slice: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    answer = web.post(body_of(file_of(mr_slice), *[b""] * (10 * MOST_NAMELESS)))

    assert answer.status == 202, "what was sound is kept"
    assert kept(spool) == [mr_slice.SOPInstanceUID]
    assert len(answer.others) == MOST_NAMELESS + 1
    assert len(caplog.messages) < MOST_NAMELESS + 10
    assert web.post(body_of(*[b""] * (MOST_NAMELESS + 1))).status == 400
