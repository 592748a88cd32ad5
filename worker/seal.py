"""A sealed bundle: a manifest with the sha256 of every file, and who signed that manifest."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from worker.signature import SIGNATURE, TrustedKey, signer

MANIFEST: Final = "manifest.json"
METADATA: Final = "configs/metadata.json"
# Data that no reader executes. Everything else (.pt, .ts, .pkl, .py, ...) is refused.
# HTML is for people: the console shows it where no script runs.
HARMLESS_SUFFIXES: Final = frozenset({".html", ".json", ".md", ".txt", ".safetensors"})
HARMLESS_NAMES: Final = frozenset({"LICENSE"})

COPY_AGAIN: Final = "copy the bundle again from where it was exported"
SIGN: Final = (
    "let whoever vouches for it sign it (`python -m trainer sign`), or name their public key in "
    "MONRO_WORKER_TRUSTED_KEYS"
)


class BadBundle(Exception):
    """A bundle folder that must not be used: what was found, what was expected, what to do."""

    def __init__(self, folder: Path, found: str, expected: str, remedy: str = COPY_AGAIN) -> None:
        super().__init__(folder, found, expected, remedy)
        self.folder, self.found, self.expected, self.remedy = folder, found, expected, remedy

    def __str__(self) -> str:
        return f"bundle {self.folder}: found {self.found}, expected {self.expected}; {self.remedy}"


@dataclass(frozen=True)
class Seal:
    """What a manifest says.

    Attributes:
        hashes: sha256 of every file, by its path within the bundle.
        signed_by: fingerprint of the trusted key that signed it; None where none was asked for.
    """

    hashes: dict[str, str]
    signed_by: str | None


def verify(folder: Path, trusted: Sequence[TrustedKey] = ()) -> Seal:
    """Compare a bundle with its manifest.

    Args:
        folder: of the bundle.
        trusted: one of these must have signed the manifest; with none, nobody needs to.

    Raises:
        BadBundle: it is not signed as it must be, or a file differs: the first one is named.
    """
    manifest = _read(folder, MANIFEST)
    signed_by = _require_signature(folder, manifest, trusted) if trusted else None
    hashes = _hashes(folder, manifest)
    present = _files(folder)
    for extra in sorted(present - hashes.keys()):
        raise BadBundle(folder, f"{extra}, which the manifest does not list", "listed files only")
    for missing in sorted(hashes.keys() - present):
        raise BadBundle(folder, f"no {missing}", "every file that the manifest lists")
    for name, expected in sorted(hashes.items()):
        if (found := sha256((folder / name).read_bytes())) != expected:
            raise BadBundle(folder, f"sha256 {found} of {name}", expected)
    return Seal(hashes, signed_by)


def read_metadata(folder: Path) -> dict[str, Any]:
    """What a bundle says of itself.

    Raises:
        BadBundle: it says nothing that can be read.
    """
    return _parsed(folder, METADATA, _read(folder, METADATA))


def write_manifest(folder: Path) -> None:
    """Seal a bundle: list the sha256 of every file in it, under its statement.

    A signature that is there is removed: it was of what the bundle was before.

    Raises:
        BadBundle: the folder holds a file of a kind that can carry code.
    """
    names = sorted(_files(folder))
    hashes = {name: sha256((folder / name).read_bytes()) for name in names}
    statement = read_metadata(folder).get("monro", {}).get("statement", "")
    manifest = {"statement": statement, "sha256": hashes}
    (folder / SIGNATURE).unlink(missing_ok=True)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def sign(folder: Path, key: Ed25519PrivateKey) -> None:
    """Vouch for a bundle as it is: sign its manifest, in place of whoever signed it before.

    Raises:
        BadBundle: it is not what its manifest says.
    """
    verify(folder)
    (folder / SIGNATURE).write_bytes(key.sign(_read(folder, MANIFEST)))


def sha256(content: bytes) -> str:
    """Digest in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _require_signature(folder: Path, manifest: bytes, trusted: Sequence[TrustedKey]) -> str:
    """Fingerprint of the trusted key that signed a manifest.

    Raises:
        BadBundle: none of them did.
    """
    keys = ", ".join(key.fingerprint for key in trusted)
    expected = f"a signature of one of the trusted keys {keys}"
    try:
        signature = (folder / SIGNATURE).read_bytes()
    except OSError as error:
        missing = f"no readable {SIGNATURE}"
        raise BadBundle(folder, missing, expected, SIGN) from error
    signed_by = signer(manifest, signature, trusted)
    if signed_by is None:
        found = f"a {SIGNATURE} that is not of this {MANIFEST} by any of them"
        raise BadBundle(folder, found, expected, SIGN)
    return signed_by


def _hashes(folder: Path, manifest: bytes) -> dict[str, str]:
    hashes = _parsed(folder, MANIFEST, manifest).get("sha256")
    if not isinstance(hashes, dict):
        raise BadBundle(folder, f"a {MANIFEST} without sha256", "the sha256 of every file")
    return {str(name): str(digest) for name, digest in hashes.items()}


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BadBundle(folder, f"no readable {name} ({error})", "a JSON object") from error


def _parsed(folder: Path, name: str, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BadBundle(folder, f"no readable {name} ({error})", "a JSON object") from error
    if not isinstance(content, dict):
        raise BadBundle(folder, f"{type(content).__name__} in {name}", "a JSON object")
    return content


def _files(folder: Path) -> set[str]:
    """Paths of all files but manifest and signature.

    Raises:
        BadBundle: one of them could carry code, or leads elsewhere.
    """
    names = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BadBundle(folder, f"{name}, a link", "plain files only")
        if path.is_dir() or name in (MANIFEST, SIGNATURE):
            continue
        if path.suffix not in HARMLESS_SUFFIXES and path.name not in HARMLESS_NAMES:
            raise BadBundle(
                folder,
                f"{name}, a kind of file that can carry code",
                f"weights as .safetensors and only {', '.join(sorted(HARMLESS_SUFFIXES))} beside",
            )
        names.add(name)
    return names
