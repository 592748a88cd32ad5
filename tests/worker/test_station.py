"""A worker's station: what it does when things go wrong."""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from listener.entries import BundleRow, Plan, Received
from listener.errors import LeaseLost
from listener.ledger import Ledger
from listener.series import InstanceKey
from listener.settings import Commons
from listener.spool import Spool
from tests.worker.region_study import RADIOMICS
from worker import station as station_module
from worker.analyses.interface import Analysis
from worker.bundle import load_bundle
from worker.ensemble import Band, Prediction
from worker.limits import Limits
from worker.pipeline import Commission, Estimate
from worker.radiomics.extraction import LIBRARY, VERSION
from worker.results.outcome import Estimated
from worker.seal import BadBundle, sign
from worker.settings import Settings, WorkerSettings
from worker.signature import make_key, public_path, read_private_key, read_trusted_keys
from worker.station import Station
from worker.stopwatch import Stopwatch
from worker.volume import Volume

DEMO = Path(__file__).parents[2] / "deploy" / "bundles" / "fistula-demo"
KEY = InstanceKey("1.2", "1.2.1", "1.2.1.1")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    commons = Commons(spool=tmp_path, broker="redis://127.0.0.1:1/0", site="test", max_attempts=2)
    return Settings(commons, WorkerSettings(bundles=(DEMO,)))


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    book = Ledger(settings.commons.ledger_url)
    yield book
    book.close()


@pytest.fixture
def job_id(settings: Settings, ledger: Ledger) -> str:
    """A queued job for one slice of a head."""
    path = settings.commons.spool / "slice.dcm"
    a_slice().save_as(path, enforce_file_format=True)
    held = Spool(settings.commons.spool).write(KEY, *split(path))
    ledger.record([Received(held, None, time.time())])
    (study,) = ledger.gathering()
    ledger.complete(study, "quiet")
    bundle = load_bundle(DEMO)
    row = BundleRow(bundle.analysis, bundle.name, bundle.version, bundle.weights_sha256)
    return queue(ledger, row)


def queue(ledger: Ledger, row: BundleRow) -> str:
    """The job of a bundle for the one study of the ledger."""
    plan = Plan("fistula", "1.2.1", tuple(ledger.instances_of("1.2")))
    (queued,) = ledger.plan("1.2", 1, [(plan, row)], {})
    return queued


@pytest.fixture
def signed_demo(tmp_path: Path) -> tuple[Path, Path]:
    """The demo bundle with a signature, and the public key of who signed it."""
    key = tmp_path / "keys" / "release"
    make_key(key)
    folder = shutil.copytree(DEMO, tmp_path / "bundle")
    sign(folder, read_private_key(key))
    return folder, public_path(key)


def a_slice() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, KEY.sop_uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = KEY.study_uid, KEY.series_uid
    dataset.Modality, dataset.BodyPartExamined = "MR", "BRAIN"
    dataset.PatientName = "PLANTED^NAME"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = KEY.sop_uid
    return dataset


def split(path: Path) -> tuple[bytes, bytes]:
    """A file's head, with the meta information, and its dataset."""
    content = path.read_bytes()
    offset = 132 + 12 + int.from_bytes(content[140:144], "little")
    return content[:offset], content[offset:]


def fails(*_arguments: Any) -> Any:
    raise RuntimeError("PLANTED^NAME")


def estimates(
    asked: Commission, analysis: Analysis, _watch: Stopwatch, _limits: Limits
) -> Estimate:
    """A score without a look at the slice."""
    prediction = Prediction(0.5, (0.5,), 0.0, 50.0, frozenset(), Band.UNDETERMINED)
    voxels = np.zeros((1, 1, 1), np.float32)
    outcome = Estimated(
        asked.lineage,
        asked.created,
        (a_slice(),),
        Volume(voxels, np.eye(4), (), voxels),
        analysis.bundle,
        prediction,
        predecessors=asked.predecessors,
    )
    return Estimate(outcome, SimpleNamespace(inputs={"mean intensity": 0.5}))


