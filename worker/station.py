"""What one worker process holds: ledger, spool, warm ensembles, device."""

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch

from listener.entries import Answer, Early, Job, Result
from listener.errors import LeaseLost
from listener.ledger import Lease, Ledger, this_process
from listener.spool import Spool
from listener.workforce import Held
from worker.analyses import open_analysis
from worker.analyses.interface import Analysis, ReaderNeeded
from worker.bundle import RegionBundle, VolumeBundle
from worker.delta.baseline import computes_in
from worker.device import require_device
from worker.metrics import Observations
from worker.occlusion import Effort, Mode
from worker.pipeline import Commission, Estimate, commission, estimate, judge, propose, refuse
from worker.quality import Reason, UnusableStudy
from worker.results.outcome import Estimated, Judged, NotJudged, Options, Predecessor, Proposed
from worker.results.overlay import guide
from worker.results.result import Encoder, Kind, ResultObject, objects
from worker.results.terms import PROCESSING_ALGORITHM, PROCESSING_EQUIPMENT
from worker.settings import Settings, WorkerSettings
from worker.shelf import Shelf
from worker.signature import read_trusted_keys
from worker.stopwatch import Stopwatch

log = logging.getLogger(__name__)

# The occlusion map as numbers, beside the results in the spool.
MAP: Final = "map.safetensors"
# How the console is to show the layers of the overlay.
GUIDE: Final = "layers.json"

PURPOSES = {code.value: code for code in (PROCESSING_ALGORITHM, PROCESSING_EQUIPMENT)}


class Station:
    """One worker process: takes jobs, keeps answers.

    Args:
        settings: of both programs.
        observations: are told of each job.

    Raises:
        BadBundle: a bundle is missing, altered, or not signed by whom the settings trust.
        VersionTaken: a bundle calls itself by the version of another one.
        BadKey: the settings trust something that is no key.
        BadSettings: this machine does not have the device.
    """

    def __init__(self, settings: Settings, observations: Observations | None = None) -> None:
        self._observations = observations or Observations()
        commons = settings.commons
        if settings.worker.threads:
            torch.set_num_threads(settings.worker.threads)
        self._site = commons.site
        self._options = Options(
            settings.worker.series_base,
            PURPOSES[settings.worker.algorithm_purpose],
            frozenset(map(Kind, settings.worker.extras)),
        )
        self._effort = _effort(settings.worker)
        self._limits = settings.worker.limits
        self._sends_early = settings.worker.early_report
        self._lease_seconds = commons.lease_seconds
        self._max_attempts = commons.max_attempts
        self._spool = Spool(commons.spool, commons.keep_free)
        self._ledger = Ledger(commons.ledger_url)
        self.shelf = Shelf(
            settings.worker.bundles,
            read_trusted_keys(settings.worker.trusted_keys),
            self._ledger,
            partial(_open, settings.worker),
            settings.worker.look_seconds,
        )
        self.shelf.fill()

    def editions(self) -> list[Held]:
        """The bundles that are held at present."""
        held = [each.bundle for each in self.shelf.held.values()]
        return [(each.analysis, each.weights_sha256, each.version) for each in held]

    def work(self, job_id: str) -> None:
        """Do a job, if it is still to be done; the ledger decides.

        A job is lent to one holder at a time, for as long as the holder's heart beats, and
        the ledger takes results from nobody else.
        """
        held = self.shelf.held
        with self._ledger.lease(job_id, this_process(), self._lease_seconds, held.keys()) as lease:
            if lease is None:
                return  # finished already, or lent to another worker
            self._observations.begin(lease.job)
            try:
                self._drop_leftovers(lease.job)
                answer = self._answer(lease, held[lease.job.edition])
                self._ledger.keep(lease.job, answer)
                self._observations.keep(answer)
            except LeaseLost as lost:
                log.warning("%s; what was found is dropped", lost)
                return
            finally:
                self._observations.end()
                for folder in {lease.job.lease, _early_folder(lease.job)} - self._kept(lease.job):
                    self._spool.drop_results(lease.job.study_uid, job_id, folder)
        log.info("job %s: %s", job_id, answer.state)

    def _drop_leftovers(self, job: Job) -> None:
        """Remove what earlier, killed attempts at a job wrote; who holds its lease may."""
        written = self._spool.leases_with_results(job.study_uid, job.job_id)
        for folder in written - self._kept(job):
            self._spool.drop_results(job.study_uid, job.job_id, folder)

    def _kept(self, job: Job) -> set[str]:
        return {result.path.parent.name for result in self._ledger.results_of(job.job_id)}

    def _answer(self, lease: Lease, analysis: Analysis) -> Answer:
        job, watch = lease.job, Stopwatch()
        asked = commission(job, analysis.bundle, self._site, self._options)
        try:
            self._require_hope(job)
            score = estimate(asked, analysis, watch, self._limits)
            asked = self._tell_score(asked, score, watch)
            outcome = judge(asked, score, watch, _watcher(lease), self._effort)
        except UnusableStudy as refusal:
            return self._refusal(asked, refusal, watch)
        except ReaderNeeded as needed:
            return self._proposal(asked, propose(asked, needed, analysis.bundle), watch)
        found = self._keep(job, outcome, job.lease, watch)
        return Answer(
            "REPORTED",
            found=found,
            lineage=asdict(outcome.lineage),
            seconds=watch.seconds,
            summary=_summary(score) | outcome.map.facts,
            unused=_unused(asked),
        )

    def _proposal(self, asked: Commission, proposed: Proposed, watch: Stopwatch) -> Answer:
        """What a reader must see first: the job is done, and a drawing makes another one."""
        job = asked.job
        return Answer(
            "REPORTED",
            found=self._keep(job, proposed, job.lease, watch),
            lineage=asdict(proposed.lineage),
            seconds=watch.seconds,
            summary={"waits": "for a reader to see the proposed regions"},
            answered="proposal",
            unused=_unused(asked),
        )

    def _tell_score(self, asked: Commission, score: Estimate, watch: Stopwatch) -> Commission:
        """Make the score known before its map; returns what is asked for from then on."""
        job, found = asked.job, []
        if self._sends_early and asked.early is None and job.role == "active":
            found = self._keep(job, score.outcome, _early_folder(job), watch)
            asked = replace(asked, early=Predecessor(asked.lineage, "early"))
        self._ledger.keep_early(job, Early(_summary(score), found, asdict(asked.lineage)))
        return asked

    def _refusal(self, asked: Commission, refusal: UnusableStudy, watch: Stopwatch) -> Answer:
        outcome = refuse(asked, refusal)
        if outcome is None:
            return Answer("FAILED", f"{refusal} No header could be read to address a refusal with.")
        return Answer(
            "REFUSED",
            str(refusal),
            found=self._keep(asked.job, outcome, asked.job.lease, watch),
            lineage=asdict(asked.lineage),
            seconds=watch.seconds,
            summary={"refused": refusal.reason.value},
            retriable=refusal.reason is Reason.INTERNAL,
            unused=_unused(asked),
        )

    def _require_hope(self, job: Job) -> None:
        if job.attempts > self._max_attempts:
            raise UnusableStudy(
                Reason.INTERNAL,
                f"the analysis stopped unexpectedly {job.attempts - 1} times",
                "the attention of the operator, who finds the reason with "
                f"`listener show {job.study_uid}` and in the worker's log",
            )

    def _keep(
        self, job: Job, outcome: Estimated | Proposed | NotJudged, folder: str, watch: Stopwatch
    ) -> list[Result]:
        keep = partial(self._spool.keep_result, job.study_uid, job.job_id, folder)
        with watch.step("report"):
            found, encoder = objects(outcome), Encoder()
            if isinstance(outcome, Judged):
                keep(MAP, outcome.map.serialised())
                layers = [each.layers for each in found if each.layers is not None]
                keep(GUIDE, guide(outcome, layers))
            uids = {(each.kind, each.index): each.sop_uid for each in found}
            return [
                Result(
                    sop_uid=each.sop_uid,
                    series_uid=each.series_uid,
                    sop_class=each.sop_class_uid,
                    kind=each.kind,
                    number=each.index,
                    phase=each.phase,
                    path=_write(each, encoder, keep),
                    alternative_of=each.alternative_of and uids[each.alternative_of, each.index],
                )
                for each in found
            ]


