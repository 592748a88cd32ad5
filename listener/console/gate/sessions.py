"""Who is in: browsers that signed in, and programs with a token.

A token is 256 random bits, and is with its holder only: the ledger keeps its SHA-256. Without a
row there is no session, so deleting the row ends it at once.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, cast

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update

from listener.console.gate.accounts import Account, BadAccount, Role, normal_name
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from listener.tables import accounts, sessions

Kind = Literal["browser", "program"]

TOKEN_BYTES: Final = 32
PROGRAM_PREFIX: Final = "monro_"
"""By which a token is known where it should not be, such as in a repository."""

LONGEST_TOKEN: Final = 200

SEEN_SECONDS: Final = 60.0
"""That somebody was seen is written down this often: reading a page should write nothing."""

DAY_SECONDS: Final = 86400.0


@dataclass(frozen=True)
class Found:
    """A session: whose it is, and its token."""

    account: Account
    kind: Kind
    token: str

    @property
    def csrf(self) -> str:
        """What a form of this session must bring; tells nothing of the session's token."""
        return hmac.digest(self.token.encode(), b"monro csrf", "sha256").hex()

    def is_own(self, shown: str) -> bool:
        """Whether a form holds what a form of this session must."""
        return hmac.compare_digest(self.csrf.encode(), shown.encode())


class Sessions:
    """The sessions of a ledger.

    Args:
        ledger: that keeps them.
        idle_seconds: after which a browser that did nothing must sign in again.
        longest_seconds: after which every browser must.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        ledger: Ledger,
        idle_seconds: float,
        longest_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger, self._clock = ledger, clock
        self._idle_seconds, self._longest_seconds = idle_seconds, longest_seconds
        self._seen_seconds = min(SEEN_SECONDS, idle_seconds / 10)

    @classmethod
    def of(
        cls, ledger: Ledger, settings: ListenerSettings, clock: Callable[[], float] = time.time
    ) -> "Sessions":
        """The sessions of a ledger, with the times that the settings allow."""
        idle, longest = settings.console_idle_minutes * 60, settings.console_session_hours * 3600
        return cls(ledger, idle, longest, clock)

    def open(self, account: str) -> str:
        """Sign a browser in; returns its token, which is always a new one.

        Raises:
            BadAccount: there is no such account, or it is disabled.
        """
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._add(token, account, "browser", self._longest_seconds)
        return token

    def issue(self, account: str, days: float) -> str:
        """Make a token for a program; raises BadAccount as `open`."""
        token = PROGRAM_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        self._add(token, account, "program", days * DAY_SECONDS)
        return token

    def find(self, token: str, kind: Kind, *, by_itself: bool = False) -> Found | None:
        """The session of a token, shown in the way of its kind; None if it ended.

        Args:
            token: that was shown.
            kind: of session.
            by_itself: whether a page asks without its reader, who is not less idle for that.
        """
        if not token or len(token) > LONGEST_TOKEN:
            return None
        this, now = sessions.c.token_sha256 == _digest(token), self._clock()
        with self._ledger.reading() as connection:
            row = connection.execute(
                select(accounts.c.name, accounts.c.role, sessions.c.seen_at)
                .join(accounts, accounts.c.name == sessions.c.account)
                .where(this, sessions.c.kind == kind, accounts.c.disabled_at.is_(None))
                .where(~self._is_over(now))
            ).one_or_none()
        if row is None:
            return None
        if not by_itself and now - row.seen_at >= self._seen_seconds:
            with self._ledger.writing() as connection:
                connection.execute(update(sessions).where(this).values(seen_at=now))
        return Found(Account(row.name, cast(Role, row.role)), kind, token)

    def end(self, token: str) -> None:
        """Sign out."""
        with self._ledger.writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.token_sha256 == _digest(token)))

    def revoke(self, account: str) -> int:
        """End all sessions and tokens of an account; returns how many."""
        with self._ledger.writing() as connection:
            theirs = sessions.c.account == normal_name(account)
            return connection.execute(delete(sessions).where(theirs)).rowcount

    def count(self) -> dict[tuple[str, str], int]:
        """Sessions that last, by account and kind."""
        with self._ledger.reading() as connection:
            rows = connection.execute(
                select(sessions.c.account, sessions.c.kind, func.count())
                .where(~self._is_over(self._clock()))
                .group_by(sessions.c.account, sessions.c.kind)
            ).all()
        return {(row[0], row[1]): row[2] for row in rows}

    def _add(self, token: str, account: str, kind: Kind, seconds: float) -> None:
        now, name = self._clock(), normal_name(account)
        with self._ledger.writing() as connection:
            # Whoever disables the account meanwhile waits, and then ends this session, too.
            usable = connection.scalar(
                select(accounts.c.name)
                .where(accounts.c.name == name, accounts.c.disabled_at.is_(None))
                .with_for_update()
            )
            if usable is None:
                raise BadAccount(f"no account {name[:64]!r} is there, or it is disabled")
            connection.execute(delete(sessions).where(self._is_over(now)))
            connection.execute(
                insert(sessions).values(
                    token_sha256=_digest(token),
                    account=name,
                    kind=kind,
                    created_at=now,
                    seen_at=now,
                    until=now + seconds,
                )
            )

    def _is_over(self, now: float) -> ColumnElement[bool]:
        is_idle = and_(sessions.c.kind == "browser", sessions.c.seen_at <= now - self._idle_seconds)
        return or_(sessions.c.until <= now, is_idle)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
