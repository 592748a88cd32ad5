"""A worker answers for its own settings and for what it shares with the listener."""

from pathlib import Path

import pytest

from listener.errors import BadSettings
from worker.limits import Limits
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
        ("MONRO_SITE", None, "MONRO_SITE: found nothing; expected text"),
        (
            "MONRO_WORKER_BUNDLES",
            "[]",
            "MONRO_WORKER_BUNDLES: found a list of 0; expected list of "
            "paths, at least 1 (ensembles to run",
        ),
        (
            "MONRO_WORKER_EXTRAS",
            '["map"]',
            "MONRO_WORKER_EXTRAS, entry 1: found 'map'; expected one of float-map, region",
        ),
        ("MONRO_WORKER_DEVISE", "cuda", "unknown settings MONRO_WORKER_DEVISE"),
        ("MONRO_BROCKER", "x", "unknown settings MONRO_BROCKER"),
        ("MONRO_WORKER_ALGORITHM_PURPOSE", "1", "MONRO_WORKER_ALGORITHM_PURPOSE: found '1'"),
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


def test_both_halves_may_be_files(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("MONRO_SECRETS", str(tmp_path))
    for name, value in {
        "monro_broker": "redis://of-a-file/0",
        "monro_ledger": "postgresql+psycopg://of-a-file/monro",
        "monro_worker_device": "cuda:1",
        "monro_peers": "for the listener",
    }.items():
        (tmp_path / name).write_text(value)
        (tmp_path / name).chmod(0o600)
    settings = read_settings()

    assert settings.commons.broker == SOUND["MONRO_BROKER"]
    assert settings.commons.ledger == "postgresql+psycopg://of-a-file/monro"
    assert settings.worker.device == "cuda:1"


def test_an_unknown_file_stops_the_worker(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("MONRO_SECRETS", str(tmp_path))
    (tmp_path / "monro_worker_devise").write_text("cuda")

    with pytest.raises(BadSettings, match="unknown settings monro_worker_devise"):
        read_settings()


def test_what_is_spent_on_a_series_is_for_a_site_to_say(environment: pytest.MonkeyPatch) -> None:
    assert read_settings().worker.limits == Limits()

    environment.setenv("MONRO_WORKER_LARGEST_SERIES", "1GiB")
    environment.setenv("MONRO_WORKER_MOST_SLICES", "300")
    environment.setenv("MONRO_WORKER_MOST_SLICE_PIXELS", "1000000")
    environment.setenv("MONRO_WORKER_MOST_VOXELS", "50000000")
    environment.setenv("MONRO_WORKER_DECODE_SECONDS", "60")

    assert read_settings().worker.limits == Limits(1 << 30, 300, 1_000_000, 50_000_000, 60.0)
