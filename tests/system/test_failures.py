"""Whatever is killed, flushed or switched off: the same result arrives, once."""

import hashlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pydicom import dcmread
from pynetdicom import AE

from listener.caller import call
from listener.remote import Entity
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import study_uid, write_study

Study = tuple[str, list[Path]]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A synthetic study with signs."""
    shown = render(draw_case(2024, positive=True, spectrum=OVERT), spacing_mm=2.4)
    return study_uid(shown.case), write_study(shown, tmp_path_factory.mktemp("phantom"))


def wait_for_running(hospital: Any, uid: str) -> None:
    hospital.await_that(lambda: hospital.job(uid).get("state") == "RUNNING", 60, uid)
    time.sleep(0.5)  # well into the work


@pytest.fixture(scope="module")
def undisturbed(
    hospital: Any, phantom: Study, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the same study yields where nothing goes wrong, each object sent once."""
    uid, files = phantom
    hospital.send(files)
    hospital.await_delivery(uid)
    known = hospital.stack.ledger.study(uid)
    assert {row["attempts"] for row in known["deliveries"]} == {1}
    return contents(hospital.results(uid, tmp_path_factory.mktemp("undisturbed")))


def contents(results: list[Path]) -> dict[str, str]:
    """What each object says: its pixels, or its sentences and numbers."""
    told = {}
    for dataset in map(dcmread, results):
        said = (
            dataset.PixelData if "PixelData" in dataset else str(dataset.ContentSequence).encode()
        )
        told[str(dataset.SOPInstanceUID)] = hashlib.sha256(said).hexdigest()
    return told


def assert_answered_once(
    hospital: Any, uid: str, undisturbed: dict[str, str], folder: Path
) -> None:
    """The same objects arrive as where nothing went wrong, and no other."""
    hospital.await_delivery(uid)
    assert contents(hospital.results(uid, folder)) == undisturbed
    jobs = hospital.stack.ledger.study(uid)["jobs"]
    assert [job["state"] for job in jobs] == ["REPORTED"]


def test_a_worker_killed_in_the_middle_of_a_job(
    a_hospital: Any, phantom: Study, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    uid, files = phantom
    with a_hospital() as hospital:
        hospital.send(files)
        wait_for_running(hospital, uid)
        hospital.stack.stop("worker", signal.SIGKILL)
        assert hospital.job(uid)["state"] == "RUNNING"
        hospital.stack.start_worker()

        assert_answered_once(hospital, uid, undisturbed, tmp_path / "pacs")
        assert hospital.job(uid)["attempts"] == 2


def test_redis_flushed_with_a_job_waiting_and_again_with_it_running(
    a_hospital: Any, phantom: Study, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    uid, files = phantom
    with a_hospital() as hospital:
        broker = redis.Redis(port=hospital.stack.redis_port)
        hospital.stack.stop("worker")
        hospital.send(files)
        hospital.await_that(lambda: broker.llen("monro") == 1, 60, uid)
        broker.flushall()
        hospital.stack.start_worker()
        wait_for_running(hospital, uid)
        broker.flushall()
        broker.close()

        assert_answered_once(hospital, uid, undisturbed, tmp_path / "pacs")


def test_redis_away_when_a_study_completes(
    a_hospital: Any, phantom: Study, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    uid, files = phantom
    with a_hospital() as hospital:
        hospital.stack.stop("redis", signal.SIGKILL)
        hospital.send(files)
        hospital.await_that(lambda: hospital.job(uid).get("state") == "QUEUED", 60, uid)
        hospital.stack.start_redis()

        assert_answered_once(hospital, uid, undisturbed, tmp_path / "pacs")


def test_the_archive_down_when_results_are_ready_and_back_later(
    a_hospital: Any, phantom: Study, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    uid, files = phantom
    with a_hospital() as hospital:
        hospital.send(files)
        wait_for_running(hospital, uid)
        hospital.orthanc.stop()
        hospital.await_that(lambda: hospital.job(uid).get("state") == "REPORTED", 120, uid)
        hospital.await_that(lambda: attempts(hospital, uid) >= 2, 60, uid)
        hospital.orthanc.start()

        assert_answered_once(hospital, uid, undisturbed, tmp_path / "pacs")


def attempts(hospital: Any, uid: str) -> int:
    return max(
        (row["attempts"] for row in hospital.stack.ledger.study(uid)["deliveries"]), default=0
    )


def test_a_listener_killed_while_it_receives_has_everything_that_it_acknowledged(
    a_hospital: Any, phantom: Study, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    uid, files = phantom
    with a_hospital() as hospital:
        acknowledged = set()
        for sent, path in enumerate(stream(files, hospital.stack.listener_port)):
            acknowledged.add(path)
            if sent == len(files) // 2:
                hospital.stack.stop("listener", signal.SIGKILL)
        assert len(files) // 2 < len(acknowledged) < len(files)
        hospital.stack.start_listener()

        # Its port is open before it has looked through the spool.
        sent_to_us = {str(dcmread(path).SOPInstanceUID) for path in acknowledged}
        hospital.await_that(
            lambda: (
                sent_to_us <= {each.sop_uid for each in hospital.stack.ledger.instances_of(uid)}
            ),
            30,
            uid,
        )
        hospital.send(files)
        hospital.await_that(
            lambda: len(hospital.stack.ledger.instances_of(uid)) == len(files), 60, uid
        )
        hospital.await_that(lambda: hospital.job(uid).get("state") == "REPORTED", 120, uid)


def stream(files: list[Path], port: int) -> Iterator[Path]:
    """Send files in one association; yields each that was acknowledged, until it breaks."""
    entity = AE(ae_title="PACS")
    entity.dimse_timeout = 5
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1")
    association = call(entity, Entity(ae_title="MONRO", host="127.0.0.1", port=port), None)
    for path in files:
        if not association.is_established:
            return
        if association.send_c_store(path).get("Status") == 0x0000:
            yield path
