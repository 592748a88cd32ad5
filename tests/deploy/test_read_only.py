"""A listener as a container runs it, without one: no capability, and nothing to write to."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.stack import answers, free_ports
from tests.deploy.reading import DEPLOY

APART = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]

INSIDE = """
set -e
mount --make-rprivate /
mount --bind "$MONRO_SPOOL" "$MONRO_SPOOL"
mount -o remount,bind,ro /
cd "$MONRO_SPOOL"
! touch /read-only-indeed 2>/dev/null
exec setpriv --no-new-privs --bounding-set -all --inh-caps -all --ambient-caps -all \
    "$0" -m listener serve
"""


def test_a_listener_needs_its_spool_and_no_other_place_to_write_to(tmp_path: Path) -> None:
    if subprocess.run([*APART, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mount namespaces are not permitted here, so this was NOT tested")
    port, console = free_ports(2)
    spool = tmp_path / "spool"
    spool.mkdir()
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}
    settings = {
        "MONRO_SPOOL": str(spool),
        "MONRO_BROKER": "redis://127.0.0.1:1/0",
        "MONRO_SITE": "local",
        "MONRO_OPEN_NODE": "true",
        "MONRO_KEEP_FREE": "1",
        "MONRO_PORT": str(port),
        "MONRO_CONSOLE_PORT": str(console),
        "MONRO_CONSOLE_HOSTS": '["monro.hospital"]',
        "MONRO_DESTINATIONS": json.dumps([pacs]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HOME": "/nonexistent",
    }
    with (tmp_path / "log").open("wb") as log:
        listener = subprocess.Popen(
            [*APART, "sh", "-c", INSIDE, sys.executable],
            env={"PATH": os.environ["PATH"], **settings},
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + 30
            while not answers(port):
                assert listener.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.1)
            while not is_healthy(settings):
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        finally:
            listener.terminate()
            status = listener.wait(30)

    assert status == 0, (tmp_path / "log").read_text()
    assert (spool / "ledger.sqlite").exists()
    assert not is_healthy(settings)


def is_healthy(settings: Mapping[str, str]) -> bool:
    """What the container's health check says."""
    check = [sys.executable, "-I", str(DEPLOY / "containers" / "healthy.py"), "listener"]
    return (
        subprocess.run(check, env=settings, check=False, stdout=subprocess.DEVNULL).returncode == 0
    )
