"""A source is asked what a study should hold, and what is missing is fetched from there."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, MRImageStorage
from pynetdicom import AE, evt

from listener.caller import call, caller
from listener.completion import Patience, complete_studies
from listener.entries import Count
from listener.errors import MonroError, SourceFailed
from listener.inventory import list_instances
from listener.ledger import Ledger
from listener.pull import Pulled, pull
from listener.remote import Entity, Source
from listener.scout import Scout
from listener.settings import ListenerSettings
from listener.spool import Spool
from tests.listener.dicomweb.service import Asked, Reply, Service, element, in_json
from tests.listener.segmentations import segmentation, t2_series

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))


@dataclass
class Pacs:
    """A source with a study; it answers as `ways` says, and withholds what it is told."""

    port: int
    ways: tuple[str, ...] = (FIND, GET, MOVE)
    held: list[Dataset] = field(default_factory=list)
    withholds: set[str] = field(default_factory=set)
    sends_to: int = 0
    asked: list[str] = field(default_factory=list)
    find_status: int = 0x0000
    counts: int | None = None
    slips_in: Dataset | None = None

    @contextmanager
    def open(self) -> Iterator["Pacs"]:
        entity = AE(ae_title="PACS")
        for way in self.ways:
            entity.add_supported_context(way)
        entity.add_supported_context(
            MRImageStorage, [ExplicitVRLittleEndian, JPEGLSLossless], scu_role=True, scp_role=True
        )
        entity.add_requested_context(MRImageStorage)
        handlers: list[Any] = [
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_C_GET, self._on_get),
            (evt.EVT_C_MOVE, self._on_move),
        ]
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield self
        finally:
            server.shutdown()

    def _of(self, wanted: Dataset) -> list[Dataset]:
        uids = wanted.get("SOPInstanceUID") or ""
        uids = {uids} if isinstance(uids, str) else set(uids)
        return [
            each
            for each in self.held
            if each.StudyInstanceUID == wanted.StudyInstanceUID
            and wanted.get("SeriesInstanceUID") in ("", None, each.SeriesInstanceUID)
            and (uids == {""} or each.SOPInstanceUID in uids)
        ]

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = event.identifier
        self.asked.append(f"FIND {wanted.QueryRetrieveLevel}")
        if self.find_status:
            yield self.find_status, None
            return
        told = set()
        for each in self._of(wanted):
            match = Dataset()
            match.QueryRetrieveLevel = wanted.QueryRetrieveLevel
            match.StudyInstanceUID = each.StudyInstanceUID
            match.SeriesInstanceUID = each.SeriesInstanceUID
            if wanted.QueryRetrieveLevel == "SERIES":
                match.Modality = each.Modality
                if self.counts is not None:
                    match.NumberOfSeriesRelatedInstances = self.counts
            else:
                match.SOPInstanceUID, match.SOPClassUID = each.SOPInstanceUID, each.SOPClassUID
            if str(match) not in told:
                told.add(str(match))
                yield 0xFF00, match

    def _handed_over(self, wanted: Dataset) -> list[Dataset]:
        return [each for each in self._of(wanted) if each.SOPInstanceUID not in self.withholds]

    def _on_get(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append("GET")
        handed = self._handed_over(event.identifier)
        handed += [self.slips_in] if self.slips_in is not None else []
        yield len(handed)
        for each in handed:
            yield 0xFF00, each

    def _on_move(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append(f"MOVE {event.move_destination}")
        yield "127.0.0.1", self.sends_to
        handed = self._handed_over(event.identifier)
        yield len(handed)
        for each in handed:
            yield 0xFF00, each


@pytest.fixture
def study(an_mr_slice: Callable[..., Dataset]) -> list[Dataset]:
    """Two series of three MR slices, and a report."""
    slices = [an_mr_slice("1.2.3", f"1.2.3.{series}") for series in (1, 1, 1, 2, 2, 2, 3)]
    slices[-1].Modality = "SR"
    return slices


@pytest.fixture
def pacs(study: list[Dataset], free_port: int) -> Pacs:
    return Pacs(free_port, held=study)


@pytest.fixture
def settings(settings_for: Any, pacs: Pacs) -> Callable[..., ListenerSettings]:
    def make(retrieve: str = "auto", **changes: Any) -> ListenerSettings:
        source = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port,
                  "retrieve": retrieve}  # fmt: skip
        values = {"sources": [source], "counted_seconds": 0, "retry_first_seconds": 0.01}
        made: ListenerSettings = settings_for(**values | changes)
        return made

    return make


def scout_of(settings: ListenerSettings, ledger: Ledger) -> Scout:
    return Scout(settings.sources[0], settings, ledger, Spool(settings.spool))


def missing(ledger: Ledger) -> tuple[Count, ...]:
    (gathering,) = ledger.gathering()
    return gathering.counts


def until_recorded(ledger: Ledger, number: int) -> None:
    deadline = time.monotonic() + 10
    while len(ledger.instances_of("1.2.3")) < number:
        assert time.monotonic() < deadline, "the rows did not come"
        time.sleep(0.05)


def received(spool: Path) -> set[str]:
    return {path.stem for path in (spool / "studies").rglob("*.dcm")}


@pytest.mark.parametrize("way", ["get", "move", "auto"])
def test_what_is_missing_is_counted_and_fetched_and_the_study_is_complete_at_once(
    settings: Any, pacs: Pacs, study: list[Dataset], ledger: Ledger, listening: Any, way: str
) -> None:
    ours = settings(way)
    with listening(Spool(ours.spool), ledger) as send, pacs.open():
        send(*study[:2], study[3])
        until_recorded(ledger, 3)
        pacs.sends_to = send.settings.port
        scout = scout_of(ours, ledger)
        scout.ask_due()
        until_recorded(ledger, 6)
        assert missing(ledger) == (), "what came since asks for another look"
        scout.ask_due()

    images = {each.SOPInstanceUID for each in study[:-1]}
    assert received(ours.spool) == images, "reports are not waited for"
    assert missing(ledger) == (Count("pacs", 0),)
    assert ("GET" in pacs.asked) == (way != "move")
    assert ("MOVE MONRO" in pacs.asked) == (way == "move")
    complete_studies(ledger, Patience.from_settings(ours), ledger.now)
    (done,) = ledger.unplanned()
    assert done[0] == "1.2.3"


def test_a_segmentation_that_comes_to_a_finished_study_waits_for_nothing_that_is_here(
    settings: Any, pacs: Pacs, study: list[Dataset], ledger: Ledger, listening: Any
) -> None:
    images = t2_series("1.2.3", "1.2.3.1")
    corrected, elsewhere = segmentation(images), segmentation(images)
    pacs.held = [*images, elsewhere]
    ours = settings("get")
    with listening(Spool(ours.spool), ledger) as send, pacs.open():
        send(*images)
        until_recorded(ledger, 3)
        scout = scout_of(ours, ledger)
        scout.ask_due()
        complete_studies(ledger, Patience.from_settings(ours), ledger.now)
        send(corrected)
        until_recorded(ledger, 4)
        assert missing(ledger) == (), "it is a reason to ask again"
        scout.ask_due()

    assert missing(ledger) == (Count("pacs", 0),)
    assert received(ours.spool) == {each.SOPInstanceUID for each in [*images, corrected]}
    complete_studies(ledger, Patience.from_settings(ours), ledger.now)
    assert ledger.unplanned() == [("1.2.3", 2)]
    (row,) = ledger.recent_studies(1)
    assert row["reason"] == "pacs has no more of it, and quiet for 0 s"


def test_a_source_that_offers_no_c_get_is_asked_to_send(
    settings: Any, pacs: Pacs, study: list[Dataset], ledger: Ledger, listening: Any
) -> None:
    pacs.ways = (FIND, MOVE)
    ours = settings("auto")
    with listening(Spool(ours.spool), ledger) as send, pacs.open():
        send(study[0])
        until_recorded(ledger, 1)
        pacs.sends_to = send.settings.port
        scout_of(ours, ledger).ask_due()
        until_recorded(ledger, 6)


def test_compressed_instances_are_fetched_as_they_are_stored_there(
    settings: Any, pacs: Pacs, study: list[Dataset], ledger: Ledger, listening: Any
) -> None:
    stored = study[1]
    stored.file_meta.TransferSyntaxUID = JPEGLSLossless
    ours = settings("get")
    with listening(Spool(ours.spool), ledger) as send, pacs.open():
        send(study[0])
        until_recorded(ledger, 1)
        scout_of(ours, ledger).ask_due()
        until_recorded(ledger, 6)
    (path,) = (ours.spool / "studies").rglob(f"{stored.SOPInstanceUID}.dcm")
    assert JPEGLSLossless.encode() in path.read_bytes()


def test_a_source_that_only_counts_is_asked_again_and_again_with_pauses(
    settings: Any, pacs: Pacs, study: list[Dataset], ledger: Ledger, listening: Any
) -> None:
    ours = settings("none", retry_first_seconds=3600)
    with listening(Spool(ours.spool), ledger) as send, pacs.open():
        send(*study[:4])
        until_recorded(ledger, 4)
        scout = scout_of(ours, ledger)
        scout.ask_due()
        scout.ask_due()
        assert missing(ledger) == (Count("pacs", 2),)
        assert pacs.asked.count("FIND SERIES") == 1
        send(study[4])
        until_recorded(ledger, 5)
        scout.ask_due()
    assert missing(ledger) == (Count("pacs", 1),)
    assert received(ours.spool) == {each.SOPInstanceUID for each in study[:5]}


def test_what_a_source_does_not_hand_over_is_still_missing(
    settings: Any, pacs: Pacs, study: list[Dataset], ledger: Ledger, listening: Any
) -> None:
    pacs.withholds = {study[5].SOPInstanceUID}
    ours = settings("get")
    with listening(Spool(ours.spool), ledger) as send, pacs.open():
        send(study[0])
        until_recorded(ledger, 1)
        scout = scout_of(ours, ledger)
        scout.ask_due()
        until_recorded(ledger, 5)
        scout.ask_due()
    assert missing(ledger) == (Count("pacs", 1),)


@pytest.mark.parametrize("trouble", ["away", "failing", "without the study"])
def test_a_source_that_cannot_tell_holds_nothing_up(
    settings: Any, pacs: Pacs, study: list[Dataset], ledger: Ledger, listening: Any, trouble: str
) -> None:
    ours = settings("auto", released_quiet_seconds=0)
    if trouble == "failing":
        pacs.find_status = 0xC001
    if trouble == "without the study":
        pacs.held = []
    with listening(Spool(ours.spool), ledger) as send:
        send(study[0])
        until_recorded(ledger, 1)
        scout = scout_of(ours, ledger)
        if trouble == "away":
            scout.ask_due()
        else:
            with pacs.open():
                scout.ask_due()
        deadline = time.monotonic() + 10
        while not ledger.unplanned():
            complete_studies(ledger, Patience.from_settings(ours), ledger.now)
            assert time.monotonic() < deadline
            time.sleep(0.05)
    (study_row,) = ledger.recent_studies(1)
    assert study_row["reason"] == "association released, then quiet for 0 s"


def test_a_whole_study_is_fetched_on_demand_reports_and_all(
    settings: Any, pacs: Pacs, study: list[Dataset], ledger: Ledger
) -> None:
    ours, told = settings("get"), []
    spool = Spool(ours.spool)
    with pacs.open():
        pulled = pull("1.2.3", ours, ledger, spool, on_progress=told.append)
        again = pull("1.2.3", ours, ledger, spool, "pacs")

    assert pulled == Pulled("pacs", has=7, missing=7, came=7)
    assert again == Pulled("pacs", has=7, missing=0, came=0)
    assert received(ours.spool) == {each.SOPInstanceUID for each in study}
    assert told == sorted(told)
    assert told[-1] == 7
    assert missing(ledger) == ()


def test_what_cannot_be_fetched_on_demand_is_told_with_the_reason(
    settings: Any, pacs: Pacs, ledger: Ledger
) -> None:
    ours = settings("none")
    spool = Spool(ours.spool)
    with pytest.raises(MonroError, match=r"MONRO_SOURCES names: pacs"):
        pull("1.2.3", ours, ledger, spool, "elsewhere")
    with pytest.raises(MonroError, match="source pacs does not answer"):
        pull("1.2.3", ours, ledger, spool)
    with pacs.open():
        with pytest.raises(MonroError, match=r"pacs does not have study 1\.2\.4"):
            pull("1.2.4", ours, ledger, spool)
        with pytest.raises(MonroError, match=r"has 7 more instance\(s\)"):
            pull("1.2.3", ours, ledger, spool)


def web_pacs(study: list[Dataset]) -> Service:
    """A DICOMweb service that has a study."""
    files = {each.SOPInstanceUID: part10(each) for each in study}

    def listed(asked: Asked) -> Reply:
        if dict(asked.fields).get("offset", "0") != "0":
            return in_json()
        if asked.path.endswith("/series"):
            told = {each.SeriesInstanceUID: each.Modality for each in study}
            return in_json(*(
                {"0020000E": element("UI", uid), "00080060": element("CS", modality)}
                for uid, modality in told.items()
            ))  # fmt: skip
        return in_json(*(
            {"00080018": element("UI", each.SOPInstanceUID),
             "00080016": element("UI", each.SOPClassUID)}
            for each in study if each.SeriesInstanceUID in asked.path
        ))  # fmt: skip

    def answer(asked: Asked) -> Reply:
        if "multipart/related" not in asked.headers["accept"]:
            return listed(asked)
        wanted = [
            files[each.SOPInstanceUID]
            for each in study
            if asked.path.endswith((each.SeriesInstanceUID, f"/{each.SOPInstanceUID}"))
        ]
        parts = [b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file for file in wanted]
        kind = 'multipart/related; type="application/dicom"; boundary=x'
        body = b"\r\n".join([*parts, b"--x--\r\n"])
        return Reply(200, body, {"Content-Type": kind})

    return Service(answer)


def part10(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize("one_by_one", [0, 10])
def test_a_source_may_speak_dicomweb(
    settings_for: Any, study: list[Dataset], ledger: Ledger, listening: Any, one_by_one: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("listener.dicomweb.retrieve.ONE_BY_ONE", one_by_one)
    service = web_pacs(study)
    with service.open():
        ours = settings_for(sources=[{"name": "pacs", "url": service.url}], counted_seconds=0)
        with listening(Spool(ours.spool), ledger) as send:
            send(*study[:2], study[3])
            until_recorded(ledger, 3)
            scout = scout_of(ours, ledger)
            scout.ask_due()
            until_recorded(ledger, 6)
            scout.ask_due()
            assert missing(ledger) == (Count("pacs", 0),)
        pulled = pull("1.2.3", ours, ledger, Spool(ours.spool))
    assert pulled == Pulled("pacs", has=7, missing=1, came=1)
    assert received(ours.spool) == {each.SOPInstanceUID for each in study}


def test_one_file_that_is_none_does_not_hold_up_the_others(
    settings_for: Any, study: list[Dataset], ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    service = web_pacs(study)
    whole = service.answer
    service.answer = lambda asked: replace(
        whole(asked), body=whole(asked).body.replace(b"DICM", b"NOPE", 1)
    )
    with service.open():
        ours = settings_for(sources=[{"name": "pacs", "url": service.url}])
        pulled = pull("1.2.3", ours, ledger, Spool(ours.spool))
    assert pulled.came == 0, "each of them was asked for by name"
    assert "a part is no DICOM file" in caplog.text
    assert received(ours.spool) == set()


def test_a_bad_file_among_good_ones_is_passed_over(
    settings_for: Any, study: list[Dataset], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.dicomweb.retrieve.ONE_BY_ONE", 0)
    service = web_pacs(study)
    whole = service.answer
    service.answer = lambda asked: replace(
        whole(asked), body=whole(asked).body.replace(b"DICM", b"NOPE", 1)
    )
    with service.open():
        ours = settings_for(sources=[{"name": "pacs", "url": service.url}])
        pulled = pull("1.2.3", ours, ledger, Spool(ours.spool))
    assert pulled == Pulled("pacs", has=7, missing=7, came=4), "the first of each series was bad"


def test_what_is_here_already_is_no_news_where_a_whole_series_is_fetched(
    settings_for: Any, study: list[Dataset], ledger: Ledger, listening: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("listener.dicomweb.retrieve.ONE_BY_ONE", 0)
    service = web_pacs(study[:3])
    withheld = [part10(each) for each in study[1:3]]
    whole = service.answer

    def answer(asked: Asked) -> Reply:
        reply = whole(asked)
        for file in withheld:
            part = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n"
            reply = replace(reply, body=reply.body.replace(part, b""))
        return reply

    service.answer = answer
    with service.open():
        ours = settings_for(
            sources=[{"name": "pacs", "url": service.url}],
            counted_seconds=0,
            retry_first_seconds=3600,
        )
        with listening(Spool(ours.spool), ledger) as send:
            send(study[0])
            until_recorded(ledger, 1)
            scout = scout_of(ours, ledger)
            scout.ask_due()
            asked = len(service.asked)
            scout.ask_due()
    assert missing(ledger) == (Count("pacs", 2),)
    assert len(service.asked) == asked, "it was asked again as if something had come"


def test_a_source_that_lists_less_than_it_counts_is_not_believed(
    settings: Any, pacs: Pacs, study: list[Dataset]
) -> None:
    pacs.counts = 4
    ours = settings()
    with pacs.open(), pytest.raises(SourceFailed, match="lists 3 of 4 instances"):
        list_instances(ours.sources[0], ours, "1.2.3")


def test_instances_of_another_study_are_not_taken_from_a_source(
    settings: Any, pacs: Pacs, study: list[Dataset], ledger: Ledger,
    an_mr_slice: Callable[..., Dataset], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    pacs.slips_in = an_mr_slice("9.9.9")
    ours = settings("get")
    with pacs.open():
        pull("1.2.3", ours, ledger, Spool(ours.spool))
    assert received(ours.spool) == {each.SOPInstanceUID for each in study}
    assert "but 1.2.3 was asked for" in caplog.text


def test_an_instance_that_is_too_large_ends_what_fetches_it(
    settings: Any, pacs: Pacs, study: list[Dataset], ledger: Ledger
) -> None:
    study[0].PixelData = bytes(2 << 20)
    ours = settings("get", largest_instance=1 << 20)
    begun = time.monotonic()
    with pacs.open(), pytest.raises(SourceFailed):
        pull("1.2.3", ours, ledger, Spool(ours.spool))
    assert time.monotonic() - begun < ours.association_timeout_seconds / 2, "it waits for nothing"


@pytest.mark.parametrize("says", [b"", b"\x02\x00\x00"])
def test_a_peer_that_accepts_a_connection_and_says_no_more_is_given_up(
    settings_for: Any, free_port: int, says: bytes
) -> None:
    ours = settings_for(association_timeout_seconds=1)
    entity = caller("MONRO", 1)
    entity.add_requested_context("1.2.840.10008.1.1")
    with socket.create_server(("127.0.0.1", free_port)) as port:
        threading.Thread(target=silent, args=(port, says), daemon=True).start()
        begun = time.monotonic()
        theirs = Entity(ae_title="PACS", host="127.0.0.1", port=free_port)
        association = call(entity, theirs, ours.tls)
    assert not association.is_established
    assert time.monotonic() - begun < 10


def silent(port: socket.socket, says: bytes) -> None:
    connection, _ = port.accept()
    connection.sendall(says)
    time.sleep(20)
    connection.close()


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_an_answer_that_is_no_uid_is_refused_as_a_whole(
    settings: Any, pacs: Pacs, study: list[Dataset]
) -> None:
    study[0].SeriesInstanceUID = "PLANTED^NAME"
    ours = settings()
    source = ours.sources[0]
    assert isinstance(source, Source)
    with pacs.open(), pytest.raises(SourceFailed, match="SeriesInstanceUID") as caught:
        list_instances(source, ours, "1.2.3")
    assert "PLANTED" not in str(caught.value)
