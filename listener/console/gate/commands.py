"""Accounts on the command line: `python -m listener accounts`."""

import json
import secrets
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from listener.audit import codes
from listener.console.gate.accounts import Accounts, Role
from listener.console.gate.sessions import Sessions
from listener.errors import MonroError
from listener.ledger import Ledger
from listener.settings import read_settings
from listener.terminal import acting, complaints, console, explained

accounts = typer.Typer(help="Who may come in at the console.", no_args_is_help=True)

LONGEST_LINE = 1024
"""Of a file with a password; one this long is refused anyhow."""

Name = Annotated[str, typer.Argument(help="name of the account")]
RoleOption = Annotated[
    Role,
    typer.Option(
        help="a monitor reads /metrics alone; a viewer reads all pages; an operator may also "
        "change what the listener does"
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        help="file whose first line is the password; -: standard input; without it, it is asked "
        "for at the terminal"
    ),
]


@accounts.command()
def add(name: Name, role: RoleOption, password_file: PasswordFile = None) -> None:
    """Let somebody in. A monitor needs no password: nobody knows it then, and tokens do."""
    with explained(), acting(f"accounts add, role {role}: {name}", kind=codes.USER_SECURITY):
        is_for_tokens = role == "monitor" and password_file is None
        password = secrets.token_urlsafe() if is_for_tokens else _password(password_file)
        account = Accounts(_ledger()).add(name, role, password)
    console.print(f"account {account.name} may come in as {role}", markup=False)


@accounts.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Show all accounts, and who is signed in."""
    with explained():
        ledger = _ledger()
        listed = Accounts(ledger).all()
        count = Sessions.of(ledger, read_settings()).count()
    rows = [
        {
            **asdict(each),
            "browsers": count.get((each.name, "browser"), 0),
            "tokens": count.get((each.name, "program"), 0),
        }
        for each in listed
    ]
    if as_json:
        print(json.dumps(rows, indent=2))  # noqa: T201
        return
    table = Table("name", "role", "signs in by", "made", "disabled", "browsers", "tokens")
    for each, row in zip(listed, rows, strict=True):
        table.add_row(
            each.name,
            each.role,
            "password" if each.has_password else "MONRO_OIDC",
            _day(each.created_at),
            "" if each.disabled_at is None else _day(each.disabled_at),
            str(row["browsers"]),
            str(row["tokens"]),
        )
    console.print(table)


@accounts.command("role")
def role_command(name: Name, role: RoleOption) -> None:
    """Give an account another role, at once."""
    with explained(), acting(f"accounts role {role}: {name}", kind=codes.SECURITY_ROLES):
        Accounts(_ledger()).change_role(name, role)


@accounts.command("password")
def password_command(name: Name, password_file: PasswordFile = None) -> None:
    """Give an account another password, and sign its browsers out."""
    with explained(), acting(f"accounts password: {name}", kind=codes.USER_SECURITY):
        Accounts(_ledger()).change_password(name, _password(password_file))


@accounts.command()
def disable(name: Name) -> None:
    """Let an account in no more, and end its sessions and tokens at once."""
    with explained(), acting(f"accounts disable: {name}", kind=codes.USER_SECURITY):
        Accounts(_ledger()).disable(name)


@accounts.command()
def enable(name: Name) -> None:
    """Let an account in again; its sessions and tokens stay ended."""
    with explained(), acting(f"accounts enable: {name}", kind=codes.USER_SECURITY):
        Accounts(_ledger()).enable(name)


@accounts.command()
def release(name: Name) -> None:
    """Let an account belong to whom MONRO_OIDC calls so next; its sessions and tokens end."""
    with explained(), acting(f"accounts release: {name}", kind=codes.USER_SECURITY):
        Accounts(_ledger()).release(name)


@accounts.command()
def token(
    name: Name, days: Annotated[float, typer.Option(min=0.01, max=3660, help="it lasts")] = 90
) -> None:
    """Make a token for a program that acts as this account, and print it: once, and never again."""
    what = f"accounts token for {days:g} days: {name}"
    with explained(), acting(what, kind=codes.USER_SECURITY):
        made = Sessions.of(_ledger(), read_settings()).issue(name, days)
    print(made)  # noqa: T201
    complaints.print("send it as the header: Authorization: Bearer TOKEN", markup=False)


@accounts.command()
def revoke(name: Name) -> None:
    """End all sessions and tokens of an account; it may come in again."""
    with explained(), acting(f"accounts revoke: {name}", kind=codes.USER_SECURITY):
        ledger = _ledger()
        Accounts(ledger).require(name)
        ended = Sessions.of(ledger, read_settings()).revoke(name)
    console.print(f"{ended} session(s) and token(s) ended")


def _ledger() -> Ledger:
    return Ledger(read_settings().ledger_url)


def _password(file: Path | None) -> str:
    """The password: never an argument, which others on this machine could read."""
    if file is None and sys.stdin.isatty():
        asked: str = typer.prompt("password", hide_input=True, confirmation_prompt=True, err=True)
        return asked
    if file is None or str(file) == "-":
        line = sys.stdin.readline(LONGEST_LINE)
    else:
        try:
            with file.open(encoding="utf-8") as opened:
                line = opened.readline(LONGEST_LINE)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise MonroError(f"the password file {file} cannot be read: {why}") from None
    if not line.strip():
        raise MonroError(f"{file or 'standard input'} holds no password in its first line")
    return line.rstrip("\r\n")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "minutes")
