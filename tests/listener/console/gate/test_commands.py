"""Accounts on the command line: passwords are no arguments, tokens are shown once."""

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from listener.__main__ import app
from listener.console.gate.accounts import Accounts
from listener.console.gate.sessions import Sessions
from listener.ledger import Ledger
from tests.listener.audit.reading import messages
from tests.listener.console.gate.conftest import PASSWORD


@pytest.fixture(name="book", autouse=True)
def an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, cheap_hashes: None
) -> Accounts:
    for name, value in {
        "MONRO_SPOOL": str(tmp_path),
        "MONRO_BROKER": "redis://127.0.0.1:1/0",
        "MONRO_SITE": "test",
        "MONRO_OPEN_NODE": "true",
        "MONRO_DESTINATIONS": '[{"name": "a", "ae_title": "A", "host": "127.0.0.1", "port": 1}]',
    }.items():
        monkeypatch.setenv(name, value)
    return Accounts(ledger)


def run(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["accounts", *arguments], input=typed)


def test_an_account_is_made_with_a_password_from_a_file_or_standard_input(
    book: Accounts, password_file: Path
) -> None:
    added = run("add", "Anna", "--role", "viewer", "--password-file", str(password_file))
    assert (added.exit_code, added.stdout) == (0, "account anna may come in as viewer\n")
    assert book.verify("anna", PASSWORD) is not None

    assert run("add", "berta", "--role", "operator", typed=PASSWORD + "\n").exit_code == 0
    assert run("password", "berta", "--password-file", "-", typed="x" + PASSWORD).exit_code == 0
    assert book.verify("berta", "x" + PASSWORD) is not None


def test_a_monitor_is_made_without_a_password_that_anybody_knows(book: Accounts) -> None:
    added = run("add", "prometheus", "--role", "monitor", typed="")
    assert (added.exit_code, added.stdout) == (0, "account prometheus may come in as monitor\n")
    assert book.verify("prometheus", "") is None
    assert run("token", "prometheus").stdout.startswith("monro_")


@pytest.mark.parametrize(
    ("arguments", "typed", "complaint"),
    [
        ("add anna --role viewer", "short\n", "the password has 5 characters"),
        ("add anna --role viewer", "\n", "standard input holds no password in its first line"),
        ("add anna --role viewer --password-file /nowhere", "", "/nowhere cannot be read: No such"),
        ("add a/b --role viewer", PASSWORD, "'a/b' is no name of an account"),
        ("add anna --role admin", PASSWORD, "viewer"),
        ("role nobody --role viewer", "", "no account 'nobody' is there"),
        ("password nobody", PASSWORD, "no account 'nobody' is there"),
        ("disable nobody", "", "no account 'nobody' is there"),
        ("enable nobody", "", "no account 'nobody' is there"),
        ("token nobody", "", "no account 'nobody' is there"),
        ("revoke nobody", "", "no account 'nobody' is there"),
        ("token nobody --days 0", "", "0.01"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(arguments: str, typed: str, complaint: str) -> None:
    done = run(*arguments.split(), typed=typed)
    assert done.exit_code != 0
    assert complaint in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert "short" not in done.stderr


def test_a_token_is_printed_once_and_works_until_it_is_revoked(
    book: Accounts, ledger: Ledger, tmp_path: Path
) -> None:
    book.add("anna", "viewer", PASSWORD)
    made = run("token", "anna", "--days", "30")
    token = made.stdout.strip()
    sessions = Sessions(ledger, 60, 60)
    assert token.startswith("monro_")
    found = sessions.find(token, "program")
    assert found is not None
    assert found.account.name == "anna"

    (row,) = json.loads(run("list", "--json").stdout)
    assert (row["name"], row["role"], row["tokens"], row["browsers"]) == ("anna", "viewer", 1, 0)
    assert run("revoke", "anna").stdout == "1 session(s) and token(s) ended\n"
    assert sessions.find(token, "program") is None
    assert token.encode() not in (tmp_path / "audit/audit.log").read_bytes()


def test_accounts_are_disabled_enabled_and_given_another_role(book: Accounts) -> None:
    book.add("anna", "viewer", PASSWORD)
    assert run("disable", "anna").exit_code == 0
    assert book.verify("anna", PASSWORD) is None
    assert run("enable", "anna").exit_code == 0
    assert run("role", "anna", "--role", "operator").exit_code == 0
    verified = book.verify("anna", PASSWORD)
    assert verified is not None
    assert verified.role == "operator"
    assert "operator" in run("list").stdout


def test_what_was_done_to_accounts_is_in_the_trail(book: Accounts, tmp_path: Path) -> None:
    run("add", "anna", "--role", "viewer", typed=PASSWORD)
    run("role", "anna", "--role", "operator")
    run("disable", "nobody")

    found = [
        (each.kind, each.outcome, each.detail) for each in messages(tmp_path / "audit/audit.log")
    ]
    assert found == [
        ("110137", "0", "accounts add, role viewer: anna"),
        ("110136", "0", "accounts role operator: anna"),
        ("110137", "4", "accounts disable: nobody"),
    ]


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(book: Accounts) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "listener", "accounts", "add", "anna", "--role", "viewer"]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as asking:
        shown = b""
        for prompts in (1, 2):
            # The space comes once the terminal shows nothing any more.
            while shown.count(b": ") < prompts:
                assert asking.stdout is not None
                read = asking.stdout.read(1)
                assert read, shown
                shown += read
            os.write(ours, f"{PASSWORD}\n".encode())
        shown += asking.communicate(timeout=60)[0]
    echoed = os.read(ours, 1000) if select.select([ours], [], [], 0.5)[0] else b""
    os.close(ours)
    os.close(theirs)

    assert book.verify("anna", PASSWORD) is not None, shown
    assert PASSWORD.encode() not in shown + echoed
    assert b"account anna may come in as viewer" in shown
