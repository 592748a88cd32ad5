"""What every request to the console passes before an application sees it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import parse_qsl, quote

import anyio
from anyio.to_thread import run_sync
from sqlalchemy.exc import SQLAlchemyError
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from listener.audit.message import Participant
from listener.audit.people import visitor
from listener.audit.trail import NO_AUDIT, Audit
from listener.console.gate.accounts import Account, Accounts
from listener.console.gate.cookies import Cookies
from listener.console.gate.guesses import Guesses
from listener.console.gate.headers import STATIC, Answer
from listener.console.gate.hops import Proxies
from listener.console.gate.limits import Pace, subscriber
from listener.console.gate.origin import is_called_by, is_encrypted, is_of_ours
from listener.console.gate.own_password import OwnPassword
from listener.console.gate.pages import FOR_PROGRAMS, Pages, Refused, is_at, too_many
from listener.console.gate.sessions import Found, Sessions
from listener.console.gate.sign_in import SEE_OTHER, SignIn, provider_host
from listener.dicomweb.service import address_of
from listener.errors import where
from listener.ledger import Ledger
from listener.settings import ListenerSettings

log = logging.getLogger(__name__)

READS: Final = frozenset({"GET", "HEAD"})
"""Methods that change nothing; all others need an operator."""

PROBES: Final = ("/healthz", "/readyz")
"""At no pace: who counts as dead for asking often is started anew. Looks are remembered there."""

METRICS: Final = "/metrics"

WITHOUT_SESSION: Final = (STATIC, *PROBES)
"""Nobody is asked for here, and the ledger neither: it may be away."""

WITHOUT_ACCOUNT: Final = ("/sign-in", "/sign-in/")

WITHOUT_ROLE: Final = (*WITHOUT_ACCOUNT, "/sign-out", "/password")
"""Where everybody may send something."""

FOR_MONITORS: Final = (METRICS, "/sign-in", "/sign-in/", "/sign-out")

BY_ITSELF: Final = ("/fragment/",)
"""What pages ask for every few seconds: whoever has left is signed out all the same."""

ONLY_ASKING: Final = ("/search", "/api/search", "/rules", "/api/rules")
"""Forms that change nothing: names of patients and headers shall be in no URL."""

BY_ADDRESS: Final = (*PROBES, METRICS)
"""Called by monitors by whatever address they know."""

BURST, PER_SECOND = 300.0, 30.0
"""Requests of one address: a page has a few dozen, and many people may share an address."""

LARGEST_FORM_BYTES: Final = 16 << 10
LARGEST_BODY_BYTES: Final = 6 << 20
"""A table of labels of 5 MiB, and what is around it in a form."""

LET_PASS: Final = 10
"""Times as much is read and dropped: a browser shows an answer only once it has sent all."""

BODY_SECONDS: Final = 60.0
COME_AGAIN: Final = {"Retry-After": "10"}
CLOSING: Final = {"Connection": "close"}

BEARER: Final = "bearer"
CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
BAD_TOKEN: Final = {"WWW-Authenticate": 'Bearer error="invalid_token"'}  # RFC 6750 3.1

FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


@dataclass(frozen=True)
class Visit:
    """One request: from where, and in which session."""

    address: str
    found: Found | None = None

    @property
    def account(self) -> Account | None:
        """Who it is; None: nobody that we know."""
        return self.found.account if self.found else None

    @property
    def csrf(self) -> str:
        """What forms on the page must bring back; empty without a browser's session."""
        return self.found.csrf if self.found and self.found.kind == "browser" else ""

    @property
    def by(self) -> Participant:
        """Who it is, for the audit trail."""
        return visitor(self.account.name if self.account else "", self.address)


