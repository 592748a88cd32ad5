"""What every route of the API promises beside its answer: who is let in, and how it says no."""

from typing import Any, Final

from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel

SCHEMES: Final[tuple[HTTPBearer | APIKeyCookie, ...]] = (
    HTTPBearer(scheme_name="token", description="The token of an account.", auto_error=False),
    *(
        APIKeyCookie(name=name, scheme_name=name, description=told, auto_error=False)
        for name, told in (
            ("monro", "A browser's session, over HTTP. All but GET need X-CSRF-Token as well."),
            ("__Host-monro", "The same, over HTTPS."),
        )
    ),
)
"""What the gate looks at, for programs to read: the gate has seen to it before we are asked."""


class Problem(BaseModel):
    """Why there is no other answer, in words."""

    error: str


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Problem, "description": told}
    for status, told in (
        (401, "Nobody has signed in, or the token is none"),
        (403, "The account may not, or the X-CSRF-Token of a page is missing"),
        (404, "There is nothing of that name"),
        (421, "The console is not called by that name"),
        (422, "What is asked for is not as expected"),
        (429, "Too many requests; Retry-After says when to come again"),
        (500, "Something went wrong"),
        (503, "The ledger does not answer at present"),
    )
}
"""What any route may answer."""

BODY_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Problem, "description": told}
    for status, told in (
        (400, "The body cannot be read"),
        (408, "The body came too slowly"),
        (413, "The body is too large"),
    )
}
"""What routes may answer beside it that change something or take a body."""

CONFLICT: Final[dict[int | str, dict[str, Any]]] = {
    409: {"model": Problem, "description": "It cannot be so as things are"}
}
