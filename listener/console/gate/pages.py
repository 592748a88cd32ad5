"""The pages that need no account, and what somebody is told who may not do what they want."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader
from starlette.responses import HTMLResponse, JSONResponse, Response

from listener.console.gate.accounts import Account
from listener.console.gate.origin import HOME

TEMPLATES: Final = Path(__file__).parents[1] / "templates"

FOR_PROGRAMS: Final = ("/api/", "/metrics")
"""Where answers are JSON; elsewhere they are pages."""


class Refused(Exception):
    """A request goes no further.

    Attributes:
        status: of HTTP.
        message: for whom it is from: what is the matter, and what to do.
        headers: of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.status, self.message, self.headers = status, message, dict(headers or {})


class Pages:
    """Renders the pages; whatever a visitor typed is escaped.

    Args:
        provider: host of who vouches for people; empty: nobody but us.
        site: that this is.
    """

    def __init__(self, provider: str, site: str) -> None:
        self._provider, self._site = provider, site
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, auto_reload=False
        )

    def sign_in(
        self,
        wanted: str,
        problem: str = "",
        name: str = "",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """The form.

        Args:
            wanted: the path to go on to.
            problem: with what was sent before.
            name: that was typed before.
            status: of HTTP.
            headers: of the answer.
        """
        page = self._templates.get_template("sign_in.html")
        content = page.render(next=wanted, problem=problem, name=name, provider=self._provider)
        return HTMLResponse(content, status, headers)

    def password(
        self, account: Account, csrf: str, problem: str = "", status: int = 200
    ) -> Response:
        """The form for another password of one's own."""
        content = self._templates.get_template("password.html").render(
            site=self._site, path="/password", account=account, csrf=csrf, problem=problem
        )
        return HTMLResponse(content, status)

    def done(self, title: str, message: str) -> Response:
        """Something came about."""
        page = self._templates.get_template("told.html")
        content = page.render(
            title=title, message=message, link=HOME, link_text="To the first page"
        )
        return HTMLResponse(content)

    def refusal(self, refused: Refused, path: str) -> Response:
        """What somebody is told, in the form that fits the path."""
        if is_at(path, FOR_PROGRAMS):
            return JSONResponse({"error": refused.message}, refused.status, refused.headers)
        content = self._templates.get_template("told.html").render(
            title=HTTPStatus(refused.status).phrase,
            message=refused.message,
            link=HOME,
            link_text="To the first page",
        )
        return HTMLResponse(content, refused.status, refused.headers)

    def moving_on(self, wanted: str) -> Response:
        """A page that leads to another one at once, as a visit of ours and not of another site."""
        content = self._templates.get_template("told.html").render(
            title="Signed in",
            message="You are signed in.",
            link=wanted,
            link_text="Go on to the page",
            at_once=True,
        )
        return HTMLResponse(content)


def is_at(path: str, places: tuple[str, ...]) -> bool:
    """Whether a path is one of these, or below those that end with a slash.

    >>> [is_at(path, ("/api/", "/metrics")) for path in ("/api/x", "/metrics", "/metrics/x")]
    [True, True, False]
    >>> is_at("/api/../studies", ("/api/",))
    False
    """
    if ".." in path.split("/"):
        return False
    return any(path == each or (each.endswith("/") and path.startswith(each)) for each in places)


def too_many(seconds: float, what: str) -> Refused:
    """Somebody must wait."""
    wait = max(1, math.ceil(seconds))
    return Refused(429, f"{what}: try again in {wait} s", {"Retry-After": str(wait)})
