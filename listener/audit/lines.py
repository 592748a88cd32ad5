"""A restricted file of lines that several processes append to, and that may be moved away."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ONLY_OURS: Final = 0o600
FOLDER_ONLY_OURS: Final = 0o700


class Lines:
    """A file that is there in whole lines, whoever writes at the same time.

    It is opened for each line: a tool that rotates logs may move it away at any time, and the next
    line begins a new one.

    Args:
        path: of the file; it and its folder are made for our eyes only.
        limit_bytes: it may have at most; None: the site sees to that.
    """

    def __init__(self, path: Path, limit_bytes: int | None = None) -> None:
        self.path = path
        self._limit = limit_bytes

    def check(self) -> None:
        """Make the file if it is not there; raises OSError where it cannot be written."""
        with self._opened():
            pass

    def append(self, line: str) -> None:
        """Write one line, all of it or nothing.

        Raises:
            OSError: nothing was written.
        """
        content = f"{line}\n".encode()
        with self._opened() as descriptor:
            size = os.fstat(descriptor).st_size
            if self._limit is not None and size + len(content) > self._limit:
                raise OSError(errno.EDQUOT, f"more than {self._limit} bytes wait", str(self.path))
            try:
                written = os.write(descriptor, content)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
            if written < len(content):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def move(self, aside: Path) -> None:
        """Give what is there another name; nobody appends to it any more."""
        with self._opened():
            self.path.rename(aside)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The file of this name, which nobody else writes to or moves meanwhile."""
        self.path.parent.mkdir(mode=FOLDER_ONLY_OURS, parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, ONLY_OURS)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if is_at(descriptor, self.path):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)  # and the lock with it


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
