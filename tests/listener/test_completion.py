"""When a study is complete, and why."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom.dsutils import encode, encode_file_meta

from listener import completion
from listener.completion import Patience, plan_studies, reason_to_complete
from listener.entries import BundleRow, Count, Gathering, Received
from listener.errors import BadAttribute
from listener.ledger import Ledger
from listener.rollout import promote
from listener.series import InstanceKey, SeriesFacts
from listener.spool import Spool
from tests.listener.segmentations import t2_series

BUNDLE = BundleRow("fistula", "demo", "1.0.0", "a" * 64)
PATIENCE = Patience(quiet_seconds=60, released_seconds=10, stalled_seconds=600)


@pytest.mark.parametrize(
    ("released_at", "open_associations", "now", "reason"),
    [
        (None, 0, 159, None),
        (None, 0, 160, "quiet for 60 s"),
        (105, 0, 114, None),
        (105, 0, 115, "association released, then quiet for 10 s"),
        (None, 1, 699, None),
        (None, 1, 700, "an association is still open, but quiet for 600 s"),
        (105, 1, 115, None),
    ],
)
def test_a_study_is_complete_when_it_was_quiet_for_as_long_as_the_signs_ask(
    released_at: float | None, open_associations: int, now: float, reason: str | None
) -> None:
    study = Gathering("1", 100.0, released_at, open_associations)

    assert reason_to_complete(study, now, PATIENCE) == reason


@pytest.mark.parametrize(
    ("missing", "open_associations", "now", "reason"),
    [
        ((0,), 0, 104, None),
        ((0,), 0, 105, "pacs has no more of it, and quiet for 5 s"),
        ((0,), 1, 159, None),
        ((0,), 1, 160, "pacs has no more of it, and quiet for 60 s"),
        ((None,), 0, 109, None),
        ((None,), 0, 110, "association released, then quiet for 10 s"),
        ((), 0, 159, None),
        ((), 0, 160, "quiet for 60 s"),
        ((3,), 0, 699, None),
        ((3,), 0, 700, "pacs has 3 more of it, but quiet for 600 s"),
    ],
)
def test_a_source_that_is_asked_has_the_last_word_on_what_is_missing(
    missing: tuple[int | None, ...], open_associations: int, now: float, reason: str | None
) -> None:
    counts = tuple(Count("pacs", each) for each in missing)
    study = Gathering("1", 100.0, 100.0, open_associations, counts)
    patience = replace(PATIENCE, counted_seconds=5, sources=frozenset({"pacs"}))

    assert reason_to_complete(study, now, patience) == reason


def test_of_several_sources_the_one_that_has_more_counts_and_forgotten_ones_do_not() -> None:
    patience = replace(PATIENCE, counted_seconds=5, sources=frozenset({"a", "b"}))
    study = Gathering("1", 100.0, 100.0, 0, (Count("a", 0), Count("b", 2), Count("gone", 9)))

    assert reason_to_complete(study, 500, patience) is None
    assert reason_to_complete(study, 700, patience) == "b has 2 more of it, but quiet for 600 s"


@pytest.fixture
def a_t1_slice(an_mr_slice: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """A slice of a contrast-enhanced sagittal 3D T1 of the head."""

    def make(study: str, series: str) -> Dataset:
        dataset = an_mr_slice(study=study, series=series)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        dataset.BodyPartExamined = "BRAIN"
        dataset.SeriesDescription = "SAG T1 MPRAGE +C"
        dataset.ContrastBolusAgent = "GADOBUTROL"
        dataset.ScanningSequence, dataset.SequenceVariant = "GR", "MP"
        dataset.MRAcquisitionType = "3D"
        dataset.RepetitionTime, dataset.EchoTime, dataset.FlipAngle = "6.5", "2.9", "9"
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        dataset.PixelSpacing, dataset.SliceThickness = [1, 1], "1"
        return dataset

    return make


def receive(spool: Spool, ledger: Ledger, datasets: Sequence[Dataset]) -> str:
    """Take datasets as far as a complete study."""
    for dataset in datasets:
        key = InstanceKey(
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
        )
        meta = FileMetaDataset(dataset.file_meta)
        head = b"\0" * 128 + b"DICM" + encode_file_meta(meta)
        content = encode(dataset, is_implicit_vr=False, is_little_endian=True) or b""
        ledger.record([Received(spool.write(key, head, content), None, 1000.0)])
    (study,) = ledger.gathering()
    ledger.complete(study, "quiet")
    return study.study_uid


def states(ledger: Ledger, study_uid: str) -> dict[str, str]:
    return {each.series_uid: each.state for each in ledger.instances_of(study_uid)}


def test_the_chosen_series_becomes_a_job_and_the_others_are_left_aside_with_a_reason(
    tmp_path: Path, ledger: Ledger, a_t1_slice: Callable[..., Dataset]
) -> None:
    ledger.register_bundle(BUNDLE)
    localizer = a_t1_slice("1.2", "1.2.9")
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    wanted = [a_t1_slice("1.2", "1.2.1") for _ in range(3)]
    study_uid = receive(Spool(tmp_path / "spool"), ledger, [*wanted, localizer])

    (job_id,) = plan_studies(ledger, ["fistula"])
    assert states(ledger, study_uid) == {"1.2.1": "waiting", "1.2.9": "not wanted"}
    with ledger.lease(job_id, "worker", 60, {BUNDLE.edition}) as lease:
        assert lease is not None
        assert lease.job.series_uid == "1.2.1"
        assert {each.sop_uid for each in lease.job.inputs} == {
            str(each.SOPInstanceUID) for each in wanted
        }


def test_a_study_without_a_bundle_for_it_waits_and_is_planned_once_there_is_one(
    tmp_path: Path, ledger: Ledger, a_t1_slice: Callable[..., Dataset]
) -> None:
    study_uid = receive(Spool(tmp_path / "spool"), ledger, [a_t1_slice("1.2", "1.2.1")])

    assert plan_studies(ledger, ["fistula"]) == []
    assert states(ledger, study_uid) == {"1.2.1": "waiting"}
    ledger.register_bundle(BUNDLE)
    assert len(plan_studies(ledger, ["fistula"])) == 1


def test_an_analysis_without_a_bundle_waits_visibly_and_holds_back_no_other(
    tmp_path: Path, ledger: Ledger, a_t1_slice: Callable[..., Dataset]
) -> None:
    ledger.register_bundle(BUNDLE)
    localizer = a_t1_slice("1.2", "1.2.9")
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    images = [a_t1_slice("1.2", "1.2.1"), *t2_series("1.2", "1.2.2"), localizer]
    study_uid = receive(Spool(tmp_path / "spool"), ledger, images)
    analyses = ["infection", "fistula"]

    (job_id,) = plan_studies(ledger, analyses)
    with ledger.lease(job_id, "worker", 60, {BUNDLE.edition}) as lease:
        assert lease is not None
        assert lease.job.analysis == "fistula"
    assert plan_studies(ledger, analyses) == []  # what is a job already is left alone
    known = ledger.study(study_uid) or {}
    assert known["reason"] == "waits for a worker with a bundle for infection"
    assert [event["what"] for event in known["events"]].count("study waits") == 1
    assert states(ledger, study_uid)["1.2.2"] == "waiting"
    assert states(ledger, study_uid)["1.2.9"] == "not wanted"

    infection = replace(BUNDLE, analysis="infection", weights_sha256="b" * 64)
    ledger.register_bundle(infection)
    (later,) = plan_studies(ledger, analyses)
    assert ledger.unplanned() == []
    with ledger.lease(later, "worker", 60, {infection.edition}) as lease:
        assert lease is not None
        assert lease.job.series_uid == "1.2.2"


def test_what_a_new_bundle_replaced_is_planned_anew_while_another_analysis_waits(
    tmp_path: Path, ledger: Ledger, a_t1_slice: Callable[..., Dataset]
) -> None:
    ledger.register_bundle(BUNDLE)
    newer = BundleRow("fistula", "demo", "2.0.0", "c" * 64)
    ledger.register_bundle(newer)
    heads = [a_t1_slice("1.2", "1.2.1"), *t2_series("1.2", "1.2.2")]
    receive(Spool(tmp_path / "spool"), ledger, heads)
    both = ["fistula", "infection"]
    plan_studies(ledger, both)

    promote(ledger, "fistula", newer.edition, "olga")
    ledger.supersede_unwanted()
    (again,) = plan_studies(ledger, both)
    with ledger.lease(again, "worker", 60, {newer.edition}) as lease:
        assert lease is not None
        assert lease.job.role == "active"


def test_a_study_s_scanner_is_what_most_of_its_series_come_from(
    tmp_path: Path, ledger: Ledger, a_t1_slice: Callable[..., Dataset]
) -> None:
    """Also while it waits for a worker: or every scanner would seem to be silent then."""
    slices = [a_t1_slice("1.2", f"1.2.{number}") for number in range(3)]
    for dataset in slices[1:]:
        dataset.Manufacturer, dataset.StationName = "SIEMENS", "MR01"
    slices[0].Manufacturer, slices[0].StationName = "WORKSTATION", "WS"
    study_uid = receive(Spool(tmp_path / "spool"), ledger, slices)

    plan_studies(ledger, ["fistula"])
    assert (ledger.study(study_uid) or {})["scanner"] == "SIEMENS MR01"
    ledger.register_bundle(BUNDLE)
    plan_studies(ledger, ["fistula"])
    assert (ledger.study(study_uid) or {})["scanner"] == "SIEMENS MR01"


def test_a_study_that_is_planned_at_once_has_its_scanner_too(
    tmp_path: Path, ledger: Ledger, a_t1_slice: Callable[..., Dataset]
) -> None:
    ledger.register_bundle(BUNDLE)
    dataset = a_t1_slice("1.2", "1.2.1")
    dataset.StationName = "MR01"
    study_uid = receive(Spool(tmp_path / "spool"), ledger, [dataset])

    plan_studies(ledger, ["fistula"])

    assert (ledger.study(study_uid) or {})["scanner"] == "MR01"


def test_a_study_that_is_not_of_the_head_is_accounted_for_and_not_answered(
    tmp_path: Path, ledger: Ledger, a_t1_slice: Callable[..., Dataset]
) -> None:
    ledger.register_bundle(BUNDLE)
    knee = a_t1_slice("1.2", "1.2.1")
    knee.BodyPartExamined = "KNEE"
    study_uid = receive(Spool(tmp_path / "spool"), ledger, [knee])

    assert plan_studies(ledger, ["fistula"]) == []
    assert states(ledger, study_uid) == {"1.2.1": "not wanted"}
    assert ledger.counts()["jobs"] == {}


def test_a_head_without_a_suitable_series_is_to_be_refused_as_a_whole(
    tmp_path: Path, ledger: Ledger, a_t1_slice: Callable[..., Dataset]
) -> None:
    ledger.register_bundle(BUNDLE)
    localizer = a_t1_slice("1.2", "1.2.9")
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    receive(Spool(tmp_path / "spool"), ledger, [localizer])

    (job_id,) = plan_studies(ledger, ["fistula"])
    with ledger.lease(job_id, "worker", 60, {BUNDLE.edition}) as lease:
        assert lease is not None
        assert lease.job.series_uid is None
        assert len(lease.job.inputs) == 1


def test_one_unreadable_instance_does_not_hide_its_series(
    tmp_path: Path, ledger: Ledger, a_t1_slice: Callable[..., Dataset]
) -> None:
    ledger.register_bundle(BUNDLE)
    study_uid = receive(
        Spool(tmp_path / "spool"), ledger, [a_t1_slice("1.2", "1.2.1") for _ in range(2)]
    )
    first = min(ledger.instances_of(study_uid), key=lambda each: each.sop_uid)
    first.path.write_bytes(b"not DICOM any more")

    assert len(plan_studies(ledger, ["fistula"])) == 1


def test_a_series_of_unreadable_instances_is_given_up_after_a_few(
    tmp_path: Path,
    ledger: Ledger,
    a_t1_slice: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spool = Spool(tmp_path / "spool")
    slices = [a_t1_slice("1.2.3", "1.2.3.1") for _ in range(20)]
    receive(spool, ledger, slices)
    looked_at = []

    def unreadable(path: Path, _instances: int) -> None:
        looked_at.append(path)
        raise BadAttribute("it took ten seconds")

    monkeypatch.setattr(completion, "read_series_facts", unreadable)
    plan_studies(ledger, ["fistula"])

    assert len(set(looked_at)) == len(looked_at) <= completion.LOOKED_AT


def test_a_study_that_cannot_be_planned_for_unknown_reasons_holds_up_no_other(
    tmp_path: Path,
    ledger: Ledger,
    a_t1_slice: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger.register_bundle(BUNDLE)
    spool = Spool(tmp_path / "spool")
    receive(spool, ledger, [a_t1_slice("1.2", "1.2.1")])
    receive(spool, ledger, [a_t1_slice("1.3", "1.3.1")])
    read = completion.read_series_facts

    def fails(path: Path, instances: int) -> SeriesFacts:
        if "1.2.1" in path.parts:
            raise KeyError("PLANTED^NAME")
        return read(path, instances)

    monkeypatch.setattr(completion, "read_series_facts", fails)

    assert len(plan_studies(ledger, ["fistula"])) == 1
    known = ledger.study("1.2")
    assert known is not None
    assert known["reason"] == "cannot be planned: KeyError"


def test_files_that_are_not_to_be_had_put_off_their_study_and_no_other(
    tmp_path: Path, ledger: Ledger, a_t1_slice: Callable[..., Dataset]
) -> None:
    ledger.register_bundle(BUNDLE)
    spool = Spool(tmp_path / "spool")
    receive(spool, ledger, [a_t1_slice("1.2", "1.2.1")])
    receive(spool, ledger, [a_t1_slice("1.3", "1.3.1")])
    (put_off,) = ledger.instances_of("1.2")
    away = put_off.path.rename(tmp_path / "away")

    assert len(plan_studies(ledger, ["fistula"])) == 1
    assert states(ledger, "1.2") == {"1.2.1": "waiting"}
    known = ledger.study("1.2")
    assert known is not None
    assert known["reason"] == "cannot be planned: FileNotFoundError"

    away.rename(put_off.path)
    assert len(plan_studies(ledger, ["fistula"])) == 1
