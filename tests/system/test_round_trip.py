"""A study goes in through a real Orthanc, results come back into the same study, once."""

import json
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread

Copies = Callable[..., tuple[str, list[Path]]]
Valid = Callable[[Sequence[Path], Sequence[Path]], None]

KINDS = {
    "Comprehensive 3D SR Storage": "report",
    "Enhanced SR Storage": "summary",
    "Secondary Capture Image Storage": "overlay",
}


def with_contrast(dataset: Dataset) -> None:
    dataset.ContrastBolusAgent = "GADOBUTROL"


def kinds(results: Iterable[Path]) -> Counter[str]:
    return Counter(
        KINDS[dcmread(path, stop_before_pixels=True).SOPClassUID.name] for path in results
    )


def dumped(path: Path) -> str:
    """The report as DCMTK prints it."""
    return subprocess.run(
        ["dsrdump", "+U8", str(path)], capture_output=True, text=True, check=True
    ).stdout


def of_kind(results: Sequence[Path], kind: str) -> list[Path]:
    return [path for path in results if kinds([path])[kind]]


def accounted(hospital: Any, study_uid: str) -> dict[str, int]:
    rows = hospital.stack.ledger.study(study_uid)["instances"]
    states: Counter[str] = Counter()
    for row in rows:
        states[row["state"]] += row["count"]
    return dict(states)


def test_a_head_without_contrast_is_refused_in_words_a_radiologist_understands(
    hospital: Any, shared_data: Path, copies: Copies, tmp_path: Path, assert_valid: Valid
) -> None:
    study_uid, files = copies(sorted((shared_data / "philips_mprage_sag").glob("*.dcm")))
    hospital.send(files)
    hospital.await_delivery(study_uid)

    results = hospital.results(study_uid, tmp_path / "pacs")
    assert kinds(results) == {"report": 1, "summary": 1}
    assert_valid(results, files)
    assert accounted(hospital, study_uid)["refused"] == len(files)
    report, summary = (dumped(of_kind(results, kind)[0]) for kind in ("report", "summary"))
    assert "REASON-NO-CONTRAST" in report
    assert "Undetermined" in report
    assert "contrast" in summary
    assert "nothing was concluded" in summary.lower()


def test_a_head_with_contrast_comes_back_judged_and_mapped_slice_by_slice(
    hospital: Any, shared_data: Path, copies: Copies, tmp_path: Path, assert_valid: Valid
) -> None:
    study_uid, files = copies(
        sorted((shared_data / "philips_mprage_sag").glob("*.dcm")), with_contrast
    )
    hospital.send(files)
    hospital.await_delivery(study_uid)

    results = hospital.results(study_uid, tmp_path / "pacs")
    assert kinds(results) == {"report": 1, "summary": 1, "overlay": len(files)}
    assert_valid(results, files)
    assert accounted(hospital, study_uid)["used"] == len(files)
    assert "Probability" in dumped(of_kind(results, "report")[0])
    sources = {header.SOPInstanceUID: header for header in map(dcmread, files)}
    for path in of_kind(results, "overlay"):
        overlay = dcmread(path)
        (origin,) = overlay.SourceImageSequence
        source = sources.pop(origin.ReferencedSOPInstanceUID)
        assert_same_place(overlay, source)
        assert overlay.StudyInstanceUID == source.StudyInstanceUID
        assert overlay.PatientName == source.PatientName
    assert not sources


def assert_same_place(overlay: Dataset, source: Dataset) -> None:
    assert overlay.FrameOfReferenceUID == source.FrameOfReferenceUID
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        assert np.allclose(overlay[keyword].value, source[keyword].value, atol=1e-5)


def test_an_enhanced_multi_frame_study_comes_back_frame_by_frame(
    hospital: Any, shared_data: Path, copies: Copies, tmp_path: Path, assert_valid: Valid
) -> None:
    study_uid, files = copies(
        sorted((shared_data / "siemens_xa30_enh_t1_sag").glob("*/*.dcm")), with_contrast
    )
    hospital.send(files)
    hospital.await_delivery(study_uid)

    results = hospital.results(study_uid, tmp_path / "pacs")
    assert kinds(results) == {"report": 1, "summary": 1, "overlay": 96}
    assert_valid(results, files)
    assert accounted(hospital, study_uid)["used"] == 1
    sources = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, files)}
    frames = set()
    for path in of_kind(results, "overlay"):
        overlay = dcmread(path)
        (origin,) = overlay.SourceImageSequence
        source = sources[origin.ReferencedSOPInstanceUID]
        number = int(origin.ReferencedFrameNumber)
        groups = source.PerFrameFunctionalGroupsSequence[number - 1]
        place = Dataset()
        place.FrameOfReferenceUID = source.FrameOfReferenceUID
        place.ImagePositionPatient = groups.PlanePositionSequence[0].ImagePositionPatient
        place.ImageOrientationPatient = groups.PlaneOrientationSequence[0].ImageOrientationPatient
        place.PixelSpacing = groups.PixelMeasuresSequence[0].PixelSpacing
        assert_same_place(overlay, place)
        frames.add(number)
    assert frames == set(range(1, 97))


