"""The worker's command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from sqlalchemy.exc import SQLAlchemyError

from listener.dispatch import broker_answers
from listener.errors import MonroError
from listener.in_force import in_force
from listener.ledger import Ledger
from listener.logs import keep_values_out, set_up_logging
from listener.spool import Spool, for_us_and_our_group
from worker.app import WORKER_ARGUMENTS, worker_app
from worker.bundle import RegionBundle, VolumeBundle, load_bundle
from worker.device import require_device
from worker.metrics import Observations
from worker.presence import Presence
from worker.quality import checks_table
from worker.seal import BadBundle
from worker.settings import WORKER_PREFIX, read_settings
from worker.shelf import verified
from worker.signature import read_trusted_keys
from worker.station import Station
from worker.tasks import register

app = typer.Typer(
    help="monro worker: turns complete studies into findings. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console()
complaints = Console(stderr=True)


@app.command()
def serve() -> None:
    """Do jobs until SIGTERM; the job at hand is finished first."""
    with explained():
        settings = read_settings()
        set_up_logging(settings.commons.log_format)
        for_us_and_our_group()
        observations = Observations()
        station = Station(settings, observations)
        station.shelf.start()
        device = settings.worker.device
        if settings.worker.metrics_port is not None:
            observations.serve(
                settings.worker.metrics_bind,
                settings.worker.metrics_port,
                device,
                station.editions,
            )
        celery = worker_app(settings.commons.broker)
        register(celery, station)
        ledger = Ledger(settings.commons.ledger_url)
        with Presence(ledger, device, station.editions, station.shelf.troubles):
            celery.worker_main(list(WORKER_ARGUMENTS))


@app.command("check-config")
def check_config() -> None:
    """Read the settings, say what is wrong with them, and look at what they point to."""
    with explained():
        settings = read_settings()
        Spool(settings.commons.spool, settings.commons.keep_free)
        Ledger(settings.commons.ledger_url).close()
        require_device(settings.worker.device)
        trusted = read_trusted_keys(settings.worker.trusted_keys)
        bundles = list(verified(settings.worker.bundles, trusted))
    table = Table("setting", "value", "meaning", title="settings in force")
    for each in (*in_force(settings.commons), *in_force(settings.worker, WORKER_PREFIX)):
        table.add_row(each.name, each.value, each.meaning)
    console.print(table)
    for bundle in bundles:
        signed = f"signed by {bundle.signed_by}" if bundle.signed_by else "signature not looked at"
        console.print(
            f"bundle {bundle.name} {bundle.version} ({bundle.analysis}): verified, {signed}",
            soft_wrap=True,
        )
    answers = "answers" if broker_answers(settings.commons.broker) else "does not answer now"
    console.print(f"broker: {answers}")


SHOWN = {VolumeBundle: ("recipe", "occlusion"), RegionBundle: ("recipe", "decisive", "features")}
"""What is printed of a bundle beside what all have."""


@app.command("show-bundle")
def show_bundle(
    folder: Annotated[Path, typer.Argument(help="folder of a bundle")],
    key: Annotated[
        list[Path] | None, typer.Option(help="public key that must have signed it; repeat")
    ] = None,
) -> None:
    """Verify a bundle against its manifest, and that against keys; print what it is."""
    with explained():
        bundle = load_bundle(folder, read_trusted_keys(key or ()))
    table = Table("what", "value", title=f"{bundle.name} {bundle.version}: verified")
    shared = ("analysis", "weights_sha256", "network", "threshold_low", "threshold_high",
              "statement", "intended_input")  # fmt: skip
    for name in (*shared, *SHOWN[type(bundle)]):
        table.add_row(name, str(getattr(bundle, name)))
    table.add_row("signed_by", bundle.signed_by or "not looked at: name public keys with --key")
    console.print(table)


@app.command()
def checks(analysis: str = "fistula") -> None:
    """Print what makes a study unusable: the checks in their order, then what needs none."""
    table = Table(
        Column("code", no_wrap=True), "meaning", "needed", title="a study is refused when"
    )
    for row in checks_table(analysis):
        table.add_row(*row)
    console.print(table)


@contextmanager
def explained() -> Iterator[None]:
    """Say what a user can mend in one line, without a traceback, and exit with 1."""
    keep_values_out()
    try:
        yield
    except (MonroError, BadBundle) as error:
        complaints.print(f"monro: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except OSError as error:
        complaints.print(
            f"monro: {error.filename or 'a file'}: {error.strerror}; correct the setting that "
            "names it, or who may read and write there",
            style="red",
            markup=False,
        )
        raise typer.Exit(1) from None
    except SQLAlchemyError as error:
        complaints.print(
            f"monro: the ledger at MONRO_LEDGER does not answer ({type(error).__name__}); "
            "start it or correct the URL",
            style="red",
            markup=False,
        )
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
