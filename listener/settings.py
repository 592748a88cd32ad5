"""What the listener is told: one frozen class, read once from MONRO_ variables, and from files of
the same names where a variable is not set (secret_files.py).

Nothing is guessed. A name that starts with MONRO_ and is not ours stops the start,
because a misspelt setting is a setting that silently does not apply.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import ByteSize, Field, ValidationError, model_validator
from pydantic.config import JsonDict
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from listener.complaint import explain_invalid, explain_no_json
from listener.errors import BadSettings
from listener.ledger import HOPELESS_ATTEMPTS
from listener.remote import (
    AETitle,
    AuditTarget,
    Destination,
    HostName,
    Network,
    Oidc,
    Peer,
    Port,
    Source,
    Tls,
    WebDestination,
    WebSender,
    WebSource,
)
from listener.secret_files import SECRETS, SecretFiles, secret_files
from listener.selection import ANALYSES, ASKED_FOR

PREFIX = "MONRO_"
OTHER_PROGRAMS = ("MONRO_WORKER_", "MONRO_TRAINER_")
"""Prefixes that belong to the other programs; each program answers for its own."""

REFUSING_ATTEMPTS = 3
"""Left to send a refusal before the ledger gives a job up, silently: even that may be cut short."""


MAY_HOLD_A_PASSWORD: Final[JsonDict] = {"writeOnly": True}
"""As JSON Schema says of what is told to a program and not told by it."""

Kind = TypeVar("Kind", bound=BaseSettings)
Seconds = Annotated[float, Field(ge=0)]


class Commons(BaseSettings):
    """What listener and worker must agree on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    spool: Path = Field(description="folder of received instances and results, on stable storage")
    broker: str = Field(
        pattern="^rediss?://",
        description="Redis URL of the message broker, redis://host:port/0",
        json_schema_extra=MAY_HOLD_A_PASSWORD,
    )
    site: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = Field(
        description="key of this site; goes into every result UID and must never change"
    )
    ledger: str = Field(
        default="",
        description="SQLAlchemy URL of the ledger; empty: SQLite inside the spool",
        json_schema_extra=MAY_HOLD_A_PASSWORD,
    )
    lease_seconds: Annotated[float, Field(gt=0)] = Field(
        default=60, description="how long a job is lent without a heartbeat"
    )
    keep_free: ByteSize = Field(
        default=ByteSize(5 * 2**30), description="space the spool's disk must keep free"
    )
    max_attempts: Annotated[int, Field(ge=1, le=HOPELESS_ATTEMPTS - REFUSING_ATTEMPTS)] = Field(
        default=3, description="runs of one job before it is answered with an internal refusal"
    )

    log_format: Literal["text", "json"] = Field(
        default="text", description="form of the log on stderr: lines for people, or JSON objects"
    )

    @property
    def ledger_url(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.ledger or f"sqlite:///{self.spool.absolute() / 'ledger.sqlite'}"


class ListenerSettings(Commons):
    """What the listener is told."""

    ae_title: AETitle = Field(default="MONRO", description="our AE title, called and calling")
    bind: str = Field(default="127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=11112, description="DICOM port to listen on without TLS; 0: none"
    )
    tls: Tls | None = Field(
        default=None,
        description='our certificate, and who vouches for those of others: {"certificate": '
        '"monro.pem", "key": "monro.key", "authorities": "hospital-ca.pem"}',
    )
    tls_port: Port | None = Field(
        default=None, description="DICOM port to listen on with TLS and client certificates"
    )
    web_port: Port | None = Field(
        default=None, description="port of STOW-RS; HTTPS where MONRO_TLS is set"
    )
    peers: tuple[Peer, ...] = Field(
        default=(), description='who may send: [{"ae_title": "PACS", "address": "10.0.0.5"}]'
    )
    web_senders: tuple[WebSender, ...] = Field(
        default=(),
        description='who may send over DICOMweb: [{"name": "orthanc", "token_file": '
        '"/run/secrets/orthanc"}]',
    )
    open_node: bool = Field(
        default=False, description="accept every calling AE title and address: a decision"
    )
    destinations: tuple[Destination | WebDestination, ...] = Field(
        default=(),
        description='where results go: [{"name": "pacs", "ae_title": "PACS", "host": "pacs", '
        '"port": 104}] or [{"name": "pacs", "url": "https://pacs/dicom-web"}]',
    )
    sources: tuple[Source | WebSource, ...] = Field(
        default=(),
        description="who is asked what a study should hold, and for what is missing; written as "
        "destinations are",
    )
    room_for_study: ByteSize = Field(
        default=ByteSize(2**30),
        description="space that must be left above MONRO_KEEP_FREE for a new association; with "
        "less, senders are asked to come again",
    )
    largest_instance: Annotated[ByteSize, Field(gt=0)] = Field(
        default=ByteSize(2 * 2**30),
        description="an instance larger than this is refused; without MONRO_QUICK_STORE it ends "
        "its association, and so much memory may be used for each association",
    )
    keep_days: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="files of studies whose results were all confirmed are removed after so many "
        "days; empty: never",
    )
    analyses: tuple[str, ...] = Field(
        default=ASKED_FOR, description=f"analyses to ask for, of {', '.join(ANALYSES)}"
    )
    quick_store: bool = Field(
        default=True,
        description="write instances as their fragments come, past pynetdicom's own way, which "
        "is several times slower",
    )
    receivers: Annotated[int, Field(ge=1, le=32)] = Field(
        default=2,
        description="processes that associations are served in; more than the machine has cores "
        "are of no use",
    )
    max_associations: Annotated[int, Field(ge=1)] = Field(
        default=50, description="associations served at a time; more are rejected for now"
    )
    association_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=60, description="an association silent for this long is aborted"
    )
    least_rate: Annotated[ByteSize, Field(gt=0)] = Field(
        default=ByteSize(1024),
        description="bytes a second that senders keep up: an association, or the body of a STOW-RS "
        "request, lasts ten times MONRO_ASSOCIATION_TIMEOUT_SECONDS, and a second longer for so "
        "much of what comes; a slower one is ended",
    )
    quiet_seconds: Seconds = Field(
        default=60, description="a study is complete when nothing came for this long"
    )
    released_quiet_seconds: Seconds = Field(
        default=10, description="the same, once the sender released its association"
    )
    stalled_seconds: Seconds = Field(
        default=600,
        description="the same, while an association of the study stays open, or a source has more "
        "of it",
    )
    counted_seconds: Seconds = Field(
        default=5, description="the same, once everything is here that a source has of it"
    )
    poll_seconds: Annotated[float, Field(gt=0)] = Field(
        default=1, description="pause between looks at what is due"
    )
    resend_seconds: Seconds = Field(
        default=30, description="a queued job's message may be missed this long before it is resent"
    )
    retry_first_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5, description="pause after the first failed delivery; doubles from there"
    )
    confirm_first_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5, description="pause between sending a result and asking whether it was kept"
    )
    commitment_seconds: Seconds = Field(
        default=600,
        description="how long a destination may take to commit before it is asked again",
    )
    retry_cap_seconds: Annotated[float, Field(gt=0)] = Field(
        default=600, description="longest pause between delivery attempts, which never end"
    )

    audit: AuditTarget = Field(
        default="",
        description="where the audit trail goes: syslog+tls://host:port, syslog://host:port, "
        "file:///path, or none; empty: audit/audit.log inside the spool",
    )
    audit_names: bool = Field(
        default=False,
        description="the audit trail names patients by ID and name, not by pseudonym: a decision",
    )
    audit_key: Path | None = Field(
        default=None,
        description="file of the key of the audit trail's pseudonyms, made on the first start; "
        "empty: audit/key inside the spool",
    )

    console_port: Port | None = Field(
        default=None, description="port of the console; HTTPS where MONRO_TLS is set"
    )
    console_hosts: tuple[HostName, ...] = Field(
        default=(),
        description='host names and addresses that the console is called by: ["monro.hospital"]; '
        "other ones are refused; empty: any",
    )
    console_proxies: tuple[Network, ...] = Field(
        default=(),
        description='addresses and networks of the proxies before the console: ["10.0.0.8"]; they '
        "alone are believed about a visitor's address and scheme (X-Forwarded-For, "
        "X-Forwarded-Proto); empty: nobody",
    )
    console_open_metrics: bool = Field(
        default=False, description="/metrics of the console needs no token: a decision"
    )
    console_idle_minutes: Annotated[float, Field(gt=0)] = Field(
        default=30, description="who did nothing at the console for this long signs in again"
    )
    console_session_hours: Annotated[float, Field(gt=0)] = Field(
        default=12, description="who signed in this long ago signs in again"
    )
    oidc: Oidc | None = Field(
        default=None,
        description='who vouches for people at the console: {"issuer": "https://login.hospital", '
        '"client_id": "monro", "client_secret_file": "/run/secrets/oidc", "claim": "groups", '
        '"operators": ["mri-leads"], "viewers": ["radiology"]}',
    )
    selftest_study: Path | None = Field(
        default=None,
        description="folder of the synthetic study that `selftest` sends; `python -m trainer "
        "synthesize` makes such",
    )

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if not self.peers and not self.open_node:
            raise ValueError(
                "nobody may send: list MONRO_PEERS, or set MONRO_OPEN_NODE=true to accept anyone"
            )
        if self.peers and self.open_node:
            raise ValueError("MONRO_PEERS and MONRO_OPEN_NODE=true contradict: keep one of them")
        if not self.port and self.tls_port is None:
            raise ValueError("MONRO_PORT=0 leaves no port to listen on: set MONRO_TLS_PORT")
        if self.tls is None and (self.tls_port is not None or self._speaks_tls()):
            raise ValueError("TLS is asked for, but MONRO_TLS names no certificate")
        if self.web_senders and self.web_port is None:
            raise ValueError("MONRO_WEB_SENDERS needs MONRO_WEB_PORT")
        if self.web_port is not None and not self.web_senders and not self.open_node:
            raise ValueError("nobody may send over DICOMweb: list MONRO_WEB_SENDERS")
        if self.web_senders and self.open_node:
            raise ValueError(
                "MONRO_WEB_SENDERS and MONRO_OPEN_NODE=true contradict: keep one of them"
            )
        if self.oidc is not None and self.console_port is None:
            raise ValueError("MONRO_OIDC needs MONRO_CONSOLE_PORT")
        if not self.destinations:
            raise ValueError("results have nowhere to go: list MONRO_DESTINATIONS")
        for setting in ("destinations", "sources", "web_senders"):
            names = [each.name for each in getattr(self, setting)]
            if len(set(names)) != len(names):
                raise ValueError(f"MONRO_{setting.upper()} has a name twice: {names}")
        unknown = sorted(set(self.analyses) - set(ANALYSES))
        if unknown:
            raise ValueError(f"MONRO_ANALYSES knows {list(ANALYSES)}, not {unknown}")
        return self

    def _speaks_tls(self) -> bool:
        """Whether somebody is called, or told from others, by a certificate."""
        if self.audit.startswith("syslog+tls"):
            return True
        called = (*self.peers, *self.destinations, *self.sources)
        return any(getattr(each, "tls", False) for each in called) or any(
            each.certificate for each in (*self.peers, *self.web_senders)
        )


