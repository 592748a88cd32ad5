"""What `write` returned from survives a power cut: real file systems, looked at as a disk had them.

A file system in an image file is copied the moment that an instance counts as held. The copy is
mounted, so that its journal is replayed, and received from. Needs root, for loop devices.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from listener.durability import brings_its_name
from listener.series import InstanceKey
from listener.spool import Spool
from tests.listener.test_spool import HEAD, KEY

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "ext4 without journal": ["mkfs.ext4", "-q", "-F", "-O", "^has_journal"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
BYTES = 320 << 20
CUTS = 5


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    # A copy of XFS bears the UUID of what it was copied from.
    for options in ("loop,nouuid", "loop"):
        command = ["mount", "-o", options, image, place]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            break
    else:
        pytest.skip(f"loop devices are not permitted here, so this was NOT tested: {done.stderr!r}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def after_a_cut(disk: Path, place: Path) -> set[InstanceKey]:
    """What a listener finds that starts on the disk as it is now."""
    copy = place / "copy"
    subprocess.run(["cp", "--sparse=always", disk, copy], check=True)
    with mounted(copy, place / "after") as after:
        spool = Spool(after / "spool")
        spool.recover(alone=True)
        return {key for key, _path in spool.received()}


@pytest.fixture(params=MAKE)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make = MAKE[request.param]
    if os.geteuid() != 0:
        pytest.skip("mounting needs root, so a power cut was NOT tested")
    if shutil.which(make[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip(f"{make[0]} is absent, so {request.param} was NOT tested")
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(BYTES)
    subprocess.run([*make, image], check=True, capture_output=True)
    return image


def test_what_is_held_is_there_after_a_power_cut(disk: Path, tmp_path: Path) -> None:
    with mounted(disk, tmp_path / "before") as before:
        spool = Spool(before / "spool")
        held = set()
        for number in range(CUTS):
            key = replace(KEY, sop_uid=f"{KEY.sop_uid}.{number}")
            spool.write(key, HEAD, os.urandom(50_000))
            held.add(key)
            assert after_a_cut(disk, tmp_path) == held


def test_a_cut_would_be_noticed(disk: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with mounted(disk, tmp_path / "before") as before:
        spool = Spool(before / "spool")
        spool.write(KEY, HEAD, b"held")
        monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
        spool.write(replace(KEY, sop_uid="1.2.9"), HEAD, b"not synced")
        assert after_a_cut(disk, tmp_path) == {KEY}


@pytest.mark.parametrize("disk", ["ext4 without journal"], indirect=True)
def test_where_no_journal_keeps_names_the_folder_is_synced(disk: Path, tmp_path: Path) -> None:
    with mounted(disk, tmp_path / "before") as before:
        assert not brings_its_name(before)


def test_an_unknown_file_system_is_not_trusted_with_names() -> None:
    assert not brings_its_name(Path("/proc"))
