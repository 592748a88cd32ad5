"""Who may send over DICOMweb: a bearer token, a certificate, an address, as the settings say."""

import hmac
import logging
from collections.abc import Sequence

from listener.errors import MonroError
from listener.remote import WebSender

log = logging.getLogger(__name__)

SCHEME = "bearer"
ANYBODY = "anybody"
"""The name of who sends to an open node."""


class NotAdmitted(MonroError):
    """Somebody may not send; with a token they might, if `needs_token`."""

    def __init__(self, address: str, needs_token: bool) -> None:
        super().__init__(address, needs_token)
        self.address, self.needs_token = address, needs_token

    @property
    def found(self) -> str:
        """What it showed."""
        return "no token that we know" if self.needs_token else "an address or certificate unknown"

    def __str__(self) -> str:
        return (
            f"{self.address} is not among MONRO_WEB_SENDERS: it showed {self.found}; add it "
            "there, or correct its token, if it may send"
        )


def admit(
    senders: Sequence[WebSender],
    address: str,
    certificate: str | None,
    authorization: str | None,
) -> WebSender:
    """The sender that a request is from.

    Args:
        senders: who may send.
        address: that the request came from.
        certificate: SHA-256 of the one that was shown, if any.
        authorization: the header of that name.

    Raises:
        NotAdmitted: it is nobody's.
    """
    possible = [each for each in senders if each.comes_from(address, certificate)]
    shown = _token(authorization)
    # All of them are looked at, so that the time it takes does not tell whose token is near.
    proven = [each for each in possible if each.token_file is None or _shows(each, shown)]
    if not proven:
        raise NotAdmitted(address, needs_token=bool(possible))
    return proven[0]


def _token(authorization: str | None) -> bytes:
    """The token of an Authorization header (RFC 6750 2.1)."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip().encode() if scheme.lower() == SCHEME else b""


def _shows(sender: WebSender, shown: bytes) -> bool:
    """Whether a token is the sender's; its file is read each time, so that it may change."""
    assert sender.token_file is not None
    try:
        token = sender.token_file.read_bytes().strip()
    except OSError as error:
        log.error(
            "%s cannot send: its token_file %s is not to be had (%s)",
            sender.name,
            sender.token_file,
            error.strerror,
        )
        return False
    if not token:
        log.error("%s cannot send: its token_file %s is empty", sender.name, sender.token_file)
        return False
    return hmac.compare_digest(token, shown)
