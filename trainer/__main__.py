"""Command line of the trainer: from a labelled cohort to an evaluated bundle.

synthesize -> gather -> fit -> evaluate -> export, and for bundles in service: compare, labels,
recalibrate.
"""

import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from listener.errors import BadSettings, MonroError
from listener.ledger import Ledger
from trainer.cohort import Examined, analysis_of, read_cohort, write_json
from trainer.compare import RULE, compare
from trainer.export import enclose_report, export, record_metrics
from trainer.folds import settle_folds
from trainer.gathering.deidentify import read_salt
from trainer.gathering.dicomweb import DicomWebSource, read_settings
from trainer.gathering.gather import GatherSettings, Slec, gather
from trainer.gathering.labels import LedgerSource, figures_table, join_labels
from trainer.gathering.nifti import export_nifti
from trainer.gathering.sources import FolderSource, Source
from trainer.gathering.table import read_table, write_table
from trainer.jobs import fit_at_once
from trainer.loop import Epoch, choose_device
from trainer.phantom import SIGNS
from trainer.phantom_cohort import phantom_cohort
from trainer.phantom_t2 import MATRIX
from trainer.pointing import TRIALS, all_signs, judge, localisation
from trainer.recalibrate import recalibrate
from trainer.regional.cohort import read_regional_cohort
from trainer.regional.export import export_regions
from trainer.regional.run import fit_regions, read_regional_run
from trainer.regional.settings import INFECTION, RegionalConfig, read_any_config
from trainer.regional.table import best_model, headline_figures, paper_table, rich_tables
from trainer.reporting.evaluate import Evaluation, evaluate_bundle, evaluate_run
from trainer.reporting.page import REPORT
from trainer.reporting.regional import evaluate_regions, write_regional_report
from trainer.reporting.report import write_report
from trainer.run import fit_fold, read_run, start_run
from trainer.settings import TrainingConfig
from trainer.subject import open_subject, read_any_cohort
from trainer.synthesize import (
    MOST_PATIENTS,
    SEVERITY,
    SLOW_LEAKS_WITH_FEW_SIGNS,
    synthesize,
)
from trainer.synthesize_infection import synthesize_infection
from worker.bundle import load_volume_bundle
from worker.crops import CropRecipe
from worker.ensemble import Ensemble
from worker.preprocess import Recipe
from worker.seal import BadBundle, sign
from worker.signature import fingerprint, make_key, public_path, read_private_key

app = typer.Typer(
    help="monro trainer: turns labelled cohorts into evaluated bundles. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
complaints = Console(stderr=True)

HOME = Path.home()
SALT = HOME / ".config" / "monro" / "salt"
CACHE = HOME / ".cache" / "monro" / "phantoms"

Config = Annotated[
    Path | None, typer.Option(help="TOML file; without it, the paper's configuration.")
]
CohortFolder = Annotated[Path, typer.Option("--cohort", help="Folder that `gather` wrote.")]
RunFolder = Annotated[Path, typer.Option("--run", help="Folder that `fit` wrote.")]
BundleFolder = Annotated[Path, typer.Option("--bundle", help="Folder of a bundle.")]
SaltFile = Annotated[
    Path, typer.Option(help="Secret of the pseudonyms, made when missing; never beside a cohort.")
]
Processes = Annotated[int, typer.Option(min=1, help="At a time.")]
LabelTable = Annotated[
    Path, typer.Option("--labels", help="CSV or Parquet: patient, study, label.")
]
AnalysisName = Annotated[
    Literal["fistula", "infection"],
    typer.Option(
        "--analysis", help="Whose paper's configuration is taken where no file names another."
    ),
]
LedgerUrl = Annotated[str, typer.Option(help="Database URL of a listener's ledger.")]


@app.command("synthesize")
def synthesize_cohort(
    out: Annotated[Path, typer.Option(help="New or empty folder for studies/ and labels.csv.")],
    patients: Annotated[int, typer.Option(min=10, max=MOST_PATIENTS, help="How many.")] = 130,
    seed: Annotated[int, typer.Option(min=0, help="Of everything.")] = 0,
    analysis: Annotated[
        Literal["fistula", "infection"],
        typer.Option(help="Contrast-enhanced T1, or axial T2 with its regions."),
    ] = "fistula",
    severity: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Factor on the size of signs. Fistula: 0.7, Bern AUROC as in the paper. "
            "Infection: 1, accuracy near the paper's.",
        ),
    ] = None,
    few_signs: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Fistula: share of slow leaks with only some signs."),
    ] = None,
    matrix: Annotated[
        int | None, typer.Option(min=64, max=512, help="Infection: pixels of a slice; 256.")
    ] = None,
    processes: Processes = 2,
) -> None:
    """Write DICOM studies of synthetic patients and their label table."""
    if few_signs is not None and analysis != "fistula":
        raise typer.BadParameter("--few-signs is about spinal leaks: leave it out for infection")
    if matrix is not None and analysis != "infection":
        raise typer.BadParameter("--matrix is about the axial T2: leave it out for fistula")
    with explained(), progress("patients") as report:
        if analysis == "infection":
            effect = 1.0 if severity is None else severity
            synthesize_infection(out, patients, seed, effect, report, processes, matrix or MATRIX)
        else:
            size = SEVERITY if severity is None else severity
            share = SLOW_LEAKS_WITH_FEW_SIGNS if few_signs is None else few_signs
            synthesize(out, patients, seed, size, share, report, processes)
    console.print(f"{out}: {patients} patients, labels.csv; synthetic, never for claims")


