"""Promotion and roll-back on pages: asked for on one, and done from another, with a reason."""

from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response
from fastapi.exceptions import HTTPException
from starlette.responses import RedirectResponse

from listener.console.bundle_list import Bundle, read_bundles
from listener.console.desk import Desk, require_operator
from listener.console.rollouts import (
    MOST_REASON,
    Analysis,
    Role,
    Version,
    Weights,
    bundle_of,
    decide,
    take_back,
)
from listener.console.show import SEE_OTHER, Show
from listener.rollout import NobodyHolds, can_roll_back

SAY_WHY: Final = "Say why: the audit trail keeps it."

Reason = Annotated[str, Form(max_length=MOST_REASON)]

THIS: Final = "/bundles/{analysis}/{weights}/{version}/role"
LAST: Final = "/bundles/{analysis}/roll-back"


def add_pages(pages: APIRouter, desk: Desk, show: Show) -> None:
    """Who gives a bundle a role is asked first whether they mean it."""
    add_promotion(pages, desk, show)
    add_roll_back(pages, desk, show)


def add_promotion(pages: APIRouter, desk: Desk, show: Show) -> None:
    """Another bundle becomes the active one, a shadow, or nothing."""

    @pages.get(THIS)
    def ask(analysis: Analysis, weights: Weights, version: Version, request: Request) -> Response:
        wanted = bundle_of(desk, analysis, (weights, version))
        if wanted.role == "active":
            raise HTTPException(409, f"{analysis} {version} is active already")
        return _asked(desk, show, request, wanted)

    @pages.post(THIS)
    def give_role(
        analysis: Analysis,
        weights: Weights,
        version: Version,
        request: Request,
        role: Annotated[Role, Form()],
        reason: Reason = "",
        without_a_worker: Annotated[bool, Form()] = False,
    ) -> Response:
        edition, also = (weights, version), without_a_worker
        if role == "active" and not reason.strip():
            wanted = bundle_of(desk, analysis, edition)
            return _asked(desk, show, request, wanted, problem=SAY_WHY)
        try:
            decide(desk, request, analysis, edition, role, reason=reason, without_a_worker=also)
        except NobodyHolds:
            wanted = bundle_of(desk, analysis, edition)
            return _asked(desk, show, request, wanted, reason=reason)
        return RedirectResponse("/bundles", SEE_OTHER)


def add_roll_back(pages: APIRouter, desk: Desk, show: Show) -> None:
    """The last promotion is taken back."""

    def asked(request: Request, analysis: str, problem: str = "") -> Response:
        last = can_roll_back(desk.ledger).get(analysis)
        if last is None or last.before is None:
            raise HTTPException(409, f"{analysis}: there is no promotion that could be taken back")
        wanted = bundle_of(desk, analysis, last.before)
        return _asked(desk, show, request, wanted, undone=last.number, problem=problem)

    @pages.get(LAST)
    def ask(analysis: Analysis, request: Request) -> Response:
        return asked(request, analysis)

    @pages.post(LAST)
    def back(
        analysis: Analysis,
        request: Request,
        number: Annotated[int, Form()],
        reason: Reason = "",
    ) -> Response:
        if not reason.strip():
            return asked(request, analysis, SAY_WHY)
        take_back(desk, request, analysis, number, reason)
        return RedirectResponse("/bundles", SEE_OTHER)


def _asked(
    desk: Desk,
    show: Show,
    request: Request,
    wanted: Bundle,
    *,
    undone: int | None = None,
    problem: str = "",
    reason: str = "",
) -> Response:
    """A page that says what would be, with a form that makes it so.

    Args:
        desk: of the console.
        show: makes pages of templates.
        request: of whoever would decide.
        wanted: the bundle that would be the active one.
        undone: number of the promotion that would be taken back; None: this is one.
        problem: what was wrong with the last answer.
        reason: that was given with it.
    """
    require_operator(request)
    of_analysis = (each for each in read_bundles(desk.ledger) if each.analysis == wanted.analysis)
    return show(
        request,
        "promote.html",
        status=422 if problem else 200,
        wanted=wanted,
        active=next((each for each in of_analysis if each.role == "active"), None),
        undone=undone,
        problem=problem,
        reason=reason,
        most=MOST_REASON,
    )
