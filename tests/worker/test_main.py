"""The worker's command line: what whoever sets one up reads."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker.__main__ import app

DEMO = Path(__file__).parents[2] / "deploy" / "bundles" / "fistula-demo"

run = CliRunner()


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Sound settings; nobody answers as the broker."""
    for name, value in {
        "MONRO_SPOOL": str(tmp_path / "spool"),
        "MONRO_BROKER": "redis://:hunter2@127.0.0.1:1/0",
        "MONRO_SITE": "test",
        "MONRO_WORKER_BUNDLES": json.dumps([str(DEMO)]),
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_check_config_says_what_is_in_force_and_what_it_points_to(
    environment: pytest.MonkeyPatch,
) -> None:
    done = run.invoke(app, ["check-config"])

    assert done.exit_code == 0, done.stderr
    for said in ("MONRO_SITE", "MONRO_WORKER_MAP_MODE", "broker: does not answer now"):
        assert said in done.stdout
    assert "bundle fistula-demo" in done.stdout
    assert "(fistula): verified" in done.stdout
    assert "hunter2" not in done.output


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("MONRO_WORKER_THREADS", "many", "MONRO_WORKER_THREADS: found 'many'; expected whole"),
        ("MONRO_WORKER_DEVISE", "cpu", "unknown settings MONRO_WORKER_DEVISE"),
        ("MONRO_WORKER_DEVICE", "gpu", "MONRO_WORKER_DEVICE: found 'gpu'; expected one of cpu"),
        ("MONRO_WORKER_DEVICE", "cuda:99", "MONRO_WORKER_DEVICE: found 'cuda:99'; expected one of"),
        ("MONRO_WORKER_DEVICE", "meta", "MONRO_WORKER_DEVICE: found 'meta'; expected one of cpu"),
        ("MONRO_WORKER_BUNDLES", '["/absent"]', "bundle /absent: found no manifest.json"),
        ("MONRO_WORKER_TRUSTED_KEYS", '["/absent.pub"]', "/absent.pub"),
        ("MONRO_SPOOL", "/proc/spool", "/proc/spool"),
        ("MONRO_LEDGER", "postgresql+psycopg://monro:hunter2@127.0.0.1:1/monro", "MONRO_LEDGER"),
    ],
)
def test_check_config_names_what_is_wrong(
    environment: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    environment.setenv(name, value)
    done = run.invoke(app, ["check-config"])

    assert done.exit_code == 1
    assert complaint in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.output


def test_check_config_names_a_bundle_that_was_altered(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    altered = shutil.copytree(DEMO, tmp_path / "altered")
    (altered / "configs" / "metadata.json").write_text("{}")
    environment.setenv("MONRO_WORKER_BUNDLES", json.dumps([str(tmp_path)]))

    done = run.invoke(app, ["check-config"])

    assert done.exit_code == 1
    # Lines break where the terminal ends: also at a space, which is gone then.
    assert f"bundle{altered}:found" in "".join(done.stderr.split())


def test_check_config_leaves_bundles_for_a_worker_to_register(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from listener.ledger import Ledger
    from listener.rollout import registered

    assert run.invoke(app, ["check-config"]).exit_code == 0

    ledger = Ledger(f"sqlite:///{tmp_path / 'spool' / 'ledger.sqlite'}")
    assert registered(ledger) == []
    ledger.close()
