"""Programs that tests need from Debian: without one, `make test` fails; by hand, tests skip."""

import os
import shutil
from typing import Never

import pytest

REQUIRED = "SYSTEM_TOOLS"
"""Environment: "required" where deploy/system-tools.sh has run, as in `make test` and so in CI."""


def program(name: str, package: str) -> str:
    """Where a program is; fails or skips without it.

    Args:
        name: of the program.
        package: of Debian that has it.
    """
    found = shutil.which(name)
    return found if found is not None else is_absent(name, package)


def is_absent(what: str, package: str) -> Never:
    """Say that something is absent: an error where all tools must be there, else a skip."""
    said = (
        f"{what} is absent (Debian package {package}), so this was NOT tested; "
        "`make system-tools` installs it"
    )
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{said}. {REQUIRED}=required: a test must not be left out here", pytrace=False)
    pytest.skip(said)
