"""Settings refuse to guess."""

import json

import pytest

from listener.errors import BadSettings
from listener.ledger import HOPELESS_ATTEMPTS
from listener.remote import Peer
from listener.settings import read_settings

SOUND = {
    "MONRO_SPOOL": "/var/lib/monro",
    "MONRO_BROKER": "redis://localhost/0",
    "MONRO_SITE": "site-1",
    "MONRO_PEERS": json.dumps([{"ae_title": "PACS"}]),
    "MONRO_DESTINATIONS": json.dumps(
        [{"name": "pacs", "ae_title": "PACS", "host": "pacs", "port": 104}]
    ),
}

OIDC = {
    "issuer": "https://login.hospital",
    "client_id": "monro",
    "client_secret_file": "/run/secrets/oidc",
    "viewers": ["radiology"],
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in SOUND.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_sound_settings_are_read_and_frozen(environment: pytest.MonkeyPatch) -> None:
    settings = read_settings()

    assert settings.ae_title == "MONRO"
    assert settings.ledger_url == "sqlite:////var/lib/monro/ledger.sqlite"
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 104  # type: ignore[misc]


def test_an_analysis_that_is_known_is_asked_for_where_a_site_says_so(
    environment: pytest.MonkeyPatch,
) -> None:
    assert read_settings().analyses == ("fistula",)
    environment.setenv("MONRO_ANALYSES", '["fistula", "infection"]')

    assert read_settings().analyses == ("fistula", "infection")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("MONRO_SPOOL", None, "MONRO_SPOOL: Field required"),
        ("MONRO_SITE", "../x", "MONRO_SITE: String should match"),
        ("MONRO_PEERS", None, "MONRO_OPEN_NODE=true to accept anyone"),
        ("MONRO_OPEN_NODE", "true", "contradict"),
        ("MONRO_DESTINATIONS", "[]", "nowhere to go"),
        ("MONRO_AE_TITLE", "A TITLE THAT IS TOO LONG", "1 to 16 printable"),
        ("MONRO_MAX_ATTEMPTS", str(HOPELESS_ATTEMPTS), "MONRO_MAX_ATTEMPTS: Input should be less"),
        ("MONRO_ANALYSES", '["astrology"]', "astrology"),
        ("MONRO_AUDIT", "logs.hospital:514", "'logs.hospital:514' is no target"),
        ("MONRO_AUDIT", "file://audit.log", "'file://audit.log' is no target"),
        ("MONRO_AUDIT", "syslog+tls://logs", "MONRO_TLS names no certificate"),
        ("MONRO_QUIET_SECOND", "5", "unknown settings MONRO_QUIET_SECOND"),
        ("MONRO_WEB_PORT", "8080", "nobody may send over DICOMweb"),
        ("MONRO_WEB_SENDERS", '[{"name": "a", "token_file": "a"}]', "needs MONRO_WEB_PORT"),
        ("MONRO_WEB_SENDERS", '[{"name": "a"}]', "a token_file or a certificate"),
        ("MONRO_CONSOLE_HOSTS", '["https://monro"]', "MONRO_CONSOLE_HOSTS.0: String should match"),
        ("MONRO_OIDC", json.dumps(OIDC), "MONRO_OIDC needs MONRO_CONSOLE_PORT"),
        ("MONRO_OIDC", json.dumps(OIDC | {"viewers": []}), "nobody may come in"),
        ("MONRO_OIDC", json.dumps(OIDC | {"issuer": "http://login"}), "must be an https URL"),
        ("MONRO_OIDC", json.dumps(OIDC | {"client_secret": "x"}), "CLIENT_SECRET: Extra inputs"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(
    environment: pytest.MonkeyPatch, name: str, value: str | None, complaint: str
) -> None:
    if value is None:
        environment.delenv(name)
    else:
        environment.setenv(name, value)

    with pytest.raises(BadSettings) as raised:
        read_settings()
    assert complaint in str(raised.value)


def test_names_of_the_other_programs_are_left_to_them(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MONRO_WORKER_DEVICE", "cpu")

    assert read_settings().site == "site-1"


def test_a_peer_may_be_tied_to_a_network() -> None:
    peer = Peer(ae_title="PACS", address="10.1.0.0/16")

    assert peer.admits("PACS", "10.1.2.3")
    assert not peer.admits("PACS", "10.2.2.3")
    assert not peer.admits("OTHER", "10.1.2.3")


def test_who_may_send_over_dicomweb_is_not_both_listed_and_anybody(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.delenv("MONRO_PEERS")
    environment.setenv("MONRO_OPEN_NODE", "true")
    environment.setenv("MONRO_WEB_PORT", "8080")
    assert read_settings().web_senders == ()

    environment.setenv("MONRO_WEB_SENDERS", '[{"name": "a", "token_file": "a"}]')
    with pytest.raises(BadSettings, match="MONRO_WEB_SENDERS and MONRO_OPEN_NODE=true contradict"):
        read_settings()


@pytest.mark.parametrize(
    "url", ["ftp://pacs", "https://me:secret@pacs/dicom-web", "pacs", "https://pacs?x"]
)
def test_a_service_is_named_by_a_url_without_a_password(
    environment: pytest.MonkeyPatch, url: str
) -> None:
    environment.setenv("MONRO_DESTINATIONS", json.dumps([{"name": "pacs", "url": url}]))
    with pytest.raises(BadSettings) as caught:
        read_settings()
    assert "secret" not in str(caught.value)
