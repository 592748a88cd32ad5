"""Who sealed a bundle: a detached Ed25519 signature over the bytes of its manifest.

The signature lies beside the manifest as 64 bytes, so that OpenSSL checks it as well:

    openssl pkeyutl -verify -rawin -in manifest.json -sigfile manifest.sig -pubin -inkey KEY.pub

A key is known by its fingerprint, the SHA-256 of its SubjectPublicKeyInfo (RFC 5280 4.1.2.7):

    openssl pkey -pubin -in KEY.pub -outform DER | sha256sum
"""

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from listener.errors import MonroError

SIGNATURE: Final = "manifest.sig"
PUBLIC_SUFFIX: Final = ".pub"

OPEN_TO_OTHERS: Final = 0o077


class BadKey(MonroError):
    """A key file that must not be used: what was found, and what to do."""

    def __init__(self, path: Path, found: str, remedy: str) -> None:
        super().__init__(path, found, remedy)
        self.path, self.found, self.remedy = path, found, remedy

    def __str__(self) -> str:
        return f"key file {self.path}: found {self.found}; {self.remedy}"


@dataclass(frozen=True)
class TrustedKey:
    """A public key whose bundles are accepted; `fingerprint` is what people call it by."""

    key: Ed25519PublicKey
    fingerprint: str

    def signed(self, content: bytes, signature: bytes) -> bool:
        """Whether this key made the signature of this content."""
        try:
            self.key.verify(signature, content)
        except InvalidSignature:
            return False
        return True


def make_key(path: Path) -> str:
    """Write a new private key, readable by its owner alone, and its public key beside it.

    Args:
        path: of the private key; the public one has `.pub` appended.

    Returns:
        The fingerprint.

    Raises:
        BadKey: one of the files is there already.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    beside = public_path(path)
    for each in (path, beside):
        if each.exists():
            raise BadKey(each, "a file", "a key is never replaced: name another file")
    _write_new(path, private, 0o600)
    _write_new(beside, public, 0o644)
    return fingerprint(key.public_key())


def public_path(path: Path) -> Path:
    """Where the public key of a private one lies."""
    return path.with_name(path.name + PUBLIC_SUFFIX)


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a key to sign with.

    Raises:
        BadKey: it is no Ed25519 key, or others may read it.
    """
    content = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & OPEN_TO_OTHERS:
        raise BadKey(path, f"mode {mode:04o}", f"needed 0600: chmod 600 {path}")
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        remedy = "`python -m trainer make-key` makes one"
        raise BadKey(path, "no Ed25519 private key in PEM without a passphrase", remedy)
    return key


def read_trusted_keys(paths: Iterable[Path]) -> tuple[TrustedKey, ...]:
    """Read the public keys whose bundles are accepted.

    Raises:
        BadKey: one of them is no Ed25519 public key.
    """
    return tuple(_read_trusted_key(path) for path in paths)


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key, in hexadecimal."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def signer(content: bytes, signature: bytes, trusted: Iterable[TrustedKey]) -> str | None:
    """Fingerprint of the trusted key that signed this content; None where none of them did."""
    return next((key.fingerprint for key in trusted if key.signed(content, signature)), None)


def _read_trusted_key(path: Path) -> TrustedKey:
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        remedy = "name the .pub file that `python -m trainer make-key` wrote"
        raise BadKey(path, "no Ed25519 public key in PEM", remedy)
    return TrustedKey(key, fingerprint(key))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise BadKey(path, why.lower(), "correct the path, or who may read it") from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
