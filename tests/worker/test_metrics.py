"""What a worker tells Prometheus of itself."""

import socket
import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from listener.entries import Answer, Job
from listener.errors import CannotListen
from worker.metrics import NO_ANSWER, Observations

HELD = ("fistula", "a" * 64, "1.0.0")

Scrape = Callable[[], dict[tuple[str | None, ...], float]]


def a_job() -> Job:
    return Job(
        job_id="job", study_uid="1.2", analysis="fistula", series_uid="1.2.1", digest="d",
        weights_sha256="a", bundle_version="1", created_at=0, attempts=1, lease="l", inputs=(),
        predecessor=None,
    )  # fmt: skip


@pytest.fixture
def observations() -> Observations:
    return Observations()


@pytest.fixture
def scrape(observations: Observations) -> Scrape:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    observations.serve("127.0.0.1", port, "cpu", lambda: [HELD])

    def once() -> dict[tuple[str | None, ...], float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as said:
            families = text_string_to_metric_families(said.read().decode())
            return {
                (
                    sample.name,
                    *(value for _name, value in sorted(sample.labels.items())),
                ): sample.value
                for family in families
                for sample in family.samples
            }

    return once


def test_stages_and_answers_are_told(observations: Observations, scrape: Scrape) -> None:
    observations.begin(a_job())
    observations.keep(Answer("REPORTED", seconds={"infer": 2.0, "explain": 40.0}))
    observations.end()
    told = scrape()

    assert told["monro_worker_jobs_total", "fistula", "REPORTED"] == 1
    assert told["monro_worker_stage_seconds_sum", "fistula", "explain"] == 40
    assert told["monro_worker_stage_seconds_bucket", "fistula", "3.0", "infer"] == 1


def test_a_job_is_at_hand_until_it_is_not(observations: Observations, scrape: Scrape) -> None:
    at_hand = ("monro_worker_job_at_hand_seconds", "fistula")
    assert at_hand not in scrape()
    observations.begin(a_job())
    assert 0 <= scrape()[at_hand] < 60
    observations.end()
    told = scrape()

    assert at_hand not in told
    assert told["monro_worker_jobs_total", "fistula", NO_ANSWER] == 1


def test_memory_and_bundles_are_told(scrape: Scrape) -> None:
    told = scrape()

    assert told["monro_worker_memory_used_bytes", "cpu"] > 0
    assert told["monro_worker_bundle_info", "fistula", "1.0.0 aaaaaaaa"] == 1
    assert told["process_resident_memory_bytes",] > 0


def test_a_port_that_is_taken_stops_the_start_with_what_to_do(
    observations: Observations,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match="MONRO_WORKER_METRICS_PORT"):
            observations.serve("127.0.0.1", port, "cpu", list)
