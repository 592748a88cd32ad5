"""The self-test against a real Orthanc: it passes when results arrive, and says why they do not."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydicom import dcmread

from deploy.stack import free_ports
from listener.monitoring.selftests import read_outcomes
from listener.workforce import Workforce
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import write_study

PEERS = [
    {"ae_title": "PACS", "address": "127.0.0.1"},
    {"ae_title": "MONRO", "address": "127.0.0.1"},
]


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("specimen")
    write_study(render(draw_case(2024, True, OVERT)), folder)
    return folder / "study"


@pytest.fixture
def place(a_hospital: Callable[..., Any], specimen: Path) -> Iterator[Any]:
    """A hospital that is set up for self-tests."""
    (port,) = free_ports(1)
    settings = {
        "MONRO_PEERS": json.dumps(PEERS),
        "MONRO_SELFTEST_STUDY": str(specimen),
        "MONRO_WORKER_METRICS_PORT": str(port),
        "MONRO_LOG_FORMAT": "json",
    }
    with a_hospital(**settings) as opened:
        yield opened


def selftest(place: Any, *options: str) -> tuple[int, str]:
    """Run the command as an operator would; returns its exit status and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "listener", "selftest", *options],
        env={**place.stack.environment, "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def worker_figures(place: Any) -> dict[tuple[str, ...], float]:
    port = place.stack.environment["MONRO_WORKER_METRICS_PORT"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as said:
        families = text_string_to_metric_families(said.read().decode())
        return {
            (sample.name, *([sample.labels["analysis"]] if "analysis" in sample.labels else [])):
            sample.value for family in families for sample in family.samples
        }  # fmt: skip


def test_a_synthetic_study_goes_the_whole_way_round_or_it_is_said_where_it_stuck(
    place: Any, specimen: Path, tmp_path: Path
) -> None:
    status, said = selftest(place, "--to", "pacs", "--patience", "200")
    assert status == 0, said
    assert "selftest: PASS" in said
    assert "shown by the destination" in said
    assert "fistula REPORTED" in said

    (study,) = place.stack.ledger.recent_studies(5)
    results = place.results(study["study_uid"], tmp_path / "pacs")
    assert results
    assert {dcmread(path, stop_before_pixels=True).PatientID for path in results} == {
        "MONRO-SELFTEST"
    }
    assert study["study_uid"] != dcmread(next(specimen.glob("*.dcm"))).StudyInstanceUID
    assert study["scanner"].endswith("MONRO SELFTEST")
    (outcome,) = read_outcomes(place.stack.folder / "spool")
    assert (outcome.destination, outcome.passed) == ("pacs", True)

    assert worker_figures(place)["monro_worker_jobs_total", "fistula"] == 1
    (worker,) = Workforce(place.stack.ledger).alive()
    held = [analysis for analysis, *_edition in worker.editions]
    assert sorted(held) == ["fistula", "infection"]
    told = [json.loads(line) for line in place.stack.log("listener").read_text().splitlines()]
    assert study["study_uid"] in {each.get("study") for each in told}

    place.orthanc.stop()
    status, said = selftest(place, "--to", "pacs", "--patience", "60")
    assert status == 1
    assert "destination pacs does not answer: start it, or correct it in MONRO_DEST" in said
    (outcome,) = read_outcomes(place.stack.folder / "spool")
    assert not outcome.passed
    assert len(place.stack.ledger.recent_studies(5)) == 1
    place.orthanc.start()

    place.stack.stop("worker")
    assert Workforce(place.stack.ledger).known() == []
    status, said = selftest(place, "--to", "pacs", "--patience", "6")
    assert status == 1
    assert "is not further than queue after 6 s (1 of 1 jobs QUEUED): see that a worker" in said
