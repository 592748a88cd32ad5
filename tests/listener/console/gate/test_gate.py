"""The gate: nobody passes who may not, and every answer says what browsers must know."""

import socket
import sqlite3
from pathlib import Path

import pytest
from pytest import LogCaptureFixture, MonkeyPatch

from listener.console.gate.headers import ALWAYS
from listener.console.gate.sessions import Sessions
from tests.listener.console.gate.conftest import (
    PASSWORD,
    SECRET_TEXT,
    Console,
    Opening,
    path_of,
)

ALERT = "110113"


def token_of(console: Console, name: str) -> str:
    return Sessions.of(console.ledger, console.settings, console.clock).issue(name, 90)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 303),
        ("/studies/1.2.3", 303),
        ("/nowhere", 303),
        ("/static", 303),
        ("/static/../studies/1", 303),
        ("/sign-inner", 303),
        ("/api/studies", 401),
        ("/api/nowhere", 401),
        ("/metrics", 401),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/static/console.css", 200),
        ("/sign-in", 200),
    ],
)
def test_without_an_account_few_places_are_open(console: Console, path: str, status: int) -> None:
    # urllib3 would take the dots out of a path.
    with socket.create_connection(("127.0.0.1", console.port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = connection.makefile("rb").read().decode()
    assert answer.split()[1] == str(status)
    assert ("www-authenticate: bearer" in answer.lower()) == (status == 401)
    assert ("location: /sign-in" in answer) == (status == 303)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/", 403),
        ("/studies/1.2.3", 403),
        ("/api/studies", 403),
        ("/fragment/worklist", 403),
        ("/metrics/", 403),
        ("/nowhere", 403),
    ],
)
def test_a_monitor_reads_metrics_and_nothing_else(console: Console, path: str, status: int) -> None:
    console.accounts.add("prometheus", "monitor", PASSWORD)
    token = token_of(console, "prometheus")
    assert console.browser().get(path, **bearer(token)).status == status
    assert console.browser("prometheus").get(path).status == status


def test_a_page_learns_whether_its_session_goes_on_and_prolongs_it_by_nothing(
    console: Console,
) -> None:
    browser = console.browser("victor")
    idle = 60 * console.settings.console_idle_minutes
    console.clock.ahead = idle - 60
    assert browser.get("/fragment/session").status == 204
    console.clock.ahead = idle + 60
    assert browser.get("/fragment/session").status == 303


def test_a_monitor_sends_nothing(console: Console) -> None:
    console.accounts.add("prometheus", "monitor", PASSWORD)
    token = token_of(console, "prometheus")
    for path in ("/search", "/api/search", "/metrics", "/studies/1.2.3"):
        assert console.browser().post(path, **bearer(token)).status == 403


def test_metrics_are_open_where_a_site_says_so(opening: Opening) -> None:
    with opening(console_open_metrics=True) as console:
        assert console.browser().get("/metrics").status == 200
        assert console.browser().get("/api/studies").status == 401


def test_who_signs_in_comes_to_the_page_they_wanted(console: Console) -> None:
    browser = console.browser()
    sent = browser.get("/studies/1.2.3?tab=a%20b")
    assert sent.headers["location"] == "/sign-in?next=%2Fstudies%2F1.2.3%3Ftab%3Da%2520b"
    form = browser.get(sent.headers["location"])
    assert 'value="/studies/1.2.3?tab=a%20b"' in form.text

    signed_in = browser.sign_in("Anna", wanted="/studies/1.2.3?tab=a%20b")
    assert (signed_in.status, path_of(signed_in)) == (303, "/studies/1.2.3?tab=a%20b")
    found = browser.get("/studies/1.2.3").json
    assert (found["name"], found["role"], found["by"]) == ("anna", "operator", "anna")
    assert browser.get("/sign-in?next=/studies/1").headers["location"] == "/studies/1"


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/%0d%0aSet-Cookie:x=y\r\nSet-Cookie: x=y",
        "javascript:alert(1)",
        "/sign-out",
        "",
    ],
)
def test_nobody_is_led_to_another_site(console: Console, wanted: str) -> None:
    browser = console.browser()
    answer = browser.sign_in(wanted=wanted)

    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert set(answer.cookies) == {"monro"}


def test_a_session_begins_with_a_token_that_nobody_knew_before(console: Console) -> None:
    browser = console.browser()
    browser.cookies["monro"] = "planted-by-another"
    browser.sign_in()
    first = browser.cookies["monro"]
    assert first != "planted-by-another"

    browser.sign_in("victor")
    assert browser.cookies["monro"] != first
    assert browser.get("/").json["name"] == "victor"
    browser.cookies["monro"] = first
    assert browser.get("/").status == 303, "the session that this browser had goes on"


