"""Settings that are files: MONRO_SECRETS names a folder of them, such as monro_broker.

Docker, Kubernetes and systemd hand secrets over in this way; unlike variables, files are in no
process listing and in no crash report. A file that would not apply stops the start, as a misspelt
variable does.

Who may read a file is a warning only: Docker and Kubernetes make secrets readable by everybody
within a container, where there is nobody else. Who may write it is not: whoever changes where
results go, or who may send, changes what the node does. A folder that is mounted read-only is
nobody's to write, whatever its mode says.
"""

import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from listener.errors import BadSettings

log = logging.getLogger(__name__)

SECRETS: Final = "MONRO_SECRETS"

BEGINNING: Final = "monro_"


@dataclass(frozen=True)
class SecretFiles:
    """A folder of settings.

    Attributes:
        folder: None where there is none.
        names: of the files that are ours, as they are written.
    """

    folder: Path | None
    names: tuple[str, ...] = ()


def secret_files(environment: Mapping[str, str]) -> SecretFiles:
    """The files that settings may be read from.

    Raises:
        BadSettings: folder or files cannot be read, or anybody may change them.
    """
    named = environment.get(SECRETS, "")
    if not named:
        return SecretFiles(None)
    folder = Path(named)
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.lower().startswith(BEGINNING))
        for path in paths:
            _require_usable(path, folder)
        if not os.statvfs(folder).f_flag & os.ST_RDONLY:  # Kubernetes mounts 1777, read-only
            _require_ours(folder)
    except OSError as error:
        raise _bad(Path(error.filename or folder), (error.strerror or "an error").lower()) from None
    return SecretFiles(folder, tuple(path.name for path in paths))


def _require_usable(path: Path, folder: Path) -> None:
    if folder.resolve() not in path.resolve().parents:
        raise _bad(path, f"a link that leads out of {folder}")
    if not path.is_file():
        raise _bad(path, "no file")
    _require_ours(path)
    try:
        path.read_text("utf-8")
    except UnicodeDecodeError:
        raise _bad(path, "no text in UTF-8") from None
    if path.stat().st_mode & stat.S_IROTH:
        log.warning("%s: everybody on this machine may read it; chmod 600 it", path)


def _require_ours(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH:
        raise _bad(path, f"mode {stat.S_IMODE(mode):04o}, so that everybody may change it")


def _bad(path: Path, found: str) -> BadSettings:
    return BadSettings(
        f"{SECRETS}: {path}: found {found}; expected a folder of text files, named as settings "
        f"are, such as {BEGINNING}broker, that only their owner may change"
    )
