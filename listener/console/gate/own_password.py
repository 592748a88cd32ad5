"""People give themselves another password."""

from functools import partial
from typing import Final

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from listener.audit import codes
from listener.audit.trail import Audit
from listener.console.gate.accounts import Accounts, BadAccount
from listener.console.gate.cookies import Cookies
from listener.console.gate.guesses import Guesses
from listener.console.gate.pages import Pages, Refused
from listener.console.gate.passwords import WeakPassword
from listener.console.gate.sessions import Sessions
from listener.dicomweb.service import address_of

WRONG: Final = "The present password is wrong."
UNEQUAL: Final = "The new password was typed in two ways."
THE_SAME: Final = "The new password is the present one."
VOUCHED: Final = "MONRO_OIDC vouches for your account: change the password there."
OTHERS_ARE_OUT: Final = "Other browsers that you were signed in with are signed out."
FOR_BROWSERS: Final = "Sign in with a browser: a token gives itself no password."


class OwnPassword:
    """Changes the password of who is signed in, who must show the present one.

    Args:
        accounts: who may come in.
        sessions: who is in.
        guesses: looks at passwords, and slows who guesses.
        audit: that is told.
        pages: to show.
    """

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        guesses: Guesses,
        audit: Audit,
        pages: Pages,
    ) -> None:
        self._accounts, self._sessions, self._guesses = accounts, sessions, guesses
        self._audit, self._pages, self._cookies = audit, pages, Cookies()

    @property
    def routes(self) -> list[BaseRoute]:
        """Of the application."""
        return [
            Route("/password", self.show, methods=["GET"]),
            Route("/password", self.change, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Show the form."""
        if not await run_sync(self._accounts.has_password, request.state.account.name):
            return self._pages.refusal(Refused(403, VOUCHED), "/password")
        return self._form(request)

    async def change(self, request: Request) -> Response:
        """Take the present password, and a new one twice."""
        if not request.state.csrf:
            return self._pages.refusal(Refused(403, FOR_BROWSERS), "/password")
        async with request.form(max_files=0, max_fields=10) as form:
            present, new, again = (str(form.get(each, "")) for each in ("present", "new", "again"))
        name = request.state.account.name
        try:
            await self._require_present(request, present)
            if new != again or new == present:
                raise Refused(422, UNEQUAL if new != again else THE_SAME)
            await run_sync(partial(self._accounts.change_password, name, new))
        except Refused as refused:
            return self._form(request, refused.message, refused.status)
        except (WeakPassword, BadAccount) as error:
            return self._form(request, f"Not changed: {error}.", 422)
        self._tell(request, "done, and other browsers signed out")
        answer = self._pages.done("Your password was changed", OTHERS_ARE_OUT)
        token = await run_sync(self._sessions.open, name)
        self._cookies.give_session(request, answer, token)
        return answer

    async def _require_present(self, request: Request, present: str) -> None:
        """Raise Refused unless this is the password of who is signed in."""
        name, address = request.state.account.name, address_of(request)
        try:
            found = await self._guesses.verified(name, present, address)
        except Refused:
            self._tell(request, "too many attempts", failed=True)
            raise
        if found is None:
            self._tell(request, "the present one is wrong", failed=True)
            raise Refused(403, WRONG)

    def _form(self, request: Request, problem: str = "", status: int = 200) -> Response:
        return self._pages.password(request.state.account, request.state.csrf, problem, status)

    def _tell(self, request: Request, how: str, *, failed: bool = False) -> None:
        self._audit.acted(
            f"own password changed at the console: {how}",
            failed=failed,
            kind=codes.USER_SECURITY,
            by=request.state.by,
        )
