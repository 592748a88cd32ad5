"""Gathered exams are what the service would see; who is left out is counted; nobody is named."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from listener.entries import Instance, Job
from trainer.bern import BernItems
from trainer.cohort import read_cohort
from trainer.gathering import gather as gathering
from trainer.gathering import keep
from trainer.gathering.deidentify import pseudonym
from trainer.gathering.gather import GatherFailed, GatherSettings, gather
from trainer.gathering.nifti import export_nifti
from trainer.gathering.sources import FolderSource
from trainer.gathering.table import BadTable, LabelRow, write_table
from worker.analyses.fistula import Fistula
from worker.pipeline import Commission, estimate
from worker.preprocess import DEMO_RECIPE
from worker.results.outcome import Options
from worker.results.uids import Lineage
from worker.stopwatch import Stopwatch

SETTINGS = GatherSettings(DEMO_RECIPE)


@pytest.fixture(scope="module")
def source(archive):
    return FolderSource.under(archive.root)


@pytest.fixture(scope="module")
def whole(archive, source, salt, tmp_path_factory):
    """The cohort of all four studies: its folder and its flow."""
    rows = [
        LabelRow(1, "HN-700001", "", "positive", site="North", columns={"ward": "B2"}),
        LabelRow(2, "HN-700002", "ACC-20001", "negative", age_years=95.0, scanner="Maker M1"),
        LabelRow(3, "HN-700003", archive["cyd"].uid, "positive", bern_score=7),
    ]
    folder = tmp_path_factory.mktemp("cohort")
    told = []
    flow = gather(rows, source, folder, salt, SETTINGS, on_progress=lambda *at: told.append(at))
    return folder, flow, told, rows


def exams_by_study(folder, archive, salt):
    names = {pseudonym(salt, "study", each.uid): name for name, each in archive.studies.items()}
    return {names[exam.exam]: exam for exam in read_cohort(folder).exams}


def reasons(flow):
    return {why: count for step in flow.steps for why, count in step.excluded.items()}


# --- what the service sees ---


class Seen(Exception):
    """Stops the service at the network's door, with what stands there."""


class Doorkeeper:
    """An ensemble that judges nothing."""

    class Bundle:
        recipe = DEMO_RECIPE

    bundle = Bundle()

    def predict(self, prepared):
        raise Seen(prepared)


def seen_in_service(files):
    """What the worker's own pipeline hands to the ensemble."""
    inputs = tuple(
        Instance(str(header.SOPInstanceUID), "0" * 64, "1.2.3", path, "waiting", 0.0)
        for path in files
        for header in [dcmread(path, stop_before_pixels=True)]
    )
    job = Job("job", "1.2", "fistula", "1.2.3", "d", "w", "1", 0.0, 1, "lease", inputs, None)
    lineage = Lineage("site", "1.2", "fistula", "d", "b", "w", "o")
    with pytest.raises(Seen) as stopped:
        estimate(Commission(job, lineage, Options()), Fistula(Doorkeeper()), Stopwatch())
    return stopped.value.args[0]


def test_prepared_voxels_and_affine_equal_what_the_service_would_see(archive, whole, salt):
    folder = whole[0]
    cohort = read_cohort(folder)
    exam = exams_by_study(folder, archive, salt)["bob"]

    seen = seen_in_service(sorted((archive["bob"].folder / "t1").iterdir()))

    gathered = cohort.voxels[cohort.exams.index(exam)].astype(np.float32)
    np.testing.assert_array_equal(gathered, seen.voxels)
    affine = json.loads((folder / "volumes" / f"{exam.volume}.json").read_text())["affine"]
    np.testing.assert_array_equal(np.reshape(affine, (4, 4)), seen.affine)


def test_volumes_go_over_to_nifti_where_they_were(archive, whole, salt, tmp_path):
    folder = whole[0]
    exam = exams_by_study(folder, archive, salt)["bob"]

    paths = export_nifti(folder, tmp_path / "nifti")

    assert len(paths) == 4
    image = nibabel.load(tmp_path / "nifti" / f"{exam.exam}.nii.gz")
    seen = seen_in_service(sorted((archive["bob"].folder / "t1").iterdir()))
    np.testing.assert_array_equal(image.get_fdata(), seen.voxels)
    np.testing.assert_allclose(image.affine, seen.affine, rtol=1e-6)
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_xyzt_units()[0] == "mm"


# --- facts ---


def test_facts_come_from_the_table_and_else_from_the_headers(archive, whole, salt):
    exams = exams_by_study(whole[0], archive, salt)

    ann, bob, cyd = exams["ann late"], exams["bob"], exams["cyd"]
    assert (ann.label, bob.label, cyd.label) == (1, 0, 1)
    assert (ann.scanner, bob.scanner) == ("monro phantom", "Maker M1")
    assert (ann.sex, ann.field_tesla, ann.site) == ("F", 3.0, "North")
    assert (ann.age_years, bob.age_years, cyd.age_years) == (90.0, 90.0, 24.0)
    assert cyd.given_bern == 7
    assert (ann.leak, ann.columns, ann.days_to_myelogram) == ("", {}, None)


