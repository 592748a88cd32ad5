"""Regions go out as a segmentation, come back as a reader mended it, and are judged anew."""

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.pixels import pack_bits
from pydicom.uid import generate_uid
from scipy import ndimage

from tests.system.conftest import DCMTK_STORESCU
from tests.system.test_round_trip import accounted, dumped
from trainer.infection import draw_infection
from trainer.phantom_study import NOBODY, study_uid, write_axial
from trainer.phantom_t2 import render_t2

Valid = Callable[[Sequence[Path], Sequence[Path]], None]
Study = tuple[str, list[Path]]

INFECTION = {"MONRO_ANALYSES": json.dumps(["infection"])}


@pytest.fixture(scope="module")
def axial(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A synthetic axial T2."""
    phantom = render_t2(draw_infection(5, positive=True), 128)
    return study_uid(phantom.case, phantom.scanner), write_axial(
        phantom, NOBODY, tmp_path_factory.mktemp("axial")
    )


def mended(proposal: Path, folder: Path, edit: Callable[[np.ndarray], np.ndarray]) -> Path:
    """What a viewer saves after a reader worked on a segmentation: frames, and a new object."""
    dataset = dcmread(proposal)
    dataset.PixelData = pack_bits(edit(dataset.pixel_array).astype(np.uint8), pad=True)
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Manufacturer = "A viewer"
    dataset.ContentDate = "20991231"
    folder.mkdir(exist_ok=True)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path)
    return path


def grown(frames: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.binary_dilation(frame) for frame in frames])


def send_back(hospital: Any, segmentation: Path) -> None:
    """What a viewer does: DCMTK proposes segmentations only if asked for just what is needed."""
    pacs = ("-aet", "VIEWER", "-aec", "PACS", "127.0.0.1", str(hospital.orthanc.dicom_port))
    subprocess.run([DCMTK_STORESCU, "-R", *pacs, str(segmentation)], check=True)


def by_modality(results: Sequence[Path]) -> Counter[str]:
    return Counter(dcmread(path, stop_before_pixels=True).Modality for path in results)


def of_modality(results: Sequence[Path], modality: str) -> list[Path]:
    return [path for path in results if dcmread(path, stop_before_pixels=True).Modality == modality]


def summaries(results: Sequence[Path]) -> list[Dataset]:
    """Text summaries, the earlier one first."""
    reports = map(dcmread, of_modality(results, "SR"))
    found = [each for each in reports if is_text(each)]
    return sorted(found, key=lambda each: "PredecessorDocumentsSequence" in each)


def is_text(report: Dataset) -> bool:
    return bool(report.ConceptNameCodeSequence[0].CodeValue != "126000")


def sentences(summary: Dataset) -> str:
    return " ".join(
        str(item.TextValue)
        for section in summary.ContentSequence
        for item in section.get("ContentSequence", ())
    )


def test_a_reader_s_segmentation_makes_a_new_revision_that_names_its_predecessor(
    a_hospital: Any, axial: Study, tmp_path: Path, assert_valid: Valid
) -> None:
    uid, files = axial
    with a_hospital(**INFECTION) as hospital:
        hospital.send(files)
        hospital.await_delivery(uid)
        first = hospital.results(uid, tmp_path / "first")
        assert by_modality(first) == {"SR": 2, "OT": len(files), "SEG": 1}
        assert_valid(first, files)

        (proposal,) = of_modality(first, "SEG")
        drawn = mended(proposal, tmp_path / "drawn", grown)
        send_back(hospital, drawn)
        hospital.await_that(lambda: len(hospital.stack.ledger.study(uid)["jobs"]) == 2, 60, uid)
        hospital.await_delivery(uid)

        both = hospital.results(uid, tmp_path / "both")
        assert by_modality(both) == {"SR": 4, "OT": 2 * len(files), "SEG": 1}
        assert_valid(both, [*files, drawn])
        before, after = summaries(both)
        (predecessor,) = after.PredecessorDocumentsSequence
        named = predecessor.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert named.ReferencedSOPInstanceUID == before.SOPInstanceUID
        assert "proposed, not seen by a reader" in sentences(before)
        assert "as a reader drew it" in sentences(after)
        assert accounted(hospital, uid)["used"] == len(files) + 1
        (report,) = (
            path
            for path in of_modality(both, "SR")
            if not is_text(dcmread(path)) and "PredecessorDocumentsSequence" in dcmread(path)
        )
        assert "REGION-DRAWN" in dumped(report)


def test_a_site_may_wait_for_its_reader_before_anything_is_judged(
    a_hospital: Any, axial: Study, tmp_path: Path, assert_valid: Valid
) -> None:
    uid, files = axial
    with a_hospital(**INFECTION, MONRO_WORKER_REGIONS="wait for reader") as hospital:
        hospital.send(files)
        hospital.await_delivery(uid)
        first = hospital.results(uid, tmp_path / "first")
        assert by_modality(first) == {"SR": 1, "SEG": 1}
        assert_valid(first, files)
        (note,) = summaries(first)
        assert "not analysed yet" in sentences(note)
        assert "probability" not in hospital.job(uid)["summary"]

        (proposal,) = of_modality(first, "SEG")
        drawn = mended(proposal, tmp_path / "drawn", lambda frames: frames)
        send_back(hospital, drawn)
        hospital.await_that(lambda: len(hospital.stack.ledger.study(uid)["jobs"]) == 2, 60, uid)
        hospital.await_delivery(uid)

        both = hospital.results(uid, tmp_path / "both")
        assert by_modality(both) == {"SR": 3, "OT": len(files), "SEG": 1}
        assert_valid(both, [*files, drawn])
        assert "probability" in hospital.job(uid)["summary"]
        _, after = summaries(both)
        (predecessor,) = after.PredecessorDocumentsSequence
        named = predecessor.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert named.ReferencedSOPInstanceUID == note.SOPInstanceUID


def test_a_study_without_axial_t2_is_refused_in_words_of_its_analysis(
    a_hospital: Any, shared_data: Path, copies: Any, tmp_path: Path, assert_valid: Valid
) -> None:
    uid, files = copies(sorted((shared_data / "philips_mprage_sag").glob("*.dcm")))
    with a_hospital(**INFECTION) as hospital:
        hospital.send(files)
        hospital.await_delivery(uid)

        results = hospital.results(uid, tmp_path / "pacs")
        assert by_modality(results) == {"SR": 2}
        assert_valid(results, files)
        (summary,) = summaries(results)
        assert "an axial T2-weighted series" in sentences(summary)