def test_what_a_shadow_finds_is_kept_under_uids_of_its_own_and_sent_to_nobody(
    settings: Settings, ledger: Ledger, job_id: str
) -> None:
    ledger.set_destinations(["pacs"])
    bundle = load_bundle(DEMO)
    row = BundleRow(bundle.analysis, bundle.name, bundle.version, bundle.weights_sha256)
    shadow = queue(ledger, replace(row, role="shadow"))
    station = Station(replace(settings, worker=WorkerSettings(bundles=(DEMO,), early_report=True)))
    station.work(shadow)
    station.work(job_id)

    assert ledger.counts()["jobs"] == {"REFUSED": 2}
    of_shadow, of_active = ledger.results_of(shadow), ledger.results_of(job_id)
    assert [each.kind for each in of_shadow] == [each.kind for each in of_active]
    assert {each.sop_uid for each in of_shadow}.isdisjoint(each.sop_uid for each in of_active)
    assert dcmread(of_shadow[0].path).DeviceSerialNumber == "test (shadow)"
    due = {result for pending in ledger.due("pacs") for result in pending.encodings}
    assert due <= set(of_active)
    assert due


def test_an_analysis_that_keeps_failing_ends_in_a_refusal_that_can_be_retried(
    settings: Settings, ledger: Ledger, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = Station(settings)
    monkeypatch.setattr(station_module, "estimate", fails)
    for _ in range(settings.commons.max_attempts):
        with pytest.raises(RuntimeError):
            station.work(job_id)
        assert ledger.counts()["jobs"] == {"QUEUED": 1}
    station.work(job_id)

    assert ledger.counts()["jobs"] == {"REFUSED": 1}
    assert {each.kind for each in ledger.results_of(job_id)} == {
        "refusal",
        "refusal-enhanced",
        "refusal-summary",
    }
    known = ledger.study("1.2")
    assert known is not None
    assert known["jobs"][0]["summary"] == {"refused": "REASON-INTERNAL"}
    assert "PLANTED" not in str(known)
    assert ledger.retry("1.2") == (1, 0, 0)
    assert ledger.counts()["jobs"] == {"QUEUED": 1}


def test_a_site_may_ask_for_another_mode_of_maps(settings: Settings) -> None:
    worker = WorkerSettings(bundles=(DEMO,), map_mode="preview")

    (analysis,) = Station(Settings(settings.commons, worker)).shelf.held.values()

    assert load_bundle(DEMO).occlusion.mode == "paper"
    assert analysis.bundle.occlusion.mode == "preview"


def test_the_map_s_progress_is_told_and_its_lease_is_looked_after(
    settings: Settings, job_id: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    told: list[str] = []

    def judges(*arguments: Any) -> Any:
        on_progress, effort = arguments[-2:]
        assert effort.seconds == settings.worker.map_seconds
        for done in range(0, 31, 3):
            on_progress(done, 30)
        raise RuntimeError

    monkeypatch.setattr(station_module, "estimate", estimates)
    monkeypatch.setattr(station_module, "judge", judges)
    monkeypatch.setattr("listener.ledger.Lease.tell", lambda _lease, text: told.append(text))
    with caplog.at_level("INFO"), pytest.raises(RuntimeError):
        Station(settings).work(job_id)

    assert told == [f"map {done} of 30" for done in range(0, 31, 3)]
    assert f"job {job_id}: map 15 of 30" in caplog.messages


def test_a_map_ends_when_its_lease_is_lost(
    settings: Settings, ledger: Ledger, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judges(*arguments: Any) -> Any:
        on_progress = arguments[-2]
        monkeypatch.setattr("listener.ledger.Lease.check", lost)
        on_progress(1, 30)
        raise AssertionError

    def lost(_lease: Any) -> None:
        raise LeaseLost(job_id)

    monkeypatch.setattr(station_module, "estimate", estimates)
    monkeypatch.setattr(station_module, "judge", judges)
    Station(settings).work(job_id)

    assert ledger.results_of(job_id) == []


@pytest.fixture
def early_settings(settings: Settings) -> Settings:
    worker = WorkerSettings(bundles=(DEMO,), early_report=True)
    return Settings(settings.commons.model_copy(update={"max_attempts": 1}), worker)


def test_an_early_report_outlives_its_attempt_and_is_named_by_what_follows(
    early_settings: Settings, ledger: Ledger, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.set_destinations(["pacs"])
    station = Station(early_settings)
    monkeypatch.setattr(station_module, "estimate", estimates)
    monkeypatch.setattr(station_module, "judge", fails)
    with pytest.raises(RuntimeError):
        station.work(job_id)

    early = {each.kind: each for each in ledger.results_of(job_id)}
    assert early.keys() == {"early", "early-enhanced"}
    assert [pending.encodings for pending in ledger.due("pacs")] == [tuple(early.values())]
    known = ledger.study("1.2")
    assert known is not None
    assert known["jobs"][0]["summary"]["probability"] == 0.5

    station.work(job_id)  # one attempt too many: it ends in a refusal

    refusal = next(each for each in ledger.results_of(job_id) if each.kind == "refusal")
    (before,) = dcmread(refusal.path).PredecessorDocumentsSequence
    named = before.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == early["early"].sop_uid
    assert early["early"].path.exists()


def test_without_being_asked_the_score_goes_no_further_than_the_ledger(
    settings: Settings, ledger: Ledger, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(station_module, "estimate", estimates)
    monkeypatch.setattr(station_module, "judge", fails)
    with pytest.raises(RuntimeError):
        Station(settings).work(job_id)

    assert ledger.results_of(job_id) == []
    known = ledger.study("1.2")
    assert known is not None
    assert known["jobs"][0]["summary"]["probability"] == 0.5


def test_a_second_attempt_sends_no_second_early_report(
    early_settings: Settings, ledger: Ledger, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commons = early_settings.commons.model_copy(update={"max_attempts": 2})
    station = Station(Settings(commons, early_settings.worker))
    monkeypatch.setattr(station_module, "estimate", estimates)
    monkeypatch.setattr(station_module, "judge", fails)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            station.work(job_id)

    assert len(list((commons.spool / "results").rglob("*.dcm"))) == 2


def test_a_worker_that_lost_its_lease_leaves_nothing_behind(
    settings: Settings, ledger: Ledger, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = Station(settings)

    def lost(*_arguments: Any) -> Any:
        raise LeaseLost(job_id)

    monkeypatch.setattr(station._ledger, "keep", lost)
    station.work(job_id)

    assert ledger.results_of(job_id) == []
    assert list((settings.commons.spool / "results").rglob("*.dcm")) == []


def test_a_worker_says_who_signed_the_bundles_that_it_runs(
    settings: Settings, signed_demo: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder, key = signed_demo
    (trusted,) = read_trusted_keys([key])
    caplog.set_level(logging.INFO)
    Station(replace(settings, worker=WorkerSettings(bundles=(folder,), trusted_keys=(key,))))
    assert f"signed by key {trusted.fingerprint}" in caplog.text
    caplog.clear()

    Station(replace(settings, worker=WorkerSettings(bundles=(folder,))))
    assert "signatures are not looked at" in caplog.text
    assert trusted.fingerprint not in caplog.text


def test_a_worker_that_trusts_keys_does_not_start_with_an_unsigned_bundle(
    settings: Settings, signed_demo: tuple[Path, Path], ledger: Ledger
) -> None:
    _, key = signed_demo

    with pytest.raises(BadBundle, match=r"found no readable manifest\.sig"):
        Station(replace(settings, worker=WorkerSettings(bundles=(DEMO,), trusted_keys=(key,))))
    assert ledger.active_bundle("fistula") is None


# --- regions that a reader may draw ---


def station_for(settings: Settings, bundle: Path, regions: Any) -> Station:
    worker = WorkerSettings(bundles=(bundle,), regions=regions)
    return Station(replace(settings, worker=worker))


def received(settings: Settings, ledger: Ledger, paths: list[Path]) -> InstanceKey:
    """Files as the listener would have taken them in."""
    spool, key = Spool(settings.commons.spool), None
    for path in paths:
        header = dcmread(path, stop_before_pixels=True)
        key = InstanceKey(header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
        held = spool.write(key, *split(path))
        ledger.record([Received(held, None, time.time())])
    assert key is not None
    return key


def planned(settings: Settings, ledger: Ledger, bundle: Path, series: str) -> str:
    """The job for all that the one study of the ledger holds."""
    (study,) = ledger.gathering()
    ledger.complete(study, "quiet")
    known = ledger.study(study.study_uid)
    assert known is not None
    run = load_bundle(bundle)
    row = BundleRow(run.analysis, run.name, run.version, run.weights_sha256)
    plan = Plan("infection", series, tuple(ledger.instances_of(study.study_uid)))
    (queued,) = ledger.plan(study.study_uid, known["revision"], [(plan, row)], {})
    return queued


def kinds_of(ledger: Ledger, job: str) -> dict[str, Path]:
    return {each.kind: each.path for each in ledger.results_of(job) if each.number == 0}


def test_proposed_regions_are_judged_at_once_unless_a_reader_is_waited_for(
    settings: Settings, ledger: Ledger, region_bundle: Path, study: list[Path]
) -> None:
    station = station_for(settings, region_bundle, "propose and judge")
    series = received(settings, ledger, study).series_uid
    job = planned(settings, ledger, region_bundle, series)

    station.work(job)

    assert ledger.counts()["jobs"] == {"REPORTED": 1}
    made = kinds_of(ledger, job)
    assert made.keys() == {"overlay", "report", "report-enhanced", "summary", "proposal"}
    known = ledger.study(dcmread(made["report"]).StudyInstanceUID)
    assert known is not None
    told = known["jobs"][0]["summary"]
    assert told["probability"] == told["sublentiform probability"]
    assert told["ventricles probability"] > 0
    assert told["map"].startswith("Grad-CAM, one pass over")
    assert told["features"] == f"{LIBRARY} {VERSION}, configuration {RADIOMICS.config_hash}"


def test_a_reader_who_is_waited_for_is_shown_the_regions_and_answered_with_a_judgement(
    settings: Settings, ledger: Ledger, region_bundle: Path, study: list[Path], tmp_path: Path
) -> None:
    station = station_for(settings, region_bundle, "wait for reader")
    series = received(settings, ledger, study).series_uid
    first = planned(settings, ledger, region_bundle, series)
    station.work(first)

    assert ledger.counts()["jobs"] == {"REPORTED": 1}
    asked = kinds_of(ledger, first)
    assert asked.keys() == {"proposal", "note"}
    proposal, note = dcmread(asked["proposal"]), dcmread(asked["note"])

    mended = tmp_path / "mended.dcm"
    proposal.SOPInstanceUID = proposal.file_meta.MediaStorageSOPInstanceUID = "1.2.9.1"
    proposal.SeriesInstanceUID, proposal.Manufacturer = "1.2.9", "viewer"
    proposal.save_as(mended, enforce_file_format=True)
    received(settings, ledger, [mended])
    second = planned(settings, ledger, region_bundle, series)
    assert second != first
    station.work(second)

    answer = kinds_of(ledger, second)
    assert answer.keys() == {"overlay", "report", "report-enhanced", "summary"}
    (before,) = dcmread(answer["summary"]).PredecessorDocumentsSequence
    named = before.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == note.SOPInstanceUID
    assert "Segmentation by a reader" in str(dcmread(answer["report"]))
    assert "PredecessorDocumentsSequence" not in dcmread(answer["report"])
    assert {each.sop_uid for each in ledger.results_of(first)}.isdisjoint(
        each.sop_uid for each in ledger.results_of(second)
    )
