"""Pages from templates."""

from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from listener.console.desk import Desk, account_of, is_operator
from listener.console.shown import FILTERS

HERE: Final = Path(__file__).parent

SEE_OTHER: Final = 303
"""What forms are answered with, so that loading the page again sends nothing again."""


class Show:
    """Renders templates with what all of them need.

    Args:
        desk: what pages are made from.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=select_autoescape(),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(FILTERS)
        self._templates.globals["site"] = desk.settings.site

    def __call__(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """Answer with a page."""
        text = self._templates.get_template(template).render(
            request=request,
            path=request.url.path,
            account=account_of(request),
            is_operator=is_operator(request),
            csrf=request.state.csrf,
            **values,
        )
        return HTMLResponse(text, status)
