"""Settings are shown to everybody who may look, and passwords are not."""

from typing import Any

import pytest
from pydantic import SecretStr

from listener.in_force import in_force, without_passwords
from listener.settings import ListenerSettings

PASSWORD = "PLANTED"

PACS = {"name": "pacs", "ae_title": "PACS", "host": "pacs", "port": 104}

URLS = [
    "redis://:{}@broker:6379/0",
    "redis://monro:{}@broker:6379/0",
    "rediss://monro:{}@broker:6379/0?ssl_cert_reqs=required",
    "postgresql+psycopg://monro:{}@db/monro",
    "postgresql://monro:x {} y@db/monro",
    "postgresql://monro:x@{}@y@db/monro",
    "postgresql://monro:x/{}?y#z@db/monro",
    "postgresql://mon/ro:{}@db/monro",
    "postgresql://db/monro?user=monro&password={}",
    "postgresql://db/monro?sslpassword=x {} y&user=monro",
    "postgresql://db/monro?pass%77ord={}",
    "syslog://monro:{}@collector:514",
]


@pytest.mark.parametrize("url", URLS)
def test_a_password_within_a_url_is_not_shown_and_the_rest_is(url: str) -> None:
    shown = without_passwords(url.format(PASSWORD))

    assert PASSWORD not in shown
    assert "***" in shown
    assert url.partition("://")[0] in shown


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////var/lib/monro/ledger.sqlite",
        "redis://broker:6379/0",
        "https://login.hospital/realms/staff",
        "postgresql://monro@db/monro?sslmode=require",
        "a text with: a colon and an @",
    ],
)
def test_what_holds_no_password_is_shown_as_it_is(url: str) -> None:
    assert without_passwords(url) == url


CHANGES: list[dict[str, Any]] = [
    {"broker": f"redis://:{PASSWORD}@broker/0"},
    {"ledger": f"postgresql://monro:x {PASSWORD}@db/monro"},
    {"audit": f"syslog://monro:{PASSWORD}@collector:514"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=[next(iter(each)) for each in CHANGES])
def test_no_setting_shows_its_password(settings_for: Any, changes: dict[str, Any]) -> None:
    shown = {each.name: each.value for each in in_force(settings_for(**changes))}

    assert PASSWORD not in str(shown)
    (name,) = changes
    assert "***" in shown[f"MONRO_{name.upper()}"]
    assert shown["MONRO_SITE"] == "test-site"


def test_every_setting_that_may_hold_a_password_is_among_those() -> None:
    marked = {
        name
        for name, field in ListenerSettings.model_fields.items()
        if (field.json_schema_extra or {}).get("writeOnly")  # type: ignore[union-attr]
    }
    assert marked <= {next(iter(each)) for each in CHANGES}


def test_a_setting_that_is_a_secret_as_a_whole_is_not_shown(settings_for: Any) -> None:
    class More(ListenerSettings):
        secret: SecretStr = SecretStr(PASSWORD)

    settings = More.model_validate(settings_for().model_dump())

    assert PASSWORD not in str(in_force(settings))


def test_what_a_destination_is_told_is_shown_name_by_name(settings_for: Any) -> None:
    shown = {each.name: each.value for each in in_force(settings_for(destinations=[PACS]))}

    assert shown["MONRO_DESTINATIONS"].startswith("ae_title='PACS' host='pacs'")
