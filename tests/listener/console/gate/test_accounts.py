"""Accounts: who may come in is decided by name and password, and by nothing that can be timed."""

import time

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from listener.console.gate import passwords
from listener.console.gate.accounts import Account, Accounts, BadAccount, Person
from listener.console.gate.passwords import WeakPassword
from listener.ledger import Ledger
from listener.tables import accounts
from tests.listener.console.gate.conftest import PASSWORD

OTTO = Person("https://login.hospital", "7f3c")


@pytest.fixture(name="book")
def some_accounts(ledger: Ledger) -> Accounts:
    book = Accounts(ledger)
    book.add("Anna", "viewer", PASSWORD)
    return book


def kept(ledger: Ledger, name: str = "anna") -> str:
    with ledger.reading() as connection:
        return str(connection.scalar(select(accounts.c.password).where(accounts.c.name == name)))


def test_the_right_password_is_told_from_wrong_ones(book: Accounts) -> None:
    assert book.verify(" ANNA ", PASSWORD) == Account("anna", "viewer")
    assert book.verify("anna", PASSWORD + "x") is None
    assert book.verify("anna", "") is None
    assert book.verify("berta", PASSWORD) is None


def test_the_same_password_typed_on_another_keyboard_is_the_same(ledger: Ledger) -> None:
    book = Accounts(ledger)
    book.add("anna", "viewer", "vier gru\u0308ne Pferde")

    assert book.verify("anna", "vier gr\u00fcne Pferde") is not None


def test_nothing_of_a_password_is_kept_but_its_hash(book: Accounts, ledger: Ledger) -> None:
    assert kept(ledger).startswith("$argon2id$v=19$m=65536,")
    assert PASSWORD not in kept(ledger)


def test_unknown_disabled_and_vouched_names_take_as_long_as_a_wrong_password(
    book: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.add("berta", "viewer", PASSWORD)
    book.disable("berta")
    book.vouched("otto", "viewer", OTTO)
    hashes = []

    def noted(hash_: str, password: str) -> bool:
        hashes.append(hash_.split("$")[:4])
        begun = time.perf_counter()
        right = passwords.is_right(hash_, password)
        seconds.append(time.perf_counter() - begun)
        return right

    monkeypatch.setattr("listener.console.gate.accounts.is_right", noted)
    fastest = []
    for name in ("anna", "nobody", "berta", "otto"):
        seconds: list[float] = []
        for _ in range(5):
            assert book.verify(name, "a wrong one") is None
        fastest.append(min(seconds))

    assert len(hashes) == 20
    assert all(each == hashes[0] for each in hashes), "another algorithm, or other costs"
    assert max(fastest) < 3 * min(fastest), fastest


def test_a_disabled_account_does_not_come_in_until_it_is_enabled(book: Accounts) -> None:
    book.disable("anna")
    assert book.verify("anna", PASSWORD) is None

    book.enable("anna")
    assert book.verify("anna", PASSWORD) is not None


def test_a_password_is_hashed_anew_when_the_costs_of_hashing_change(
    book: Accounts, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept(ledger)
    dearer = PasswordHasher(time_cost=passwords.HASHER.time_cost + 1)
    monkeypatch.setattr(passwords, "HASHER", dearer)
    assert book.verify("anna", "a wrong one") is None
    assert kept(ledger) == before

    assert book.verify("anna", PASSWORD) is not None
    assert f"t={dearer.time_cost}," in kept(ledger)
    assert book.verify("anna", PASSWORD) is not None


@pytest.mark.parametrize(
    ("password", "complaint"),
    [
        ("short", "has 5 characters"),
        ("elevenchars", "has 11 characters"),
        ("x" * 257, "has 257 characters"),
        ("aaaaaaaaaaaaaa", "repeats a few"),
        ("Password2026!!", "everybody tries first"),
        ("passwordpassword", "everybody tries first"),
        ("!!RADIOLOGY 2026", "everybody tries first"),
        ("20261122235959", "everybody tries first"),
        ("abcdefghijklmn", "row of neighbours"),
        ("MyNameIsAnna99", "holds the account's name"),
    ],
)
def test_a_password_that_others_guess_is_refused(
    ledger: Ledger, password: str, complaint: str
) -> None:
    with pytest.raises(WeakPassword, match=complaint) as raised:
        Accounts(ledger).add("anna@hospital", "viewer", password)
    assert password not in str(raised.value)
    assert Accounts(ledger).all() == []


@pytest.mark.parametrize(
    "name", ["", "a b", "../anna", "an\nna", "<script>", "x" * 65, "ann\u00e4"]
)
def test_a_name_that_is_none_is_refused(ledger: Ledger, name: str) -> None:
    with pytest.raises(BadAccount, match="is no name of an account"):
        Accounts(ledger).add(name, "viewer", PASSWORD)


def test_an_account_is_made_once(book: Accounts) -> None:
    with pytest.raises(BadAccount, match="account anna is there already"):
        book.add("ANNA", "operator", PASSWORD)
    assert [each.role for each in book.all()] == ["viewer"]


def test_whom_another_vouches_for_does_not_become_an_account_with_a_password(
    book: Accounts,
) -> None:
    with pytest.raises(BadAccount, match="signs in with a password"):
        book.vouched("anna", "operator", OTTO)

    assert book.vouched("otto", "viewer", OTTO) == Account("otto", "viewer")
    with pytest.raises(BadAccount, match="MONRO_OIDC vouches"):
        book.change_password("otto", PASSWORD)
    assert book.verify("otto", "") is None


@pytest.mark.parametrize(
    "other", [Person(OTTO.issuer, "other"), Person("https://other.hospital", OTTO.subject)]
)
def test_a_name_that_changes_hands_does_not_take_the_account_along(
    book: Accounts, other: Person
) -> None:
    book.vouched("otto", "operator", OTTO)
    with pytest.raises(BadAccount, match="account otto belongs to somebody else of that name"):
        book.vouched("otto", "viewer", other)
    assert {each.name: each.role for each in book.all()}["otto"] == "operator"


def test_a_person_keeps_the_account_under_another_name(book: Accounts) -> None:
    book.vouched("otto", "viewer", OTTO)
    assert book.vouched("otto.new", "operator", OTTO) == Account("otto", "operator")
    assert [each.name for each in book.all()] == ["anna", "otto"]


def test_an_account_that_was_released_is_whose_the_provider_says_next(book: Accounts) -> None:
    new = Person(OTTO.issuer, "made-anew")
    book.vouched("otto", "viewer", OTTO)
    book.release("otto")
    assert book.vouched("otto", "viewer", new) == Account("otto", "viewer")
    with pytest.raises(BadAccount, match="somebody else"):
        book.vouched("otto", "viewer", OTTO)
    with pytest.raises(BadAccount, match="anna signs in with a password"):
        book.release("anna")


def test_changes_to_nobody_are_refused(book: Accounts) -> None:
    for change in (book.disable, book.enable, book.require, book.release):
        with pytest.raises(BadAccount, match="no account 'nobody' is there"):
            change("nobody")
    with pytest.raises(BadAccount):
        book.change_role("nobody", "viewer")
