"""A worker answers for its own settings and for what it shares with the listener."""

import pytest

from listener.errors import BadSettings
from worker.settings import read_settings

SOUND = {
    "MONRO_SPOOL": "/var/lib/monro",
    "MONRO_BROKER": "redis://localhost/0",
    "MONRO_SITE": "site-1",
    "MONRO_WORKER_BUNDLES": '["/opt/bundle"]',
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in SOUND.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_both_halves_are_read(environment: pytest.MonkeyPatch) -> None:
    settings = read_settings()

    assert settings.commons.site == "site-1"
    assert [str(path) for path in settings.worker.bundles] == ["/opt/bundle"]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("MONRO_SITE", None, "MONRO_SITE: Field required"),
        ("MONRO_WORKER_BUNDLES", "[]", "MONRO_WORKER_BUNDLES: Tuple should have at least 1"),
        ("MONRO_WORKER_DEVISE", "cuda", "unknown settings MONRO_WORKER_DEVISE"),
        ("MONRO_BROCKER", "x", "unknown settings MONRO_BROCKER"),
        ("MONRO_WORKER_ALGORITHM_PURPOSE", "1", "MONRO_WORKER_ALGORITHM_PURPOSE: Input should be"),
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


def test_settings_of_the_listener_are_left_to_it(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MONRO_QUIET_SECONDS", "5")

    assert read_settings().commons.site == "site-1"
