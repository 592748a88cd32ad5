"""A real Orthanc is asked what a study should hold, and hands over what is missing."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

HEAD = "philips_mprage_sag"
NEVER = "3600"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def store(hospital: Any, files: Sequence[Path]) -> None:
    """Send some slices past the archive, as a scanner whose network broke off would."""
    command = ["/usr/bin/storescu", "-aet", "PACS", "-aec", "MONRO", "127.0.0.1",
               str(hospital.stack.listener_port), *map(str, files)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def asking(a_hospital: Callable[..., Any]) -> Callable[..., Any]:
    """A hospital whose archive is asked, and forwards nothing by itself."""
    entity = '"ae_title": "PACS", "host": "127.0.0.1", "port": ORTHANC_PORT, "retrieve": "{}"'
    service = '"url": "http://127.0.0.1:ORTHANC_HTTP/dicom-web"'
    return lambda way: a_hospital(
        orthanc_changes={
            "LuaScripts": [],
            "DicomAlwaysAllowGet": True,
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True},
        },
        MONRO_SOURCES=f'[{{"name": "pacs", {service if way == "rs" else entity.format(way)}}}]',
        MONRO_QUIET_SECONDS=NEVER,
        MONRO_RELEASED_QUIET_SECONDS=NEVER,
        MONRO_STALLED_SECONDS=NEVER,
        MONRO_COUNTED_SECONDS="1",
    )


@pytest.mark.parametrize("way", ["get", "move", "rs"])
def test_a_study_that_lacks_slices_is_completed_by_count_once_they_are_fetched(
    asking: Callable[..., Any],
    way: str,
    shared_data: Path,
    copies: Callable[..., tuple[str, list[Path]]],
) -> None:
    study_uid, files = copies(sorted((shared_data / HEAD).glob("*.dcm")))
    with asking(way) as hospital:
        hospital.send(files)
        store(hospital, files[: len(files) // 2])
        hospital.await_delivery(study_uid)
        known = hospital.stack.ledger.study(study_uid)
        assert known["reason"] == "pacs has no more of it, and quiet for 1 s"
        assert known["revision"] == 1, "nothing was judged before it was whole"
        assert sum(row["count"] for row in known["instances"]) == len(files)
        assert f"of {len(files) - len(files) // 2} missing instance(s) came from pacs" in (
            hospital.stack.log("listener").read_text()
        )


def test_a_whole_study_is_pulled_on_demand_and_judged(
    asking: Callable[..., Any],
    shared_data: Path,
    copies: Callable[..., tuple[str, list[Path]]],
) -> None:
    study_uid, files = copies(sorted((shared_data / HEAD).glob("*.dcm")))
    with asking("auto") as hospital:
        hospital.send(files)
        done = subprocess.run(
            [sys.executable, "-m", "listener", "pull", study_uid],
            env=os.environ | hospital.stack.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"{len(files)} of {len(files)} missing instance(s) fetched from pacs" in (
            " ".join(done.stdout.split())
        )
        hospital.await_delivery(study_uid)
