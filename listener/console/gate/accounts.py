"""Who may come in, and as what; kept in the ledger."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, cast

from sqlalchemy import Connection, Row, delete, insert, select, update

from listener.console.gate.passwords import decoy, hashed, is_outdated, is_right, require_strong
from listener.errors import MonroError
from listener.ledger import Ledger
from listener.tables import accounts, sessions

Role = Literal["monitor", "viewer", "operator"]

RANKS: Mapping[Role, int] = MappingProxyType({"monitor": 0, "viewer": 1, "operator": 2})
"""Whoever has a higher rank may do all that a lower one may. A monitor reads /metrics alone."""

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.@+-]{0,63}")


class BadAccount(MonroError):
    """An account cannot be made, changed or used as was asked."""


@dataclass(frozen=True)
class Account:
    """Somebody who may come in."""

    name: str
    role: Role

    def may_act_as(self, role: Role) -> bool:
        """Whether that role's rights are among this account's.

        >>> Account("anna", "operator").may_act_as("viewer")
        True
        >>> Account("anna", "viewer").may_act_as("operator")
        False
        """
        return RANKS[self.role] >= RANKS[role]


@dataclass(frozen=True)
class Person:
    """Somebody as a provider of OpenID Connect knows them; names may change hands, this does not.

    >>> str(Person("https://login.hospital", "7f3c"))
    '7f3c of https://login.hospital'
    """

    issuer: str
    subject: str

    def __str__(self) -> str:
        return f"{self.subject} of {self.issuer}"


@dataclass(frozen=True)
class Listed:
    """An account as operators read it; `has_password` is False where another vouches."""

    name: str
    role: Role
    has_password: bool
    created_at: float
    disabled_at: float | None


class Accounts:
    """The accounts of a ledger. Names are written in lower case, however they were typed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._decoy = decoy()

    def add(self, name: str, role: Role, password: str) -> Account:
        """Make an account.

        Raises:
            BadAccount: there is one of that name, or the name is none.
            WeakPassword: others would guess it.
        """
        name = _required_name(name)
        require_strong(name, password)
        self._insert(name, role, hashed(password))
        return Account(name, role)

    def vouched(self, name: str, role: Role, person: Person) -> Account:
        """The account of somebody whom another vouches for, made on the first time.

        It stays theirs, under the name that it was made with, whatever they are called later.

        Args:
            name: that they are called now.
            role: that they have now.
            person: whom the provider vouches for.

        Raises:
            BadAccount: it is disabled, or somebody else's.
        """
        name = _required_name(name)
        bound = {"role": role, "issuer": person.issuer, "subject": person.subject}
        with self._ledger.writing() as connection:
            row = _row_of(connection, person) or _row(connection, name)
            if row is None:
                made = {"name": name, "created_at": self._ledger.now, **bound}
                connection.execute(insert(accounts).values(made))
                return Account(name, role)
            _require_theirs(row, person)
            if row.role != role or row.subject is None:
                this = accounts.c.name == row.name
                connection.execute(update(accounts).where(this).values(bound))
        return Account(row.name, role)

    def no_longer_vouched(self, person: Person) -> None:
        """End the sessions of somebody whom another vouched for, and does no longer."""
        with self._ledger.writing() as connection:
            row = _row_of(connection, person)
            if row is not None:
                _end_sessions(connection, row.name)

    def release(self, name: str) -> None:
        """Let an account belong to whom the provider next calls so; ends sessions and tokens.

        Raises:
            BadAccount: there is none of that name, or nobody vouches for it.
        """
        with self._ledger.writing() as connection:
            row = _required(connection, name)
            if row.password is not None:
                raise BadAccount(
                    f"account {row.name} signs in with a password: it is nobody else's"
                )
            connection.execute(
                update(accounts)
                .where(accounts.c.name == row.name)
                .values(issuer=None, subject=None)
            )
            _end_sessions(connection, row.name)

    def verify(self, name: str, password: str) -> Account | None:
        """The account, if that is its password; None as late as otherwise.

        Whether there is an account of that name, whether it has a password and whether it is
        disabled can be told neither from the answer nor from the time that it takes.
        """
        with self._ledger.reading() as connection:
            row = _row(connection, normal_name(name))
        usable = row is not None and row.password is not None and row.disabled_at is None
        kept = row.password if row is not None and usable else self._decoy
        if not is_right(kept, password) or row is None:
            return None
        if is_outdated(kept):
            with self._ledger.writing() as connection:
                connection.execute(
                    update(accounts)
                    .where(accounts.c.name == row.name, accounts.c.password == kept)
                    .values(password=hashed(password))
                )
        return _account(row)

    def has_password(self, name: str) -> bool:
        """Whether an account signs in with a password; another vouches for it otherwise."""
        with self._ledger.reading() as connection:
            row = _row(connection, normal_name(name))
        return row is not None and row.password is not None

    def is_known(self, name: str) -> bool:
        """Whether there is an account of that name."""
        with self._ledger.reading() as connection:
            return _row(connection, normal_name(name)) is not None

    def require(self, name: str) -> None:
        """Raise BadAccount where there is no account of that name."""
        with self._ledger.reading() as connection:
            _required(connection, name)

    def change_role(self, name: str, role: Role) -> None:
        """Give an account another role, from its next request on; raises BadAccount."""
        self._change(name, role=role)

    def change_password(self, name: str, password: str) -> None:
        """Give an account another password, and sign its browsers out.

        Raises:
            BadAccount: there is none of that name, or another vouches for it.
            WeakPassword: others would guess it.
        """
        require_strong(normal_name(name), password)
        kept = hashed(password)
        with self._ledger.writing() as connection:
            row = _required(connection, name)
            if row.password is None:
                raise BadAccount(
                    f"account {row.name} has no password: MONRO_OIDC vouches for it, so change "
                    "it there"
                )
            connection.execute(
                update(accounts).where(accounts.c.name == row.name).values(password=kept)
            )
            _end_sessions(connection, row.name, "browser")

    def disable(self, name: str) -> None:
        """Let an account in no more, and end its sessions and tokens; raises BadAccount."""
        with self._ledger.writing() as connection:
            row = _required(connection, name)
            connection.execute(
                update(accounts)
                .where(accounts.c.name == row.name, accounts.c.disabled_at.is_(None))
                .values(disabled_at=self._ledger.now)
            )
            _end_sessions(connection, row.name)

    def enable(self, name: str) -> None:
        """Let an account in again; raises BadAccount."""
        self._change(name, disabled_at=None)

    def all(self) -> list[Listed]:
        """All accounts by name."""
        with self._ledger.reading() as connection:
            rows = connection.execute(select(accounts).order_by(accounts.c.name)).all()
        return [
            Listed(row.name, row.role, row.password is not None, row.created_at, row.disabled_at)
            for row in rows
        ]

    def _insert(self, name: str, role: Role, password: str) -> None:
        with self._ledger.writing() as connection:
            if _row(connection, name) is not None:
                raise BadAccount(
                    f"account {name} is there already: change it by `accounts role` or "
                    "`accounts password`"
                )
            connection.execute(
                insert(accounts).values(
                    name=name, role=role, password=password, created_at=self._ledger.now
                )
            )

    def _change(self, name: str, **values: Any) -> None:
        with self._ledger.writing() as connection:
            row = _required(connection, name)
            connection.execute(update(accounts).where(accounts.c.name == row.name).values(values))


