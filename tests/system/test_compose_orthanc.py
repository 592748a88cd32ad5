"""Compose's Orthanc, started by its own files as its container mounts them, without a container:
a read-only root, no capability, ports and passwords as they are written.
"""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import MRImageStorage
from pynetdicom import AE

from deploy.stack import answers
from tests.deploy.contained import APART, POWERLESS, require_mounts
from tests.deploy.reading import DEPLOY, compose
from tests.tools import program

COMPOSE = DEPLOY / "compose"
URL = "http://127.0.0.1:8042"
OF_PLUGINS = {"DicomWeb"}
"""Sections that Orthanc's own defaults do not have."""

INSIDE = f"""
set -e
mount --make-rprivate /
mount --bind "$FILES/orthanc" /etc/orthanc
mount -t tmpfs none /opt
cp "$FILES"/*.lua /opt
mount -o remount,bind,ro /opt
mount -t tmpfs none /var/lib/orthanc
mkdir /var/lib/orthanc/db
mount -t tmpfs none /tmp
mount -o remount,bind,ro /
cd /tmp
if touch /probe 2>/dev/null; then echo "the root is not read-only" >&2; exit 1; fi
exec {POWERLESS} "$@"
"""


@pytest.fixture
def password(tmp_path: Path) -> str:
    """Made by the script that makes all of compose's secrets."""
    script = shutil.copy(COMPOSE / "make-secrets.sh", tmp_path)
    subprocess.run([script], check=True, capture_output=True)
    users = json.loads((tmp_path / "secrets" / "orthanc_users.json").read_text())
    return str(users["RegisteredUsers"]["monro"])


@pytest.fixture
def orthanc(tmp_path: Path, password: str) -> Iterator[None]:
    """An Orthanc that runs as in its container."""
    with running(tmp_path):
        yield


@contextmanager
def running(folder: Path, script: str = "forward-stable-studies.lua") -> Iterator[None]:
    """Start it on what compose mounts, gathered in a folder that has the secrets already."""
    require_mounts()
    service = compose("compose.yaml")["services"]["orthanc"]
    (folder / "orthanc").mkdir()
    shutil.copy(COMPOSE / "orthanc.json", folder / "orthanc")
    shutil.copy(folder / "secrets" / "orthanc_users.json", folder / "orthanc" / "users.json")
    shutil.copy(DEPLOY / "orthanc" / "forward-stable-studies.lua", folder / script)
    path = folder / "log"
    with path.open("wb") as log:
        server = subprocess.Popen(
            [*APART, "sh", "-c", INSIDE, "sh", program("Orthanc", "orthanc"),
             *service["command"]],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "FILES": str(folder)},
            stdout=log,
            stderr=log,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while not answers(4242):
                assert server.poll() is None, path.read_text()
                assert time.monotonic() < deadline, path.read_text()
                time.sleep(0.1)
            yield
        finally:
            server.terminate()
            status = server.wait(30)
    assert status == 0, path.read_text()


def asked(path: str, password: str = "") -> Any:
    """An answer of its REST interface."""
    request = urllib.request.Request(f"{URL}{path}")
    if password:
        encoded = base64.b64encode(f"monro:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_it_starts_by_its_files_and_lets_in_whom_they_name(orthanc: None, password: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        asked("/system")

    system = asked("/system", password)
    assert (system["Name"], system["DicomAet"]) == ("ORTHANC", "ORTHANC")
    assert asked("/modalities", password) == ["monro"]
    assert asked("/dicom-web/studies", password) == []
    check = compose("compose.yaml")["services"]["orthanc"]["healthcheck"]["test"]
    assert subprocess.run(check[1:], check=False).returncode == 0


def test_without_its_script_it_would_not_have_started(tmp_path: Path, password: str) -> None:
    with (
        pytest.raises(AssertionError, match=r"forward-stable-studies\.lua"),
        running(tmp_path, script="another.lua"),
    ):
        pass


def test_anybody_may_store_in_it_and_it_calls_monro_by_the_name_of_its_service(
    orthanc: None, password: str
) -> None:
    entity = AE(ae_title="SCANNER")
    entity.add_requested_context(MRImageStorage)
    association = entity.associate("127.0.0.1", 4242, ae_title="ORTHANC")
    assert association.is_established
    assert association.accepted_contexts
    association.release()
    monro = asked("/modalities?expand", password)["monro"]
    assert (monro["AET"], monro["Host"], monro["Port"]) == ("MONRO", "listener", 11112)
    assert "listener" in compose("compose.yaml")["services"]


def test_every_name_in_its_configuration_is_one_that_orthanc_knows(tmp_path: Path) -> None:
    defaults = tmp_path / "defaults.json"
    command = [program("Orthanc", "orthanc"), f"--config={defaults}"]
    subprocess.run(command, check=True, capture_output=True)

    # It ignores what it does not know: a misspelt name would silently not apply.
    given = json.loads((COMPOSE / "orthanc.json").read_text())
    known = re.findall(r'^ *(?:// *)?"(\w+)" *:', defaults.read_text(), re.MULTILINE)
    assert given.keys() - set(known) == OF_PLUGINS
