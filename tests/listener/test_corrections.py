"""A reader's segmentation is analysed with its series, whenever it comes."""

import json
import time
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom.dsutils import encode, encode_file_meta
from typer.testing import CliRunner

from listener import __main__ as main
from listener import corrections
from listener.accounting import account
from listener.completion import plan_studies
from listener.corrections import NOT_TAKEN, OTHER_SERIES, OWN_PROPOSAL, remedy, sort_out
from listener.entries import Answer, BundleRow, Job, Received, Result
from listener.ledger import OWN_RESULT, Ledger
from listener.node import rebuild
from listener.segmentation import MAKER, VENTRICLES
from listener.series import InstanceKey
from listener.spool import Spool
from tests.listener.segmentations import TISSUE, segmentation, t2_series
from worker.results.uids import derive

BUNDLE = BundleRow("infection", "demo", "1.0.0", "b" * 64)
FISTULA = BundleRow("fistula", "demo", "1.0.0", "a" * 64)
ABLE = {BUNDLE.edition}
MORNING, NOON, EVENING = (f"20260102 {hour}0000" for hour in ("08", "12", "18"))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture(autouse=True)
def _bundle(ledger: Ledger) -> None:
    ledger.register_bundle(BUNDLE)


@pytest.fixture
def images() -> list[Dataset]:
    return t2_series("1.2", "1.2.1")


def take(spool: Spool, ledger: Ledger, datasets: Sequence[Dataset]) -> None:
    """Receive datasets."""
    for dataset in datasets:
        key = InstanceKey(
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
        )
        head = b"\0" * 128 + b"DICM" + encode_file_meta(FileMetaDataset(dataset.file_meta))
        content = encode(dataset, is_implicit_vr=False, is_little_endian=True) or b""
        held = spool.write(key, head, content)
        ledger.record([Received(held, None, held.written_at)])


def plan(ledger: Ledger, analyses: Sequence[str] = ("infection",)) -> list[str]:
    """Let what gathers be complete, and plan it."""
    for study in ledger.gathering():
        ledger.complete(study, "quiet")
    return plan_studies(ledger, analyses)


def arrive(spool: Spool, ledger: Ledger, *datasets: Dataset) -> list[str]:
    """Take datasets as far as the jobs that they make."""
    take(spool, ledger, datasets)
    return plan(ledger)


def inputs(job: Job) -> set[str]:
    return {each.sop_uid for each in job.inputs}


def uids(*datasets: Dataset) -> set[str]:
    return {str(each.SOPInstanceUID) for each in datasets}


def work(ledger: Ledger, job_id: str, *found: Result) -> Job:
    """Do a job."""
    with ledger.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        choice = sort_out(lease.job.analysis, lease.job.series_uid, lease.job.inputs)
        unused = {each.sop_uid: choice.left_aside[each.sop_uid] for each in choice.told}
        ledger.keep(lease.job, Answer("REPORTED", found=found, unused=unused))
        return lease.job


def state(ledger: Ledger, dataset: Dataset) -> tuple[str, str | None]:
    """State of an instance, and why."""
    known = ledger.study(dataset.StudyInstanceUID)
    assert known is not None
    (row,) = (
        each for each in known["instances"] if each["series_uid"] == dataset.SeriesInstanceUID
    )
    return row["state"], row["reason"]


