"""Settings may be files; what a file says applies, or the start is stopped."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from listener.__main__ import app, console
from listener.errors import BadSettings
from listener.settings import read_settings

VARIABLES = {
    "MONRO_SPOOL": "/var/lib/monro",
    "MONRO_SITE": "site-1",
    "MONRO_OPEN_NODE": "true",
    "MONRO_DESTINATIONS": json.dumps(
        [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}]
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the broker's URL, and all other settings as variables."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MONRO_BROKER", raising=False)
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("MONRO_SECRETS", str(folder))
    put(folder, "monro_broker", "redis://:hunter2@localhost/0\n")
    return folder


def put(folder: Path, name: str, content: str, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_text(content)
    path.chmod(mode)
    return path


def test_a_setting_may_be_a_file(folder: Path) -> None:
    assert read_settings().broker == "redis://:hunter2@localhost/0"


def test_lists_may_be_files_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONRO_OPEN_NODE")
    put(folder, "monro_peers", '[{"ae_title": "PACS"}]')

    assert [peer.ae_title for peer in read_settings().peers] == ["PACS"]


def test_a_variable_wins_over_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONRO_BROKER", "redis://elsewhere/0")

    assert read_settings().broker == "redis://elsewhere/0"


def test_links_of_kubernetes_are_followed(folder: Path) -> None:
    version = folder / "..2026_01_01"
    version.mkdir()
    put(version, "monro_ledger", "postgresql+psycopg://db/monro")
    (folder / "..data").symlink_to(version.name)
    (folder / "monro_ledger").symlink_to("..data/monro_ledger")

    assert read_settings().ledger == "postgresql+psycopg://db/monro"


def test_a_folder_that_nobody_can_write_to_may_say_that_everybody_may(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Kubernetes mounts secrets: mode 1777, read-only.
    folder.chmod(0o1777)
    with pytest.raises(BadSettings, match="mode 1777"):
        read_settings()
    script = (
        f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && "
        f"exec {sys.executable} -c 'from listener.settings import *; print(read_settings().broker)'"
    )
    apart = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mount namespaces are not permitted here, so this was NOT tested")
    done = subprocess.run([*apart, "sh", "-c", script], capture_output=True, text=True, check=False)

    assert done.stdout == "redis://:hunter2@localhost/0\n", done.stderr


@pytest.mark.parametrize("name", ["monro_brocker", "MONRO_PASWORD", "monro_secrets"])
def test_an_unknown_file_stops_the_start(folder: Path, name: str) -> None:
    put(folder, name, "x")

    with pytest.raises(BadSettings, match=f"unknown settings {name}"):
        read_settings()


@pytest.mark.parametrize(
    "name", ["monro_worker_device", "monro_trainer_x", "pacs-token", ".gitkeep"]
)
def test_files_of_others_are_left_to_them(folder: Path, name: str) -> None:
    put(folder, name, "x")

    assert read_settings().site == "site-1"


def test_a_misspelt_name_of_the_folder_stops_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONRO_SECRETS_DIR", str(folder))

    with pytest.raises(BadSettings, match="unknown settings MONRO_SECRETS_DIR"):
        read_settings()


def test_a_folder_that_is_not_there_stops_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONRO_SECRETS", str(folder / "absent"))

    with pytest.raises(BadSettings, match="absent: found no such file or directory"):
        read_settings()


def test_what_would_not_apply_stops_the_start(folder: Path, tmp_path: Path) -> None:
    (folder / "monro_ledger").mkdir()
    with pytest.raises(BadSettings, match="monro_ledger: found no file"):
        read_settings()

    (folder / "monro_ledger").rmdir()
    (folder / "monro_ledger").symlink_to(put(tmp_path, "elsewhere", "x"))
    with pytest.raises(BadSettings, match="monro_ledger: found a link that leads out of"):
        read_settings()

    (folder / "monro_ledger").unlink()
    (folder / "monro_ledger").write_bytes(b"\xff\xfe")
    with pytest.raises(BadSettings, match=r"monro_ledger: found no text in UTF-8"):
        read_settings()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_cannot_be_read_stops_the_start(folder: Path) -> None:
    (folder / "monro_broker").chmod(0)

    with pytest.raises(BadSettings, match="monro_broker: found permission denied"):
        read_settings()


@pytest.mark.parametrize("target", ["", "monro_broker"])
def test_what_everybody_may_change_stops_the_start(folder: Path, target: str) -> None:
    (folder / target).chmod(0o777)

    with pytest.raises(BadSettings, match="found mode 0777, so that everybody may change it"):
        read_settings()


def test_a_file_that_everybody_may_read_is_named_and_used(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert read_settings()
    assert caplog.text == ""

    (folder / "monro_broker").chmod(0o444)
    assert read_settings().broker.endswith("@localhost/0")
    assert "monro_broker: everybody on this machine may read it" in caplog.text


def test_text_that_is_no_json_is_complained_of_without_the_text(folder: Path) -> None:
    put(folder, "monro_sources", "hunter2")

    with pytest.raises(BadSettings, match="MONRO_SOURCES: found text that is not JSON") as raised:
        read_settings()
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@127.0.0.1:1/0",
        "redis://monro:hunter2@127.0.0.1:1/0",
        "redis://:hunter2@hunter2/hunter2@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=hunter2&socket_timeout=1",
    ],
)
def test_check_config_prints_no_password(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    put(folder, "monro_broker", url)
    monkeypatch.setenv("MONRO_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(console, "width", 300)
    done = CliRunner().invoke(app, ["check-config"])

    assert "127.0.0.1:1" in done.output
    assert "hunter2" not in done.output