def refuse_unknown_names(
    known: Iterable[str], prefix: str, given: Iterable[str], leave: tuple[str, ...] = ()
) -> None:
    """Raise BadSettings for each variable or file with `prefix` that no setting answers to."""
    names = {f"{prefix}{name}".upper() for name in known}
    strays = sorted(
        name
        for name in given
        if name.upper().startswith(prefix)
        and not name.upper().startswith(leave)
        and name.upper() not in names
    )
    if strays:
        raise BadSettings(
            f"unknown settings {', '.join(strays)}: correct the spelling or remove them "
            f"(known: {', '.join(sorted(names))})"
        )


def gather(kind: type[Kind], prefix: str, secrets: SecretFiles) -> Kind:
    """Settings of one class: from the environment, and what is not there from files.

    Raises:
        BadSettings: a setting is missing or wrong.
    """
    try:
        return kind(_secrets_dir=secrets.folder)
    except ValidationError as error:
        raise explain_invalid(error, kind, prefix) from None
    except SettingsError as error:
        raise explain_no_json(error, kind, prefix) from None


def given_names(secrets: SecretFiles) -> list[str]:
    """Names of all settings that are given, in either way; the folder of files is not one."""
    return [*(name for name in os.environ if name.upper() != SECRETS), *secrets.names]


def read_settings() -> ListenerSettings:
    """Read the listener's settings.

    Raises:
        BadSettings: a setting is missing, wrong, unsafe or unknown.
    """
    secrets = secret_files(os.environ)
    given = given_names(secrets)
    refuse_unknown_names(ListenerSettings.model_fields, PREFIX, given, leave=OTHER_PROGRAMS)
    return gather(ListenerSettings, PREFIX, secrets)
