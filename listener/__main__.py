"""The listener's command line.

What only one command needs, it imports itself: servers and brokers take long to load, and who asks
for a table waits for neither.
"""

import json
import signal
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from listener.accounting import STATES, StudyAccount, account, look_again
from listener.audit.trail import open_audit
from listener.cautions import cautions
from listener.console.gate.commands import accounts
from listener.errors import MonroError
from listener.in_force import in_force
from listener.ledger import Ledger
from listener.logs import set_up_logging
from listener.rollout_commands import bundles
from listener.segmentation import REGIONS
from listener.selection import ANALYSES, rules_table
from listener.series import require_uid
from listener.settings import read_settings
from listener.spool import Spool, for_us_and_our_group
from listener.tables import TRANSITIONS
from listener.terminal import acting, complaints, console, explained

app = typer.Typer(
    help="monro listener: receives brain MRI studies, delivers AI results. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(accounts, name="accounts")
app.add_typer(bundles, name="bundles")

ROW_SECONDS = 2.0
"""A running listener writes rows a moment after the files: what disagrees is looked at again."""

TELL_EVERY = 100
"""Files between two words on how far it is."""

ACCOUNT_COLUMNS = ("on disk", "received", *STATES, "purged")

Json = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
StudyUID = Annotated[str, typer.Argument(help="Study Instance UID")]


@app.command()
def serve() -> None:
    """Receive, dispatch and deliver until SIGTERM or Ctrl-C."""
    from listener.node import Node

    with explained():
        settings = read_settings()
        set_up_logging(settings.log_format)
        for_us_and_our_group()
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with Node(settings):
            stop.wait()


@app.command("check-config")
def check_config() -> None:
    """Read the settings, say what is wrong with them, and knock at what they point to."""
    from listener.dispatch import broker_answers
    from listener.knock import answers

    with explained():
        settings = read_settings()
        Spool(settings.spool, settings.keep_free)
        Ledger(settings.ledger_url).close()
        open_audit(settings)
    table = Table("setting", "value", "meaning", title="settings in force")
    for each in in_force(settings):
        table.add_row(each.name, each.value, each.meaning)
    console.print(table)
    for caution in cautions(settings):
        complaints.print(f"caution: {caution}", style="yellow", markup=False)
    console.print(f"broker: {_verdict(broker_answers(settings.broker))}")
    for destination in settings.destinations:
        verdict = _verdict(answers(destination, settings))
        console.print(f"destination {destination.name}: {verdict}")
    for source in settings.sources:
        console.print(f"source {source.name}: {_verdict(answers(source, settings))}")


@app.command()
def status(as_json: Json = False, limit: int = 20) -> None:
    """Show what is received, waiting, running, and on its way."""
    with explained(), open_audit(settings := read_settings()) as audit:
        ledger = Ledger(settings.ledger_url)
        counts, recent = ledger.counts(), ledger.recent_studies(limit)
        audit.searched("")
    if as_json:
        print(json.dumps({"counts": counts, "studies": recent}, indent=2))  # noqa: T201
        return
    totals = Table("what", "state", "count", title="totals")
    for what, states in counts.items():
        for state, count in sorted(states.items()):
            totals.add_row(what, state, str(count))
    console.print(totals)
    study = Column("study", overflow="fold")
    table = Table(study, "state", "revision", "instances", "last heard", "why", title="studies")
    for row in recent:
        table.add_row(
            row["study_uid"],
            row["state"],
            str(row["revision"]),
            str(row["received"]),
            _when(row["last_at"]),
            row["reason"],
        )
    console.print(table)


@app.command()
def show(study: StudyUID, as_json: Json = False) -> None:
    """Show everything that is known of one study."""
    with explained(), open_audit(settings := read_settings()) as audit:
        ledger = Ledger(settings.ledger_url)
        found = ledger.study(study)
        if found is None:
            raise MonroError(f"no study {study} was received; `status` lists the latest")
        audit.viewed(study, ledger.path_of(study))
    if as_json:
        print(json.dumps(found, indent=2))  # noqa: T201
        return
    console.print(f"study {study}: {found['state']}, revision {found['revision']}")
    for title in ("instances", "sources"):
        _print_rows(title, found[title])
    for title in ("jobs", "deliveries"):
        _print_blocks(title, found[title])
    _print_rows("events", found["events"])


@app.command("account")
def account_command(
    as_json: Json = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="read every file and compare its digest, too")
    ] = False,
) -> None:
    """Compare the spool with the ledger; exit with 1 where they disagree."""
    with explained(), complaints.status("account: looking") as state:

        def tell(checked: int) -> None:
            if checked % TELL_EVERY == 0:
                state.update(f"account: {checked} file(s) compared")

        settings = read_settings()
        with open_audit(settings) as audit:
            audit.searched("")
        spool, ledger = Spool(settings.spool), Ledger(settings.ledger_url)
        studies = account(spool, ledger, verify, tell)
        if not all(study.agrees for study in studies):
            time.sleep(ROW_SECONDS)
            studies = [
                study if study.agrees else look_again(study, spool, ledger, verify)
                for study in studies
            ]
        strangers = [*spool.strangers()]
    rows = [_account_row(study) for study in studies]
    totals = {name: sum(row[name] for row in rows) for name in ACCOUNT_COLUMNS}
    disagreeing = [study for study in studies if not study.agrees]
    if as_json:
        found = {
            "studies": rows,
            "totals": totals,
            "agrees": not disagreeing,
            "set_aside": [str(path) for study in studies for path in study.set_aside],
            "strangers": [*map(str, strangers)],
        }
        print(json.dumps(found, indent=2))  # noqa: T201
    else:
        _print_rows("account", [*rows, {"study": "all", **totals}])
    for study in disagreeing:
        complaints.print(
            f"study {study.study_uid}: {len(study.unknown)} file(s) that the ledger does not know, "
            f"{len(study.missing)} that the spool does not have; `reconcile` records the former, "
            "the latter must be sent again",
            style="red",
            markup=False,
        )
        if study.damaged:
            complaints.print(
                f"  {len(study.damaged)} file(s) are not what was received: look after the disk, "
                "move them out of the spool and have them sent again",
                style="red",
                markup=False,
            )
        if study.received != sum(study.states.values()):
            complaints.print(
                f"  the ledger counted {study.recorded} as they came, and has rows of "
                f"{sum(study.states.values()) + study.purged}: restore it, or rebuild it "
                "from the spool by `reconcile`",
                style="red",
                markup=False,
            )
        if study.unsettled:
            complaints.print(
                f"  {len(study.unsettled)} instance(s) were left half way to their name by a kill "
                "or a power cut: a listener that starts gives it to them",
                style="red",
                markup=False,
            )
        for path in (*study.unknown, *study.missing, *study.damaged, *study.unsettled):
            complaints.print(f"  {path}", markup=False)
    _tell_of_others([path for study in studies for path in study.set_aside], strangers)
    if disagreeing:
        raise typer.Exit(1)