def test_exams_of_a_patient_share_a_group_and_strangers_do_not(archive, whole, salt):
    exams = exams_by_study(whole[0], archive, salt)

    assert exams["ann early"].patient == exams["ann late"].patient
    assert len({exam.patient for exam in exams.values()}) == 3


def test_nothing_in_the_folder_names_anybody(archive, whole):
    headers = [dcmread(each.files[0], stop_before_pixels=True) for each in archive.studies.values()]
    planted = {text for each in archive.studies.values() for text in identifiers(each)}
    planted |= {str(header.SeriesInstanceUID) for header in headers}
    planted |= {str(header.FrameOfReferenceUID) for header in headers}
    planted |= {"ELSEWHERE", str(archive.root)}

    files = [path for path in whole[0].rglob("*") if path.is_file()]
    assert len(files) == 2 + 4 * 3
    for path in files:
        content = str(path.relative_to(whole[0])).encode() + path.read_bytes()
        assert [text for text in planted if text.encode() in content] == []


def identifiers(planted):
    yield from (planted.patient, planted.accession, planted.day, planted.born, planted.uid)
    yield from (f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in (planted.day, planted.born))
    yield from planted.name.split("^")


def test_progress_is_told_from_none_to_all(whole):
    assert whole[2] == [(done, 4) for done in range(5)]


# --- who is left out ---


def test_everybody_is_in_the_cohort_when_nothing_speaks_against_it(whole):
    assert reasons(whole[1]) == {}
    assert [(step.patients, step.exams) for step in whole[1].steps] == [(3, 4)] * 9


def test_reasons_are_counted_in_order_and_each_exam_once(
    archive, row, salt, tmp_path, edited, caplog
):
    slices = sorted((archive["cyd"].folder / "t1").iterdir())
    add = tmp_path / "more"
    late = {"StudyDate": "20240501", "PatientID": "HN-700004"}
    edited(slices[:3], without_contrast, add / "a", AccessionNumber="NO-CONTRAST")
    edited(slices[:3], as_spine, add / "b", AccessionNumber="SPINE")
    edited(slices[:20] + slices[21:], unchanged, add / "c", AccessionNumber="GAP")
    edited(slices, cut_short, add / "d", AccessionNumber="CUT")
    edited(slices[:3], unchanged, add / "e", AccessionNumber="LATE", **late)
    source = FolderSource(path for root in (archive.root, add) for path in root.rglob("*"))
    rows = [
        row(1, "P1", "ACC-10001", label="indeterminate"),
        row(2, "P2", "ACC-10002", slec=True),
        row(3, "P3", "ACC-NOWHERE"),
        row(4, "P4", "LATE", myelogram_date=date(2024, 4, 30)),
        row(5, "P5", "SPINE"),
        row(6, "P6", "NO-CONTRAST"),
        row(7, "P7", "GAP"),
        row(8, "P8", "CUT"),
        row(9, "P9", "ACC-20001"),
    ]
    with pytest.raises(GatherFailed, match=r"rows 1, 2: different .* trust the table if"):
        gather(rows, source, tmp_path / "cohort", salt, SETTINGS)

    trusting = dataclasses.replace(SETTINGS, trust_table=True)
    flow = gather(rows, source, tmp_path / "cohort", salt, trusting)

    assert [tuple(step.excluded.items()) for step in flow.steps] == [
        (),
        (("indeterminate label", 1),),
        (("spinal longitudinal extradural collection", 1),),
        (("no study found", 1),),
        (("MRI after the myelogram", 1),),
        (
            ("REASON-NO-CONTRAST: No evidence of a contrast agent", 1),
            ("REASON-NO-SERIES: No suitable series in the study", 1),
        ),
        (),
        (
            ("REASON-UNEVEN-SLICES: Slices are not evenly spaced", 1),
            ("REASON-UNREADABLE: Images cannot be read", 1),
        ),
        (),
    ]
    assert [step.exams for step in flow.steps] == [9, 8, 7, 6, 5, 3, 3, 1, 1]
    assert read_cohort(tmp_path / "cohort").flow == flow
    assert "rows 5, 6, 7, 8" in caplog.text  # one PatientID, four patients in the table
    assert "HN-700003" not in caplog.text


def unchanged(_dataset):
    """A copy under other UIDs."""


def without_contrast(dataset):
    for keyword in ("ContrastBolusAgent", "ContrastBolusRoute", "ContrastBolusVolume"):
        delattr(dataset, keyword)
    dataset.SeriesDescription = dataset.ProtocolName = "SAG T1"


