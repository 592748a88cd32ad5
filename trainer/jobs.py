"""All folds of a run on this machine: one process per fold, one fold per GPU.

Each process is what `python -m trainer fit --fold N` starts anywhere else, so that a fold is the
same job here, on Slurm and on Kubernetes.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from trainer.loop import Epoch
from trainer.run import BadRun, is_done, is_taken, read_epochs

POLL_SECONDS: Final = 0.5
LOG: Final = "log.txt"
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, eq=False)
class Job:
    """A fold that is being trained, and where."""

    number: int
    place: str
    process: "subprocess.Popen[bytes]"


def fit_at_once(
    folder: Path,
    folds: int,
    arguments: Sequence[str],
    device: str,
    processes: int,
    on_epoch: Callable[[int, Epoch], None],
) -> None:
    """Train all folds that are not done.

    Args:
        folder: of the run.
        folds: how many it has.
        arguments: of `python -m trainer fit`, without --fold.
        device: "cpu", or "cuda" for all GPUs that are visible.
        processes: folds at a time on the CPU; GPUs take one each.
        on_epoch: told of every epoch that ends, with its fold, those of earlier times included.

    Raises:
        BadRun: a fold failed; its log is named.
    """
    waiting, told = list(range(folds)), dict.fromkeys(range(folds), 0)
    free, running = _places(device, processes), list[Job]()
    try:
        while waiting or running:
            waiting = [number for number in waiting if not is_done(folder, number)]
            # What another process is at, such as one whose parent was killed, is waited for.
            ready = [number for number in waiting if not is_taken(folder, number)]
            for number in ready[: len(free)]:
                waiting.remove(number)
                running.append(_start(folder, number, free.pop(0), arguments))
            time.sleep(POLL_SECONDS)
            _tell(folder, told, on_epoch)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                free.append(job.place)
                _require_done(folder, job)
        _tell(folder, told, on_epoch)
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.wait()


def _places(device: str, processes: int) -> list[str]:
    """Where folds can be trained at a time: names of GPUs, or so many times the CPU."""
    if device == "cpu":
        return [""] * processes
    visible = os.environ.get(VISIBLE, "")
    if visible:
        return visible.split(",")  # numbers, or UUIDs of GPUs and of their MIG parts
    return [str(number) for number in range(torch.cuda.device_count())]


def _start(folder: Path, number: int, place: str, arguments: Sequence[str]) -> Job:
    log = folder / f"fold_{number}" / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "trainer", "fit", *arguments, "--fold", str(number)]
    where: Mapping[str, str] = {VISIBLE: place} if place else {}
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **where}
        )
    return Job(number, place, process)


def _tell(folder: Path, told: dict[int, int], on_epoch: Callable[[int, Epoch], None]) -> None:
    for number in told:
        for epoch in read_epochs(folder, number)[told[number] :]:
            on_epoch(number, epoch)
            told[number] += 1


def _require_done(folder: Path, job: Job) -> None:
    if job.process.returncode == 0 and is_done(folder, job.number):
        return
    log = folder / f"fold_{job.number}" / LOG
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    found = f"fold {job.number} failed: {lines[-1]}"
    raise BadRun(folder, found, f"see {log}, mend it, and run the same command to go on")