def _tell_of_others(set_aside: Sequence[Path], strangers: Sequence[Path]) -> None:
    """Name what lies in the spool beside the instances: it does not count."""
    for paths, what in (
        (set_aside, "were torn or rotten, and were sent again since"),
        (strangers, "have names that no listener gives: find out who put them there"),
    ):
        if paths:
            complaints.print(f"{len(paths)} file(s) {what}", style="yellow", markup=False)
        for path in paths:
            complaints.print(f"  {path}", markup=False)


def _account_row(study: StudyAccount) -> dict[str, Any]:
    states = {state: study.states.get(state, 0) for state in STATES}
    return {
        "study": study.study_uid,
        "on disk": study.on_disk,
        "received": study.received,
        **states,
        "purged": study.purged,
    }


@app.command()
def retry(study: StudyUID) -> None:
    """Run failed or cancelled jobs of a study again, and send what was parked or waits."""
    with explained(), acting("retry", study):
        done = _ledger().retry(study)
    console.print(
        f"{done.jobs} job(s) queued again, {done.parked} parked result(s) on their way again, "
        f"{done.hurried} waiting result(s) sent at once",
        soft_wrap=True,
    )


@app.command()
def cancel(study: StudyUID) -> None:
    """Stop what waits or runs for a study; `retry` takes it up again."""
    with explained(), acting("cancel", study):
        stopped = _ledger().cancel(study)
    console.print(f"{stopped} job(s) cancelled")


@app.command("pull")
def pull_command(
    study: StudyUID,
    source: Annotated[
        str | None, typer.Option(help="name of the source; the first that has the study")
    ] = None,
) -> None:
    """Fetch what a source has of a study and is not here; the running listener does the rest."""
    from listener.pull import pull

    with explained(), acting("pull", study) as audit:
        settings = read_settings()
        require_uid("STUDY", study)
        spool, ledger = Spool(settings.spool, settings.keep_free), Ledger(settings.ledger_url)
        with complaints.status(f"study {study}: asking") as state:
            pulled = pull(
                study,
                settings,
                ledger,
                spool,
                source,
                lambda came: state.update(f"study {study}: {came} instance(s) fetched"),
                audit,
            )
    console.print(
        f"{pulled.came} of {pulled.missing} missing instance(s) fetched from {pulled.source}, "
        f"which has {pulled.has} of the study"
    )
    if pulled.came < pulled.missing:
        raise typer.Exit(1)