def test_the_cookie_is_for_us_alone(console: Console) -> None:
    cookie = console.browser().sign_in().cookies["monro"]

    assert cookie["httponly"]
    assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("strict", "/", "")
    assert not cookie["secure"]
    assert not cookie["max-age"], "a browser that is closed forgets it"


def test_with_tls_no_other_host_can_set_the_cookie_and_browsers_stay_with_tls(
    opening: Opening, certificates: dict[str, Path]
) -> None:
    server = {
        "ssl_certfile": str(certificates["certificate"]),
        "ssl_keyfile": str(certificates["key"]),
    }
    with opening(server, tls=certificates) as console:
        browser = console.browser(ca_certs=str(certificates["authorities"]))
        cookie = browser.sign_in().cookies["__Host-monro"]
        assert cookie["secure"]
        assert (cookie["path"], cookie["domain"]) == ("/", "")
        home = browser.get("/")
        assert home.status == 200
        assert home.headers["strict-transport-security"] == "max-age=31536000"

        csrf = home.json["csrf"]
        unencrypted = {"Origin": browser.url.replace("https", "http"), "Sec-Fetch-Site": ""}
        assert browser.post("/", {"csrf": csrf}, **unencrypted).status == 403
        assert browser.post("/", {"csrf": csrf}).status == 200


def test_signing_out_ends_the_session_and_not_only_the_cookie(console: Console) -> None:
    browser = console.browser("victor")
    token, csrf = browser.cookies["monro"], browser.csrf
    assert browser.post("/sign-out", {"csrf": "wrong"}).status == 403
    assert browser.post("/sign-out", {"csrf": csrf}).headers["location"] == "/sign-in"
    assert browser.cookies == {}

    browser.cookies["monro"] = token
    assert browser.get("/").status == 303


def test_disabled_accounts_and_idle_browsers_are_out_at_the_next_request(console: Console) -> None:
    browser, other = console.browser("anna"), console.browser("victor")
    console.accounts.disable("anna")
    assert browser.get("/").status == 303
    assert browser.sign_in().status == 403
    assert other.get("/").status == 200

    console.clock.ahead = console.settings.console_idle_minutes * 60
    assert other.get("/").status == 303


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/fragment/worklist", 303)])
def test_what_pages_ask_for_by_themselves_keeps_nobody_signed_in(
    console: Console, path: str, status: int
) -> None:
    browser, idle_seconds = console.browser("anna"), console.settings.console_idle_minutes * 60
    console.clock.ahead = 0.6 * idle_seconds
    assert browser.get(path).status == 200

    console.clock.ahead = 1.2 * idle_seconds
    assert browser.get("/").status == status


@pytest.mark.parametrize("path", ["/search", "/rules"])
def test_viewers_send_forms_that_only_ask(console: Console, path: str) -> None:
    viewer = console.browser("victor")
    assert viewer.post(path, {"csrf": viewer.csrf, "text": "anybody"}).status == 200
    assert viewer.post(path, {"text": "anybody"}).status == 403


def test_viewers_look_and_operators_change(console: Console) -> None:
    viewer, operator = console.browser("victor"), console.browser("anna")
    assert viewer.get("/").status == 200
    refused = viewer.post("/", {"csrf": viewer.csrf})
    assert (refused.status, refused.problem[:26]) == (403, "Your account may look, and")
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "FOO"):
        own = {"Origin": viewer.url, "X-CSRF-Token": viewer.csrf}
        assert viewer.send(method, "/", b"", own).status == 403

    assert operator.post("/", {"csrf": operator.csrf}).status == 200
    (told,) = console.trail(ALERT, 1)
    assert (told.outcome, told.detail) == ("4", "POST needs the role operator")
    assert told.participants[0].get("UserID") == "victor"
    assert told.participants[0].get("NetworkAccessPointID") == "127.0.0.1"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "null", "Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "", "Sec-Fetch-Site": ""},
        {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": ""},
        {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": ""},
        {"Origin": "file://", "Sec-Fetch-Site": ""},
    ],
)
def test_what_another_site_makes_a_browser_send_is_refused(
    console: Console, headers: dict[str, str]
) -> None:
    browser = console.browser("anna")
    assert browser.post("/", {"csrf": browser.csrf}, **headers).status == 403
    fields = {"name": "anna", "password": PASSWORD}
    assert console.browser().post("/sign-in", fields, **headers).status == 403


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": ""}, {"Origin": ""}])
def test_a_browser_that_says_less_is_believed_what_it_says(
    console: Console, headers: dict[str, str]
) -> None:
    browser = console.browser("anna")
    assert browser.post("/", {"csrf": browser.csrf}, **headers).status == 200


