"""What a worker tells Prometheus, on a port of its own: stages, answers, the job at hand, memory.

The listener's figures (listener/monitoring) come from the ledger and outlive a restart; these are
of one process, from its start on.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from listener.entries import Answer, Job
from listener.errors import CannotListen
from listener.workforce import STAGE_BOUNDS, Held, bundle_label
from worker.presence import device_memory

NO_ANSWER: Final = "none"
"""The job went back to the ledger: it failed on the way, was cancelled, or lent to another."""


class Observations:
    """What happened in this worker; without `serve` nobody hears of it.

    Attributes:
        registry: of these figures, for this worker only.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._stages = Histogram(
            "monro_worker_stage_seconds",
            "Seconds that a stage of a job took.",
            ["analysis", "stage"],
            buckets=STAGE_BOUNDS,
            registry=self.registry,
        )
        self._answers = Counter(
            "monro_worker_jobs",
            "Jobs done, by what the ledger keeps of them.",
            ["analysis", "answer"],
            registry=self.registry,
        )
        self._job: Job | None = None
        self._since, self._said = 0.0, NO_ANSWER
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    @property
    def at_hand(self) -> tuple[str, float] | None:
        """Analysis of the job that is being done, and for how many seconds; None without one."""
        job = self._job
        return None if job is None else (job.analysis, time.monotonic() - self._since)

    def begin(self, job: Job) -> None:
        """A job is at hand; a worker has one at a time."""
        self._job, self._since, self._said = job, time.monotonic(), NO_ANSWER

    def keep(self, answer: Answer) -> None:
        """The ledger has the answer of the job at hand."""
        assert self._job is not None, "begin() comes first"
        self._said = answer.state
        for stage, seconds in answer.seconds.items():
            self._stages.labels(self._job.analysis, stage).observe(seconds)

    def end(self) -> None:
        """The job is not at hand any more."""
        assert self._job is not None, "begin() comes first"
        self._answers.labels(self._job.analysis, self._said).inc()
        self._job = None

    def tell(self, device: str, editions: Callable[[], Sequence[Held]]) -> None:
        """Have what is the case while somebody asks among the figures; see `serve`."""
        self.registry.register(_Present(self, device, editions))

    def serve(
        self,
        bind: str,
        port: int,
        device: str,
        editions: Callable[[], Sequence[Held]],
    ) -> None:
        """Answer Prometheus until the process ends.

        Args:
            bind: address to listen on.
            port: to listen on.
            device: where networks run.
            editions: bundles held at present.

        Raises:
            CannotListen: the port is taken or not ours.
        """
        self.tell(device, editions)
        try:
            start_http_server(port, bind, self.registry)
        except OSError as error:
            raise CannotListen(
                bind, port, error.strerror or str(error), "MONRO_WORKER_METRICS_PORT"
            ) from error


class _Present(Collector):
    """What is the case while somebody asks."""

    def __init__(
        self,
        observations: Observations,
        device: str,
        editions: Callable[[], Sequence[Held]],
    ) -> None:
        self._observations, self._device, self._editions = observations, device, editions

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        at_hand = GaugeMetricFamily(
            "monro_worker_job_at_hand_seconds",
            "How long the job at hand takes so far; absent while there is none.",
            labels=["analysis"],
        )
        job = self._observations.at_hand
        if job is not None:
            analysis, seconds = job
            at_hand.add_metric([analysis], seconds)
        yield at_hand
        memory = device_memory(self._device)
        for what in ("used", "total"):
            gauge = GaugeMetricFamily(
                f"monro_worker_memory_{what}_bytes",
                "Memory of the device: of a GPU by all processes, of a CPU by this one.",
                labels=["device"],
            )
            if what in memory:
                gauge.add_metric([self._device], memory[what])
            yield gauge
        bundles = GaugeMetricFamily(
            "monro_worker_bundle_info",
            "Bundles that this worker holds.",
            labels=["analysis", "bundle"],
        )
        for analysis, weights, version in self._editions():
            bundles.add_metric([analysis, bundle_label(version, weights)], 1)
        yield bundles
