"""Whom a study is of. The ledger does not know, so a file of the study is asked.

A pseudonym is the same for the same patient ID as long as the key is the same, and nobody without
the key can tell by trying which patient ID it belongs to.
"""

import hmac
import logging
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

from listener.audit import codes
from listener.audit.lines import FOLDER_ONLY_OURS
from listener.audit.message import PATIENT, PERSON, Subject
from listener.errors import BadSettings
from listener.reading import BROKEN, PREAMBLE_BYTES, read_encoded

log = logging.getLogger(__name__)

KEY_BYTES: Final = 32
PSEUDONYM_DIGITS: Final = 32
"""128 bits: no two patients of a hospital share them."""

UNKNOWN: Final = "unknown"

PATIENT_NAME: Final = 0x00100010
PATIENT_ID: Final = 0x00100020

# (0002,0000), whose value counts the bytes of meta information after it.
META_LENGTH_BYTES: Final = 12

# Far more than stands before the patient in any header.
MOST_BYTES: Final = 1 << 20
MOST_PIECES: Final = 20_000


class Patient(NamedTuple):
    """As a header names a patient; empty where it does not."""

    identifier: str = ""
    name: str = ""


def read_patient(path: Path | None) -> Patient:
    """Read who the patient of an instance is; nobody where that cannot be told."""
    if path is None:
        return Patient()
    try:
        header = read_front(path, (PATIENT_ID, PATIENT_NAME))
        return Patient(*(str(header.get(each, "")) for each in ("PatientID", "PatientName")))
    except BROKEN as error:
        log.warning("%s does not tell whose it is: %s", path.name, type(error).__name__)
        return Patient()


def read_front(path: Path, wanted: Sequence[int]) -> Dataset:
    """Read an instance up to the last of some elements, within bounds: others wrote it.

    Args:
        path: of a DICOM file.
        wanted: tags of the elements to keep.

    Raises:
        Exception: one of BROKEN.
    """
    meta = read_file_meta_info(path)
    begun = PREAMBLE_BYTES + META_LENGTH_BYTES + int(meta.FileMetaInformationGroupLength)
    with path.open("rb") as file:
        file.seek(begun)
        encoded = BytesIO(file.read(MOST_BYTES))
    last = max(wanted)
    return read_encoded(
        encoded,
        UID(meta.TransferSyntaxUID),
        most_bytes=MOST_BYTES,
        most_pieces=MOST_PIECES,
        stop_when=lambda tag, _vr, _length: tag > last,
        only=wanted,
    )


class Named:
    """Patients by ID and name."""

    def check(self) -> None:
        """There is nothing that could be missing."""

    def subject(self, patient: Patient) -> Subject:
        """The patient in a message."""
        return _subject(patient.identifier or UNKNOWN, patient.name or UNKNOWN)


class Pseudonymous:
    """Patients by a keyed digest of their ID, without a name.

    Args:
        key: file of the key; made when it is needed first.
    """

    def __init__(self, key: Path) -> None:
        self._path = key

    @cached_property
    def _key(self) -> bytes:
        return _read_key(self._path)

    def check(self) -> None:
        """Read or make the key.

        Raises:
            BadSettings: what is there is no key.
            OSError: the file can be neither read nor made.
        """
        _ = self._key

    def subject(self, patient: Patient) -> Subject:
        """The patient in a message; raises what `check` does."""
        return _subject(self.pseudonym(patient.identifier), "pseudonym of the patient ID")

    def pseudonym(self, identifier: str) -> str:
        """The first half of HMAC-SHA256 of a patient ID."""
        if not identifier:
            return UNKNOWN
        digest = hmac.digest(self._key, identifier.encode("utf-8", "surrogateescape"), "sha256")
        return digest.hex()[:PSEUDONYM_DIGITS]


def _subject(identifier: str, name: str) -> Subject:
    return Subject(identifier, codes.PATIENT_NUMBER, PERSON, PATIENT, name)


def _read_key(path: Path) -> bytes:
    path.parent.mkdir(mode=FOLDER_ONLY_OURS, parents=True, exist_ok=True)
    if not path.exists():
        _make_key(path)
    text = path.read_text("ascii", "replace").strip()
    if not re.fullmatch(f"[0-9a-f]{{{2 * KEY_BYTES},}}", text) or len(text) % 2:
        raise BadSettings(
            f"{path} holds no key of the audit trail: give {2 * KEY_BYTES} hexadecimal digits, as "
            f"`openssl rand -hex {KEY_BYTES}` prints them, or remove the file to get a new one; "
            "pseudonyms change with the key"
        )
    return bytes.fromhex(text)


def _make_key(path: Path) -> None:
    """Make a key; of two processes that do so at once, both get the same one."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, f"{secrets.token_hex(KEY_BYTES)}\n".encode())
        os.fsync(descriptor)
        with suppress(FileExistsError):
            path.hardlink_to(aside)
    finally:
        os.close(descriptor)
        aside.unlink()
