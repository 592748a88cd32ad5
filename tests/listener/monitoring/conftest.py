"""A ledger with studies that were judged, and a web server for the routes."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from listener.entries import Answer, BundleRow, Plan, Received
from listener.ledger import Ledger
from listener.series import InstanceKey
from listener.spool import Arrival, Held
from tests.listener.conftest import BUNDLE, free_port

SCANNER = "SIEMENS Prisma MR01"


class Clinic:
    """Sends studies to a ledger and answers them."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.studies = 0

    def study(
        self,
        answer: Answer | None,
        scanner: str | None = SCANNER,
        instances: int = 1,
        bundle: BundleRow = BUNDLE,
    ) -> str:
        """Take one study through to its answer, or leave its job queued; returns the job's ID."""
        self.studies += 1
        study_uid = f"1.2.{self.studies}"
        self.ledger.record(
            [
                Received(_held(study_uid, number), None, self.ledger.now)
                for number in range(instances)
            ]
        )
        (gathering,) = self.ledger.gathering()
        self.ledger.complete(gathering, "quiet")
        plan = Plan("fistula", f"{study_uid}.1", tuple(self.ledger.instances_of(study_uid)))
        (job_id,) = self.ledger.plan(study_uid, 1, [(plan, bundle)], {}, scanner=scanner)
        if answer is not None:
            self.answer(job_id, answer, bundle)
        return job_id

    def answer(self, job_id: str, answer: Answer, bundle: BundleRow = BUNDLE) -> None:
        """Do a job."""
        with self.ledger.lease(job_id, "worker", 60, {bundle.edition}) as lease:
            assert lease is not None
            self.ledger.keep(lease.job, answer)


def _held(study_uid: str, number: int) -> Held:
    key = InstanceKey(study_uid, f"{study_uid}.1", f"{study_uid}.1.{number}")
    return Held(key, "/spool", "f" * 64, 1, Arrival.NEW, 1000.0)  # type: ignore[arg-type]


def reported(probability: float = 0.5, percentile: float = 50.0, **more: Any) -> Answer:
    summary = {"probability": probability, "ood_percentile": percentile, "band": "high", **more}
    return Answer("REPORTED", summary=summary, seconds={"infer": 2.0})


def refused(reason: str, *, retriable: bool = False) -> Answer:
    return Answer("REFUSED", "it is", summary={"refused": reason}, retriable=retriable)


@pytest.fixture
def clinic(ledger: Ledger) -> Clinic:
    ledger.register_bundle(BUNDLE)
    return Clinic(ledger)


class Answered:
    """What a web server said."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


@contextmanager
def serving(routes: list[Route]) -> Iterator[Callable[[str], Answered]]:
    """Routes on loopback; yields what asks them."""
    port = free_port()
    config = uvicorn.Config(
        Starlette(routes=routes), port=port, log_config=None, lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def ask(path: str) -> Answered:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as said:
                return Answered(said.status, dict(said.headers), said.read())
        except urllib.error.HTTPError as said:
            with said:
                return Answered(said.code, dict(said.headers), said.read())

    try:
        yield ask
    finally:
        server.should_exit = True
        thread.join()
