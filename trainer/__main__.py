"""Command line of the trainer: fit an ensemble, evaluate it, make a phantom."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.cohort import phantom_cohort
from trainer.evaluate import auroc, operation
from trainer.export import DEMO, export
from trainer.loop import Epoch, cross_validate
from trainer.settings import FitSettings

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
console = Console()

CACHE = Path.home() / ".cache" / "monro" / "phantoms"


@app.callback()
def main() -> None:
    """Turn cohorts into bundles."""


@app.command()
def fit(
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    phantoms: Annotated[int, typer.Option(min=20, help="How many to train on.")] = 700,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the cohort.")] = None,
    seed: Annotated[int, typer.Option(help="Of folds, weights and augmentation.")] = 0,
    normal_mri: Annotated[
        float, typer.Option(min=0, max=1, help="Share of positives without any sign.")
    ] = 0.19,
    cache: Annotated[Path, typer.Option(help="Where prepared phantoms are kept.")] = CACHE,
    processes: Annotated[int, typer.Option(min=1, help="Phantoms made at a time.")] = 2,
) -> None:
    """Fit five members on phantoms and write the demo bundle."""
    if out.exists():
        raise typer.BadParameter(f"{out} exists; name a new folder", param_hint="--out")
    chosen = {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    settings = FitSettings(**chosen)
    with _progress("phantoms") as report:
        cohort = phantom_cohort(range(phantoms), DEMO.recipe, normal_mri, cache, processes, report)
    with _progress("epochs") as report:

        def on_epoch(at: Epoch) -> None:
            report(at.fold * settings.epochs + at.epoch + 1, settings.folds * settings.epochs)
            console.log(f"fold {at.fold} epoch {at.epoch}: loss {at.loss:.3f}")

        folds = cross_validate(cohort, settings, on_epoch)
    metrics = {"training_phantoms": phantoms}
    for number, fold in enumerate(folds):
        held_out = cohort.labels[fold.held_out]
        metrics[f"out_of_fold_auroc_{number}"] = round(auroc(held_out, fold.log_odds), 3)
    labels = np.concatenate([cohort.labels[fold.held_out] for fold in folds])
    log_odds = np.concatenate([fold.log_odds for fold in folds])
    metrics["out_of_fold_auroc"] = round(auroc(labels, log_odds), 3)
    export(out, DEMO, settings, folds, operation(labels, log_odds, settings), metrics, _command())
    console.print(f"{out}: out-of-fold AUROC {metrics['out_of_fold_auroc']}")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as a callback of done and total."""
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _command() -> str:
    return shlex.join(["python", "-m", "trainer", *sys.argv[1:]])


if __name__ == "__main__":
    app()
