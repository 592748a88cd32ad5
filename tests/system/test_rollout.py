"""A new bundle beside the one in service: a shadow, then promoted, then rolled back, at work."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright
from pydicom import dcmread

from deploy.stack import free_ports
from listener.console.gate.accounts import Accounts
from listener.rollout import registered
from tests.system.conftest import edited_copy
from tests.system.test_console import ARGUMENTS, CHROMIUM, PASSWORD, sign_in
from trainer.phantom import draw_case, render
from trainer.phantom_study import write_study
from worker.seal import METADATA, write_manifest

DEMO = Path(__file__).parents[2] / "deploy" / "bundles" / "fistula-demo"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A coarse synthetic study."""
    shown = render(draw_case(3, positive=True), spacing_mm=2.4)
    return write_study(shown, tmp_path_factory.mktemp("head"))


def publish(bundles: Path, version: str) -> None:
    """Put the demo bundle there under another version, whole before it is seen."""
    place = bundles.parent / version
    shutil.copytree(DEMO, place)
    metadata = json.loads((place / METADATA).read_text())
    metadata["version"] = version
    (place / METADATA).write_text(json.dumps(metadata))
    write_manifest(place)
    place.rename(bundles / version)


def operate(hospital: Any, *words: str) -> str:
    """What an operator types."""
    done = subprocess.run(
        [sys.executable, "-m", "listener", "bundles", *words],
        env={"PATH": "/usr/bin:/bin", **hospital.stack.environment},
        cwd=hospital.stack.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def a_console(port: int) -> Iterator[Page]:
    """The page of bundles, for an operator who has signed in."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(base_url=f"http://127.0.0.1:{port}")
        sign_in(page)
        page.goto("/bundles")
        yield page
        browser.close()


def give(place: Locator, asked: str, meant: str) -> None:
    """Ask for a change on the page of bundles, and say on the next one that it is meant."""
    page = place.page
    place.get_by_role("button", name=asked).click()
    page.get_by_label("Reason").fill("a test")
    page.get_by_role("button", name=meant).click()


def bundles_of(hospital: Any, study_uid: str) -> dict[str, str]:
    """Which version of the bundle judged a study, by role."""
    jobs = hospital.stack.ledger.study(study_uid)["jobs"]
    return {job["role"]: job["bundle_version"] for job in jobs if job["state"] == "REPORTED"}


def test_a_shadow_is_compared_then_answers_then_is_taken_back_without_a_restart(
    a_hospital: Callable[..., Any], head: list[Path], tmp_path: Path
) -> None:
    bundles = tmp_path / "bundles"
    shutil.copytree(DEMO, bundles / "0-first")
    first = json.loads((DEMO / METADATA).read_text())["version"]
    (console_port,) = free_ports(1)
    with a_hospital(
        MONRO_WORKER_BUNDLES=json.dumps([str(bundles)]),
        MONRO_WORKER_LOOK_SECONDS="1",
        MONRO_CONSOLE_PORT=str(console_port),
    ) as hospital:
        ledger = hospital.stack.ledger
        Accounts(ledger).add("olga", "operator", PASSWORD)
        worker = hospital.stack.pid("worker")

        def judged(number: int) -> str:
            study_uid, files = edited_copy(head, tmp_path / f"study {number}")
            hospital.send(files)
            hospital.await_delivery(study_uid)
            hospital.await_that(lambda: not ledger.queued(), 120, study_uid)
            hospital.await_that(lambda: bool(bundles_of(hospital, study_uid)), 120, study_uid)
            return study_uid

        publish(bundles, "9.0.0")
        hospital.await_that(lambda: len(registered(ledger)) == 2)
        beside = judged(1)
        hospital.await_that(lambda: len(bundles_of(hospital, beside)) == 2, 120, beside)
        assert bundles_of(hospital, beside) == {"active": first, "shadow": "9.0.0"}
        sent = hospital.results(beside, tmp_path / "pacs 1")
        reports = [dcmread(path, stop_before_pixels=True) for path in sent]
        assert [each.Modality for each in reports].count("SR") == 2
        assert {each.DeviceSerialNumber for each in reports} == {"local"}
        compared = json.loads(operate(hospital, "compare", "fistula", "9.0.0", "--json"))
        (pair,) = compared["pairs"]
        assert pair["active"]["probability"] == pair["shadow"]["probability"]
        assert compared["same_statement"] == 1

        labels = tmp_path / "labels.csv"
        labels.write_text(f"study_uid,label\n{beside},positive\n")
        with a_console(console_port) as page:
            page.set_input_files("#table", labels)
            page.get_by_role("button", name="Upload").click()
            page.goto("/bundles")
            shadow = page.get_by_role("article", name="9.0.0")
            shadow.get_by_role("link", name="Compare with the active bundle").click()
            expect(page.get_by_role("heading", level=1)).to_contain_text("9.0.0 (shadow) beside")
            expect(page.get_by_text("On 1 labelled studies, 1 of them positive")).to_be_visible()
            page.goto("/bundles")
            give(shadow, "Make it the active bundle", "Promote")
            expect(shadow).to_contain_text("active")
            assert bundles_of(hospital, judged(2)) == {"active": "9.0.0"}
            page.goto("/bundles")
            give(page.locator("main"), "Roll the last promotion back", "Roll back")
            steps = page.get_by_role("table", name="Who gave which bundle which role")
            expect(steps.get_by_role("row").nth(1)).to_contain_text(re.compile("olga.*rolled back"))
            assert bundles_of(hospital, judged(3)) == {"active": first}

        assert hospital.stack.pid("worker") == worker
        assert hospital.stack.stopped() == []
        assert hospital.orthanc.count(beside) == len(head) + len(sent)


def test_a_promoted_bundle_that_was_tampered_with_judges_nothing_until_it_is_rolled_back(
    a_hospital: Callable[..., Any], head: list[Path], tmp_path: Path
) -> None:
    bundles = tmp_path / "bundles"
    shutil.copytree(DEMO, bundles / "0-first")
    first = json.loads((DEMO / METADATA).read_text())["version"]
    publish(bundles, "9.0.0")
    with a_hospital(
        MONRO_WORKER_BUNDLES=json.dumps([str(bundles)]),
        MONRO_WORKER_LOOK_SECONDS="1",
    ) as hospital:
        ledger = hospital.stack.ledger
        hospital.await_that(lambda: len(registered(ledger)) == 2)
        operate(hospital, "retire", "fistula", "9.0.0")
        hospital.stack.stop("worker")
        weights = bundles / "9.0.0" / "models" / "fold_0.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        operate(hospital, "promote", "fistula", "9.0.0", "--without-a-worker")
        hospital.stack.start_worker()
        log = hospital.stack.log("worker")
        hospital.await_that(lambda: "found sha256" in log.read_text(), 120)

        study_uid, files = edited_copy(head, tmp_path / "study")
        hospital.send(files)
        hospital.await_that(lambda: hospital.job(study_uid).get("state") == "QUEUED", 60)
        operate(hospital, "rollback", "fistula")
        hospital.await_delivery(study_uid)

        assert bundles_of(hospital, study_uid) == {"active": first}