def _unused(asked: Commission) -> dict[str, str]:
    """Why some of the input was left aside, by instance UID."""
    choice = asked.segmentations
    return {each.sop_uid: choice.left_aside[each.sop_uid] for each in choice.told}


def _early_folder(job: Job) -> str:
    """Where an attempt's early report lies: it is kept before anything else of the attempt is."""
    return f"{job.lease}.early"


def _write(found: ResultObject, encoder: Encoder, keep: Callable[[str, bytes], Path]) -> Path:
    """Put an object, and its layers for the console, on stable storage."""
    name = f"{found.kind}-{found.index:04d}"
    if found.layers is not None:
        keep(f"{name}.anatomy.png", found.layers.anatomy)
        keep(f"{name}.heat.png", found.layers.heat)
    return keep(f"{name}.dcm", encoder.encode(found.dataset))


def _open(settings: WorkerSettings, bundle: VolumeBundle | RegionBundle) -> Analysis:
    """Warm a bundle as this site wants it."""
    return open_analysis(
        _with_map_mode(bundle, settings.map_mode),
        settings.device,
        waits_for_reader=settings.regions == "wait for reader",
    )


def _with_map_mode(
    bundle: VolumeBundle | RegionBundle, mode: Mode | Literal["bundle"]
) -> VolumeBundle | RegionBundle:
    """A bundle whose occlusion maps, if it makes them, are made as this site wants them."""
    if mode == "bundle" or not isinstance(bundle, VolumeBundle):
        return bundle
    return replace(bundle, occlusion=replace(bundle.occlusion, mode=mode))


def _watcher(lease: Lease) -> Callable[[int, int], None]:
    """Tells the ledger and the log how far a map is; raises LeaseLost to cancel it."""
    told = 0

    def watch(done: int, total: int) -> None:
        nonlocal told
        lease.check()
        lease.tell(f"map {done} of {total}")
        tenth = 10 * done // max(total, 1)
        if tenth > told:
            log.info("job %s: map %d of %d", lease.job.job_id, done, total)
        told = tenth

    return watch


def _effort(settings: WorkerSettings) -> Effort:
    device = require_device(settings.device)
    dtype = torch.float32 if settings.map_precision == "float32" else torch.bfloat16
    if settings.map_precision == "auto" and not computes_in(dtype, device):
        dtype = torch.float32
    return Effort(settings.map_seconds, settings.map_memory_gib * 2**30, dtype)


def _summary(score: Estimate) -> dict[str, Any]:
    known, prediction = score.outcome, score.outcome.prediction
    return {
        "probability": round(prediction.probability, 4),
        "disagreement": round(prediction.disagreement, 4),
        "ood_percentile": round(prediction.ood_percentile, 1),
        "band": prediction.band.value,
        "statement": known.bundle.statement,
        **{
            f"{each.name} probability": round(each.score.probability, 4)
            for each in known.regions
            if each.score is not None
        },
        **({} if known.measured_with is None else {"features": str(known.measured_with)}),
        **{f"{each.name} not measured": each.refusal.found for each in known.unmeasured},
        "input": {name: float(f"{value:.4g}") for name, value in score.judgement.inputs.items()},
    }
