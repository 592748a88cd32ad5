"""A provider vouches for people, and nothing that is forged is believed."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from pytest import LogCaptureFixture, MonkeyPatch

from listener.console.gate.sessions import Sessions
from tests.listener.console.gate.conftest import Answer, Browser, Console, Opening
from tests.listener.console.gate.provider import CLIENT, SECRET, Provider

AUTHENTICATION = "110114"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider().open() as running:
        yield running


Vouching = Callable[..., AbstractContextManager[Console]]


@pytest.fixture
def vouching(opening: Opening, provider: Provider, tmp_path: Path) -> Vouching:
    """A console whose people the provider vouches for."""
    secret = tmp_path / "client-secret"
    secret.write_text(f"{SECRET}\n")

    @contextmanager
    def vouching(**changes: Any) -> Iterator[Console]:
        oidc = {
            "issuer": provider.url,
            "client_id": CLIENT,
            "client_secret_file": secret,
            "operators": ["mri-leads"],
            "viewers": ["radiology"],
        }
        with opening(oidc=oidc | changes) as console:
            yield console

    return vouching


@pytest.fixture
def console(vouching: Vouching) -> Iterator[Console]:
    with vouching() as running:
        yield running


def go(browser: Browser, wanted: str = "/studies/1.2.3") -> Answer:
    """Go to the provider and come back."""
    left = browser.get(f"/sign-in/oidc?next={wanted}")
    if left.status != 303:
        return left
    return browser.get(browser.get(left.headers["location"]).headers["location"])


def test_a_person_comes_in_as_what_their_groups_say(console: Console, provider: Provider) -> None:
    browser = console.browser()
    assert "Sign in through 127.0.0.1" in browser.get("/sign-in").text
    back = go(browser)
    assert back.status == 200
    assert 'content="0; url=/studies/1.2.3"' in back.text
    assert back.cookies["monro"]["samesite"] == "strict"
    assert set(browser.cookies) == {"monro"}, "the errand is over"
    found = browser.get("/").json
    assert (found["name"], found["role"]) == ("otto", "viewer")

    provider.person["groups"] = ["mri-leads", "radiology"]
    other = console.browser()
    go(other)
    assert other.get("/").json["role"] == "operator"
    assert browser.get("/").json["role"] == "operator"
    assert [each.has_password for each in console.accounts.all()] == [True, False, True]
    came, _ = console.trail(AUTHENTICATION, 2)
    assert came.outcome == "0"
    assert came.participants[0].get("UserID") == "otto"
    assert came.participants[0].get("AlternativeUserID") == f"7f3c of {provider.url}"


def test_who_is_in_no_list_is_refused_and_what_they_had_ends(
    console: Console, provider: Provider
) -> None:
    browser = console.browser()
    go(browser)
    token = Sessions.of(console.ledger, console.settings).issue("otto", 90)
    provider.person["groups"] = ["staff"]
    refused = go(console.browser())

    assert refused.status == 403
    assert "in no group that may come in" in refused.problem
    assert browser.get("/").status == 303
    assert browser.get("/", Authorization=f"Bearer {token}").status == 401


@pytest.mark.parametrize("groups", [None, [], "staff", {"radiology": 1}, [["radiology"]], 7])
def test_odd_groups_let_nobody_in(console: Console, provider: Provider, groups: object) -> None:
    provider.person["groups"] = groups
    assert go(console.browser()).status == 403
    assert "otto" not in [each.name for each in console.accounts.all()]


def test_another_person_who_got_the_name_is_refused_in_plain_words(
    console: Console, provider: Provider
) -> None:
    browser = console.browser()
    go(browser)
    provider.person |= {"sub": "another", "groups": ["mri-leads"]}
    refused = go(console.browser())
    assert refused.status == 403
    assert "account otto belongs to somebody else of that name" in refused.problem
    assert browser.get("/").json["role"] == "viewer", "a stranger changed the account's role"


def test_who_lost_the_role_under_a_new_name_is_signed_out(
    console: Console, provider: Provider
) -> None:
    browser = console.browser()
    go(browser)
    provider.person |= {"preferred_username": "otto.new", "groups": []}
    assert go(console.browser()).status == 403
    assert browser.get("/").status == 303


def test_a_group_may_be_one_text_under_another_name(vouching: Vouching, provider: Provider) -> None:
    provider.person = {"sub": "7f3c", "email": "otto@hospital", "role": "radiology"}
    provider.person["email_verified"] = True
    with vouching(claim="role", name="email") as console:
        browser = console.browser()
        go(browser)
        assert browser.get("/").json["name"] == "otto@hospital"
        for said in (False, "true", None):
            provider.person["email_verified"] = said
            assert "does not say that it verified" in go(console.browser()).problem


def stranger() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})


def with_another_key(provider: Provider) -> None:
    provider.key = stranger()


def unsigned(provider: Provider) -> None:
    provider.algorithm = "none"


def signed_with_the_public_key(provider: Provider) -> None:
    provider.algorithm = "HS256"


def claiming(**changes: Any) -> Callable[[Provider], None]:
    def lie(provider: Provider) -> None:
        def changed(claims: dict[str, Any]) -> dict[str, Any]:
            merged = claims | changes
            return {name: value for name, value in merged.items() if value is not None}

        provider.claims = changed

    return lie


def answering(**changes: str) -> Callable[[Provider], None]:
    def lie(provider: Provider) -> None:
        provider.answer = lambda answer: {
            name: value for name, value in (answer | changes).items() if value
        }

    return lie


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        (with_another_key, "bad_signature"),
        (unsigned, "unsupported_algorithm"),
        (signed_with_the_public_key, "unsupported_algorithm"),
        (claiming(nonce="another"), "nonce"),
        (claiming(nonce=None), "nonce"),
        (claiming(iss="https://evil.example"), "iss"),
        (claiming(iss=None), "iss"),
        (claiming(aud="another-client"), "aud"),
        (claiming(aud=["another-client"]), "aud"),
        (claiming(aud=[CLIENT, "another"], azp="another"), "azp"),
        (claiming(aud=None), "aud"),
        (claiming(exp=int(time.time()) - 3600), "(exp)"),
        (claiming(exp=None), "exp"),
        (claiming(iat=int(time.time()) + 3600), "iat"),
        (claiming(at_hash="forged"), "at_hash"),
        (claiming(sub=None), "sub"),
        (claiming(sub=7), "sub"),
        (claiming(sub="x" * 256), "no text of 1 to 255 characters"),
        (claiming(preferred_username=None), "no claim preferred_username"),
        (claiming(preferred_username=["otto"]), "no claim preferred_username"),
        (claiming(preferred_username="../../otto"), "no name of an account"),
        (claiming(preferred_username="anna"), "account anna signs in with a password"),
        (answering(state="another"), "no code for this sign-in"),
        (answering(state=""), "no code for this sign-in"),
        (answering(code=""), "no code for this sign-in"),
        (answering(code="", error="access_denied"), "no code for this sign-in"),
        (answering(code="guessed"), "no ID token for the code"),
        (answering(iss="https://evil.example"), "another provider answered"),
    ],
)
def test_what_is_forged_lets_nobody_in(
    console: Console,
    provider: Provider,
    caplog: LogCaptureFixture,
    lie: Callable[[Provider], None],
    told: str,
) -> None:
    lie(provider)
    browser = console.browser()
    refused = go(browser)

    assert refused.status == 403
    assert told in caplog.text
    assert browser.cookies == {}
    assert browser.get("/").status == 303
    assert [each.name for each in console.accounts.all()] == ["anna", "victor"]
    (message,) = console.trail(AUTHENTICATION, 1)
    assert message.outcome == "4"
    for secret in (SECRET, "code-0", "access"):
        assert secret not in caplog.text.replace("access_denied", "")


def test_an_answer_is_of_no_use_in_another_browser(console: Console) -> None:
    victim, thief = console.browser(), console.browser()
    left = victim.get("/sign-in/oidc")
    back = victim.get(left.headers["location"]).headers["location"]
    assert thief.get(back).status == 403
    thief.get("/sign-in/oidc")
    assert thief.get(back).status == 403
    assert thief.get("/").status == 303


def test_an_answer_works_once(console: Console) -> None:
    browser = console.browser()
    left = browser.get("/sign-in/oidc")
    errand = dict(browser.cookies)
    back = browser.get(left.headers["location"]).headers["location"]
    assert browser.get(back).status == 200
    browser.cookies = errand
    assert browser.get(back).status == 403


def test_nobody_is_led_to_another_site_from_the_provider(console: Console) -> None:
    browser = console.browser()
    assert 'url=/"' in go(browser, "//evil.example").text
    browser = console.browser()
    left = browser.get("/sign-in/oidc")
    browser.cookies["monro-errand"] = browser.cookies["monro-errand"].partition(".")[0] + ".//evil"
    back = browser.get(browser.get(left.headers["location"]).headers["location"])
    assert 'url=/"' in back.text


def test_who_was_disabled_does_not_come_in_by_the_provider(console: Console) -> None:
    go(console.browser())
    console.accounts.disable("otto")
    refused = go(console.browser())

    assert (refused.status, refused.problem) == (
        403, "You are not signed in: account otto is disabled."
    )  # fmt: skip


def test_whom_a_provider_vouches_for_has_no_password_to_guess(console: Console) -> None:
    go(console.browser())
    for password in ("", "None", "null"):
        assert console.browser().sign_in("otto", password).status == 403


def test_who_is_vouched_for_changes_the_password_elsewhere(console: Console) -> None:
    browser = console.browser()
    go(browser)
    answer = browser.get("/password")
    assert (answer.status, "change the password there" in answer.problem) == (403, True)


def test_a_new_key_of_the_provider_is_asked_for_but_not_by_every_stranger(
    console: Console, provider: Provider
) -> None:
    assert go(console.browser()).status == 200
    provider.key = RSAKey.generate_key(2048, {"kid": "second", "use": "sig", "alg": "RS256"})
    provider.published = [provider.key]
    assert go(console.browser()).status == 403, "keys are asked for once a minute at most"
    assert provider.asked.count("keys") == 1
    console.clock.ahead = 61
    assert go(console.browser()).status == 200
    assert provider.asked.count("keys") == 2
    assert provider.asked.count("description") == 1


def test_a_provider_that_wants_the_secret_in_the_form_gets_it_there(
    console: Console, provider: Provider
) -> None:
    provider.methods = ["client_secret_post", "private_key_jwt"]
    assert go(console.browser()).status == 200


@pytest.mark.parametrize(
    "description",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "http://hospital.example/authorize"},
        {"authorization_endpoint": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"token_endpoint": "http://10.0.0.1/token"},
    ],
)
def test_a_provider_that_describes_itself_oddly_is_not_asked(
    console: Console, provider: Provider, description: dict[str, Any]
) -> None:
    provider.description = description
    answer = go(console.browser())
    assert (answer.status, answer.headers["retry-after"]) == (503, "60")
    assert "does not answer as it should" in answer.problem


def test_a_provider_that_is_away_stops_neither_start_nor_passwords(opening: Opening) -> None:
    oidc = {
        "issuer": "http://127.0.0.1:1",
        "client_id": CLIENT,
        "client_secret_file": "/nowhere",
        "viewers": ["radiology"],
    }
    with opening(oidc=oidc) as console:
        assert go(console.browser()).status == 503
        assert console.browser("anna").get("/").status == 200


def test_a_secret_that_is_not_to_be_had_is_told_in_the_log(
    console: Console, tmp_path: Path, caplog: LogCaptureFixture
) -> None:
    (tmp_path / "client-secret").unlink()
    assert go(console.browser()).status == 503
    assert "client_secret_file" in caplog.text


def test_an_answer_without_end_is_not_read(
    console: Console, provider: Provider, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.console.gate.oidc.LARGEST_ANSWER_BYTES", 100)
    assert go(console.browser()).status == 503


def test_forged_answers_are_slowed_as_wrong_passwords_are(console: Console) -> None:
    browser = console.browser()
    for _ in range(11):
        browser.get("/sign-in/oidc")
        assert browser.get("/sign-in/oidc/return?code=x&state=y").status == 403
    assert browser.get("/sign-in/oidc").status == 429
