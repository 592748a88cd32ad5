"""What `make up` leaves for whoever wants to ask its servers anything."""

import os
import subprocess
import sys
from pathlib import Path

from deploy.local import write_settings
from deploy.stack import Stack


def test_the_settings_of_make_up_can_be_read_by_a_shell_and_by_the_listener(
    tmp_path: Path,
) -> None:
    stack = Stack(tmp_path / "a folder's name")
    Path(stack.environment["MONRO_SPOOL"]).mkdir(parents=True)
    path = write_settings(stack.environment, tmp_path / "monro.env")

    assert path.stat().st_mode & 0o777 == 0o600
    script = 'set -a; . "$0"; set +a; exec "$1" -m listener status --json'
    done = subprocess.run(
        ["sh", "-c", script, path, sys.executable],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"studies": []' in done.stdout
    assert (stack.folder / "spool" / "ledger.sqlite").exists()