def as_spine(dataset):
    dataset.BodyPartExamined = "LSPINE"
    dataset.SeriesDescription = dataset.ProtocolName = "SAG T1 LSPINE +C"


def cut_short(dataset):
    dataset.PixelData = dataset.PixelData[:100]


def dated(row, *numbers):
    facts = {"myelogram_date": date(2024, 3, 10), "label": "positive"}
    return [row(number, "HN-700001", f"ACC-1000{number}", **facts) for number in numbers]


def outcome_of(archive, salt, folder):
    return {
        name: exam.days_to_myelogram for name, exam in exams_by_study(folder, archive, salt).items()
    }


def test_of_each_patient_the_latest_mri_before_the_myelogram_is_kept(
    archive, source, row, salt, tmp_path
):
    flow = gather(dated(row, 1, 2), source, tmp_path, salt, SETTINGS)

    assert reasons(flow) == {"not the latest MRI before the myelogram": 1}
    assert outcome_of(archive, salt, tmp_path) == {"ann late": 5}


def test_mri_on_the_day_of_the_myelogram_counts_as_before(archive, source, row, salt, tmp_path):
    rows = [row(1, "HN-700001", myelogram_date=date(2024, 3, 5))]

    gather(rows, source, tmp_path, salt, SETTINGS)

    assert outcome_of(archive, salt, tmp_path) == {"ann late": 0}


def test_a_later_spine_mri_does_not_push_the_head_out(archive, row, salt, tmp_path, edited):
    slices = sorted((archive["bob"].folder / "t1").iterdir())
    edited(slices[:3], as_spine, tmp_path / "spine", StudyDate="20240301")
    files = [*archive["bob"].files, *(tmp_path / "spine").iterdir()]
    rows = [row(1, "HN-700002", myelogram_date=date(2024, 3, 5))]

    flow = gather(rows, FolderSource(files), tmp_path / "cohort", salt, SETTINGS)

    assert reasons(flow) == {"REASON-NO-SERIES: No suitable series in the study": 1}
    assert outcome_of(archive, salt, tmp_path / "cohort") == {"bob": 33}


@pytest.mark.parametrize(
    ("mode", "leaks"),
    [
        ("exclude", {"bob": "", "cyd": ""}),
        ("subgroup", {"ann late": "fast", "bob": "slow", "cyd": ""}),
        ("ignore", {"ann late": "", "bob": "", "cyd": ""}),
    ],
)
def test_extradural_collections_are_excluded_kept_apart_or_ignored(
    archive, source, row, salt, tmp_path_factory, whole, mode, leaks
):
    rows = [
        row(1, "HN-700001", "ACC-10002", slec=True),
        row(2, "HN-700002", "ACC-20001", slec=False),
        row(3, "HN-700003", "ACC-30001"),
    ]
    settings = GatherSettings(DEMO_RECIPE, slec=mode)

    gather(rows, source, whole[0], salt, settings)  # prepared already: only the table differs

    found = exams_by_study(whole[0], archive, salt)
    assert {name: exam.leak for name, exam in found.items()} == leaks
    restore(whole, source, salt)


def restore(whole, source, salt):
    gather(whole[3], source, whole[0], salt, SETTINGS)


def test_bern_items_and_free_columns_that_are_asked_for_come_along(
    archive, source, row, salt, whole
):
    items = BernItems(pachymeningeal_enhancement=True, suprasellar_mm=4.0)
    rows = [row(1, "HN-700002", "ACC-20001", bern=items, columns={"ward": "B2", "note": "Doe"})]

    gather(rows, source, whole[0], salt, GatherSettings(DEMO_RECIPE, keep_columns=("ward",)))

    (exam,) = read_cohort(whole[0]).exams
    assert exam.bern == items
    assert exam.columns == {"ward": "B2"}
    restore(whole, source, salt)


def test_a_row_about_a_study_goes_before_one_about_its_patient(archive, source, row, salt, whole):
    rows = [
        row(1, "HN-700001", "", label="positive"),
        row(2, "HN-700001", "ACC-10001", label="negative"),
    ]

    gather(rows, source, whole[0], salt, SETTINGS)

    found = exams_by_study(whole[0], archive, salt)
    assert {name: exam.label for name, exam in found.items()} == {"ann early": 0, "ann late": 1}
    restore(whole, source, salt)


# --- what is refused ---


def test_one_study_by_two_names_with_two_labels_is_refused(archive, source, row, salt, tmp_path):
    rows = [
        row(1, "HN-700002", archive["bob"].uid, label="positive"),
        row(2, "HN-700002", "ACC-20001", label="negative"),
    ]

    with pytest.raises(BadTable, match="rows 1 and 2: the same study, but contradicting values"):
        gather(rows, source, tmp_path, salt, SETTINGS)


