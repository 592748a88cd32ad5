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
from listener.console.gate.origin import is_encrypted, local_path

ERRAND_SECONDS: Final = 600
"""That a sign-in at the provider may take."""


class Cookies:
    """Gives, reads and drops cookies.

    Where the visitor speaks HTTPS, no other host and no unencrypted page can set them (__Host-).
    """

    def session_of(self, request: Request) -> str:
        """The token that a browser showed; empty: none."""
        return request.cookies.get(_session(request), "")

    def give_session(self, request: Request, answer: Response, token: str) -> None:
        """Let a browser keep a token until it is closed."""
        _give(request, answer, _session(request), token, "strict")

    def drop_session(self, request: Request, answer: Response) -> None:
        """Let it forget the token."""
        _give(request, answer, _session(request), "", "strict", 0)

    def errand_of(self, request: Request) -> Errand | None:
        """The errand that a browser is on."""
        secret, _, wanted = request.cookies.get(_errand(request), "").partition(".")
        return Errand(secret, local_path(unquote(wanted))) if secret else None

    def give_errand(self, request: Request, answer: Response, errand: Errand) -> None:
        """Send a browser on an errand."""
        value = f"{errand.secret}.{quote(errand.wanted, safe='')}"
        _give(request, answer, _errand(request), value, "lax", ERRAND_SECONDS)

    def drop_errand(self, request: Request, answer: Response) -> None:
        """The errand is over, however it went."""
        _give(request, answer, _errand(request), "", "lax", 0)


def _session(request: Request) -> str:
    return "__Host-monro" if is_encrypted(request.scope) else "monro"


def _errand(request: Request) -> str:
    return f"{_session(request)}-errand"


def _give(
    request: Request,
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
        secure=is_encrypted(request.scope),
        httponly=True,
        samesite=same_site,
    )
