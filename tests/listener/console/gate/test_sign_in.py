"""Whoever guesses waits, is told so, and stands in the audit trail; what was typed does not."""

import threading
from pathlib import Path

import pytest
from pytest import LogCaptureFixture, MonkeyPatch

from listener.console.gate import limits
from listener.console.gate.guesses import FREE_OF_ADDRESS, FREE_OF_PAIR
from listener.console.gate.limits import Pace, Pauses, subscriber
from tests.listener.console.gate.conftest import PASSWORD, Console

AUTHENTICATION, ALERT = "110114", "110113"
LOGIN, LOGOUT = "110122", "110123"


def test_wrong_guesses_at_one_account_are_slowed_and_told(console: Console) -> None:
    browser, other = console.browser(), console.browser()
    for _ in range(FREE_OF_PAIR + 1):
        assert browser.sign_in(password="wrong").status == 403
    waits = []
    for _ in range(3):
        answer = other.sign_in(password=PASSWORD)
        assert answer.status == 429, "the right password was looked at during a pause"
        waits.append(int(answer.headers["retry-after"]))
        assert answer.problem == f"Too many attempts failed: try again in {waits[-1]} s."
        console.clock.ahead += waits[-1]
        assert browser.sign_in(password="wrong").status == 403
    assert 1 < waits[0] < waits[1] < waits[2]

    assert console.browser("victor"), "another account waits, too"
    console.clock.ahead += 60
    assert other.sign_in().status == 303
    assert other.sign_in(password="wrong").status == 403
    assert other.sign_in().status == 303, "the right password did not make up for wrong ones"


def test_an_unknown_account_is_slowed_as_a_known_one_is(console: Console) -> None:
    answers = []
    for name in ("anna", "nobody"):
        browser = console.browser()
        told = [browser.sign_in(name, "wrong") for _ in range(FREE_OF_PAIR + 2)]
        answers.append(
            [(each.status, each.headers.get("retry-after"), each.problem) for each in told]
        )
        console.clock.ahead += 3601
    assert answers[0] == answers[1]
    assert answers[0][-1][0] == 429


def test_one_address_cannot_try_one_password_on_many_accounts(console: Console) -> None:
    browser = console.browser()
    for number in range(FREE_OF_ADDRESS + 1):
        assert browser.sign_in(f"name{number}", "wrong").status == 403
    assert browser.sign_in("another", "wrong").status == 429
    assert browser.sign_in("anna").status == 429


def test_an_account_of_ones_own_does_not_make_up_for_guessing_at_others(console: Console) -> None:
    browser = console.browser()
    statuses = []
    for number in range(FREE_OF_ADDRESS + 2):
        statuses.append(browser.sign_in(f"name{number}", "wrong").status)
        browser.sign_in("victor")
    assert statuses[-1] == 429


def test_many_guesses_at_once_are_many(console: Console) -> None:
    statuses: list[int] = []

    def guess() -> None:
        statuses.append(console.browser().sign_in(password="wrong").status)

    guesses = [threading.Thread(target=guess) for _ in range(20)]
    for each in guesses:
        each.start()
    for each in guesses:
        each.join()
    assert statuses.count(403) <= FREE_OF_PAIR + 1
    assert statuses.count(429) >= 20 - FREE_OF_PAIR - 1


def test_what_is_remembered_of_strangers_is_bounded(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_REMEMBERED", 10)
    pauses, pace = Pauses(0, 2.0, 60.0, lambda: 0.0), Pace(1, 1, lambda: 0.0)
    for number in range(1000):
        pauses.note(f"name{number}")
        pace.wait(f"10.0.0.{number}")
    assert len(pauses._wrong._values) == len(pace._left._values) == 10
    assert pauses.left("name999") == 2.0


def test_pauses_have_an_end_and_survive_a_clock_that_is_set_back() -> None:
    now = [10_000.0]
    pauses = Pauses(0, 2.0, 60.0, lambda: now[0])
    for _ in range(5000):
        pauses.note("anna")
    assert pauses.left("anna") == 60.0
    now[0] -= 5000
    assert pauses.left("anna") == 60.0
    now[0] += 5000 + limits.FORGET_SECONDS
    assert pauses.left("anna") == 0.0
    pauses.note("anna")
    assert pauses.left("anna") == 2.0


def test_a_subscriber_of_ipv6_is_one_address() -> None:
    assert subscriber("2001:db8::1") == subscriber("2001:db8::ffff:1")
    assert subscriber("2001:db8::1") != subscriber("2001:db8:0:1::1")
    assert subscriber("no address") == "no address"


def test_who_comes_fails_and_goes_is_in_the_trail(console: Console) -> None:
    browser = console.browser()
    browser.sign_in(password="wrong")
    browser.sign_in()
    browser.post("/sign-out", {"csrf": browser.csrf})

    failed, came, went = console.trail(AUTHENTICATION, 3)
    assert [each.kind for each in (failed, came, went)] == [LOGIN, LOGIN, LOGOUT]
    assert [each.outcome for each in (failed, came, went)] == ["4", "0", "0"]
    for each in (failed, came, went):
        person, us = each.participants
        assert person.get("UserID") == "anna"
        assert person.get("UserIsRequestor") == "true"
        assert person.get("NetworkAccessPointID") == "127.0.0.1"
        assert us.get("AlternativeUserID") == "AETITLES=MONRO"


def test_repeated_failures_raise_one_alert(console: Console) -> None:
    browser = console.browser()
    for _ in range(FREE_OF_PAIR + 10):
        browser.sign_in(password="wrong")

    (alert,) = console.trail(ALERT, 1)
    assert (alert.outcome, alert.detail) == ("4", "sign-in at the console: too many attempts")
    assert len(console.trail(AUTHENTICATION)) == FREE_OF_PAIR + 1


@pytest.mark.parametrize("field", ["name", "password"])
def test_what_somebody_typed_who_is_not_known_is_written_down_nowhere(
    console: Console, caplog: LogCaptureFixture, tmp_path: Path, field: str
) -> None:
    caplog.set_level(0)
    typed = "a-secret-in-the-wrong-field"
    browser = console.browser()
    browser.sign_in(**{"name": "victor", "password": "x", field: typed})
    browser.sign_in()
    console.trail(AUTHENTICATION, 2)

    for secret in (typed, PASSWORD, browser.cookies["monro"], browser.csrf):
        assert secret not in caplog.text
        for path in tmp_path.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