def normal_name(name: str) -> str:
    """A name as accounts bear it, whoever typed it.

    >>> normal_name(" Anna@Hospital ")
    'anna@hospital'
    """
    return name.strip().lower()


def _required_name(name: str) -> str:
    name = normal_name(name)
    if not NAME.fullmatch(name):
        raise BadAccount(
            f"{name[:64]!r} is no name of an account: expected 1 to 64 of the letters a to z, "
            "digits, and _ . @ + -, with a letter or digit first"
        )
    return name


def _row(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(accounts).where(accounts.c.name == name)).one_or_none()


def _row_of(connection: Connection, person: Person) -> Row[Any] | None:
    theirs = (accounts.c.issuer == person.issuer, accounts.c.subject == person.subject)
    return connection.execute(select(accounts).where(*theirs)).one_or_none()


def _require_theirs(row: Row[Any], person: Person) -> None:
    """Raise BadAccount where an account that is there cannot be this person's."""
    if row.password is not None:
        raise BadAccount(f"account {row.name} signs in with a password")
    if row.disabled_at is not None:
        raise BadAccount(f"account {row.name} is disabled")
    if row.subject is not None and (row.issuer, row.subject) != (person.issuer, person.subject):
        raise BadAccount(
            f"account {row.name} belongs to somebody else of that name (another `sub` or issuer): "
            f"ask who runs monro; if you are the same person, `accounts release {row.name}` "
            "gives it to you"
        )


def _required(connection: Connection, name: str) -> Row[Any]:
    row = _row(connection, normal_name(name))
    if row is None:
        raise BadAccount(f"no account {normal_name(name)[:64]!r} is there; `accounts list` has all")
    return row


def _end_sessions(connection: Connection, name: str, kind: str | None = None) -> None:
    ended = delete(sessions).where(sessions.c.account == name)
    connection.execute(ended if kind is None else ended.where(sessions.c.kind == kind))


def _account(row: Row[Any]) -> Account:
    return Account(row.name, cast(Role, row.role))
