"""What every test may lean on."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real DICOM beside the repository; absent on a plain clone."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real DICOM is absent: {SHARED_DATA} is not there, so this was NOT tested")
    return SHARED_DATA
