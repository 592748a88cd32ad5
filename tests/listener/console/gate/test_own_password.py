"""People give themselves another password, if they know the present one."""

import pytest

from listener.console.gate.guesses import FREE_OF_PAIR
from listener.console.gate.sessions import Sessions
from tests.listener.console.gate.conftest import PASSWORD, Answer, Browser, Console

NEW = "nine loud purple trains"
ALERT = "110113"


def change(browser: Browser, **fields: str) -> Answer:
    usual = {"csrf": browser.csrf, "present": PASSWORD, "new": NEW, "again": NEW}
    return browser.post("/password", usual | fields)


@pytest.mark.parametrize("name", ["anna", "victor"])
def test_a_new_password_signs_other_browsers_out_and_goes_on_in_this_one(
    console: Console, name: str
) -> None:
    here, there, stranger = console.browser(name), console.browser(name), console.browser("anna")
    before = here.cookies["monro"]
    assert "Your password was changed" in change(here).text

    assert here.get("/").json["name"] == name
    assert there.get("/").status == 303
    assert (stranger.get("/").status == 200) == (name != "anna")
    assert here.cookies["monro"] != before
    assert console.browser().sign_in(name).status == 403
    assert console.browser().sign_in(name, NEW).status == 303
    (told,) = console.trail(ALERT, 1)
    assert (told.kind, told.outcome) == ("110137", "0")
    assert told.participants[0].get("UserID") == name
    assert "own password changed at the console: done" in (told.detail or "")


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"present": "wrong"}, 403, "The present password is wrong."),
        ({"again": NEW + "x"}, 422, "typed in two ways"),
        ({"new": "short", "again": "short"}, 422, "the password has 5 characters"),
        ({"new": "", "again": ""}, 422, "the password has 0 characters"),
        ({"new": PASSWORD, "again": PASSWORD}, 422, "is the present one"),
    ],
)
def test_what_is_not_right_changes_nothing_and_is_said(
    console: Console, fields: dict[str, str], status: int, said: str
) -> None:
    browser, other = console.browser("anna"), console.browser("anna")
    answer = change(browser, **fields)
    assert (answer.status, said in answer.problem) == (status, True), answer.problem
    assert other.get("/").status == 200
    assert console.browser().sign_in().status == 303
    assert NEW not in answer.text
    assert PASSWORD not in answer.text


def test_who_found_a_browser_signed_in_cannot_guess_the_password_there(console: Console) -> None:
    browser = console.browser("anna")
    statuses = [change(browser, present="wrong").status for _ in range(FREE_OF_PAIR + 2)]
    assert statuses == [403] * (FREE_OF_PAIR + 1) + [429]
    assert change(browser).status == 429, "the right one was looked at during a pause"
    assert {each.outcome for each in console.trail(ALERT, 1)} == {"4"}


def test_a_form_without_the_token_of_its_page_changes_nothing(console: Console) -> None:
    browser = console.browser("anna")
    assert change(browser, csrf="guessed").status == 403
    assert console.browser().sign_in().status == 303


def test_neither_strangers_nor_programs_nor_monitors_have_a_password_to_change(
    console: Console,
) -> None:
    console.accounts.add("prometheus", "monitor", PASSWORD)
    token = Sessions.of(console.ledger, console.settings).issue("anna", 90)
    fields = {"present": PASSWORD, "new": NEW, "again": NEW}
    program = console.browser().post("/password", fields, Authorization=f"Bearer {token}")
    assert program.status == 403
    assert "a token gives itself no password" in program.problem
    assert console.browser().post("/password", fields).status == 303
    assert console.browser().get("/password").headers["location"].startswith("/sign-in")
    assert console.browser("prometheus").get("/password").status == 403


def test_the_form_can_be_used_without_seeing_it(console: Console) -> None:
    form = console.browser("victor").get("/password").text
    for field, filled in (
        ("present", "current-password"), ("new", "new-password"), ("again", "new-password"),
    ):  # fmt: skip
        assert f'<label for="{field}">' in form
        assert f'id="{field}" name="{field}" type="password" autocomplete="{filled}"' in form
    assert "<script>" not in form
    assert "style=" not in form
