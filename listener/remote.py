"""Who monro talks with, as the settings name them: who may send, where results go, whom to ask."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, model_validator

COLLECTORS: Final = ("syslog", "syslog+tls")


def _ae_title(value: str) -> str:
    """PS3.5 6.2, VR AE: 1-16 printable characters, no backslash."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable():
        raise ValueError(f"AE title {value!r} must be 1 to 16 printable ASCII characters")
    if "\\" in title:
        raise ValueError(f"AE title {value!r} must not hold a backslash")
    return title


def _fingerprint(value: str) -> str:
    """SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` prints it or plain."""
    digest = value.replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(
            f"{value!r} is no SHA-256 fingerprint: print it by "
            "`openssl x509 -in certificate.pem -noout -fingerprint -sha256`"
        )
    return digest


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine as only itself can call it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


def _audit_target(value: str) -> str:
    """A URL of a collector of syslog messages or of a file, nothing for the usual file, or none."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:  # brackets that do not close, a port that is no number
        parts = urlsplit("")
    is_file = parts.scheme == "file" and not parts.netloc and len(parts.path) > 1
    is_collector = parts.scheme in COLLECTORS and bool(parts.hostname) and parts.path in ("", "/")
    if value not in ("", "none") and not is_file and not is_collector:
        raise ValueError(
            f"{value!r} is no target: give syslog+tls://host:port, syslog://host:port, "
            "file:///absolute/path, none, or nothing for a file inside the spool"
        )
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
AuditTarget = Annotated[str, AfterValidator(_audit_target)]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
HostName = Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]+\])$")]
Network = Annotated[str, AfterValidator(_network)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class Tls(BaseModel, frozen=True, extra="forbid"):
    """How we speak TLS, as server and as client: PEM files, read again when they change.

    Attributes:
        certificate: file of ours, with those between it and its authority.
        key: file of its private key.
        authorities: file of the certificates of those who vouch for others.
        profile: one of the secure transport connection profiles of PS3.15 B: that of BCP 195 as it
            is now (B.12), or one of the retired ones, non-downgrading (B.10) and extended (B.11).
    """

    certificate: Path
    key: Path
    authorities: Path
    profile: Literal["bcp195", "bcp195-nondowngrading", "bcp195-extended"] = "bcp195"


class Caller(BaseModel, frozen=True, extra="forbid"):
    """From where, or with which certificate, somebody may come."""

    address: Network | None = None
    certificate: Fingerprint | None = None

    def comes_from(self, address: str, certificate: str | None) -> bool:
        """Tell whether a connection may be this caller's.

        Args:
            address: of the other side.
            certificate: SHA-256 of the one that it showed and proved to own, if any.
        """
        if self.certificate is not None and certificate != self.certificate:
            return False
        if self.address is None:
            return True
        try:
            return ipaddress.ip_address(address) in ipaddress.ip_network(self.address, strict=False)
        except ValueError:
            return False


class Peer(Caller, frozen=True):
    """Who may send to us: a calling AE title, from an address or with a certificate if given.

    Attributes:
        address: of the host, or a network such as 10.1.0.0/16, that it must come from.
        certificate: SHA-256 fingerprint of the one that it must show.
        ae_title: its calling AE title.
        host: how to call it, where that is not by the address that it came from, such as the name
            that its certificate bears.
        port: where it listens itself, for answers to its requests for storage commitment.
        tls: whether it is answered there with TLS.
        max_associations: of this peer at a time; more are rejected for now.
    """

    ae_title: AETitle
    host: str | None = None
    port: Port | None = None
    tls: bool = False
    max_associations: Annotated[int, Field(ge=1)] | None = None

    def admits(self, ae_title: str, address: str, certificate: str | None = None) -> bool:
        """Tell whether a requestor with this AE title, address and certificate is this peer."""
        return ae_title.strip() == self.ae_title and self.comes_from(address, certificate)


class WebSender(Caller, frozen=True):
    """Who may send to us over DICOMweb; by a token, a certificate, or both.

    Attributes:
        address: of the host, or a network, that it must come from.
        certificate: SHA-256 fingerprint of the one that it must show.
        name: what logs and the audit trail call it.
        token_file: file of the bearer token that it must show.
        max_requests: of this sender at a time; more are asked to come again.
    """

    name: Name
    token_file: Path | None = None
    max_requests: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _proves_who_it_is(self) -> Self:
        if self.token_file is None and self.certificate is None:
            raise ValueError(f"sender {self.name} needs a token_file or a certificate")
        return self


class Oidc(BaseModel, frozen=True, extra="forbid"):
    """A provider of OpenID Connect that vouches for people at the console.

    Attributes:
        issuer: URL of the provider, exactly as it calls itself.
        client_id: of the client that is registered there.
        client_secret_file: file of its secret, read at each sign-in.
        operators: who belongs to one of these may come in as an operator.
        viewers: who belongs to one of these may come in as a viewer; others may not come in.
        claim: of an ID token, that lists what a person belongs to.
        name: claim that names the account; it must be unique among the provider's people.
        authorities: PEM file of those whom its certificate may be from; empty: the system's.
    """

    issuer: Annotated[str, Field(pattern=r"^https?://[^\s?#@]+$")]
    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: Path
    operators: tuple[str, ...] = ()
    viewers: tuple[str, ...] = ()
    claim: str = "groups"
    name: str = "preferred_username"
    authorities: Path | None = None

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        address = urlsplit(self.issuer)
        if address.scheme == "http" and not is_loopback(address.hostname or ""):
            raise ValueError(f"issuer {self.issuer} must be an https URL")
        if not self.operators and not self.viewers:
            raise ValueError("nobody may come in: list operators, viewers or both")
        return self


class Entity(BaseModel, frozen=True, extra="forbid"):
    """An application entity that we call."""

    ae_title: AETitle
    host: str
    port: Port
    tls: bool = False


class WebService(BaseModel, frozen=True, extra="forbid"):
    """Root of a server's DICOMweb services; `token_file` holds the bearer token that it wants."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s?#@]+$")]
    token_file: Path | None = None


