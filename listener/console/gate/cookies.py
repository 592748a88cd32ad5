"""What browsers keep for us: the token of their session, and an errand to another who vouches.

The session's cookie is SameSite=Strict, also with a provider: a page of ours, and not a redirect,
leads on from there. The errand's is Lax, for the provider is another site and sends the browser
back to us with it; it is worth nothing without the provider's answer.
"""

from typing import Final, Literal
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import Response

from listener.console.gate.oidc import Errand
from listener.console.gate.origin import local_path

ERRAND_SECONDS: Final = 600
"""That a sign-in at the provider may take."""


class Cookies:
    """Gives, reads and drops cookies.

    Args:
        is_encrypted: whether TLS is spoken: then no other host and no unencrypted page can set
            them (__Host-).
    """

    def __init__(self, is_encrypted: bool) -> None:
        self._is_encrypted = is_encrypted
        self._session = "__Host-monro" if is_encrypted else "monro"
        self._errand = f"{self._session}-errand"

    def session_of(self, request: Request) -> str:
        """The token that a browser showed; empty: none."""
        return request.cookies.get(self._session, "")

    def give_session(self, answer: Response, token: str) -> None:
        """Let a browser keep a token until it is closed."""
        self._give(answer, self._session, token, "strict")

    def drop_session(self, answer: Response) -> None:
        """Let it forget the token."""
        self._give(answer, self._session, "", "strict", 0)

    def errand_of(self, request: Request) -> Errand | None:
        """The errand that a browser is on."""
        secret, _, wanted = request.cookies.get(self._errand, "").partition(".")
        return Errand(secret, local_path(unquote(wanted))) if secret else None

    def give_errand(self, answer: Response, errand: Errand) -> None:
        """Send a browser on an errand."""
        value = f"{errand.secret}.{quote(errand.wanted, safe='')}"
        self._give(answer, self._errand, value, "lax", ERRAND_SECONDS)

    def drop_errand(self, answer: Response) -> None:
        """The errand is over, however it went."""
        self._give(answer, self._errand, "", "lax", 0)

    def _give(
        self,
        answer: Response,
        name: str,
        value: str,
        same_site: Literal["lax", "strict"],
        seconds: int | None = None,
    ) -> None:
        answer.set_cookie(
            name,
            value,
            max_age=seconds,
            secure=self._is_encrypted,
            httponly=True,
            samesite=same_site,
        )
