"""The Slurm example trains the fold that Slurm asks for, and says what it lacks."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "fit.sbatch"
# What sbatch sets for one job of the array, and what the user hands in.
ASKED = {"SLURM_ARRAY_TASK_ID": "3", "COHORT": "/shared/my cohort", "RUN": "/shared/run"}


@pytest.fixture
def submit(tmp_path):
    """Run the script where `srun` and Python only show what they were called with."""
    for name, body in {"srun": 'exec "${@:2}"', "show": 'printf "%s\\n" "$@"'}.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def run(environment):
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", SCRIPT],
            env={"PATH": path, "PYTHON": "show", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_script_is_sound_shell():
    done = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_each_job_of_the_array_trains_its_own_fold(submit):
    done = submit(ASKED)

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        *("-m", "trainer", "fit"),
        *("--cohort", "/shared/my cohort", "--out", "/shared/run", "--fold", "3"),
    ]


@pytest.mark.parametrize("missing", ASKED)
def test_without_what_it_needs_nothing_is_trained(submit, missing):
    done = submit({name: value for name, value in ASKED.items() if name != missing})

    assert done.returncode != 0
    assert done.stdout == ""
    assert missing in done.stderr


def test_the_array_has_as_many_jobs_as_there_are_folds():
    lines = SCRIPT.read_text().splitlines()

    assert "#SBATCH --array=0-4" in lines
    # Slurm stops to look for #SBATCH lines at the first command.
    first_command = next(at for at, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(not line.startswith("#SBATCH") for line in lines[first_command:])
