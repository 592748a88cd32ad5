"""Runs a program as a container would, without one: no capability, and nothing to write to but what
is named.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

APART = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]

POWERLESS = "setpriv --no-new-privs --bounding-set -all --inh-caps -all --ambient-caps -all"

READ_ONLY = f"""
set -e
mount --make-rprivate /
while [ "$1" != -- ]; do mount --bind "$1" "$1"; writable="$1"; shift; done
shift
mount -o remount,bind,ro /
cd "$writable"
for place in / ..; do
    if touch "$place/probe" 2>/dev/null; then echo "$place is not read-only" >&2; exit 1; fi
done
exec {POWERLESS} "$@"
"""


def require_mounts() -> None:
    """Skip what cannot be tested where nobody may mount anything."""
    if subprocess.run([*APART, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mount namespaces are not permitted here, so this was NOT tested")


def contained(command: Sequence[str], *writable: Path) -> list[str]:
    """A command that runs another one on a read-only root.

    Args:
        command: to run, in the last of the folders.
        writable: folders that it may write to.
    """
    return [*APART, "sh", "-c", READ_ONLY, "sh", *map(str, writable), "--", *command]
