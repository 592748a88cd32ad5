"""The way in and out: a form with name and password, or a provider that vouches."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import anyio
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from listener.audit.people import visitor
from listener.audit.trail import Audit
from listener.console.gate.accounts import Account, Accounts, BadAccount, normal_name
from listener.console.gate.cookies import Cookies
from listener.console.gate.limits import Pauses, Usual, subscriber
from listener.console.gate.oidc import Errand, Identity, NotVouched, Provider, ProviderAway
from listener.console.gate.origin import is_encrypted, local_path
from listener.console.gate.pages import Pages, Refused, too_many
from listener.console.gate.sessions import Sessions
from listener.dicomweb.service import address_of
from listener.settings import ListenerSettings

log = logging.getLogger(__name__)

SEE_OTHER: Final = 303

HASHED_AT_ONCE: Final = 2
"""Passwords; each takes 64 MiB and four cores for as long as it takes."""

WAITING_AT_MOST: Final = 16
"""To be hashed; who comes then is asked to come again."""

COME_AGAIN_SECONDS: Final = 5.0

ASKED_AT_ONCE: Final = 4
"""Of the provider; a slow one must not take all our threads."""

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

WRONG: Final = "Name or password is wrong, or the account is disabled."


class SignIn:
    """Signs browsers in and out.

    Args:
        accounts: who may come in.
        sessions: who is in.
        settings: of the listener.
        audit: that is told.
        pages: to show.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        settings: ListenerSettings,
        audit: Audit,
        pages: Pages,
        clock: Callable[[], float],
    ) -> None:
        self._accounts, self._sessions = accounts, sessions
        self._audit, self._pages = audit, pages
        self._cookies = Cookies()
        self._provider = None if settings.oidc is None else Provider(settings.oidc, clock)
        self._hashing = anyio.CapacityLimiter(HASHED_AT_ONCE)
        self._asking = anyio.CapacityLimiter(ASKED_AT_ONCE)
        self._of_address = Pauses(
            FREE_OF_ADDRESS, FIRST_PAUSE_SECONDS, LONGEST_OF_ADDRESS_SECONDS, clock
        )
        self._of_pair = Pauses(FREE_OF_PAIR, FIRST_PAUSE_SECONDS, LONGEST_OF_PAIR_SECONDS, clock)
        self._usual = Usual(clock)
        self._of_account = Pauses(
            FREE_OF_ACCOUNT, FIRST_PAUSE_SECONDS, LONGEST_OF_ACCOUNT_SECONDS, clock
        )

    @property
    def routes(self) -> list[BaseRoute]:
        """Of the application."""
        routes: list[BaseRoute] = [
            Route("/sign-in", self.show, methods=["GET"]),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"]),
        ]
        if self._provider is not None:
            routes += [
                Route("/sign-in/oidc", self.leave, methods=["GET"]),
                Route("/sign-in/oidc/return", self.come_back, methods=["GET"]),
            ]
        return routes

    async def show(self, request: Request) -> Response:
        """Show the form."""
        wanted = local_path(request.query_params.get("next", ""))
        if request.state.account is not None:
            return RedirectResponse(wanted, SEE_OTHER)
        return self._pages.sign_in(wanted)

    async def sign_in(self, request: Request) -> Response:
        """Take name and password."""
        async with request.form(max_files=0, max_fields=10) as form:
            name, password = (str(form.get(field, "")) for field in ("name", "password"))
            wanted = local_path(str(form.get("next", "")))
        address = address_of(request)
        try:
            account = await self._verified(name, password, address)
        except Refused as refused:
            self._audit.refused(visitor("", address), "sign-in at the console: too many attempts")
            return self._pages.sign_in(
                wanted, f"{refused.message}.", name, refused.status, refused.headers
            )
        if account is None:
            known = await run_sync(self._accounts.is_known, name)
            who = visitor(normal_name(name) if known else "", address)
            self._audit.not_signed_in(who, "name or password is wrong, or the account is disabled")
            log.warning("a sign-in at the console from %s failed", address)
            return self._pages.sign_in(wanted, WRONG, name, 403)
        answer = RedirectResponse(wanted, SEE_OTHER)
        await self._open(request, answer, account)
        return answer

    async def sign_out(self, request: Request) -> Response:
        """End the session of this browser."""
        await run_sync(self._sessions.end, self._cookies.session_of(request))
        if request.state.account is not None:
            self._audit.signed_out(request.state.by)
        answer = RedirectResponse("/sign-in", SEE_OTHER, {"Clear-Site-Data": '"cache", "storage"'})
        self._cookies.drop_session(request, answer)
        return answer

    async def leave(self, request: Request) -> Response:
        """Send a browser to the provider."""
        assert self._provider is not None
        errand = Errand.begin(local_path(request.query_params.get("next", "")))
        try:
            self._require_patience(self._of_address.left(subscriber(address_of(request))))
            going = partial(self._provider.address, errand, self._back(request))
            answer = RedirectResponse(await run_sync(going, limiter=self._asking), SEE_OTHER)
        except (Refused, ProviderAway) as error:
            return self._turned_away(error, request)
        self._cookies.give_errand(request, answer, errand)
        return answer

    async def come_back(self, request: Request) -> Response:
        """Take a browser that comes from the provider."""
        address = address_of(request)
        try:
            errand = self._cookies.errand_of(request)
            if errand is None:
                raise NotVouched("no sign-in was begun in this browser, or too long ago")
            identity = await self._identified(errand, request)
            account = await run_sync(self._account_of, identity)
        except (Refused, ProviderAway, NotVouched, BadAccount) as error:
            self._audit.not_signed_in(visitor("", address), f"MONRO_OIDC: {_told(error)}")
            log.warning("a sign-in at the console from %s failed: %s", address, _told(error))
            answer = self._turned_away(error, request)
        else:
            answer = self._pages.moving_on(errand.wanted)
            await self._open(request, answer, account, identity.subject)
        self._cookies.drop_errand(request, answer)
        return answer

    async def _verified(self, name: str, password: str, address: str) -> Account | None:
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
        self._require_patience(wait)
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

    async def _identified(self, errand: Errand, request: Request) -> Identity:
        assert self._provider is not None
        whence = subscriber(address_of(request))
        self._require_patience(self._of_address.left(whence))
        came_to = f"/?{request.scope['query_string'].decode('latin-1')}"
        asking = partial(self._provider.identity, errand, self._back(request), came_to)
        try:
            return await run_sync(asking, limiter=self._asking)
        except NotVouched:
            self._of_address.note(whence)
            raise

    def _account_of(self, identity: Identity) -> Account:
        if identity.role is None:
            self._accounts.no_longer_vouched(identity.name)
            raise NotVouched(
                "you are known, and in no group that may come in; ask who runs monro to add one "
                "to MONRO_OIDC"
            )
        return self._accounts.vouched(identity.name, identity.role)

    async def _open(
        self, request: Request, answer: Response, account: Account, vouched: str = ""
    ) -> None:
        """Begin a new session; the one that this browser had ends."""
        await run_sync(self._sessions.end, self._cookies.session_of(request))
        token = await run_sync(self._sessions.open, account.name)
        self._cookies.give_session(request, answer, token)
        self._audit.signed_in(visitor(account.name, address_of(request), vouched))

    def _back(self, request: Request) -> str:
        """Where the provider sends browsers back to; it knows this URL."""
        scheme = "https" if is_encrypted(request.scope) else "http"
        return f"{scheme}://{request.headers.get('host', '')}/sign-in/oidc/return"

    def _require_patience(self, seconds: float) -> None:
        if seconds > 0:
            raise too_many(seconds, "Too many attempts failed")

    def _turned_away(self, error: Exception, request: Request) -> Response:
        if isinstance(error, Refused):
            refused = error
        elif isinstance(error, ProviderAway):
            refused = Refused(503, f"You are not signed in: {error}.", {"Retry-After": "60"})
        else:
            refused = Refused(403, f"You are not signed in: {error}.")
        return self._pages.refusal(refused, request.scope["path"])


def _told(error: Exception) -> str:
    return error.message if isinstance(error, Refused) else str(error)


def provider_host(settings: ListenerSettings) -> str:
    """Who vouches for people, for them to read; empty: nobody but us."""
    return "" if settings.oidc is None else urlsplit(settings.oidc.issuer).hostname or ""
