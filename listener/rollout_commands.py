"""`bundles ...` on the command line: which there are, which answers, and how a shadow compares."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from listener.audit.people import operator
from listener.comparison import Comparison, Rightness, compare
from listener.entries import BundleRow
from listener.errors import MonroError
from listener.labels import BadLabels, keep_labels, read_labels
from listener.ledger import Ledger
from listener.rollout import (
    NobodyHolds,
    find,
    history,
    promote,
    registered,
    require_a_worker,
    roll_back,
    set_aside,
)
from listener.selection import ANALYSES
from listener.settings import read_settings
from listener.terminal import acting, complaints, console, explained
from listener.workforce import Workforce

bundles = typer.Typer(
    help="Bundles: which one answers, which are shadows, and how these compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

SHOWN = 20
"""Disagreements and steps that are printed."""

Analysis = Annotated[str, typer.Argument(help=f"one of {', '.join(ANALYSES)}")]
Wanted = Annotated[str, typer.Argument(help="version, or the beginning of its weights' digest")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]


@bundles.command("list")
def list_bundles(as_json: Json = False) -> None:
    """Show the bundles that workers registered, and the last decisions about them."""
    with explained():
        ledger = _ledger()
        known, steps = registered(ledger), history(ledger, SHOWN)
        held = Workforce(ledger).held()
    if as_json:
        rows = [
            {**asdict(each), "card": None, "has_worker": (each.analysis, *each.edition) in held}
            for each in known
        ]
        found = {"bundles": rows, "history": [asdict(step) for step in steps]}
        print(json.dumps(found, indent=2))  # noqa: T201
        return
    table = Table("analysis", "bundle", "role", "weights", "worker", "statement", title="bundles")
    for each in known:
        name, weights = f"{each.name} {each.version}", each.weights_sha256[:12]
        said = str(each.card.get("statement", ""))
        has_worker = "yes" if (each.analysis, *each.edition) in held else "none"
        table.add_row(each.analysis, name, each.role, weights, has_worker, said)
    console.print(table)
    decisions = Table("when", "who", "what", "analysis", "version", "instead of", title="decisions")
    for step in steps:
        before = "" if step.before is None else step.before[1]
        when = datetime.fromtimestamp(step.at).astimezone().isoformat(" ", "seconds")
        decisions.add_row(when, step.actor, step.what, step.analysis, step.edition[1], before)
    console.print(decisions)


@bundles.command("promote")
def promote_bundle(
    analysis: Analysis,
    bundle: Wanted,
    without_a_worker: Annotated[
        bool, typer.Option("--without-a-worker", help="also where no living worker holds it")
    ] = False,
) -> None:
    """Let a bundle answer from now on; the one that did is retired."""
    with explained(), acting(f"bundles promote {analysis} {bundle}"):
        ledger = _ledger()
        edition = find(ledger, analysis, bundle).edition
        try:
            require_a_worker(ledger, analysis, edition)
        except NobodyHolds as warning:
            complaints.print(f"{warning}", style="yellow", markup=False)
            if not without_a_worker:
                again = "nothing was changed; to promote it all the same, add --without-a-worker"
                complaints.print(again, style="yellow")
                raise typer.Exit(1) from None
        found = promote(ledger, analysis, edition, _actor())
    console.print(f"{_named(found)} answers {analysis} from now on; `bundles rollback` undoes it")


@bundles.command("rollback")
def roll_bundle_back(analysis: Analysis) -> None:
    """Take the last promotion back."""
    with explained(), acting(f"bundles rollback {analysis}"):
        ledger = _ledger()
        found = roll_back(ledger, analysis, _actor())
        console.print(f"{_named(found)} answers {analysis} again")
        try:
            require_a_worker(ledger, analysis, found.edition)
        except NobodyHolds as warning:
            complaints.print(f"{warning}", style="yellow", markup=False)


@bundles.command("shadow")
def shadow_bundle(analysis: Analysis, bundle: Wanted) -> None:
    """Let a bundle run beside the active one; what it finds is kept and never sent."""
    with explained(), acting(f"bundles shadow {analysis} {bundle}"):
        ledger = _ledger()
        edition = find(ledger, analysis, bundle).edition
        found = set_aside(ledger, analysis, edition, "shadow", _actor())
    console.print(f"{_named(found)} runs as a shadow from now on")


@bundles.command("retire")
def retire_bundle(analysis: Analysis, bundle: Wanted) -> None:
    """Let a shadow run no more."""
    with explained(), acting(f"bundles retire {analysis} {bundle}"):
        ledger = _ledger()
        edition = find(ledger, analysis, bundle).edition
        found = set_aside(ledger, analysis, edition, "retired", _actor())
    console.print(f"{_named(found)} is not asked any more")


@bundles.command("compare")
def compare_bundles(analysis: Analysis, shadow: Wanted, as_json: Json = False) -> None:
    """Put a shadow beside the active bundle, on the studies that both judged."""
    with explained():
        ledger = _ledger()
        other, active = find(ledger, analysis, shadow), ledger.active_bundle(analysis)
        if active is None:
            raise MonroError(f"{analysis}: no bundle is active; start a worker that has one")
        found = compare(ledger, analysis, active.edition, other.edition)
    if as_json:
        print(json.dumps(asdict(found), indent=2))  # noqa: T201
        return
    _print_comparison(found, _named(active), _named(other))


@bundles.command("label")
def label_studies(
    analysis: Analysis,
    table: Annotated[Path, typer.Argument(help="CSV with the columns study_uid and label")],
) -> None:
    """Say what turned out to be true of studies; `compare` then tells who was right."""
    with explained(), acting(f"bundles label {analysis}"):
        try:
            text = table.read_text(encoding="utf-8")
        except OSError as error:
            raise BadLabels(f"no file {table} ({error.strerror})", "a CSV file") from None
        except UnicodeDecodeError:
            raise BadLabels(f"another encoding in {table}", "UTF-8") from None
        kept = keep_labels(_ledger(), analysis, read_labels(text), _actor())
    console.print(f"{kept.labels} label(s) kept")
    if kept.unknown:
        complaints.print(
            f"{kept.unknown} of them are of studies that were never received: are these the UIDs "
            "that the listener got?",
            style="yellow",
        )


def _print_comparison(found: Comparison, active: str, shadow: str) -> None:
    table = Table("figure", "value", title=f"{shadow} (shadow) beside {active}")
    table.add_row("studies that both judged", str(found.studies))
    table.add_row("same statement", _percent(found.same_statement))
    table.add_row("Cohen's kappa", _decimal(found.kappa))
    table.add_row("shadow higher by (mean)", _decimal(found.mean_difference))
    if found.limits is not None:
        low, high = found.limits
        table.add_row("limits of agreement", f"{low:+.3f} to {high:+.3f}")
    for name, side in (("active", found.active), ("shadow", found.shadow)):
        if side is not None:
            table.add_row(f"{name}: labelled studies", f"{side.studies}, {side.positives} positive")
            table.add_row(f"{name}: AUROC", _decimal(side.auroc))
            table.add_row(f"{name}: Brier score", _decimal(side.brier))
    console.print(table)
    if found.active is not None and found.shadow is not None:
        _print_calibration(found.active, found.shadow)
    apart = Table("study", "active", "shadow", title=f"furthest apart ({found.disagreeing})")
    for pair in found.disagreements[:SHOWN]:
        sides = (pair.active, pair.shadow)
        said = (each.refusal or f"{_percent(each.probability)}, {each.band}" for each in sides)
        apart.add_row(pair.study_uid, *said)
    console.print(apart)


def _print_calibration(active: Rightness, shadow: Rightness) -> None:
    table = Table("bundle", "probability", "studies", "said", "positive", title="calibration")
    for name, side in (("active", active), ("shadow", shadow)):
        for tenth in side.tenths:
            table.add_row(
                name,
                f"{tenth.low:.1f} to {tenth.high:.1f}",
                str(tenth.studies),
                _percent(tenth.mean_probability),
                _percent(tenth.positives / tenth.studies),
            )
    console.print(table)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _named(bundle: BundleRow) -> str:
    return f"{bundle.name} {bundle.version}"


def _actor() -> str:
    return operator().user_id[:64]


def _ledger() -> Ledger:
    return Ledger(read_settings().ledger_url)