def test_the_same_images_under_two_patients_are_refused(archive, row, salt, tmp_path, edited):
    slices = sorted((archive["bob"].folder / "t1").iterdir())
    edited(slices, unchanged, tmp_path / "twin", PatientID="X", AccessionNumber="TWIN")
    source = FolderSource([*slices, *(tmp_path / "twin").iterdir()])

    with pytest.raises(GatherFailed, match="rows 1 and 2: two patients, or two labels, and the"):
        rows = [row(1, "HN-700002", "ACC-20001"), row(2, "X", "TWIN")]
        gather(rows, source, tmp_path / "cohort", salt, SETTINGS)

    rows = [row(1, "P", "ACC-20001"), row(2, "P", "TWIN")]
    flow = gather(rows, source, tmp_path / "cohort", salt, SETTINGS)
    assert reasons(flow) == {"the same images as another exam of the patient": 1}


def test_a_cohort_of_nobody_says_why(source, row, salt, tmp_path):
    with pytest.raises(GatherFailed, match="no exam is left: 1 no study found"):
        gather([row(1, "HN-700009")], source, tmp_path, salt, SETTINGS)


def test_two_gatherings_do_not_write_into_one_folder(source, row, salt, tmp_path):
    with gathering._alone(tmp_path), pytest.raises(GatherFailed, match="another process gathers"):
        gather([row(1, "HN-700002")], source, tmp_path, salt, SETTINGS)


# --- going on ---


class Unreachable:
    """A delivery that must not be asked for."""

    @contextmanager
    def files(self) -> Iterator[list[Path]]:
        raise AssertionError("what was prepared already is looked at again")
        yield []


def test_what_is_done_is_not_done_again(whole, source, salt, monkeypatch):
    monkeypatch.setattr(source, "deliver", lambda _series: Unreachable())
    before = (whole[0] / "exams.json").read_bytes()

    gather(whole[3], source, whole[0], salt, SETTINGS)

    assert (whole[0] / "exams.json").read_bytes() == before


@pytest.mark.parametrize("change", ["code", "recipe", "volume", "salt"])
def test_what_has_changed_is_done_again(whole, source, row, salt, monkeypatch, change):
    monkeypatch.setattr(source, "deliver", lambda _series: Unreachable())
    settings = SETTINGS
    if change == "code":
        monkeypatch.setattr(gathering, "code_version", lambda: "another")
    if change == "recipe":
        settings = GatherSettings(type(DEMO_RECIPE)((4.0, 4.0, 4.0), (60, 65, 60)))
    if change == "salt":
        salt = b"another"
    if change == "volume":
        monkeypatch.setattr(keep, "volume_path", lambda folder, _name: folder / "gone")

    with pytest.raises(AssertionError, match="looked at again"):
        gather([row(1, "HN-700002")], source, whole[0], salt, settings)


GATHER_IN_CHILD = """
import sys
from pathlib import Path
from trainer.gathering.gather import GatherSettings, gather
from trainer.gathering.sources import FolderSource
from trainer.gathering.table import read_table
from worker.preprocess import DEMO_RECIPE
archive, table, folder, salt = map(Path, sys.argv[1:])
if __name__ == "__main__":
    gather(read_table(table), FolderSource.under(archive), folder, salt.read_bytes(),
           GatherSettings(DEMO_RECIPE), processes=2)
"""


def test_a_gathering_killed_in_the_middle_goes_on_in_several_processes_and_its_workers_end(
    archive, whole, source, salt, tmp_path
):
    write_table(tmp_path / "labels.csv", whole[3])
    (tmp_path / "salt").write_bytes(salt)
    script = tmp_path / "gather.py"
    script.write_text(GATHER_IN_CHILD)
    folder = tmp_path / "cohort"
    arguments = [archive.root, tmp_path / "labels.csv", folder, tmp_path / "salt"]
    child = subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob("outcomes/*.json")):
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "nothing was gathered within 60 s"
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()

    await_end_of_session(child.pid)
    assert not (folder / "cohort.json").exists()
    flow = gather(whole[3], source, folder, salt, SETTINGS, processes=2)

    assert flow == whole[1]
    for name in ("exams.json", "cohort.json"):
        assert (folder / name).read_bytes() == (whole[0] / name).read_bytes()
    assert list(folder.rglob("*.partial")) == []


def await_end_of_session(leader):
    """Until no process of a session is left."""
    deadline = time.monotonic() + 20
    while members := [pid for pid in processes() if session_of(pid) == leader]:
        assert time.monotonic() < deadline, f"{len(members)} workers outlive what started them"
        time.sleep(0.1)


def processes():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def session_of(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