class Gate:
    """Lets requests pass, or answers them itself.

    An application behind it finds in `request.state`: `account` (None where none is needed),
    `csrf`, which every form of a page must hold as the field `csrf` and every script must send as
    X-CSRF-Token, and `by`, whom the audit trail is told of.

    Args:
        ledger: of accounts and sessions.
        settings: of the listener.
        audit: that is told.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: ListenerSettings,
        audit: Audit = NO_AUDIT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._audit = audit
        self._hosts = settings.console_hosts
        self._proxies = Proxies(settings.console_proxies)
        open_metrics = (METRICS,) if settings.console_open_metrics else ()
        self._without_session = (*WITHOUT_SESSION, *open_metrics)
        self._cookies = Cookies()
        self._sessions = Sessions.of(ledger, settings, clock)
        self._pages = Pages(provider_host(settings), settings.site)
        accounts = Accounts(ledger)
        guesses = Guesses(accounts, clock)
        self._sign_in = SignIn(
            accounts, self._sessions, guesses, settings, audit, self._pages, clock
        )
        self._own = OwnPassword(accounts, self._sessions, guesses, audit, self._pages)
        self._pace = Pace(BURST, PER_SECOND, clock)

    @property
    def routes(self) -> list[BaseRoute]:
        """The way in and out, for the application."""
        return [*self._sign_in.routes, *self._own.routes]

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Put the gate before an application."""

        async def gated(scope: Scope, receive: Receive, send: Send) -> None:
            await self._pass(app, scope, receive, send)

        return gated

    async def _pass(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        scope = self._proxies.seen_through(scope)
        answer = Answer(send, scope["path"], is_encrypted(scope))
        try:
            await self._serve(app, scope, receive, answer)
        except ClientDisconnect:
            log.info("a connection to the console broke within a request")
        except Exception as error:  # noqa: BLE001 - its text may name a patient: it goes nowhere
            log.error("the console gave a request up: %s", where(error))
            if not answer.is_begun:
                told = PlainTextResponse("the listener's log says why", 500)
                await told(scope, receive, answer)

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        visit = Visit(address_of(request))
        try:
            self._require_usual(request, visit)
            visit = await self._visit(request, visit)
            if visit.account is None and self._needs_account(scope["path"]):
                raise Refused(SEE_OTHER, "Sign in.", {"Location": _sign_in_of(request)})
            self._require_may_look(scope["path"], visit)
            if request.method not in READS:
                self._require_may_change(request, visit)
                body = await _body(request)
                await self._require_own_form(request, visit, body)
                receive = _again(body, receive)
        except Refused as refused:
            await self._pages.refusal(refused, scope["path"])(scope, receive, send)
            return
        passed = {"account": visit.account, "csrf": visit.csrf, "by": visit.by}
        state = {**scope.get("state", {}), **passed}
        await app({**scope, "state": state}, receive, send)

    def _require_usual(self, request: Request, visit: Visit) -> None:
        """Refuse who asks too often, and who calls us by a name that is not ours."""
        path = request.scope["path"]
        wait = 0.0 if is_at(path, PROBES) else self._pace.wait(subscriber(visit.address))
        if wait:
            raise too_many(wait, "Too many requests came from your address")
        is_named = bool(self._hosts) and not is_at(path, BY_ADDRESS)
        if is_named and not is_called_by(self._hosts, request.headers):
            self._audit.refused(visit.by, "a request for a host that MONRO_CONSOLE_HOSTS lacks")
            raise Refused(421, "This console is not called by that name.")

    async def _visit(self, request: Request, visit: Visit) -> Visit:
        """Find out who it is.

        Raises:
            Refused: it shows a token that is none, or none where a page would be no answer.
        """
        path = request.scope["path"]
        if is_at(path, self._without_session):
            return visit
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        is_program = scheme.lower() == BEARER
        try:
            if is_program:
                found = await run_sync(self._sessions.find, token.strip(), "program")
            else:
                shown = self._cookies.session_of(request)
                by_itself = is_at(path, BY_ITSELF)
                find = partial(self._sessions.find, by_itself=by_itself)
                found = await run_sync(find, shown, "browser")
        except SQLAlchemyError as error:
            log.error("nobody can be let into the console: %s", where(error))
            raise Refused(503, "The ledger does not answer at present.", COME_AGAIN) from None
        if found is None and is_program:
            self._audit.refused(visit.by, "a token that is unknown, revoked or too old")
            raise Refused(401, "this token is unknown, revoked or too old", BAD_TOKEN)
        if found is None and is_at(path, FOR_PROGRAMS):
            raise Refused(401, "show a bearer token, or sign in", CHALLENGE)
        return Visit(visit.address, found)

    def _needs_account(self, path: str) -> bool:
        return not is_at(path, (*self._without_session, *WITHOUT_ACCOUNT))

    def _require_may_look(self, path: str, visit: Visit) -> None:
        """Refuse a monitor everything that is not its own."""
        if visit.account is None or visit.account.may_act_as("viewer"):
            return
        if not is_at(path, FOR_MONITORS):
            self._audit.refused(visit.by, "a monitor reads /metrics and nothing else")
            raise Refused(403, "Your account may read /metrics, and nothing else.")

    def _require_may_change(self, request: Request, visit: Visit) -> None:
        """Refuse what another site makes a browser do, and what a role may not.

        Raises:
            Refused: before anything of the body was read.
        """
        path = request.scope["path"]
        is_program = visit.found is not None and visit.found.kind == "program"
        if not is_program and not is_of_ours(request.headers, is_encrypted(request.scope)):
            self._audit.refused(visit.by, f"{request.method} from a page of another site")
            raise Refused(403, "This was not sent from a page of this console.")
        if visit.account is None or is_at(path, (*WITHOUT_ROLE, *ONLY_ASKING)):
            return
        if not visit.account.may_act_as("operator"):
            self._audit.refused(visit.by, f"{request.method} needs the role operator")
            raise Refused(403, "Your account may look, and change nothing: ask an operator.")

    async def _require_own_form(self, request: Request, visit: Visit, body: bytes) -> None:
        """Refuse a form that no page of this session holds; who signs in has none yet."""
        if not visit.csrf or is_at(request.scope["path"], WITHOUT_ACCOUNT):
            return
        shown = request.headers.get("x-csrf-token")
        if shown is None:
            shown = await _field(request, body)
        if visit.found is None or not visit.found.is_own(shown):
            self._audit.refused(visit.by, f"{request.method} without the token of its page")
            raise Refused(403, "This page is out of date: load it again, and repeat what you did.")


async def _body(request: Request) -> bytes:
    """The whole body; raises Refused where it is too large or too slow."""
    signs_in = is_at(request.scope["path"], WITHOUT_ROLE)
    largest = LARGEST_FORM_BYTES if signs_in else LARGEST_BODY_BYTES
    body, length = bytearray(), 0
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for piece in request.stream():
                length += len(piece)
                if length <= largest:
                    body += piece
                elif length > LET_PASS * largest:
                    break
    except TimeoutError:
        raise Refused(408, "The request came too slowly.", CLOSING) from None
    if length > largest:
        raise Refused(413, f"At most {largest:,} bytes are taken.", CLOSING)
    return bytes(body)


async def _field(request: Request, body: bytes) -> str:
    """The field `csrf` of a form; empty where there is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        return dict(parse_qsl(body.decode("latin-1"))).get("csrf", "")
    if kind != MULTIPART:
        return ""
    try:
        copy = Request(request.scope, _again(body, request.receive))
        async with copy.form(max_part_size=LARGEST_BODY_BYTES) as form:
            return str(form.get("csrf", ""))
    except MultiPartException as error:
        raise Refused(400, f"This form cannot be read: {error.message}") from None


def _again(body: bytes, receive: Receive) -> Receive:
    """What an application receives of a body that was read already."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _sign_in_of(request: Request) -> str:
    """Where to sign in, to come back to this page; forms are not sent a second time."""
    if request.method not in READS:
        return "/sign-in"
    path = quote(request.scope["path"])
    query = request.scope["query_string"].decode("latin-1")
    wanted = f"{path}?{query}" if query else path
    return "/sign-in" if wanted == "/" else f"/sign-in?next={quote(wanted, safe='')}"
