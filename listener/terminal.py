"""What the commands share: where they print, how they complain, and that the audit trail knows."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from listener.audit import codes
from listener.audit.codes import Code
from listener.audit.trail import Audit, open_audit
from listener.errors import MonroError
from listener.logs import keep_values_out
from listener.settings import read_settings

console = Console()
complaints = Console(stderr=True)


@contextmanager
def explained() -> Iterator[None]:
    """Say what a user can mend in one line, without a traceback, and exit with 1."""
    keep_values_out()
    try:
        yield
    except MonroError as error:
        complaints.print(f"monro: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except OSError as error:
        complaints.print(
            f"monro: {error.filename or 'a file'}: {error.strerror}; correct MONRO_SPOOL or "
            "MONRO_AUDIT, or who may write there",
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


@contextmanager
def acting(
    what: str, study: str | None = None, kind: Code = codes.RESTRICTED_FUNCTION
) -> Iterator[Audit]:
    """Put into the audit trail what an operator did, and whether it came about.

    Args:
        what: they do.
        study: that they do it to; None: to the listener.
        kind: of alert, by `Audit.acted`.
    """
    with open_audit(read_settings()) as audit:
        try:
            yield audit
        except BaseException:  # Ctrl-C as well
            audit.acted(what, study, failed=True, kind=kind)
            raise
        audit.acted(what, study, kind=kind)
