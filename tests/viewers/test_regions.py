"""Proposed regions, mended in OHIF and saved into the archive, come back and are judged anew."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.system.conftest import Hospital
from tests.viewers.browser import OhifForDrawing, coloured, eventually
from tests.viewers.pacs import AnsweredStudy
from tests.viewers.series import INFECTION_REGIONS, INFECTION_SUMMARY
from trainer.infection import draw_infection
from trainer.phantom_study import NOBODY, study_uid, write_axial
from trainer.phantom_t2 import render_t2

HEAD = 5
"""Seed of a head whose regions are found."""

JUDGED_SECONDS = 120


@pytest.fixture
def axial(hospital: Hospital, tmp_path: Path) -> AnsweredStudy:
    """A study of its own, an axial T2 with its answers: what comes of it is more than it was."""
    phantom = render_t2(draw_infection(HEAD, positive=True), 128)
    hospital.send(write_axial(phantom, NOBODY, tmp_path / "axial"))
    uid = study_uid(phantom.case, phantom.scanner)
    hospital.await_delivery(uid, 240)
    return AnsweredStudy(hospital.orthanc, uid, tmp_path / "pacs")


def test_regions_that_a_reader_mends_and_saves_are_judged_as_drawn(
    page: Page,
    ohif_url: str,
    hospital: Hospital,
    axial: AnsweredStudy,
    picture: Callable[[str], None],
    tmp_path: Path,
) -> None:
    ohif = OhifForDrawing(page, ohif_url, axial.uid)
    ohif.open_segmentation(INFECTION_REGIONS)
    before = coloured(ohif.image)
    ohif.brush()
    assert eventually(lambda: coloured(ohif.image) > 2 * before), "the brush left no trace"
    picture("ohif-mended")

    ohif.save_segmentation()

    hospital.await_that(
        lambda: len(infections(hospital, axial.uid)) == 2, JUDGED_SECONDS, axial.uid
    )
    hospital.await_delivery(axial.uid, JUDGED_SECONDS)
    first, second = sorted(infections(hospital, axial.uid), key=lambda job: job["revision"])
    assert second["state"] == "REPORTED"
    assert second["predecessor"] == first["job_id"]
    answered = AnsweredStudy(hospital.orthanc, axial.uid, tmp_path / "again")
    said = " ".join(answered.sentences_of_all(INFECTION_SUMMARY))
    assert "proposed, not seen by a reader" in said
    assert "as a reader drew it" in said


def infections(hospital: Hospital, study_uid: str) -> list[dict[str, object]]:
    """Jobs of the analysis that takes regions."""
    jobs = hospital.stack.ledger.study(study_uid)["jobs"]
    return [job for job in jobs if job["analysis"] == "infection"]