def test_perfusion_is_never_selected_and_the_study_says_why(
    hospital: Any, shared_data: Path, copies: Copies
) -> None:
    study_uid, files = copies(sorted((shared_data / "philips_enh_pcasl").glob("*.dcm")))
    hospital.send(files)
    hospital.await_delivery(study_uid)

    job = hospital.job(study_uid)
    assert job["state"] == "REFUSED"
    assert job["series_uid"] is None
    assert "No suitable series" in job["reason"]


def test_our_own_results_come_back_with_the_study_and_change_nothing(
    hospital: Any, shared_data: Path, copies: Copies
) -> None:
    """Orthanc forwards the study again once our results made it stable anew."""
    study_uid, files = copies(sorted((shared_data / "philips_enh_pcasl").glob("*.dcm")))
    hospital.send(files)
    hospital.await_delivery(study_uid)
    hospital.await_that(lambda: accounted(hospital, study_uid).get("not wanted", 0) >= 2, 60)
    time.sleep(3)

    known = hospital.stack.ledger.study(study_uid)
    assert known["revision"] == 1
    assert len(known["jobs"]) == 1
    assert hospital.orthanc.count(study_uid) == len(files) + 2


def test_late_slices_turn_a_refusal_into_a_report_that_names_it(
    hospital: Any, shared_data: Path, copies: Copies, tmp_path: Path
) -> None:
    study_uid, files = copies(
        sorted((shared_data / "philips_mprage_sag").glob("*.dcm")), with_contrast
    )
    hospital.send(files[:-60])
    hospital.await_delivery(study_uid)
    assert "not covered completely" in hospital.job(study_uid)["reason"]
    hospital.send(files[-60:])
    hospital.await_that(lambda: hospital.job(study_uid).get("revision") == 2, 60, study_uid)
    hospital.await_delivery(study_uid)

    reports = [
        dcmread(path) for path in of_kind(hospital.results(study_uid, tmp_path / "pacs"), "report")
    ]
    first, second = sorted(reports, key=lambda report: "PredecessorDocumentsSequence" in report)
    assert second.SeriesDescription == "AI CVF result - INVESTIGATIONAL"
    (study,) = second.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (named,) = series.ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_nothing_that_names_the_patient_is_in_logs_broker_ledger_or_file_names(
    hospital: Any, shared_data: Path, copies: Copies
) -> None:
    study_uid, files = copies(sorted((shared_data / "philips_enh_pcasl").glob("*.dcm")), planted)
    with socket.create_connection(("127.0.0.1", hospital.stack.redis_port)) as monitor:
        monitor.sendall(b"MONITOR\r\n")  # every command that the broker hears, from now on
        hospital.send(files)
        hospital.await_delivery(study_uid)
        heard = drained(monitor)

    told = {
        "listener": hospital.stack.log("listener").read_text(),
        "worker": hospital.stack.log("worker").read_text(),
        "broker": heard,
        "ledger": json.dumps(hospital.stack.ledger.study(study_uid)),
        "names": "\n".join(map(str, (hospital.stack.folder / "spool").rglob("*"))),
    }
    job_id = hospital.job(study_uid)["job_id"]
    assert job_id in told["worker"]
    assert job_id in told["broker"]
    assert study_uid in told["names"]
    for where, text in told.items():
        for secret in PLANTED.values():
            assert secret not in text, f"{secret} in {where}"


def drained(connection: socket.socket) -> str:
    """All that a server has sent so far."""
    connection.settimeout(1)
    heard = b""
    try:
        while piece := connection.recv(1 << 20):
            heard += piece
    except TimeoutError:
        pass
    return heard.decode(errors="replace")


PLANTED = {
    "PatientName": "PLANTEDNAME^ROUNDTRIP",
    "PatientID": "PLANTED-ID-4711",
    "PatientBirthDate": "19470813",
}


def planted(dataset: Dataset) -> None:
    for keyword, value in PLANTED.items():
        setattr(dataset, keyword, value)
