"""TLS as the profiles of PS3.15 B ask for it, with certificates that may change while we run.

Both sides show a certificate, and both must come from the authorities of the settings. Who calls us
is told from others by it where a peer names one; whom we call must have its host name in it.
"""

import hashlib
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from listener.errors import BadSettings
from listener.remote import Tls

log = logging.getLogger(__name__)

# RFC 9325 4.2, and the suites that B.10 and B.11 name; TLS 1.3 has none that are not sound.
FORWARD_SECRET: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
FINITE_FIELD: Final = ("DHE-RSA-AES256-GCM-SHA384", "DHE-RSA-AES128-GCM-SHA256")
GROUP: Final = Path(__file__).with_name("ffdhe3072.pem")
"""RFC 7919 A.2: for the finite-field suites, which a server does not offer without one."""

CIPHERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "bcp195": FORWARD_SECRET,
        "bcp195-nondowngrading": (*FORWARD_SECRET, *FINITE_FIELD),
        "bcp195-extended": (*FORWARD_SECRET, *FINITE_FIELD),
    }
)
"""Cipher suites of TLS 1.2 by profile. All profiles refuse what is older."""

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "bcp195": "B.12",
        "bcp195-nondowngrading": "B.10 (retired)",
        "bcp195-extended": "B.11 (retired)",
    }
)
"""Of PS3.15. B.9 is no promise of ours, since it tolerates what is older than TLS 1.2; nor is B.13,
which permits certain groups and signatures only: those are OpenSSL's to choose here."""

NEWEST: Mapping[str, ssl.TLSVersion] = MappingProxyType({"bcp195-extended": ssl.TLSVersion.TLSv1_2})
"""Where a profile knows nothing newer: its list of suites is complete."""

REVOCATIONS: Final = b"-----BEGIN X509 CRL-----"


def server_context(tls: Tls) -> ssl.SSLContext:
    """How we answer: whoever calls must show a certificate.

    Raises:
        BadSettings: a file is missing, is not PEM, or the key belongs to another certificate.
    """
    context = _context(tls, ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_dh_params(str(GROUP))
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """How we call: whoever answers must show a certificate with the host name that we called.

    Raises:
        BadSettings: as `server_context`.
    """
    return _context(tls, ssl.PROTOCOL_TLS_CLIENT)


class ServerTls:
    """The context of the next connection: made anew once one of its files has changed.

    Args:
        tls: of the settings.

    Raises:
        BadSettings: the files that are there at the start are of no use.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._seen = _state_of(tls)
        self._context = server_context(tls)

    @property
    def context(self) -> ssl.SSLContext:
        """The one to use now: files that do not fit together leave the last one in force."""
        seen = _state_of(self._tls)
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = server_context(self._tls)
            except BadSettings as error:
                log.error("the certificate in use stays: %s", error)
            else:
                log.info("certificates were read again")
        return self._context


def fingerprint_of(connection: object) -> str | None:
    """SHA-256 of the certificate that the other side showed; None without TLS."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    try:
        certificate = connection.getpeercert(binary_form=True)
    except (OSError, ValueError):  # it is gone already
        return None
    return hashlib.sha256(certificate).hexdigest() if certificate else None


def _context(tls: Tls, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = NEWEST.get(tls.profile, ssl.TLSVersion.MAXIMUM_SUPPORTED)
    context.set_ciphers(":".join(CIPHERS[tls.profile]))
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise _unusable("certificate", tls.certificate, error, f"with the key {tls.key}") from error
    try:
        context.load_verify_locations(tls.authorities)
        revokes = REVOCATIONS in tls.authorities.read_bytes()
    except (OSError, ValueError) as error:
        raise _unusable("authorities", tls.authorities, error, "as CA certificates") from error
    if revokes:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _unusable(what: str, path: Path, error: Exception, purpose: str) -> BadSettings:
    why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return BadSettings(
        f"MONRO_TLS: {what} {path} cannot be used {purpose} ({why}): give PEM files that belong "
        "together and that this user may read"
    )


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _state_of(tls: Tls) -> tuple[tuple[int, int], ...]:
    """What changes when a file is written or replaced."""
    return tuple(_file_state(path) for path in (tls.certificate, tls.key, tls.authorities))


def _file_state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino
