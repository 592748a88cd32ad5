"""A gate before a small application, on a real server on loopback, and browsers that come to it."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import urllib3
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from listener.audit.trail import Audit, open_audit
from listener.console.gate.accounts import Accounts
from listener.console.gate.gate import Gate
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from tests.listener.audit.reading import Message, messages

PASSWORD = "four quiet green horses"
SECRET_TEXT = "PLANTED^NAME"


class Clock:
    """Tells the time, and can be put forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@contextmanager
def served(app: Any, **options: Any) -> Iterator[int]:
    """An application on a loopback port."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        options = {"proxy_headers": False} | options  # as web_port.py has it
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", **options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([port],), daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield port.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


async def page(request: Request) -> Response:
    """Whatever the gate lets through: who it is, and what was sent."""
    account = request.state.account
    form = {}
    if request.method == "POST":
        raw = await request.body()
        async with request.form(max_part_size=1 << 23) as fields:
            form = {name: getattr(value, "filename", value) for name, value in fields.items()}
        form["bytes"] = len(raw)
    return JSONResponse(
        {
            "name": account and account.name,
            "role": account and account.role,
            "csrf": request.state.csrf,
            "by": request.state.by.user_id,
            "from": request.state.by.address,
            "form": form,
        }
    )


async def broken(_request: Request) -> Response:
    raise RuntimeError(SECRET_TEXT)


async def static(_request: Request) -> Response:
    return PlainTextResponse("body {}", headers={"Cache-Control": "max-age=60"})


PAGES = (
    "/", "/studies/{uid}", "/api/studies", "/metrics", "/healthz", "/readyz", "/search", "/rules",
    "/fragment/worklist",
)  # fmt: skip


def application(gate: Gate) -> Any:
    routes = [
        *gate.routes,
        *(Route(path, page, methods=["GET", "POST"]) for path in PAGES),
        Route("/broken", broken),
        Route("/static/console.css", static),
    ]
    return gate.wrap(Starlette(routes=routes))


class Answer:
    """What a browser or program was answered."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.status, self.headers = response.status, response.headers
        self.text = response.data.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def cookies(self) -> dict[str, Morsel[str]]:
        found: dict[str, Morsel[str]] = {}
        for line in self.headers.getlist("set-cookie"):
            found |= dict(SimpleCookie(line))
        return found

    @property
    def problem(self) -> str:
        """What is read out."""
        (told,) = re.findall(r'role="alert"[^>]*>([^<]*)<', self.text)
        return str(told)


class Browser:
    """Keeps cookies, and says where its requests come from, as browsers do."""

    def __init__(self, port: int, scheme: str = "http", **pool: Any) -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.cookies: dict[str, str] = {}
        self._pool = urllib3.PoolManager(retries=False, timeout=30, **pool)

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, None, headers)

    def post(
        self, path: str, fields: Mapping[str, str] | None = None, body: Any = None, **headers: str
    ) -> Answer:
        if body is None:
            body = urlencode(fields or {})
            headers = {"Content-Type": "application/x-www-form-urlencoded"} | headers
        own = {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}
        return self.send("POST", path, body, own | headers)

    def send(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Answer:
        url = path if path.startswith("http") else self.url + path
        sent = {name.replace("_", "-"): value for name, value in headers.items() if value}
        if self.cookies and url.startswith(self.url):
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = self._pool.request(method, url, body=body, headers=sent, redirect=False)
        answer = Answer(response)
        for name, cookie in answer.cookies.items():
            if not url.startswith(self.url):
                continue
            self.cookies.pop(name, None)
            if cookie["max-age"] != "0":
                self.cookies[name] = cookie.value
        return answer

    def sign_in(self, name: str = "anna", password: str = PASSWORD, wanted: str = "") -> Answer:
        return self.post("/sign-in", {"name": name, "password": password, "next": wanted})

    @property
    def csrf(self) -> str:
        """The token of a page."""
        return str(self.get("/").json["csrf"])

    def close(self) -> None:
        self._pool.clear()


class Console:
    """A running gate."""

    def __init__(self, ledger: Ledger, settings: ListenerSettings, clock: Clock) -> None:
        self.ledger, self.settings, self.clock = ledger, settings, clock
        self.accounts = Accounts(ledger)
        self.port = 0
        self._browsers: list[Browser] = []

    def browser(self, signed_in: str = "", **pool: Any) -> Browser:
        scheme = "http" if self.settings.tls is None else "https"
        browser = Browser(self.port, scheme, **pool)
        self._browsers.append(browser)
        if signed_in:
            assert browser.sign_in(signed_in).status == 303
        return browser

    def trail(self, event: str | None = None, count: int = 0) -> list[Message]:
        """Messages of the audit trail, once there are so many."""
        deadline = time.monotonic() + 10
        while True:
            found = messages(self.settings.spool / "audit/audit.log", event)
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} messages, not {count}"
            time.sleep(0.02)

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()


Opening = Callable[..., AbstractContextManager[Console]]


@pytest.fixture
def opening(
    ledger: Ledger, settings_for: Callable[..., ListenerSettings], cheap_hashes: None
) -> Opening:
    """A console with other settings than usual; anna is an operator, and victor a viewer."""

    @contextmanager
    def opening(server: Mapping[str, Any] | None = None, **changes: Any) -> Iterator[Console]:
        settings, clock = settings_for(**({"console_port": 1} | changes)), Clock()
        console = Console(ledger, settings, clock)
        console.accounts.add("anna", "operator", PASSWORD)
        console.accounts.add("victor", "viewer", PASSWORD)
        audit: Audit = open_audit(settings)
        with audit:
            gate = Gate(ledger, settings, audit, clock)
            with served(application(gate), **(server or {})) as console.port:
                yield console
                console.close()

    return opening


@pytest.fixture
def console(opening: Opening) -> Iterator[Console]:
    with opening() as running:
        yield running


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    return path


def path_of(answer: Answer) -> str:
    return urlsplit(answer.headers["location"])._replace(scheme="", netloc="").geturl()
