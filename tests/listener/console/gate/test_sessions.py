"""Sessions begin with a new token, end when they should, and are kept as hashes only."""

import hashlib
import threading

import pytest
from sqlalchemy import select

from listener.console.gate.accounts import Accounts, BadAccount
from listener.console.gate.sessions import Sessions
from listener.ledger import Ledger
from listener.tables import sessions
from tests.listener.console.gate.conftest import PASSWORD, Clock

IDLE, LONGEST = 1800.0, 43200.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(ledger: Ledger, cheap_hashes: None) -> Accounts:
    book = Accounts(ledger)
    book.add("anna", "operator", PASSWORD)
    return book


@pytest.fixture(name="kept")
def kept_sessions(ledger: Ledger, book: Accounts, clock: Clock) -> Sessions:
    return Sessions(ledger, IDLE, LONGEST, clock)


def test_the_ledger_holds_the_hash_of_a_token_and_not_the_token(
    kept: Sessions, ledger: Ledger
) -> None:
    token = kept.open("anna")
    with ledger.reading() as connection:
        (row,) = connection.execute(select(sessions)).all()

    assert row.token_sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert token not in map(str, row)
    assert len(token) >= 43  # 256 bits


def test_a_session_that_idles_ends_and_one_that_is_used_does_not(
    kept: Sessions, clock: Clock
) -> None:
    used, idle = kept.open("anna"), kept.open("anna")
    for _ in range(3):
        clock.ahead += IDLE * 0.7
        assert kept.find(used, "browser") is not None
    assert kept.find(idle, "browser") is None


def test_no_session_outlasts_its_hours_however_busy_it_is(kept: Sessions, clock: Clock) -> None:
    token = kept.open("anna")
    while clock.ahead < LONGEST - IDLE:
        clock.ahead += IDLE / 2
        assert kept.find(token, "browser") is not None
    clock.ahead = LONGEST
    assert kept.find(token, "browser") is None


def test_a_token_of_a_program_idles_as_long_as_it_likes_until_its_days_are_over(
    kept: Sessions, clock: Clock
) -> None:
    token = kept.issue("anna", 90)
    clock.ahead = 89 * 86400
    assert kept.find(token, "program") is not None
    clock.ahead = 90 * 86400 + 1
    assert kept.find(token, "program") is None


def test_a_token_is_of_no_use_in_the_way_of_the_other_kind(kept: Sessions) -> None:
    assert kept.find(kept.issue("anna", 90), "browser") is None
    assert kept.find(kept.open("anna"), "program") is None


@pytest.mark.parametrize("token", ["", "x", "monro_", "x" * 10_000])
def test_what_is_no_token_opens_nothing(kept: Sessions, token: str) -> None:
    assert kept.find(token, "browser") is None
    assert kept.find(token, "program") is None


def test_disabling_an_account_ends_all_it_had_for_good(kept: Sessions, book: Accounts) -> None:
    token, program = kept.open("anna"), kept.issue("anna", 90)
    book.disable("anna")
    assert kept.find(token, "browser") is None
    assert kept.find(program, "program") is None
    with pytest.raises(BadAccount, match="or it is disabled"):
        kept.open("anna")

    book.enable("anna")
    assert kept.find(token, "browser") is None
    assert kept.find(program, "program") is None


def test_another_password_signs_browsers_out_and_leaves_programs(
    kept: Sessions, book: Accounts
) -> None:
    token, program = kept.open("anna"), kept.issue("anna", 90)
    book.change_password("anna", "another five green horses")

    assert kept.find(token, "browser") is None
    assert kept.find(program, "program") is not None


def test_revoking_ends_the_sessions_of_one_account(kept: Sessions, book: Accounts) -> None:
    book.add("berta", "viewer", PASSWORD)
    others = kept.open("berta")
    kept.open("anna")
    kept.issue("anna", 1)

    assert kept.count()["anna", "program"] == 1
    assert kept.revoke("ANNA") == 2
    assert kept.count() == {("berta", "browser"): 1}
    assert kept.find(others, "browser") is not None


def test_a_role_that_changes_counts_from_the_next_request_on(
    kept: Sessions, book: Accounts
) -> None:
    token = kept.open("anna")
    book.change_role("anna", "viewer")
    found = kept.find(token, "browser")

    assert found is not None
    assert found.account.role == "viewer"


def test_sessions_that_ended_leave_the_ledger(kept: Sessions, ledger: Ledger, clock: Clock) -> None:
    for _ in range(3):
        kept.open("anna")
    clock.ahead = IDLE
    kept.open("anna")
    with ledger.reading() as connection:
        assert len(connection.execute(select(sessions)).all()) == 1


def test_a_page_that_is_read_again_and_again_writes_nothing(kept: Sessions, ledger: Ledger) -> None:
    token = kept.open("anna")
    with ledger.writing():  # nobody else can write meanwhile
        found = []
        reading = threading.Thread(target=lambda: found.append(kept.find(token, "browser")))
        reading.start()
        reading.join(5)
    assert found