@app.command()
def selftest(
    to: Annotated[str, typer.Option(help="name of the destination that results must arrive at")],
    study: Annotated[
        Path | None, typer.Option(help="folder of a synthetic study; MONRO_SELFTEST_STUDY")
    ] = None,
    patience: Annotated[float, typer.Option(help="seconds that all of it may take")] = 600,
) -> None:
    """Send a synthetic study through the running listener; exit with 0 if its results arrived."""
    from listener.monitoring.selftests import Outcome, write_outcome
    from listener.selftest import SelfTest, destination_named

    with explained(), acting(f"selftest to {to}") as audit:
        settings = read_settings()
        folder = study or settings.selftest_study
        if folder is None:
            raise MonroError("no study to send: name a folder by --study or MONRO_SELFTEST_STUDY")
        destination = destination_named(settings, to)
        ledger, begun = Ledger(settings.ledger_url), time.monotonic()
        with complaints.status("selftest") as state:
            test = SelfTest(settings, ledger, destination, audit, patience, state.update)
            passed = None
            try:
                passed = test.run(folder)
            finally:
                took = time.monotonic() - begun
                outcome = Outcome(to, time.time(), passed is not None, took)
                write_outcome(settings.spool, outcome)
    _print_rows("seconds", [{name: f"{took:.1f}" for name, took in passed.seconds.items()}])
    console.print(
        f"selftest: PASS {passed.sent} instances sent as study {passed.study_uid}, "
        f"{passed.arrived} results {passed.way} ({', '.join(passed.answers)})",
        soft_wrap=True,
    )


@app.command()
def reconcile() -> None:
    """Bring spool, ledger and broker together once, as `serve` does all the time."""
    from listener.dispatch import Dispatcher, celery_app
    from listener.node import rebuild, steward

    with explained(), acting("reconcile") as audit:
        settings = read_settings()
        ledger = Ledger(settings.ledger_url)
        ledger.set_destinations([each.name for each in settings.destinations])
        spool = Spool(settings.spool)
        spool.sha256_at = ledger.sha256_at
        spool.recover(alone=False)
        found = rebuild(spool, ledger, audit)
        dispatcher = Dispatcher(celery_app(settings.broker), ledger, resend_seconds=0)
        steward(ledger, dispatcher, settings)
    console.print(f"{found} instance(s) recorded from the spool; waiting jobs dispatched")


@app.command()
def rules(analysis: str = ANALYSES[0]) -> None:
    """Print how the series for an analysis is chosen, and what of segmentations it takes."""
    with explained():
        if analysis not in ANALYSES:
            raise MonroError(f"no analysis {analysis} is known, only {', '.join(ANALYSES)}")
    columns = ("rule", "kind", "points", "a series is wanted when")
    rows = [dict(zip(columns, row, strict=True)) for row in rules_table(analysis)]
    _print_rows(f"series for {analysis}", rows)
    regions = [
        {"region": region.name, "property type": " ".join(region.concept)}
        for region in REGIONS.get(analysis, ())
    ]
    _print_rows(f"regions for {analysis} that a segmentation may bring", regions)


@app.command()
def transitions() -> None:
    """Print what may become of a study, a job, a delivery and an instance."""
    for what, moves in TRANSITIONS.items():
        rows = [{"from": state, "to": ", ".join(sorted(nexts))} for state, nexts in moves.items()]
        _print_rows(what, rows)


def _ledger() -> Ledger:
    return Ledger(read_settings().ledger_url)


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        console.print(f"{title}: none")
        return
    # Folded, not cut: UIDs and reasons are there to be copied.
    table = Table(*(Column(name, overflow="fold") for name in rows[0]), title=title)
    for row in rows:
        table.add_row(*(_shown(value, name) for name, value in row.items()))
    console.print(table)


def _print_blocks(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows of many columns, one below the other, without what is empty."""
    console.print(f"{title}: {len(rows) or 'none'}")
    for row in rows:
        told = {name: _shown(value, name) for name, value in row.items()}
        for name, value in told.items():
            if value:
                console.print(f"  {name}: {value}", markup=False, soft_wrap=True)
        console.print()


def _verdict(answers: bool) -> str:
    return "answers" if answers else "does not answer now; results and jobs wait until it does"


def _shown(value: Any, name: str = "") -> str:
    if value is None:
        return ""
    if isinstance(value, float) and name.endswith("at"):
        return _when(value)
    return str(value)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


if __name__ == "__main__":
    app()