def test_a_form_needs_the_token_of_its_own_session(console: Console) -> None:
    browser, other = console.browser("anna"), console.browser("anna")
    json_body = {"Content-Type": "application/json"}
    assert browser.post("/").status == 403
    assert browser.post("/", {"csrf": ""}).status == 403
    assert browser.post("/", {"csrf": other.csrf}).status == 403
    assert browser.post("/?csrf=" + browser.csrf).status == 403
    assert browser.post("/", body=b"{}", **json_body).status == 403
    refused = browser.post("/", {"csrf": browser.csrf}, X_CSRF_Token="wrong")
    assert (refused.status, refused.problem[:24]) == (403, "This page is out of date")

    assert browser.post("/", {"csrf": browser.csrf}).status == 200
    assert browser.post("/", body=b"{}", **json_body, X_CSRF_Token=browser.csrf).status == 200


def test_the_application_reads_the_form_that_the_gate_has_read(console: Console) -> None:
    browser = console.browser("anna")
    got = browser.post("/", {"what": "retry", "csrf": browser.csrf}).json["form"]
    assert got["what"] == "retry"

    edge, table = "edge", b"study,positive\n" + b"1.2.3,1\n" * 650_000
    assert len(table) > 5_000_000
    head = f'--{edge}\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{browser.csrf}\r\n'
    file = 'Content-Disposition: form-data; name="table"; filename="labels.csv"'
    body = f"{head}--{edge}\r\n{file}\r\n\r\n".encode() + table + f"\r\n--{edge}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    answer = browser.post("/", body=body, **kind)
    assert answer.status == 200
    assert answer.json["form"]["table"] == "labels.csv"
    assert answer.json["form"]["bytes"] == len(body)

    torn = browser.post("/", body=b"--edge\r\nnonsense", **kind)
    assert torn.status in (400, 403)


def test_a_body_that_is_too_large_is_refused_before_it_is_held(
    console: Console, monkeypatch: MonkeyPatch
) -> None:
    browser = console.browser("anna")
    own = {"X_CSRF_Token": browser.csrf, "Content-Type": "text/csv"}
    assert browser.post("/", body=b"x" * (7 << 20), **own).status == 413
    pieces = (b"x" * (1 << 20) for _ in range(7))
    assert browser.post("/", body=pieces, **own).status == 413
    assert browser.post("/", body=b"x" * (6 << 20), **own).status == 200
    assert browser.post("/sign-in", {"name": "x" * 20_000}).status == 413

    monkeypatch.setattr("listener.console.gate.gate.BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", console.port)) as slow:
        head = f"Origin: {browser.url}\r\nHost: 127.0.0.1:{console.port}\r\nContent-Length: 9"
        slow.sendall(f"POST /sign-in HTTP/1.1\r\n{head}\r\n\r\nx".encode())
        assert b" 408 " in slow.recv(1000)


def test_who_is_not_signed_in_cannot_make_us_read_a_body(console: Console) -> None:
    with socket.create_connection(("127.0.0.1", console.port)) as stranger:
        head = f"Host: 127.0.0.1:{console.port}\r\nContent-Length: 1000000"
        stranger.sendall(f"POST / HTTP/1.1\r\n{head}\r\n\r\nx".encode())
        stranger.settimeout(5)
        assert b" 303 " in stranger.recv(1000)


