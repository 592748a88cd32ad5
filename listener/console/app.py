"""The console as an ASGI application: pages, JSON API and static files behind the gate."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from listener.audit.trail import Audit
from listener.console import api, pages
from listener.console.choice import HeaderReader
from listener.console.contract import PROBLEMS, Problem
from listener.console.desk import Desk
from listener.console.gate.gate import Gate
from listener.console.patients import Patients
from listener.console.show import HERE, Show
from listener.console.wellbeing import Look
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from listener.spool import Spool

log = logging.getLogger(__name__)

DESCRIPTION: Final = (
    "What the console shows, as JSON. Research use only: investigational, not for primary "
    "diagnosis. Times are seconds since the epoch, UTC. Programs show a token of an account as "
    "`Authorization: Bearer ...`; a browser that has signed in may use the API as well, and sends "
    "the CSRF token of its pages as X-CSRF-Token with everything but GET."
)

API_TAGS: Final = (
    {"name": "studies", "description": "The worklist, and one study."},
    {"name": "jobs", "description": "What a job made: reports and overlays."},
    {"name": "house", "description": "Queue, workers, bundles, settings, rules."},
)


def create_app(
    settings: ListenerSettings,
    ledger: Ledger,
    spool: Spool,
    audit: Audit,
    gate: Gate,
    patients: Patients,
    extra_routes: Sequence[BaseRoute] = (),
    look: Look = tuple,
) -> ASGIApp:
    """The console.

    Args:
        settings: of the listener.
        ledger: that is shown.
        spool: whose files are shown.
        audit: is told who looked at what, and who did what.
        gate: lets people in.
        patients: by name.
        extra_routes: of others, such as /metrics and /healthz.
        look: tries whether the listener is well.
    """
    desk = Desk(settings, ledger, spool, audit, patients, HeaderReader(ledger), look)
    show = Show(desk)
    app = FastAPI(
        title="monro console",
        responses=PROBLEMS,
        description=DESCRIPTION,
        openapi_url="/api/openapi.json",
        openapi_tags=list(API_TAGS),
        # Their pages load scripts from others.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        exception_handlers={
            HTTPException: _refuse(show),
            RequestValidationError: _refuse_values(show),
            SQLAlchemyError: _apologise(show),
            Exception: _give_up(show),
        },
    )
    app.include_router(api.router(desk))
    app.include_router(pages.router(desk, show))
    app.router.routes.extend([*gate.routes, *extra_routes])
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    return gate.wrap(app)


def _refuse(show: Show) -> Any:
    def handler(request: Request, error: HTTPException) -> Response:
        return _told(show, request, error.status_code, str(error.detail))

    return handler


def _refuse_values(show: Show) -> Any:
    def handler(request: Request, error: RequestValidationError) -> Response:
        # Names of what is wrong, and never what was given: it may name a patient.
        names = {".".join(map(str, each["loc"][1:])) or "body" for each in error.errors()}
        return _told(show, request, 422, f"not as expected: {', '.join(sorted(names))}")

    return handler


def _apologise(show: Show) -> Any:
    def handler(request: Request, error: SQLAlchemyError) -> Response:
        log.error("the console cannot read the ledger: %s", type(error).__name__)
        return _told(show, request, 503, "The ledger does not answer at present; try again.")

    return handler


def _give_up(show: Show) -> Any:
    def handler(request: Request, _error: Exception) -> Response:
        # The gate logs where it was; what the error says may name a patient.
        return _told(show, request, 500, "Something went wrong; the listener's log says where.")

    return handler


def _told(show: Show, request: Request, status: int, message: str) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse(Problem(error=message).model_dump(), status)
    title = HTTPStatus(status).phrase
    if request.state.account is None:  # asked for something of /static
        return PlainTextResponse(title, status)
    return show(request, "problem.html", status=status, title=title, message=message)