@app.command("gather")
def gather_cohort(
    labels: LabelTable,
    out: Annotated[Path, typer.Option(help="Folder of the cohort; goes on where it stopped.")],
    dicom: Annotated[Path | None, typer.Option(help="Folder of DICOM files, any nesting.")] = None,
    dicomweb: Annotated[str, typer.Option(help="Root of a DICOMweb server or Orthanc.")] = "",
    ledger: LedgerUrl = "",
    config: Config = None,
    analysis: AnalysisName = "fistula",
    slec: Annotated[
        Slec, typer.Option(help="What to do with extradural collections; subgroup marks them.")
    ] = "exclude",
    keep: Annotated[list[str] | None, typer.Option(help="Free column to keep; repeat.")] = None,
    trust_table: Annotated[
        bool, typer.Option(help="Patients differ as the table says, whatever headers say.")
    ] = False,
    salt: SaltFile = SALT,
    processes: Processes = 2,
) -> None:
    """Gather a de-identified cohort: choose, read, check and prepare as the service does."""
    with explained():
        asked = read_any_config(config, analysis)
        rows, secret = read_table(labels), read_salt(salt)
        source = _source(dicom, dicomweb, ledger, secret)
        settings = GatherSettings(
            asked.preparation,
            asked.analysis,
            slec,
            tuple(keep or ()),
            trust_table,
            masks=labels.parent,
        )
        with progress("exams") as report:
            flow = gather(rows, source, out, secret, settings, processes, report)
    console.print(flow.table())
    console.print(f"cohort: {out}", soft_wrap=True)