def test_programs_show_a_token_and_need_no_page(console: Console) -> None:
    browser = console.browser()
    operator, viewer = token_of(console, "anna"), token_of(console, "victor")
    found = browser.get("/api/studies", **bearer(operator)).json
    assert (found["name"], found["csrf"]) == ("anna", "")
    assert browser.send("POST", "/api/studies", b"{}", bearer(operator)).status == 200
    refused = browser.send("POST", "/api/studies", b"{}", bearer(viewer))
    assert (refused.status, list(refused.json)) == (403, ["error"])
    assert browser.get("/metrics", **bearer(viewer)).status == 200

    Sessions.of(console.ledger, console.settings).revoke("anna")
    refused = browser.get("/", **bearer(operator))
    assert refused.status == 401
    assert refused.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_a_token_is_not_a_cookie_and_a_cookie_is_not_a_token(console: Console) -> None:
    browser, signed_in = console.browser(), console.browser("anna")
    browser.cookies["monro"] = token_of(console, "anna")
    assert browser.get("/").status == 303
    browser.cookies.clear()
    assert browser.get("/api/studies", **bearer(signed_in.cookies["monro"])).status == 401
    assert signed_in.get("/", **bearer("wrong")).status == 401, "it shows a token that is none"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/broken",
        "/static/console.css",
        "/healthz",
        "/api/x",
        "/sign-in",
        "/metrics",
    ],
)
def test_every_answer_tells_browsers_what_they_may_not_do(console: Console, path: str) -> None:
    for browser in (console.browser(), console.browser("anna")):
        answer = browser.get(path)
        for name, value in ALWAYS.items():
            assert answer.headers.getlist(name) == [value], (name, answer.status)
        kept = "max-age=60" if path.startswith("/static/") else "no-store"
        assert answer.headers.getlist("cache-control") == [kept]
        assert "strict-transport-security" not in answer.headers

    policy = ALWAYS["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_fault_of_the_application_is_told_without_its_words(
    console: Console, caplog: LogCaptureFixture
) -> None:
    answer = console.browser("anna").get("/broken")
    assert answer.status == 500
    assert SECRET_TEXT not in answer.text
    assert SECRET_TEXT not in caplog.text
    assert "the console gave a request up: RuntimeError in broken" in caplog.text


def test_only_names_of_ours_are_answered_to_except_to_monitors(opening: Opening) -> None:
    with opening(console_hosts=["monro.hospital", "[::1]"]) as console:
        browser = console.browser()
        for host in ("monro.hospital", "MONRO.hospital:8443", "[::1]:8443"):
            assert browser.get("/sign-in", Host=host).status == 200
        for host in ("evil.example", "monro.hospital.evil.example", "127.0.0.1", "[", "x@y:z"):
            assert browser.get("/sign-in", Host=host).status == 421
            assert browser.get("/static/console.css", Host=host).status == 421
            assert browser.get("/healthz", Host=host).status == 200
        assert browser.get("/metrics", Host="10.1.2.3").status == 401


def test_monitors_are_answered_while_the_ledger_is_away(
    console: Console, monkeypatch: MonkeyPatch
) -> None:
    browser = console.browser("anna")

    def away(*_: object, **__: object) -> None:
        from sqlalchemy.exc import OperationalError

        raise OperationalError("SELECT", {}, sqlite3.OperationalError("gone"))

    monkeypatch.setattr(Sessions, "find", away)
    assert browser.get("/healthz").status == 200
    answer = browser.get("/")
    assert (answer.status, answer.headers["retry-after"]) == (503, "10")


def test_who_asks_too_often_is_told_when_to_come_again(
    opening: Opening, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.console.gate.gate.BURST", 5.0)
    monkeypatch.setattr("listener.console.gate.gate.PER_SECOND", 0.01)
    with opening() as console:
        browser = console.browser()
        statuses = [browser.get("/sign-in").status for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        probed = [browser.get(path).status for path in ("/healthz", "/readyz") * 3]
        assert probed == [200] * 6, "a probe that asks often is told that we are dead"
        answer = browser.get("/sign-in")
        assert "Too many requests came from your address" in answer.problem
        wait = int(answer.headers["retry-after"])
        console.clock.ahead += wait / 2
        assert browser.get("/sign-in").status == 429
        console.clock.ahead += wait / 2
        assert browser.get("/sign-in").status == 200


def test_what_is_typed_is_shown_as_text(console: Console) -> None:
    answer = console.browser().sign_in('"><script>alert(1)</script>', "x")
    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text


def test_the_form_can_be_used_without_seeing_it(console: Console) -> None:
    browser = console.browser()
    form = browser.get("/sign-in").text
    assert 'lang="en"' in form
    assert "Research use only" in form
    for field, filled in (("name", "username"), ("password", "current-password")):
        assert f'<label for="{field}">' in form
        assert f'autocomplete="{filled}"' in form
    assert 'role="alert"' not in form
    assert "<script" not in form
    assert "style=" not in form.replace("rel=", "")
    assert browser.sign_in(password="wrong").problem.startswith("Name or password is wrong")


def test_a_web_socket_is_turned_away(console: Console) -> None:
    import anyio

    from listener.console.gate.gate import Gate

    sent = []

    async def send(message: object) -> None:
        sent.append(message)

    async def never(*_: object) -> None:
        raise AssertionError("the application was reached")

    gate = Gate(console.ledger, console.settings)
    anyio.run(gate.wrap(never), {"type": "websocket"}, never, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Path]:
    import trustme

    authority = trustme.CA()
    paths = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key", "authorities")}
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(paths["certificate"])
    issued.private_key_pem.write_to_path(paths["key"])
    authority.cert_pem.write_to_path(paths["authorities"])
    return paths
