"""Where the time of one study goes: `make bench-study`, one line of JSON per stage.

A phantom of 176 sagittal slices of 256 x 256 pixels at 1 mm, as a scanner would send it, goes
through the worker's own steps with the demo bundle (or another: --bundle), on one core. What each
stage did is told on stderr. There is no peer: `goal` is in seconds, and `ratio` is goal / value.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from deploy.archive import TRANSFER_SYNTAXES, Archive
from deploy.stack import free_ports
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import write_study
from worker.bundle import Bundle, load_volume_bundle
from worker.ensemble import Ensemble
from worker.occlusion import explain
from worker.pipeline import read_headers
from worker.preprocess import prepare
from worker.results.outcome import Judged
from worker.results.result import Encoder, objects
from worker.results.uids import Lineage
from worker.volume import read_volume

DEMO: Final = Path(__file__).parents[2] / "deploy" / "bundles" / "fistula-demo"
GOALS: Final = {"read_and_prepare": 1.5, "encode": 2.0}
SPACING_MM: Final = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=DEMO)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ensemble = Ensemble(load_volume_bundle(arguments.bundle))
    with tempfile.TemporaryDirectory() as place:
        paths = a_head(Path(place) / "study")
        with _archive(Path(place) / "archive") as send:
            rounds = [_study(ensemble, paths, send) for _ in range(arguments.rounds + 1)][1:]
    for stage in rounds[0]:
        seconds = statistics.median(each[stage] for each in rounds)
        tell(f"study.{stage}", seconds, GOALS.get(stage))


def a_head(folder: Path) -> list[Path]:
    """A phantom as a scanner would send it: 176 files."""
    return write_study(render(draw_case(2024, positive=True, spectrum=OVERT), SPACING_MM), folder)


def _study(
    ensemble: Ensemble, paths: list[Path], send: Callable[[list[Dataset]], None]
) -> dict[str, float]:
    """Seconds of each stage of one study."""
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        found = work()
        seconds[stage] = time.monotonic() - start
        return found

    judged = judge(ensemble, paths, timed)
    seconds["read_and_prepare"] = seconds["read"] + seconds["prepare"]
    encoder = Encoder()
    made = timed(
        "encode", lambda: [(each.dataset, encoder.encode(each.dataset)) for each in objects(judged)]
    )
    timed("deliver", lambda: send([dataset for dataset, _ in made]))
    print(
        f"{len(paths)} files, {judged.map.computed} positions ({judged.map.how}), "
        f"{len(made)} objects; "
        f"{ {stage: round(each, 2) for stage, each in seconds.items()} }",
        file=sys.stderr,
    )
    return seconds


def judge(
    ensemble: Ensemble, paths: list[Path], timed: Callable[[str, Callable[[], Any]], Any]
) -> Judged:
    """What an ensemble says of a series; each stage is done by `timed`, under its name."""
    bundle = ensemble.bundle
    volume = timed("read", lambda: read_volume(paths))
    prepared = timed("prepare", lambda: prepare(volume.voxels, volume.affine, bundle.recipe))
    prediction = timed("predict", lambda: ensemble.predict(prepared))
    found = timed(
        "explain", lambda: explain(ensemble, prepared, bundle.occlusion, lambda _done, _all: None)
    )
    return Judged(
        _lineage(bundle), datetime.now(UTC), read_headers(paths), volume, bundle, prediction, found
    )


def _lineage(bundle: Bundle) -> Lineage:
    return Lineage(
        "bench", "2.25.1", bundle.analysis, "digest", f"{bundle.name} {bundle.version}",
        bundle.weights_sha256, "",
    )  # fmt: skip


@contextmanager
def _archive(folder: Path) -> Iterator[Callable[[list[Dataset]], None]]:
    """A small archive on loopback, and a way to send to it on one association."""
    (port,) = free_ports(1)
    with Archive(folder, port):

        def send(found: list[Dataset]) -> None:
            entity = AE()
            entity.add_requested_context(Verification)
            for sop_class in {each.SOPClassUID for each in found}:
                entity.add_requested_context(sop_class, TRANSFER_SYNTAXES)
            association = entity.associate("127.0.0.1", port)
            for dataset in found:
                status = association.send_c_store(dataset).Status
                assert status == 0x0000, f"status {status:04X}"
            association.release()

        yield send


def tell(figure: str, seconds: float, goal: float | None) -> None:
    """One line."""
    line = {
        "figure": figure,
        "value": round(seconds, 3),
        "unit": "s",
        "peer": None,
        "peer_value": None,
        "ratio": None if goal is None else round(goal / seconds, 2),
        "goal": goal,
        "machine": f"1 of {os.cpu_count()} cores, torch {version('torch')}",
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
