"""Settings that work and leave a door open are told."""

from typing import Any

import pytest

from listener.cautions import cautions

PACS = {"name": "pacs", "ae_title": "PACS", "host": "pacs", "port": 104}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"open_node": False, "peers": [{"ae_title": "PACS"}]}, "anybody may call itself PACS"),
        ({"open_node": False, "peers": [{"ae_title": "PACS", "address": "10.0.0.5"}]}, None),
        ({"destinations": [{"name": "pacs", "url": "http://pacs/dicom-web"}]}, None),
        (
            {"destinations": [{"name": "pacs", "url": "http://pacs/web", "token_file": "/t"}]},
            "pacs: its token travels in clear",
        ),
        ({"sources": [{"name": "pacs", "url": "https://pacs/web", "token_file": "/t"}]}, None),
        ({"sources": [{"name": "pacs", "url": "http://127.0.0.1/web", "token_file": "/t"}]}, None),
        (
            {
                "open_node": False,
                "peers": [{"ae_title": "PACS", "address": "10.0.0.5"}],
                "bind": "0.0.0.0",
                "web_port": 8080,
                "web_senders": [{"name": "orthanc", "token_file": "/t"}],
            },
            "MONRO_WEB_PORT: tokens travel in clear",
        ),
        (
            {"bind": "0.0.0.0", "console_port": 8443},
            "MONRO_CONSOLE_PORT: passwords travel in clear",
        ),
        ({"console_port": 8443}, None),
        ({"console_proxies": ["10.0.0.8", "10.244.0.0/16"]}, None),
        ({"console_proxies": ["::/0"]}, "MONRO_CONSOLE_PROXIES: with ::/0, everybody chooses"),
        (
            {
                "bind": "0.0.0.0",
                "console_port": 8443,
                "tls": {"certificate": "/c", "key": "/k", "authorities": "/a"},
            },
            None,
        ),
    ],
)
def test_what_leaves_a_door_open_is_told(
    settings_for: Any, changes: dict[str, Any], said: str | None
) -> None:
    told = cautions(settings_for(**({"destinations": [PACS]} | changes)))
    assert [str(said) in each for each in told] == ([] if said is None else [True])
