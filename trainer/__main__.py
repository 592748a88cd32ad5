"""Command line of the trainer: fit an ensemble, evaluate it, make a phantom."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.cohort import phantom_cohort
from trainer.evaluate import TRIALS, auroc, judge, localisation, operation
from trainer.export import DEMO, export, record_metrics
from trainer.loop import Epoch, cross_validate
from trainer.phantom import NORMAL_MRI, OVERT, SIGNS, Spectrum, draw_case, render
from trainer.phantom_study import write_study
from trainer.settings import FitSettings
from worker.bundle import load_bundle
from worker.ensemble import Ensemble

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
console = Console()

CACHE = Path.home() / ".cache" / "monro" / "phantoms"


@app.callback()
def main() -> None:
    """Turn cohorts into bundles."""


@app.command()
def fit(
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    phantoms: Annotated[int, typer.Option(min=20, help="How many to train on.")] = 800,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the cohort.")] = None,
    seed: Annotated[int, typer.Option(help="Of folds, weights and augmentation.")] = 0,
    normal_mri: Annotated[
        float, typer.Option(min=0, max=1, help="Share of positives without any sign.")
    ] = NORMAL_MRI,
    few_signs: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the others with only some signs.")
    ] = 0.5,
    cache: Annotated[Path, typer.Option(help="Where prepared phantoms are kept.")] = CACHE,
    processes: Annotated[
        int, typer.Option(min=1, help="Phantoms made, and folds trained, at a time.")
    ] = 2,
) -> None:
    """Fit five members on phantoms and write the demo bundle."""
    if out.exists():
        raise typer.BadParameter(f"{out} exists; name a new folder", param_hint="--out")
    chosen: dict[str, Any] = {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    settings = FitSettings(**chosen)
    spectrum = Spectrum(normal_mri, few_signs)
    with _progress("phantoms") as report:
        cohort = phantom_cohort(range(phantoms), DEMO.recipe, spectrum, cache, processes, report)
    ended: list[Epoch] = []
    with _progress("epochs") as report:

        def on_epoch(at: Epoch) -> None:
            ended.append(at)
            report(len(ended), settings.folds * settings.epochs)
            console.log(f"fold {at.fold} epoch {at.epoch}: loss {at.loss:.3f}")

        folds = cross_validate(cohort, settings, on_epoch, processes)
    metrics: dict[str, Any] = {"training_phantoms": phantoms}
    for number, fold in enumerate(folds):
        held_out = cohort.labels[fold.held_out]
        metrics[f"out_of_fold_auroc_{number}"] = round(auroc(held_out, fold.log_odds), 3)
    labels = np.concatenate([cohort.labels[fold.held_out] for fold in folds])
    log_odds = np.concatenate([fold.log_odds for fold in folds])
    metrics["out_of_fold_auroc"] = round(auroc(labels, log_odds), 3)
    export(out, DEMO, settings, folds, operation(labels, log_odds, settings), metrics, _command())
    console.print(f"{out}: out-of-fold AUROC {metrics['out_of_fold_auroc']}")


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Its folder.")],
    pairs: Annotated[int, typer.Option(min=0, help="Counterfactual pairs of maps per sign.")] = 6,
    record: Annotated[bool, typer.Option(help="Write the figures into the bundle.")] = False,
    cache: Annotated[Path, typer.Option(help="Where prepared phantoms are kept.")] = CACHE,
    processes: Annotated[int, typer.Option(min=1, help="Phantoms made at a time.")] = 2,
) -> None:
    """Judge phantoms that no member has seen, and see whether the maps find planted signs."""
    ensemble = Ensemble(load_bundle(bundle))
    metrics: dict[str, Any] = {}
    for trial in TRIALS:
        with _progress(trial.name) as report:
            cohort = phantom_cohort(
                trial.seeds, ensemble.bundle.recipe, trial.spectrum, cache, processes, report
            )
        metrics |= _told(judge(ensemble, cohort, trial.name))
    for sign in SIGNS:
        with _progress(f"maps of {sign}") as report:
            metrics |= _told(localisation(ensemble, sign, pairs, report))
    if record:
        record_metrics(bundle, metrics)
        console.print(f"{bundle}: figures recorded and manifest sealed anew")


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="Folder for study/, truth.json and truth.npy.")],
    seed: Annotated[int, typer.Option(min=0, help="Which synthetic patient.")] = 0,
    signs: Annotated[bool, typer.Option(help="Whether the MRI shows signs.")] = False,
) -> None:
    """Write a synthetic head MRI as a complete DICOM study, with its ground truth."""
    paths = write_study(render(draw_case(seed, positive=signs, spectrum=OVERT)), out)
    console.print(f"{paths[0].parent}: {len(paths)} instances; {out / 'truth.json'}")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as a callback of done and total."""
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _told(figures: dict[str, float]) -> dict[str, float]:
    """Print figures as soon as they are known."""
    for name, value in figures.items():
        console.print(f"{name.replace('_', ' ')}: {value}")
    return figures


def _command() -> str:
    return shlex.join(["python", "-m", "trainer", *sys.argv[1:]])


if __name__ == "__main__":
    app()
