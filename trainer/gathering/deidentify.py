"""Names of patients and studies that nobody can turn back without the salt.

A pseudonym is a keyed hash (HMAC-SHA256, RFC 2104): without the key, trying out all hospital
numbers tells nothing. The key, called the salt here, stays in a file of its own beside the
hospital's other secrets; who has both salt and cohort can find the patients again, so the salt
never travels with the cohort.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final, Literal

from listener.errors import MonroError

SALT_BYTES: Final = 32
# 16 hex digits are 64 bits: two of 100 000 studies share a name with a chance of 3 in 10^10.
PSEUDONYM_DIGITS: Final = 16
# HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C): ages above 89 become one class, 90 and older.
OLDEST_TOLD: Final = 89
OLDER: Final = 90.0


class BadSalt(MonroError):
    """The salt file is no secret, or holds no salt."""

    def __init__(self, path: str, found: str, needed: str) -> None:
        super().__init__(path, found, needed)
        self.path, self.found, self.needed = path, found, needed

    def __str__(self) -> str:
        return f"salt file {self.path}: found {self.found}; {self.needed}"


def read_salt(path: Path) -> bytes:
    """The salt in a file, which is made, readable by its owner alone, when it is missing.

    Raises:
        BadSalt: others may read the file, or it does not hold what was written by us.
    """
    if not path.exists():
        _make_salt(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise BadSalt(str(path), f"mode {mode:04o}", f"needed 0600: chmod 600 {path}")
    try:
        salt = bytes.fromhex(path.read_text("ascii"))
    except ValueError:
        salt = b""
    if len(salt) != SALT_BYTES:
        raise BadSalt(
            str(path),
            f"{path.stat().st_size} bytes that are not {SALT_BYTES} bytes in hexadecimal",
            "restore it from a backup; a new salt gives every patient and study a new name",
        )
    return salt


def pseudonym(salt: bytes, kind: Literal["patient", "study", "outcome"], identifier: str) -> str:
    """The name under which something appears in a cohort: 16 hexadecimal digits.

    The kind is hashed too, so that a patient and a study of the same number have unrelated names.

    >>> pseudonym(b"secret", "patient", "4711")
    '5481d2a11adc30f1'
    >>> pseudonym(b"secret", "study", "4711")
    'a6fbee9561493669'
    """
    message = f"{kind}\0{identifier}".encode()
    return hmac.new(salt, message, hashlib.sha256).hexdigest()[:PSEUDONYM_DIGITS]


def told_age(years: float | None) -> float | None:
    """An age that may be kept: above 89 it becomes 90.

    >>> told_age(89.0), told_age(89.5), told_age(103.0), told_age(None)
    (89.0, 90.0, 90.0, None)
    """
    if years is None:
        return None
    return OLDER if years > OLDEST_TOLD else years


def _make_salt(path: Path) -> None:
    """Write a new salt; of two processes that try at once, one wins and both read the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SALT_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link never replaces: a salt that exists already has named patients.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(part)
    finally:
        part.unlink()
