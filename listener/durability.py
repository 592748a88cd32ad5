"""Whether a file's new name survives a power cut together with the file.

POSIX promises a name only once its folder was synced, which costs a second flush of the disk. File
systems with one journal for all keep a rename and the inode it touches in the same transaction:
there fsync of the file, after the rename, brings both. tests/listener/test_power_cut.py shows it.
"""

import os
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
JOURNAL_OF: Final = "/sys/fs/ext4/{}/journal_task"
BLOCK_DEVICES: Final = Path("/sys/dev/block")

JOURNALLED: Final = frozenset({"xfs", "btrfs"})
"""They have always a journal; ext4 may be made without."""


def brings_its_name(folder: Path) -> bool:
    """Whether fsync of a file in a folder makes its last rename durable too.

    Args:
        folder: one that exists. False where its file system is not known to do so.
    """
    kind, device = _file_system(folder)
    return kind in JOURNALLED or (kind == "ext4" and _has_journal(device))


def _file_system(folder: Path) -> tuple[str, str]:
    """Type of the file system that a folder lies on, and its device as major:minor."""
    number = folder.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return "", device
    kinds = {fields[2]: fields[fields.index("-") + 1] for line in lines if (fields := line.split())}
    # A subvolume of btrfs may have a number that no mount tells: it counts as unknown.
    return kinds.get(device, ""), device


def _has_journal(device: str) -> bool:
    """Whether an ext4 has one: where it has none, no thread is its journal's."""
    try:
        name = (BLOCK_DEVICES / device).resolve(strict=True).name
        return Path(JOURNAL_OF.format(name)).read_text().strip().isdecimal()
    except OSError:
        return False
