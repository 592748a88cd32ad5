"""The release of OHIF that the tests drive: fetched once from npm, verified, unpacked in a cache.

`python -m tests.viewers.release` fetches it; it is never part of the repository.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE, VERSION = "@ohif/app", "3.13.2"
SHA512 = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""Of the package, as the registry tells it (npm view @ohif/app@3.13.2 dist.integrity)."""
ARCHIVE = f"ohif-app-{VERSION}.tgz"

CACHE = Path.home() / ".cache" / "monro"
UNPACKED = CACHE / f"ohif-{VERSION}"


class NotFetched(Exception):
    """OHIF is not here, and this is why."""


def dist() -> Path:
    """The folder of OHIF's pages.

    Raises:
        NotFetched: it was not fetched yet.
    """
    if not UNPACKED.is_dir():
        raise NotFetched(f"{UNPACKED} is not there: `make test-viewer` fetches OHIF once from npm")
    return UNPACKED


def fetch() -> None:
    """Fetch, verify and unpack OHIF, unless that was done before.

    Raises:
        NotFetched: the registry was not reached, or what it sent is not what we know.
    """
    if UNPACKED.is_dir():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        archive = CACHE / ARCHIVE
        if not archive.exists():
            archive = _packed(folder)
        verify(archive)
        with tarfile.open(archive) as packed:
            # Debian 12's Python knows no filters yet; what is unpacked is what was verified.
            packed.extraction_filter = getattr(tarfile, "data_filter", None)
            packed.extractall(folder)
        (folder / "package" / "dist").rename(UNPACKED)


def _packed(folder: Path) -> Path:
    """The package as npm fetches it."""
    by_hand = f"or put {ARCHIVE} into {CACHE} by hand"
    npm = shutil.which("npm")
    if npm is None:
        raise NotFetched(f"npm fetches OHIF and is not installed: apt-get install npm, {by_hand}")
    done = subprocess.run(
        [npm, "pack", "--loglevel=error", f"{PACKAGE}@{VERSION}"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it did not say why"])[0]
        raise NotFetched(
            f"npm did not fetch {PACKAGE} {VERSION} (48 MB): {why}; let this machine reach the "
            f"npm registry (npm config get registry), {by_hand}"
        )
    return folder / ARCHIVE


def verify(archive: Path) -> None:
    """Compare an archive with the checksum above.

    Raises:
        NotFetched: they differ.
    """
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != SHA512:
        raise NotFetched(
            f"{archive} has sha512 {found} where {PACKAGE} {VERSION} has {SHA512}; "
            "remove it and fetch it again"
        )


if __name__ == "__main__":
    try:
        fetch()
    except NotFetched as error:
        sys.exit(f"viewers: {error}")
