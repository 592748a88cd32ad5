"""A self-test sends what is synthetic and nothing else, and says what to do where it cannot."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from listener.__main__ import app
from listener.errors import SelfTestFailed
from listener.front_door import our_port, require_admission, send
from listener.ledger import Ledger
from listener.selftest import step_of
from listener.settings import ListenerSettings
from listener.specimen import NoSpecimen, read_specimen, stamp
from listener.spool import Spool

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def a_synthetic_slice(an_mr_slice: Callable[..., Dataset]) -> Callable[..., Dataset]:
    def make(study: str = "1.2", series: str = "1.2.1") -> Dataset:
        dataset = an_mr_slice(study=study, series=series)
        dataset.PatientName, dataset.PatientID = "PHANTOM^7", "PHANTOM-7"
        dataset.StudyDescription = "MRI BRAIN (SYNTHETIC)"
        dataset.FrameOfReferenceUID = "1.2.9"
        return dataset

    return make


def written(folder: Path, *datasets: Dataset) -> Path:
    folder.mkdir(exist_ok=True)
    for number, dataset in enumerate(datasets):
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def test_a_synthetic_study_becomes_a_new_one_of_today(
    tmp_path: Path, a_synthetic_slice: Callable[..., Dataset]
) -> None:
    slices = [a_synthetic_slice(), a_synthetic_slice(), a_synthetic_slice(series="1.2.2")]
    folder = written(tmp_path / "study", *slices)
    (folder / "truth.json").write_text("{}")
    first, second = read_specimen(folder), read_specimen(folder)
    uids = {stamp(first, AT), stamp(second, AT)}

    assert len(uids) == 2
    assert all(uid.startswith("2.25.") for uid in uids)
    assert len({each.StudyInstanceUID for each in first}) == 1
    assert len({each.SeriesInstanceUID for each in first}) == 2
    assert len({each.SOPInstanceUID for each in (*first, *second)}) == 6
    assert {each.FrameOfReferenceUID for each in first}.isdisjoint({"1.2.9"})
    for each in first:
        assert each.file_meta.MediaStorageSOPInstanceUID == each.SOPInstanceUID
        assert (each.PatientName, each.PatientID) == ("MONRO^SELFTEST", "MONRO-SELFTEST")
        assert (each.StudyDate, each.StudyTime) == ("20260304", "050607")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "PLANTED^NAME"),
        ("PatientName", "PHANTOMAS^7"),
        ("PatientID", "4711"),
        ("StudyDescription", "MRI BRAIN"),
        ("StudyDescription", None),
    ],
)
def test_a_study_that_may_be_a_patient_s_is_never_sent(
    tmp_path: Path, a_synthetic_slice: Callable[..., Dataset], keyword: str, value: str | None
) -> None:
    patient_s = a_synthetic_slice()
    setattr(patient_s, keyword, value)
    folder = written(tmp_path / "study", a_synthetic_slice(), patient_s)

    with pytest.raises(NoSpecimen, match=r"1\.dcm, which does not say it is synthetic") as refused:
        read_specimen(folder)
    assert "PLANTED" not in str(refused.value)


def test_a_folder_must_hold_one_study(
    tmp_path: Path, a_synthetic_slice: Callable[..., Dataset]
) -> None:
    folder = written(tmp_path / "study", a_synthetic_slice("1.2"), a_synthetic_slice("1.3"))

    with pytest.raises(NoSpecimen, match="holds 2 studies"):
        read_specimen(folder)
    with pytest.raises(NoSpecimen, match="holds 0 studies"):
        read_specimen(tmp_path / "nowhere")


def test_who_would_not_be_let_in_is_told_what_to_add(
    settings_for: Callable[..., ListenerSettings],
) -> None:
    closed = {"open_node": False, "bind": "0.0.0.0"}
    other = settings_for(peers=[{"ae_title": "PACS"}], **closed)
    elsewhere = settings_for(peers=[{"ae_title": "MONRO", "address": "10.0.0.5"}], **closed)
    itself = settings_for(peers=[{"ae_title": "MONRO", "address": "127.0.0.1"}], **closed)

    for settings in (other, elsewhere):
        with pytest.raises(SelfTestFailed) as failed:
            require_admission(settings, our_port(settings))
        assert 'add {"ae_title": "MONRO", "address": "127.0.0.1"} to MONRO_PEERS' in str(
            failed.value
        )
    require_admission(itself, our_port(itself))
    require_admission(settings_for(), our_port(settings_for()))


def test_a_specimen_arrives_as_it_was_stamped(
    tmp_path: Path,
    ledger: Ledger,
    listening: Any,
    a_synthetic_slice: Callable[..., Dataset],
) -> None:
    instances = read_specimen(written(tmp_path / "study", a_synthetic_slice()))
    study_uid = stamp(instances, AT)
    with listening(Spool(tmp_path / "spool"), ledger) as sender:
        settings = sender.settings
        send(instances, our_port(settings), settings)

    (path,) = (tmp_path / "spool" / "studies" / study_uid).glob("*/*.dcm")
    assert dcmread(path).PatientID == "MONRO-SELFTEST"
    with pytest.raises(SelfTestFailed, match="see that `listener serve` runs"):
        send(instances, our_port(settings), settings)


def study(jobs: list[dict[str, Any]], deliveries: list[dict[str, Any]]) -> dict[str, Any]:
    known = {
        "study_uid": "1.2", "state": "COMPLETE", "revision": 1, "planned_revision": 1,
        "reason": "quiet", "instances": [{"reason": "fistula: no contrast"}],
    }  # fmt: skip
    return {**known, "jobs": jobs, "deliveries": deliveries}


def job(state: str, **more: Any) -> dict[str, Any]:
    known = {"analysis": "fistula", "role": "active", "reason": "why", "progress": None}
    known["retriable"] = False
    return {**known, "state": state, **more}


def delivery(state: str, count: int = 1, destination: str = "pacs") -> dict[str, Any]:
    return {"destination": destination, "state": state, "count": count, "message": "said"}


@pytest.mark.parametrize(
    ("known", "step"),
    [
        (None, "completion"),
        (study([], []) | {"state": "RECEIVING"}, "completion"),
        (study([], []) | {"planned_revision": 0}, "completion"),
        (study([job("QUEUED")], []), "queue"),
        (study([job("QUEUED"), job("RUNNING")], []), "analysis"),
        (study([job("REPORTED")], [delivery("PENDING"), delivery("SENT")]), "delivery"),
        (study([job("REPORTED")], [delivery("CONFIRMED"), delivery("SENT")]), "arrival"),
        (study([job("REPORTED"), job("REFUSED")], [delivery("SENT")]), "arrival"),
        (study([job("REPORTED"), job("FAILED", role="shadow")], [delivery("SENT")]), "arrival"),
        (study([job("SUPERSEDED"), job("REPORTED")], [delivery("SENT")]), "arrival"),
    ],
)
def test_a_study_is_at_the_step_that_is_to_be_waited_for(known: Any, step: str) -> None:
    assert step_of(known, "pacs")[0] == step


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (study([], []), r"no analysis wants study 1.2 \(fistula: no contrast\)"),
        (study([job("FAILED")], []), "ended as FAILED"),
        (
            study([job("REPORTED"), job("REFUSED", retriable=True)], [delivery("SENT")]),
            "analysis of study 1.2 failed",
        ),
        (study([job("REFUSED")], [delivery("SENT")]), r"was refused \(why\): name a study"),
        (study([job("REPORTED")], [delivery("SENT", destination="other")]), "meant for pacs"),
        (study([job("REPORTED")], [delivery("PARKED", 2)]), r"pacs rejected 2 results .*\(said\)"),
    ],
)
def test_a_study_that_will_not_get_any_further_is_not_waited_for(known: Any, why: str) -> None:
    with pytest.raises(SelfTestFailed, match=why):
        step_of(known, "pacs")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "nobody", "--study", "."], "no destination nobody is known: name one of pacs"),
        (["--to", "pacs"], "name a folder by --study or MONRO_SELFTEST_STUDY"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    for name, value in {
        "MONRO_SPOOL": str(tmp_path), "MONRO_BROKER": "redis://127.0.0.1:1/0", "MONRO_SITE": "t",
        "MONRO_OPEN_NODE": "true", "MONRO_DESTINATIONS":
        '[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}]',
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["selftest", *options])

    assert done.exit_code == 1
    assert said in " ".join(done.output.split())
