"""Units, read by systemd itself."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.reading import DEPLOY, compose

UNITS = DEPLOY / "systemd"
PYTHON = "/opt/monro/bin/python"
MOST_EXPOSURE = 20
"""Tenths, of 100: what systemd calls OK ends at 4."""


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units with an interpreter that there is; of the template, one instance."""
    found = []
    for path in sorted(UNITS.iterdir()):
        copy = tmp_path / path.name.replace("@.", "@0.")
        copy.write_text(path.read_text().replace(PYTHON, sys.executable))
        found.append(copy)
    return found


def analyse(*arguments: object) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    assert tool, "systemd-analyze is not installed: `make system-tools` installs it"
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_systemd_reads_them_without_a_word(units: list[Path]) -> None:
    done = analyse("verify", "--man=no", *units)
    assert (done.returncode, done.stderr) == (0, "")
    units[0].write_text(units[0].read_text().replace("ProtectHome=yes", "ProtectHme=yes"))
    assert "ProtectHme" in analyse("verify", "--man=no", *units).stderr


def test_they_may_do_little(units: list[Path]) -> None:
    for unit in units:
        done = analyse("security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", unit)
        assert done.returncode == 0, done.stdout[-200:]


@pytest.mark.parametrize("path", sorted(UNITS.iterdir()), ids=lambda path: path.name)
def test_they_get_the_same_secrets_as_containers(path: Path) -> None:
    given = set(re.findall(r"^LoadCredential=(\w+):", path.read_text(), re.MULTILINE))
    program = "worker" if "worker" in path.name else "listener"
    assert given == set(compose("compose.yaml")["services"][program]["secrets"])
    assert "MONRO_SECRETS=%d" in path.read_text()


def test_a_worker_may_finish_its_job() -> None:
    from worker.settings import WorkerSettings

    text = (UNITS / "monro-worker@.service").read_text()
    (minutes,) = re.findall(r"^TimeoutStopSec=(\d+)min$", text, re.MULTILINE)
    assert int(minutes) * 60 > WorkerSettings.model_fields["map_seconds"].default
    assert json.dumps(text).count("KillMode=mixed") == 1
