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
        ("MONRO_SPOOL", None, "MONRO_SPOOL: found nothing; expected path (folder of received"),
        ("MONRO_SITE", "../x", "MONRO_SITE: found '../x'; expected text, 1 to 32 of letters"),
        ("MONRO_PEERS", None, "MONRO_OPEN_NODE=true to accept anyone"),
        ("MONRO_OPEN_NODE", "true", "contradict"),
        ("MONRO_DESTINATIONS", "[]", "nowhere to go"),
        ("MONRO_AE_TITLE", "A TITLE THAT IS TOO LONG", "1 to 16 printable"),
        (
            "MONRO_MAX_ATTEMPTS",
            str(HOPELESS_ATTEMPTS),
            "expected whole number, 1 to 7 (runs of one",
        ),
        ("MONRO_ANALYSES", '["astrology"]', "astrology"),
        ("MONRO_AUDIT", "logs.hospital:514", "'logs.hospital:514' is no target"),
        ("MONRO_AUDIT", "file://audit.log", "'file://audit.log' is no target"),
        ("MONRO_AUDIT", "syslog+tls://logs", "MONRO_TLS names no certificate"),
        ("MONRO_AUDIT", "syslog://logs:514th", "'syslog://logs:514th' is no target"),
        ("MONRO_AUDIT", "syslog://[logs", "'syslog://[logs' is no target"),
        ("MONRO_PORT", "eleven", "MONRO_PORT: found 'eleven'; expected whole number, 0 to 65535"),
        ("MONRO_KEEP_FREE", "lots", "MONRO_KEEP_FREE: found 'lots'; expected size, such as 5GiB"),
        ("MONRO_OPEN_NODE", "maybe", "MONRO_OPEN_NODE: found 'maybe'; expected true or false"),
        ("MONRO_KEEP_DAYS", "-1", "MONRO_KEEP_DAYS: found '-1'; expected days, at least 0 (files"),
        ("MONRO_LOG_FORMAT", "xml", "MONRO_LOG_FORMAT: found 'xml'; expected one of text, json"),
        ("MONRO_TLS", "5", "MONRO_TLS: found 5; expected object (our certificate"),
        (
            "MONRO_PEERS",
            '[{"ae_title":]',
            "MONRO_PEERS: found text that is not JSON: it cannot be "
            'read from character 14 on; expected list of Peer (who may send: [{"ae_title"',
        ),
        ("MONRO_PEERS", '{"ae_title": "A"}', "MONRO_PEERS: found an object; expected list of Peer"),
        (
            "MONRO_PEERS",
            '[{"ae_title": "A", "adress": "1"}]',
            "MONRO_PEERS, entry 1, adress: found "
            "a key that is not known; expected one of address, certificate, ae_title",
        ),
        (
            "MONRO_PEERS",
            '[{"ae_title": "A", "port": "x"}]',
            "MONRO_PEERS, entry 1, port: found 'x'; "
            "expected whole number, 1 to 65535 (where it listens itself",
        ),
        (
            "MONRO_TLS",
            '{"key": "a", "authorities": "b"}',
            "MONRO_TLS, certificate: found nothing; expected path (file of ours",
        ),
        ("MONRO_QUIET_SECOND", "5", "unknown settings MONRO_QUIET_SECOND"),
        ("MONRO_WEB_PORT", "8080", "nobody may send over DICOMweb"),
        ("MONRO_WEB_SENDERS", '[{"name": "a", "token_file": "a"}]', "needs MONRO_WEB_PORT"),
        ("MONRO_WEB_SENDERS", '[{"name": "a"}]', "a token_file or a certificate"),
        ("MONRO_CONSOLE_HOSTS", '["https://monro"]', "MONRO_CONSOLE_HOSTS, entry 1: found 'https"),
        ("MONRO_OIDC", json.dumps(OIDC), "MONRO_OIDC needs MONRO_CONSOLE_PORT"),
        ("MONRO_OIDC", json.dumps(OIDC | {"viewers": []}), "nobody may come in"),
        ("MONRO_OIDC", json.dumps(OIDC | {"issuer": "http://login"}), "must be an https URL"),
        (
            "MONRO_OIDC",
            json.dumps(OIDC | {"client_secret": "x"}),
            "client_secret: found a key that is not",
        ),
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


def test_every_complaint_is_one_line_in_plain_words_and_the_last_says_what_to_do(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.delenv("MONRO_SITE")
    environment.setenv("MONRO_PORT", "eleven")
    environment.setenv("MONRO_TLS", "{}")
    with pytest.raises(BadSettings) as raised:
        read_settings()

    *complaints, step = str(raised.value).splitlines()
    assert [each.partition(": found")[0] for each in complaints] == [
        "MONRO_SITE",
        "MONRO_PORT",
        *(f"MONRO_TLS, {key}" for key in ("certificate", "key", "authorities")),
    ]
    assert step == "Correct this and try again; docs/configuration.md describes every setting."


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"name": "pacs", "port": 104}, ["ae_title", "host"]),
        ({"name": "pacs", "ae_title": "PACS", "host": "pacs"}, ["port"]),
        ({"url": "https://pacs"}, ["name"]),
    ],
)
def test_of_two_forms_the_one_that_was_meant_is_explained(
    environment: pytest.MonkeyPatch, given: dict[str, object], missing: list[str]
) -> None:
    environment.setenv("MONRO_DESTINATIONS", json.dumps([given]))
    with pytest.raises(BadSettings) as raised:
        read_settings()

    assert str(raised.value).splitlines()[:-1] == [
        line
        for key in missing
        for line in str(raised.value).splitlines()
        if line.startswith(f"MONRO_DESTINATIONS, entry 1, {key}: found nothing; expected ")
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MONRO_BROKER", "amqp://monro:hunter2@broker"),
        ("MONRO_BROKER", "hunter2"),
        ("MONRO_AUDIT", "syslog://monro:hunter2@/logs"),
        ("MONRO_DESTINATIONS", '[{"name": "pacs", "url": "https://me:hunter2@pacs"}]'),
        ("MONRO_DESTINATIONS", '[{"name": "pacs", "url": "https://pacs?token=hunter2"}]'),
        ("MONRO_WEB_SENDERS", '[{"name": "pacs", "token": "hunter2"}]'),
        ("MONRO_OIDC", json.dumps(OIDC | {"client_secret": "hunter2"})),
        ("MONRO_OIDC", '{"client_secret": "hunter2"'),
    ],
)
def test_what_may_be_a_password_is_not_shown(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(BadSettings, match=name) as raised:
        read_settings()

    assert "hunter2" not in str(raised.value)


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
