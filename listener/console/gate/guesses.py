"""Who shows a password: looked at two at a time, and slower the more often it was wrong."""

from collections.abc import Callable
from functools import partial
from typing import Final

import anyio
from anyio.to_thread import run_sync

from listener.console.gate.accounts import Account, Accounts, normal_name
from listener.console.gate.limits import Pauses, Usual, subscriber
from listener.console.gate.pages import too_many

HASHED_AT_ONCE: Final = 2
"""Passwords; each takes 64 MiB and four cores for as long as it takes."""

WAITING_AT_MOST: Final = 16
"""To be hashed; who comes then is asked to come again."""

COME_AGAIN_SECONDS: Final = 5.0

FREE_OF_ADDRESS: Final = 10
"""Wrong guesses without a pause. Many people may share an address."""

FREE_OF_PAIR: Final = 5
"""At one account from one address."""

FREE_OF_ACCOUNT: Final = 50
"""At one account from all addresses: whoever commands many of them guesses no faster for that."""

FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_OF_ADDRESS_SECONDS: Final = 900.0
LONGEST_OF_PAIR_SECONDS: Final = 300.0

LONGEST_OF_ACCOUNT_SECONDS: Final = 60.0
"""Short: strangers may keep the owner of an account waiting where the owner never signed in."""


class Guesses:
    """Looks at names and passwords.

    Args:
        accounts: who may come in.
        clock: seconds since the epoch.
    """

    def __init__(self, accounts: Accounts, clock: Callable[[], float]) -> None:
        self._accounts = accounts
        self._hashing = anyio.CapacityLimiter(HASHED_AT_ONCE)
        pauses = partial(Pauses, first_seconds=FIRST_PAUSE_SECONDS, clock=clock)
        self._of_address = pauses(FREE_OF_ADDRESS, longest_seconds=LONGEST_OF_ADDRESS_SECONDS)
        self._of_pair = pauses(FREE_OF_PAIR, longest_seconds=LONGEST_OF_PAIR_SECONDS)
        self._of_account = pauses(FREE_OF_ACCOUNT, longest_seconds=LONGEST_OF_ACCOUNT_SECONDS)
        self._usual = Usual(clock)

    async def verified(self, name: str, password: str, address: str) -> Account | None:
        """The account whose password this is.

        What others guess from elsewhere, or at other accounts from here, keeps nobody waiting
        where they have signed in before.

        Raises:
            Refused: there were too many wrong guesses.
        """
        whence, whose = subscriber(address), normal_name(name)[:64]
        pair = f"{whose} {whence}"
        wait = self._of_pair.left(pair)
        if not self._usual.has(pair):
            wait = max(wait, self._of_address.left(whence), self._of_account.left(whose))
        _require_patience(wait)
        if self._hashing.statistics().tasks_waiting >= WAITING_AT_MOST:
            raise too_many(COME_AGAIN_SECONDS, "Too many sign in at present")
        noted = ((self._of_address, whence), (self._of_account, whose), (self._of_pair, pair))
        for pauses, whom in noted:
            pauses.note(whom)
        verify = partial(self._accounts.verify, name, password)
        account = await run_sync(verify, limiter=self._hashing)
        if account is not None:
            # Not all of the address: who has one account could guess others' in between. Nor of
            # the account: its owner's visits would give strangers elsewhere as many guesses anew.
            self._of_address.take_back(whence)
            self._of_account.take_back(whose)
            self._of_pair.forgive(pair)
            self._usual.note(pair)
        return account

    def require_patience(self, address: str) -> None:
        """Raise Refused where too much that was wrong came from an address."""
        _require_patience(self._of_address.left(subscriber(address)))

    def note(self, address: str) -> None:
        """Something else that was wrong came from an address."""
        self._of_address.note(subscriber(address))


def _require_patience(seconds: float) -> None:
    if seconds > 0:
        raise too_many(seconds, "Too many attempts failed")