@app.command()
def fit(
    cohort: CohortFolder,
    out: Annotated[Path, typer.Option(help="Folder of the run; goes on where it stopped.")],
    config: Config = None,
    fold: Annotated[int | None, typer.Option(min=0, help="Only this one.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All folds, one per GPU.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="Folds at a time without a GPU.")] = 2,
) -> None:
    """Train one fold, or all; killed at any moment, the same command goes on."""
    if (fold is None) == (not everything):
        raise typer.BadParameter("name one fold with --fold, or take --all")
    with explained():
        settings = read_any_config(config, analysis_of(cohort))
        if fold is not None and fold >= settings.fit.folds:
            raise typer.BadParameter(f"there are {settings.fit.folds} folds, counted from 0")
        if isinstance(settings, RegionalConfig):
            _fit_regions(cohort, out, settings, fold, processes)
            return
        exams = read_cohort(cohort)
        _require_preparation(cohort, exams, settings.preparation)
        if choose_device(settings.speed).type == "cpu":
            torch.set_num_threads(settings.speed.threads)
        folds = settle_folds(cohort, exams, settings.fit.folds, settings.fit.seed)
        start_run(out, exams, folds, settings, _command())
        if fold is not None:
            with progress(f"fold {fold}") as report:
                total = settings.fit.epochs
                fit_fold(
                    out, exams, folds, fold, settings, lambda each: report(each.epoch + 1, total)
                )
            return
        _fit_all(out, cohort, config, settings, processes)
    console.print(f"run: {out}", soft_wrap=True)


@app.command("evaluate")
def evaluate_cohort(
    cohort: CohortFolder,
    out: Annotated[Path, typer.Option(help="Folder for report.html, figures, tables, numbers.")],
    run: Annotated[Path | None, typer.Option(help="A run: judged by its unseen folds.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A frozen bundle: validated outside.")] = None,
    maps: Annotated[int, typer.Option(min=0, help="Positives whose maps are averaged.")] = 24,
    device: Annotated[str, typer.Option(help="That maps are computed on.")] = "cpu",
    model: Annotated[
        str, typer.Option(help="Of regions: row of the table to look at closely.")
    ] = "",
) -> None:
    """Evaluate a run, or a frozen bundle on a cohort that it has not seen."""
    if (run is None) == (bundle is None):
        raise typer.BadParameter("name a run or a bundle")
    with explained():
        if run is not None and analysis_of(cohort) == INFECTION:
            _evaluate_regions(cohort, run, out, model)
            return
        with progress("exams") as report:
            if run is not None:
                exams = read_cohort(cohort)
                found = evaluate_run(read_run(run, exams), exams, maps, report, device)
            else:
                subject = open_subject(_required(bundle), read_any_cohort(cohort), device)
                found = evaluate_bundle(subject, maps, report)
        page = write_report(out, found)
    console.print(_headline(found))
    console.print(f"report: {page}", soft_wrap=True)


@app.command("export")
def export_bundle(
    run: RunFolder,
    cohort: CohortFolder,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    model: Annotated[
        str, typer.Option(help="Infection: row of the table; the best that fuses features.")
    ] = "",
    report: Annotated[
        Path | None, typer.Option(help="Folder that `evaluate` wrote; its report is enclosed.")
    ] = None,
) -> None:
    """Write the bundle of a run and prove that the worker reproduces its log odds."""
    with explained():
        _export(cohort, run, out, model)
        if report is not None:
            enclose_report(out, report / REPORT)


def _export(cohort: Path, run: Path, out: Path, model: str) -> None:
    if analysis_of(cohort) == INFECTION:
        _export_regions(cohort, run, out, model)
    else:
        _export_volumes(cohort, run, out)


def _export_volumes(cohort: Path, run: Path, out: Path) -> None:
    exams = read_cohort(cohort)
    trained = read_run(run, exams)
    metrics = _headline_figures(evaluate_run(trained, exams, 0, lambda done, total: None))
    with progress("exams judged again") as report:
        command = f"{trained.facts['command']} && {_command()}"
        difference = export(out, trained, exams, metrics, command, report)
    console.print(f"{out}: log odds reproduced to {difference:.1g}", soft_wrap=True)


@app.command("compare")
def compare_bundles(
    one: Annotated[Path, typer.Argument(help="A: the bundle in service.")],
    other: Annotated[Path, typer.Argument(help="B: the bundle that might replace it.")],
    cohort: CohortFolder,
    out: Annotated[Path | None, typer.Option(help="JSON file for all figures.")] = None,
) -> None:
    """Put two bundles side by side on one cohort; exit with 3 if B may not replace A."""
    with explained():
        exams = read_any_cohort(cohort)
        sides = open_subject(one, exams), open_subject(other, exams)
        with progress("exams") as report:
            found = compare(*sides, report)
    if out is not None:
        write_json(out, found.to_json())
    table = Table("", "A", "B", title=f"{found.exams} exams")
    table.add_row("bundle", found.one.bundle, found.other.bundle)
    table.add_row("AUROC", f"{found.auroc.auroc_other:.3f}", f"{found.auroc.auroc_one:.3f}")
    table.add_row("Brier score", f"{found.one.brier:.3f}", f"{found.other.brier:.3f}")
    for label, moves in found.changed.items():
        for move, count in moves.items():
            table.add_row(f"{label}s that changed", move, str(count))
    console.print(table)
    console.print(RULE)
    for obstacle in found.obstacles:
        console.print(f"- {obstacle}")
    console.print("B may replace A" if found.may_replace else "B may NOT replace A")
    raise typer.Exit(0 if found.may_replace else 3)


@app.command("recalibrate")
def recalibrate_bundle(
    bundle: BundleFolder,
    cohort: CohortFolder,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    version: Annotated[str, typer.Option(help="Of the new bundle.")],
) -> None:
    """Fit the calibration of a bundle to exams labelled since; its weights stay."""
    with explained():
        subject = open_subject(bundle, read_any_cohort(cohort))
        with progress("exams") as report:
            found = recalibrate(subject, out, version, _command(), report)
    console.print(f"{out}: temperatures times {found.factor:.2f}, {found}", soft_wrap=True)


@app.command("labels")
def match_labels(
    labels: LabelTable,
    ledger: LedgerUrl,
    out: Annotated[Path, typer.Option(help="CSV of matched rows, a label table for `gather`.")],
    figures: Annotated[
        Path | None, typer.Option(help="JSON file for the bundles' figures.")
    ] = None,
    salt: SaltFile = SALT,
    analysis: Annotated[str, typer.Option(help="What the labels are about.")] = "fistula",
) -> None:
    """Join labels to the studies a listener received; see how bundles in service did on them."""
    with explained():
        rows, secret = read_table(labels), read_salt(salt)
        joined = join_labels(rows, _ledger_source(ledger, secret), secret, analysis)
        write_table(out, joined.matched)
        if figures is not None:
            write_json(figures, {"bundles": [asdict(each) for each in joined.figures]})
    console.print(figures_table(joined.figures))
    if joined.unmatched:
        numbers = ", ".join(map(str, joined.unmatched))
        console.print(f"no study for rows {numbers} of the table", soft_wrap=True)
    console.print(
        f"{len(joined.matched)} studies matched, {len(joined.unlabelled)} studies without a label: "
        f"{out} (it names patients, and is readable by you alone)",
        soft_wrap=True,
    )


@app.command()
def nifti(
    cohort: CohortFolder, out: Annotated[Path, typer.Option(help="Folder for .nii.gz files.")]
) -> None:
    """Write the prepared volumes of a cohort as NIfTI, for other tools."""
    with explained():
        paths = export_nifti(cohort, out)
    console.print(f"{out}: {len(paths)} volumes", soft_wrap=True)


@app.command()
def probe(
    bundle: BundleFolder,
    pairs: Annotated[int, typer.Option(min=0, help="Counterfactual pairs of maps per sign.")] = 6,
    record: Annotated[bool, typer.Option(help="Write the figures into the bundle.")] = False,
    cache: Annotated[Path, typer.Option(help="Where prepared phantoms are kept.")] = CACHE,
    processes: Processes = 2,
) -> None:
    """Judge phantoms that no member has seen, and see whether maps find planted signs."""
    metrics: dict[str, Any] = {}
    with explained():
        ensemble = Ensemble(load_volume_bundle(bundle))
        for trial in TRIALS:
            with progress(trial.name) as report:
                recipe = ensemble.bundle.recipe
                cohort = phantom_cohort(
                    trial.seeds, recipe, trial.spectrum, cache, processes, report
                )
            metrics |= _told(judge(ensemble, cohort, trial.name))
        for sign in SIGNS:
            with progress(f"maps of {sign}") as report:
                metrics |= _told(localisation(ensemble, sign, pairs, report))
        with progress("maps of all signs") as report:
            metrics |= _told(all_signs(ensemble, pairs, report))
        if record:
            record_metrics(bundle, metrics)
            told = f"{bundle}: figures recorded and manifest sealed anew; sign it again"
            console.print(told, soft_wrap=True)


@app.command("make-key")
def make_signing_key(
    key: Annotated[Path, typer.Argument(help="File of the new private key; .pub comes beside.")],
) -> None:
    """Make a key to sign bundles with; its public half goes to the workers."""
    with explained():
        name = make_key(key)
    console.print(f"{key}: private, readable by you alone; keep it where bundles are released",
                  soft_wrap=True)  # fmt: skip
    console.print(
        f"{public_path(key)}: public, for MONRO_WORKER_TRUSTED_KEYS; fingerprint {name}",
        soft_wrap=True,
    )


@app.command("sign")
def sign_bundle(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle, as it is to be used.")],
    key: Annotated[Path, typer.Option(help="Private key that `make-key` wrote.")],
) -> None:
    """Vouch for a bundle: sign its manifest, which holds the hash of every other file."""
    with explained():
        secret = read_private_key(key)
        sign(bundle, secret)
    name = fingerprint(secret.public_key())
    console.print(f"{bundle}: signed by key {name}", soft_wrap=True)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as a callback of done and total."""
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def explained() -> Iterator[None]:
    """Say what a user can mend in one line, without a traceback, and exit with 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it prints attribute values
    try:
        yield
    except (MonroError, BadBundle) as error:
        complaints.print(f"monro: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except OSError as error:
        # Without the path: people name folders after patients.
        found = f"a file cannot be read or written: {error.strerror or type(error).__name__}"
        remedy = "see to the disk or share, and run the same command to go on"
        complaints.print(f"monro: {found}; {remedy}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _fit_all(
    out: Path, cohort: Path, config: Path | None, settings: TrainingConfig, processes: int
) -> None:
    """All folds, with one bar for the epochs of them all."""
    arguments = ["--cohort", str(cohort), "--out", str(out)]
    arguments += [] if config is None else ["--config", str(config)]
    ended, total = 0, settings.fit.folds * settings.fit.epochs
    with progress("epochs of all folds") as report:

        def on_epoch(number: int, epoch: Epoch) -> None:
            nonlocal ended
            ended += 1
            report(ended, total)
            if epoch.epoch + 1 == settings.fit.epochs:
                console.log(f"fold {number}: AUROC {epoch.auroc:.3f}, EMA {epoch.ema_auroc:.3f}")

        device = choose_device(settings.speed).type
        fit_at_once(out, settings.fit.folds, arguments, device, processes, on_epoch)


def _fit_regions(
    cohort: Path, out: Path, settings: RegionalConfig, fold: int | None, processes: int
) -> None:
    """Every model on both regions; of one outer fold, or of all."""
    exams = read_regional_cohort(cohort)
    _require_preparation(cohort, exams, settings.preparation)
    folds = settle_folds(cohort, exams, settings.fit.folds, settings.fit.seed)
    start_run(out, exams, folds, settings, _command())
    numbers = range(settings.fit.folds) if fold is None else (fold,)
    with progress("members") as report:
        fit_regions(cohort, out, settings, numbers, processes, report)
    console.print(f"run: {out}", soft_wrap=True)


def _evaluate_regions(cohort: Path, run: Path, out: Path, model: str) -> None:
    """The paper's table, and a report."""
    exams = read_regional_cohort(cohort)
    found = evaluate_regions(read_regional_run(run, exams), exams, model)
    page = write_regional_report(out, found)
    for table in rich_tables(found.rows, "regions as gathered"):
        console.print(table)
    if found.proposed:
        console.print(rich_tables(found.proposed, "regions as proposed")[0])
    for overlap in found.overlaps:
        console.print(str(overlap), soft_wrap=True)
    for words in found.words:
        console.print(str(words), soft_wrap=True)
    console.print(f"report: {page}", soft_wrap=True)


def _export_regions(cohort: Path, run: Path, out: Path, model: str) -> None:
    exams = read_regional_cohort(cohort)
    trained = read_regional_run(run, exams)
    rows = paper_table(trained)
    chosen = model or best_model(trained, rows)
    figures = headline_figures(rows, chosen)
    with progress("members judged again") as report:
        command = f"{trained.facts['command']} && {_command()}"
        difference = export_regions(out, trained, exams, chosen, figures, command, report)
    console.print(f"{out}: {chosen}, log odds reproduced to {difference:.1g}", soft_wrap=True)


def _require_preparation(folder: Path, exams: Examined, wanted: Recipe | CropRecipe) -> None:
    if exams.recipe != wanted:
        raise BadSettings(
            f"cohort {folder} was prepared as {exams.recipe}, and the configuration asks for "
            f"{wanted}: gather with this configuration, or fit with that one"
        )


def _source(dicom: Path | None, dicomweb: str, ledger: str, salt: bytes) -> Source:
    if sum(bool(each) for each in (dicom, dicomweb, ledger)) != 1:
        raise typer.BadParameter("name one source: --dicom, --dicomweb or --ledger")
    if dicomweb:
        return DicomWebSource(read_settings(url=dicomweb))
    if ledger:
        return _ledger_source(ledger, salt)
    with progress("files") as report:
        return FolderSource.under(_required(dicom), report)


def _ledger_source(url: str, salt: bytes) -> LedgerSource:
    with progress("studies in the ledger") as report:
        return LedgerSource(Ledger(url), salt, report)


def _headline_figures(found: Evaluation) -> dict[str, Any]:
    """The few figures that go onto a model card."""
    numbers = {
        "out_of_fold_auroc": found.discrimination.auroc,
        **{f"out_of_fold_auroc_{n}": each.auroc for n, each in enumerate(found.members)},
    }
    return {name: round(number, 3) for name, number in numbers.items()}


def _headline(found: Evaluation) -> str:
    interval = found.discrimination.delong
    within = "" if interval is None else f" (95 % CI {interval.low:.3f} to {interval.high:.3f})"
    return f"{found.subject}: AUROC {found.discrimination.auroc:.3f}{within}, {found.design}"


def _required(path: Path | None) -> Path:
    if path is None:
        raise typer.BadParameter("a folder is missing")
    return path


def _told(figures: dict[str, float]) -> dict[str, float]:
    """Print figures as soon as they are known."""
    for name, value in figures.items():
        console.print(f"{name.replace('_', ' ')}: {value}")
    return figures


def _command() -> str:
    """This command without values: people name folders after patients, and bundles travel.

    What the values decide is in the configuration, which the bundle holds.
    """
    options = [word.split("=")[0] for word in sys.argv[2:] if word.startswith("--")]
    return shlex.join(["python", "-m", "trainer", *sys.argv[1:2], *options])


if __name__ == "__main__":
    app()
