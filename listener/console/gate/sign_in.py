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
from listener.console.gate.guesses import Guesses
from listener.console.gate.oidc import Errand, Identity, NotVouched, Provider, ProviderAway
from listener.console.gate.origin import is_encrypted, local_path
from listener.console.gate.pages import Pages, Refused
from listener.console.gate.sessions import Sessions
from listener.dicomweb.service import address_of
from listener.settings import ListenerSettings

log = logging.getLogger(__name__)

SEE_OTHER: Final = 303

ASKED_AT_ONCE: Final = 4
"""Of the provider; a slow one must not take all our threads."""

WRONG: Final = "Name or password is wrong, or the account is disabled."


class SignIn:
    """Signs browsers in and out.

    Args:
        accounts: who may come in.
        sessions: who is in.
        guesses: looks at passwords.
        settings: of the listener.
        audit: that is told.
        pages: to show.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        guesses: Guesses,
        settings: ListenerSettings,
        audit: Audit,
        pages: Pages,
        clock: Callable[[], float],
    ) -> None:
        self._accounts, self._sessions, self._guesses = accounts, sessions, guesses
        self._audit, self._pages = audit, pages
        self._cookies = Cookies()
        self._provider = None if settings.oidc is None else Provider(settings.oidc, clock)
        self._asking = anyio.CapacityLimiter(ASKED_AT_ONCE)

    @property
    def routes(self) -> list[BaseRoute]:
        """Of the application."""
        routes: list[BaseRoute] = [
            Route("/sign-in", self.show, methods=["GET"]),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"]),
            Route("/fragment/session", self.still, methods=["GET"]),
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
            account = await self._guesses.verified(name, password, address)
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

    async def still(self, _request: Request) -> Response:
        """Tell a page that its session goes on; the gate sends others to sign in."""
        return Response(status_code=204)

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
            self._guesses.require_patience(address_of(request))
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
            await self._open(request, answer, account, str(identity.person))
        self._cookies.drop_errand(request, answer)
        return answer

    async def _identified(self, errand: Errand, request: Request) -> Identity:
        assert self._provider is not None
        address = address_of(request)
        self._guesses.require_patience(address)
        came_to = f"/?{request.scope['query_string'].decode('latin-1')}"
        asking = partial(self._provider.identity, errand, self._back(request), came_to)
        try:
            return await run_sync(asking, limiter=self._asking)
        except NotVouched:
            self._guesses.note(address)
            raise

    def _account_of(self, identity: Identity) -> Account:
        if identity.role is None:
            self._accounts.no_longer_vouched(identity.person)
            raise NotVouched(
                "you are known, and in no group that may come in; ask who runs monro to add one "
                "to MONRO_OIDC"
            )
        return self._accounts.vouched(identity.name, identity.role, identity.person)

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
