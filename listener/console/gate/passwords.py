"""Which passwords are taken, and how they are kept: as Argon2id hashes (RFC 9106)."""

import base64
import os
import unicodedata
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from listener.errors import MonroError

SHORTEST: Final = 12
LONGEST: Final = 256
"""Characters; nobody types more, and to hash them costs time."""

FEWEST_DIFFERENT: Final = 5
"""Characters of a password; aaaaaaaaaaaa and 121212121212 have less."""

SHORTEST_NAME: Final = 3
"""Of names that a password may not hold: shorter ones are within words."""

TRIVIAL: Final = frozenset(
    {
        "abcdefgh",
        "abcdefghijkl",
        "administrator",
        "changeme",
        "correcthorsebatterystaple",
        "hospital",
        "iloveyou",
        "letmein",
        "monro",
        "operator",
        "passphrase",
        "password",
        "passwort",
        "qwertyuiop",
        "qwertzuiop",
        "radiology",
        "secret",
        "viewer",
        "welcome",
        "willkommen",
    }
)
"""What everybody tries first, also twice in a row, and with digits or signs around it."""

RUNS: Final = ("01234567890123456789", "98765432109876543210", "abcdefghijklmnopqrstuvwxyz")

HASHER: Final = PasswordHasher()


class WeakPassword(MonroError):
    """A password is one that others would guess."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        return (
            f"the password {self.found}; take one of {SHORTEST} to {LONGEST} characters that "
            "nobody guesses, such as four words that do not belong together"
        )


def require_strong(name: str, password: str) -> None:
    """Refuse what is too short or guessed first.

    Args:
        name: of the account.
        password: for it.

    Raises:
        WeakPassword: it must be another one.
    """
    text = _normal(password).casefold()
    if not SHORTEST <= len(text) <= LONGEST:
        raise WeakPassword(f"has {len(text)} characters")
    if len(set(text)) < FEWEST_DIFFERENT:
        raise WeakPassword("repeats a few characters")
    person = name.casefold().partition("@")[0]
    if len(person) >= SHORTEST_NAME and person in text:
        raise WeakPassword("holds the account's name")
    core = text.strip("0123456789 !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    half = core[: len(core) // 2]
    if not core or core in TRIVIAL or (half in TRIVIAL and core == half * 2):
        raise WeakPassword("is one that everybody tries first")
    if any(text in run for run in RUNS):
        raise WeakPassword("is a row of neighbours")


def hashed(password: str) -> str:
    """What is kept of a password."""
    return HASHER.hash(_normal(password))


def is_right(kept: str, password: str) -> bool:
    """Whether a password is the one that was kept; takes its time, and 64 MiB."""
    try:
        return HASHER.verify(kept, _normal(password))
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(kept: str) -> bool:
    """Whether a hash was made with other parameters than we use now."""
    return HASHER.check_needs_rehash(kept)


def decoy() -> str:
    """A hash that no password has, and that takes as long as any other to find out."""
    salt, digest = (
        base64.b64encode(os.urandom(length)).rstrip(b"=").decode()
        for length in (HASHER.salt_len, HASHER.hash_len)
    )
    cost = f"m={HASHER.memory_cost},t={HASHER.time_cost},p={HASHER.parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"


def _normal(password: str) -> str:
    """As NIST SP 800-63B asks: keyboards write the same letter in several ways."""
    return unicodedata.normalize("NFKC", password)