class Destination(Entity, frozen=True):
    """Where results go: the AE of a PACS.

    Attributes:
        ae_title: its AE title.
        host: its name or address.
        port: its DICOM port.
        tls: whether it is called with TLS.
        name: what we call it.
        confirm: how it says that it kept them: by storage commitment, by showing them to C-FIND
            (query), by the strongest of these that it offers (auto), or not at all (none).
    """

    name: Name
    confirm: Literal["auto", "commitment", "query", "none"] = "auto"


class WebDestination(WebService, frozen=True):
    """Where results go: the STOW-RS of a PACS.

    Attributes:
        url: root of its DICOMweb services.
        token_file: file of the bearer token that it wants.
        name: what we call it.
        confirm: how it says that it kept them: by showing them to QIDO-RS (query), the same where
            it offers that (auto), or not at all (none).
    """

    name: Name
    confirm: Literal["auto", "query", "none"] = "auto"


class Source(Entity, frozen=True):
    """Who knows what a study should hold, asked by C-FIND.

    Attributes:
        ae_title: its AE title.
        host: its name or address.
        port: its DICOM port.
        tls: whether it is called with TLS.
        name: what we call it.
        retrieve: how missing instances are fetched from there: by C-GET, by C-MOVE to us, by the
            first of these that it offers (auto), or not at all (none).
    """

    name: Name
    retrieve: Literal["auto", "get", "move", "none"] = "auto"


class WebSource(WebService, frozen=True):
    """Who knows what a study should hold, asked by QIDO-RS.

    Attributes:
        url: root of its DICOMweb services.
        token_file: file of the bearer token that it wants.
        name: what we call it.
        retrieve: whether missing instances are fetched from there by WADO-RS (auto), or not (none).
    """

    name: Name
    retrieve: Literal["auto", "none"] = "auto"
