"""A proxy of the settings is believed about who comes through it, and nobody else is."""

from collections.abc import Iterator

import pytest
from pytest import MonkeyPatch

from listener.console.gate.guesses import FREE_OF_ACCOUNT, FREE_OF_ADDRESS, FREE_OF_PAIR
from listener.console.gate.hops import Proxies
from tests.listener.console.gate.conftest import PASSWORD, Answer, Browser, Console, Opening

AUTHENTICATION = "110114"

INGRESS, ANNA, STRANGER = "10.244.0.9", "10.0.0.5", "192.0.2.66"


@pytest.fixture
def behind(opening: Opening) -> Iterator[Console]:
    """A console behind a proxy: the tests speak from its address."""
    with opening(console_proxies=["127.0.0.1", "10.244.0.0/16"]) as running:
        yield running


def guess(
    browser: Browser, hops: str, name: str = "anna", password: str = "wrong", **headers: str
) -> Answer:
    fields = {"name": name, "password": password}
    return browser.post("/sign-in", fields, X_Forwarded_For=hops, **headers)


@pytest.mark.parametrize(
    ("neighbour", "forwarded", "visitor"),
    [
        ("127.0.0.1", [ANNA], ANNA),
        ("127.0.0.1", [f"{STRANGER}, {ANNA}"], ANNA),
        ("127.0.0.1", [STRANGER, ANNA], ANNA),
        ("127.0.0.1", [f"{STRANGER}, {ANNA}, {INGRESS}"], ANNA),
        ("127.0.0.1", [f"{ANNA}:4711"], ANNA),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("::ffff:127.0.0.1", [ANNA], ANNA),
        ("127.0.0.1", [f"{ANNA}, unknown"], "127.0.0.1"),
        ("127.0.0.1", [f"{ANNA}, ' OR 1=1, {INGRESS}"], INGRESS),
        ("127.0.0.1", [INGRESS], INGRESS),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        (STRANGER, [ANNA], STRANGER),
        ("", [ANNA], ""),
    ],
)
def test_the_last_hop_that_is_no_proxy_of_ours_is_the_visitor(
    neighbour: str, forwarded: list[str], visitor: str
) -> None:
    assert Proxies(["127.0.0.1", "10.244.0.0/16"]).visitor(neighbour, forwarded) == visitor


def test_wrong_guesses_through_a_proxy_keep_nobody_else_waiting(behind: Console) -> None:
    browser = behind.browser()
    statuses = [guess(browser, STRANGER, f"name{n}").status for n in range(FREE_OF_ADDRESS + 2)]
    assert statuses[-1] == 429
    assert guess(browser, ANNA, password=PASSWORD).status == 303


def test_who_writes_hops_of_their_own_is_slowed_all_the_same(behind: Console) -> None:
    browser = behind.browser()
    for number in range(FREE_OF_PAIR + 1):
        assert guess(browser, f"10.9.9.{number}, {STRANGER}").status == 403
    assert guess(browser, f"10.9.9.99, {STRANGER}").status == 429


def test_without_proxies_in_the_settings_nobody_is_believed(console: Console) -> None:
    browser = console.browser()
    for number in range(FREE_OF_PAIR + 1):
        assert guess(browser, f"10.9.9.{number}").status == 403
    assert guess(browser, "10.9.9.99").status == 429
    signed_in = guess(browser, ANNA, "victor", PASSWORD, X_Forwarded_Proto="https")
    assert set(signed_in.cookies) == {"monro"}, "whoever claims HTTPS gets cookies of HTTPS"
    assert not signed_in.cookies["monro"]["secure"]
    assert "Strict-Transport-Security" not in signed_in.headers
    assert {each.participants[0].get("NetworkAccessPointID") for each in console.trail()} == {
        "127.0.0.1"
    }


def test_the_pace_is_that_of_the_visitor(opening: Opening, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr("listener.console.gate.gate.BURST", 5.0)
    monkeypatch.setattr("listener.console.gate.gate.PER_SECOND", 0.01)
    with opening(console_proxies=["127.0.0.0/8"]) as console:
        browser = console.browser()
        asked = [browser.get("/sign-in", X_Forwarded_For=STRANGER).status for _ in range(6)]
        assert asked == [200] * 5 + [429]
        assert browser.get("/sign-in", X_Forwarded_For=ANNA).status == 200


def test_the_trail_and_the_pages_have_the_address_of_the_visitor(behind: Console) -> None:
    browser = behind.browser()
    guess(browser, ANNA)
    assert guess(browser, ANNA, password=PASSWORD).status == 303
    assert browser.get("/", X_Forwarded_For=ANNA).json["from"] == ANNA

    for each in behind.trail(AUTHENTICATION, 2):
        assert each.participants[0].get("NetworkAccessPointID") == ANNA


def test_a_proxy_that_speaks_https_gets_cookies_for_https(behind: Console) -> None:
    browser = behind.browser()
    https = {"X_Forwarded_Proto": "https", "Origin": browser.url.replace("http:", "https:")}
    answer = guess(browser, ANNA, password=PASSWORD, **https)
    cookie = answer.cookies["__Host-monro"]
    assert (answer.status, bool(cookie["secure"]), cookie["path"]) == (303, True, "/")
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    assert browser.get("/", X_Forwarded_Proto="https").json["name"] == "anna"
    assert browser.get("/").status == 303, "a session of HTTPS goes on without it"

    https["Origin"] = browser.url
    assert guess(browser, ANNA, password=PASSWORD, **https).status == 403, "a page without TLS"


def test_strangers_everywhere_do_not_keep_an_account_from_its_owner(behind: Console) -> None:
    browser = behind.browser()
    assert guess(browser, ANNA, password=PASSWORD).status == 303
    for number in range(FREE_OF_ACCOUNT + 1):
        assert guess(browser, f"192.0.2.{number}").status == 403
    assert guess(browser, "192.0.2.200").status == 429, "many addresses guess without a pause"
    assert guess(browser, ANNA, password=PASSWORD).status == 303
    assert guess(browser, "192.0.2.200").status == 429, "the owner's visit gave guesses anew"


def test_a_place_that_somebody_signs_in_from_is_no_place_to_guess(behind: Console) -> None:
    browser = behind.browser()
    assert guess(browser, ANNA, password=PASSWORD).status == 303
    statuses = [guess(browser, ANNA).status for _ in range(FREE_OF_PAIR + 2)]
    assert statuses == [403] * (FREE_OF_PAIR + 1) + [429]