def test_a_segmentation_that_comes_with_its_series_is_analysed_with_it(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    corrected = segmentation(images)
    (job_id,) = arrive(spool, ledger, corrected, *images)
    job = work(ledger, job_id)

    assert inputs(job) == uids(corrected, *images)
    assert job.series_uid == "1.2.1"
    beside = {each.sop_uid for each in job.inputs if each.series_uid != job.series_uid}
    assert beside == uids(corrected), "the series of each tells them apart"
    assert state(ledger, corrected) == ("used", f"infection job {job_id}")


def test_one_that_comes_later_makes_a_new_job_that_names_the_one_before(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    (first,) = arrive(spool, ledger, *images)
    work(ledger, first)
    earlier, later = segmentation(images, at=MORNING), segmentation(images, at=NOON)
    (second,) = arrive(spool, ledger, earlier)
    second_job = work(ledger, second)
    (third,) = arrive(spool, ledger, later)
    third_job = work(ledger, third)

    assert inputs(second_job) == uids(earlier, *images)
    assert inputs(third_job) == uids(later, *images)
    assert second_job.predecessor is not None
    assert second_job.predecessor.job_id == first
    assert third_job.predecessor is not None
    assert third_job.predecessor.job_id == second
    assert state(ledger, earlier) == ("used", f"infection job {second}")


def test_the_same_one_again_makes_no_new_job(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    corrected = segmentation(images)
    (job_id,) = arrive(spool, ledger, corrected, *images)
    work(ledger, job_id)

    assert arrive(spool, ledger, corrected) == []
    assert ledger.gathering() == []


def test_an_older_one_that_comes_late_makes_no_new_job(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    newer, older = segmentation(images, at=NOON), segmentation(images, at=MORNING)
    arrive(spool, ledger, newer, *images)

    assert arrive(spool, ledger, older) == []
    told, reason = state(ledger, older)
    assert told == "not wanted"
    assert reason is not None
    assert reason.endswith(f"a later one replaces: {newer.SOPInstanceUID}")


def test_regions_drawn_in_separate_segmentations_are_all_taken(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    whole = segmentation(images, at=MORNING)
    decisive = segmentation(images, [("Sub-lentiform", TISSUE)], at=NOON)
    other = segmentation(images, [("Ventricles", TISSUE)], at=EVENING)
    (first,) = arrive(spool, ledger, *images, whole)
    work(ledger, first)
    (second,) = arrive(spool, ledger, decisive)
    assert inputs(work(ledger, second)) == uids(*images, whole, decisive)
    (third,) = arrive(spool, ledger, other)
    job = work(ledger, third)

    assert inputs(job) == uids(*images, decisive, other)
    assert job.predecessor is not None
    assert job.predecessor.job_id == second
    choice = sort_out("infection", job.series_uid, job.inputs)
    assert {each.sop_uid for each in choice.taken} == uids(decisive, other)


def test_of_two_of_one_moment_the_uid_decides(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    two = [segmentation(images, at=NOON, SOPInstanceUID=f"1.2.9.{each}") for each in (1, 2)]
    (job_id,) = arrive(spool, ledger, *reversed(two), *images)

    assert inputs(work(ledger, job_id)) == uids(two[1], *images)


def test_two_of_one_series_are_told_apart(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    two = [segmentation(images, at=at, SeriesInstanceUID="1.2.9") for at in (MORNING, NOON)]
    (job_id,) = arrive(spool, ledger, *two, *images)

    assert inputs(work(ledger, job_id)) == uids(two[1], *images)
    states = {each.sop_uid: each.state for each in ledger.instances_of("1.2")}
    assert [states[each.SOPInstanceUID] for each in two] == ["not wanted", "used"]


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
@pytest.mark.parametrize("order", [*permutations(range(4))], ids=str)
def test_the_order_of_arrival_does_not_change_what_is_planned(
    spool: Spool, ledger: Ledger, tmp_path: Path, order: Sequence[int], at_once: bool
) -> None:
    images = t2_series("1.2", "1.2.1")
    tumour = [("Tumour", TISSUE)]
    foreign = segmentation(t2_series("1.2", "1.2.7"), tumour, at=EVENING)
    first, second = segmentation(images, at=MORNING), segmentation(images, at=NOON)
    arrivals = [images, [first], [second], [foreign]]
    for number in order:
        take(spool, ledger, arrivals[number])
        if not at_once:
            plan(ledger)
    plan(ledger)

    job_id = newest(ledger)
    job = work(ledger, job_id)
    assert inputs(job) == uids(second, *images)
    assert state(ledger, first)[0] == "not wanted"
    assert state(ledger, foreign) == ("not wanted", f"infection: {OTHER_SERIES}")

    again = Ledger(f"sqlite:///{tmp_path / 'rebuilt.sqlite'}")
    again.register_bundle(BUNDLE)
    rebuild(spool, again)
    assert plan(again) == [job_id]
    assert state(again, first) == state(ledger, first)
    assert state(again, foreign) == state(ledger, foreign)
    again.close()


def newest(ledger: Ledger) -> str:
    """The one job of a study that waits for a worker."""
    (queued,) = ledger.queued()
    return queued.job_id


def test_segmentations_that_a_reader_may_have_meant_are_told_and_not_taken(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    elsewhere = segmentation(t2_series("1.2", "1.2.7"))
    other = segmentation(images, [("Tumour", TISSUE), ("Oedema", TISSUE)])
    broken = segmentation(images)
    del broken.ContentTime
    (job_id,) = arrive(spool, ledger, *images, elsewhere, other, broken)
    job = work(ledger, job_id)

    choice = sort_out("infection", job.series_uid, job.inputs)
    assert choice.taken == ()
    assert {each.sop_uid for each in choice.told} == uids(elsewhere, other, broken)
    assert inputs(job) == uids(*images, elsewhere, other, broken)
    reasons = [state(ledger, each) for each in (elsewhere, other, broken)]
    assert [told for told, _reason in reasons] == ["not wanted"] * 3
    assert "of another series" in str(reasons[0][1])
    assert "names none of: ventricles, sublentiform" in str(reasons[1][1])
    assert "ContentTime" in str(reasons[2][1])
    assert {each[0] for each in (state(ledger, image) for image in images[:1])} == {"used"}
    told = [remedy("infection", choice.left_aside[next(iter(uids(each)))]) for each in
            (elsewhere, other, broken)]  # fmt: skip
    assert told[0] == "draw on the series that is named as input, and send that"
    assert told[1].startswith('call the segments "ventricles" or "sublentiform"')
    assert told[2] == ""


def test_one_in_vain_that_comes_later_is_answered_with_a_report_of_its_own(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    (first,) = arrive(spool, ledger, *images)
    work(ledger, first)
    misnamed = segmentation(images, [("Tumour", TISSUE)])
    (second,) = arrive(spool, ledger, misnamed)
    job = work(ledger, second)

    assert job.predecessor is not None
    assert job.predecessor.job_id == first
    assert inputs(job) == uids(*images, misnamed)
    assert arrive(spool, ledger, misnamed) == []


def test_what_nobody_meant_for_the_analysis_makes_no_job(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    (job_id,) = arrive(spool, ledger, *images)
    work(ledger, job_id)
    foreign = segmentation(t2_series("1.2", "1.2.7"), [("Tumour", TISSUE)])

    assert arrive(spool, ledger, foreign) == []
    assert state(ledger, foreign) == ("not wanted", f"infection: {OTHER_SERIES}")


def test_one_without_its_series_waits_for_it_visibly(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    corrected = segmentation(images)
    assert arrive(spool, ledger, corrected) == []
    assert state(ledger, corrected)[0] == "not wanted"
    assert "no series that suits" in str(state(ledger, corrected)[1])

    (job_id,) = arrive(spool, ledger, *images)
    assert inputs(work(ledger, job_id)) == uids(corrected, *images)


def test_a_proposal_of_ours_that_comes_back_is_never_taken_for_a_correction(
    spool: Spool, ledger: Ledger, images: list[Dataset], tmp_path: Path
) -> None:
    regions = [("Ventricles", VENTRICLES.concept)]
    uid = derive("a proposal")
    proposal = segmentation(images, regions, Manufacturer=MAKER, SOPInstanceUID=uid)
    series_uid, sop_class = str(proposal.SeriesInstanceUID), str(proposal.SOPClassUID)
    kept = Result(uid, series_uid, sop_class, "proposal", 0, 1, tmp_path / "x")
    (job_id,) = arrive(spool, ledger, *images)
    work(ledger, job_id, kept)

    assert arrive(spool, ledger, proposal) == []
    assert ledger.gathering() == []
    assert state(ledger, proposal) == ("not wanted", OWN_RESULT)

    again = Ledger(f"sqlite:///{tmp_path / 'rebuilt.sqlite'}")
    again.register_bundle(BUNDLE)
    rebuild(spool, again)
    assert plan(again) == [job_id], "also where the ledger was lost, and its results with it"
    assert state(again, proposal) == ("not wanted", f"infection: {OWN_PROPOSAL}")
    again.close()


def test_an_analysis_that_takes_none_gets_no_new_job(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    ledger.register_bundle(FISTULA)
    take(spool, ledger, images)
    (job_id,) = plan(ledger, ["fistula"])
    corrected = segmentation(images)
    take(spool, ledger, [corrected])

    assert plan(ledger, ["fistula"]) == []
    assert newest(ledger) == job_id
    assert state(ledger, corrected) == ("not wanted", NOT_TAKEN)


def test_beside_one_that_takes_them_the_other_keeps_its_job(
    spool: Spool, ledger: Ledger, images: list[Dataset]
) -> None:
    ledger.register_bundle(FISTULA)
    both = ["fistula", "infection"]
    take(spool, ledger, images)
    before = set(plan(ledger, both))
    corrected = segmentation(images)
    take(spool, ledger, [corrected])
    (added,) = plan(ledger, both)

    assert len(before) == 2
    assert added not in before
    assert inputs(work(ledger, added)) == uids(corrected, *images)


def test_too_many_segmentations_are_read_no_further_and_say_so(
    spool: Spool, ledger: Ledger, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corrections, "MOST_PIECES_TOGETHER", 2_000)
    several = [segmentation(images, at=f"20260102 {hour}0000") for hour in range(10, 16)]
    (job_id,) = arrive(spool, ledger, *images, *several)

    assert inputs(work(ledger, job_id)) == uids(several[-1], *images)
    assert "too many elements" in str(state(ledger, several[0])[1])


def test_everything_is_accounted_for_and_shown(
    spool: Spool,
    ledger: Ledger,
    images: list[Dataset],
    settings_for: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main, "read_settings", settings_for)
    monkeypatch.setattr(
        type(settings_for()), "ledger_url", property(lambda _self: str(ledger._engine.url))
    )
    taken, other = segmentation(images, at=NOON), segmentation(images, [("Tumour", TISSUE)])
    (job_id,) = arrive(spool, ledger, *images, taken, other)
    work(ledger, job_id)
    changed = segmentation(images, SOPInstanceUID=taken.SOPInstanceUID)
    take(spool, ledger, [changed])

    (found,) = account(spool, ledger)
    assert found.agrees
    assert found.received == 6
    assert found.states == {"used": 4, "not wanted": 1, "quarantined": 1}
    shown = json.loads(CliRunner().invoke(main.app, ["show", "1.2", "--json"]).stdout)
    reasons = [row["reason"] for row in shown["instances"] if row["state"] == "not wanted"]
    assert reasons == ["infection: a segmentation that names none of: ventricles, sublentiform"]
    assert f"with segmentation {taken.SOPInstanceUID}" in str(shown["events"])


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_sent_by_a_viewer_is_planned_with_its_series(
    spool: Spool,
    ledger: Ledger,
    images: list[Dataset],
    listening: Callable[..., Any],
    kind: str,
) -> None:
    corrected = segmentation(images, kind=kind)
    with listening(spool, ledger) as send:
        assert send(*images) == 0x0000
        until(lambda: len(ledger.instances_of("1.2")) == len(images))
        (first,) = plan(ledger)
        work(ledger, first)
        assert send(corrected) == 0x0000
        until(lambda: bool(ledger.gathering()))
    (second,) = plan(ledger)
    job = work(ledger, second)

    assert inputs(job) == uids(corrected, *images)
    assert job.predecessor is not None
    assert job.predecessor.job_id == first


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
