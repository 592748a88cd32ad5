"""Listener and worker as containers run them: no capability, and nothing to write to."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.local import send
from deploy.stack import BUNDLES, Stack, answers, free_ports
from tests.deploy.contained import contained, require_mounts
from tests.deploy.reading import DEPLOY
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import study_of, write_study

HEAD = 2024
"""Seed of a synthetic head with signs."""


def test_a_listener_needs_its_spool_and_no_other_place_to_write_to(tmp_path: Path) -> None:
    require_mounts()
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
            contained([sys.executable, "-m", "listener", "serve"], spool),
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


def test_a_worker_needs_its_spool_and_a_place_for_what_is_temporary(tmp_path: Path) -> None:
    require_mounts()
    head = render(draw_case(HEAD, positive=True, spectrum=OVERT), spacing_mm=2.4)
    write_study(head, tmp_path / "phantom")
    files = sorted((tmp_path / "phantom" / "study").rglob("*.dcm"))
    (figures,) = free_ports(1)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    settings = {
        "MONRO_WORKER_METRICS_PORT": str(figures),
        "MONRO_WORKER_MAP_MODE": "preview",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
    }
    with Stack(tmp_path / "stack", [BUNDLES / "fistula-demo"]) as stack:
        stack.start_redis()
        stack.start_listener()
        spool = Path(stack.environment["MONRO_SPOOL"])
        worker = contained([sys.executable, "-m", "worker", "serve"], spool, temporary)
        stack.spawn("worker", worker, settings)
        stack.wait_for_bundles()
        send(files, stack.listener_port)
        study, ended = study_of(head).uid, {"REPORTED", "REFUSED", "FAILED"}
        stack.wait_until("worker", lambda: bool(states(stack, study) & ended))
        stack.wait_until("worker", lambda: is_healthy(settings, "worker"))

        assert states(stack, study) == {"REPORTED"}, stack.log("worker").read_text()


def states(stack: Stack, study_uid: str) -> set[str]:
    known = stack.ledger.study(study_uid) or {}
    return {job["state"] for job in known.get("jobs", ())}


def is_healthy(settings: Mapping[str, str], program: str = "listener") -> bool:
    """What the container's health check says."""
    check = [sys.executable, "-I", str(DEPLOY / "containers" / "healthy.py"), program]
    return (
        subprocess.run(check, env=settings, check=False, stdout=subprocess.DEVNULL).returncode == 0
    )
