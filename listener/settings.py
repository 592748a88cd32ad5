"""What the listener is told: one frozen class, read once from MONRO_ variables.

Nothing is guessed. A name that starts with MONRO_ and is not ours stops the start,
because a misspelt setting is a setting that silently does not apply.
"""

import ipaddress
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ByteSize, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from listener.errors import BadSettings
from listener.ledger import HOPELESS_ATTEMPTS
from listener.selection import ANALYSES

PREFIX = "MONRO_"
OTHER_PROGRAMS = ("MONRO_WORKER_", "MONRO_TRAINER_")
"""Prefixes that belong to the other programs; each program answers for its own."""

REFUSING_ATTEMPTS = 3
"""Left to send a refusal before the ledger gives a job up, silently: even that may be cut short."""


def _ae_title(value: str) -> str:
    """PS3.5 6.2, VR AE: 1-16 printable characters, no backslash."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable():
        raise ValueError(f"AE title {value!r} must be 1 to 16 printable ASCII characters")
    if "\\" in title:
        raise ValueError(f"AE title {value!r} must not hold a backslash")
    return title


AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0)]


class Peer(BaseModel, frozen=True, extra="forbid"):
    """Who may send to us: a calling AE title, from an address or network if given.

    `port` is where it listens itself, for answers to its requests for storage commitment.
    """

    ae_title: AETitle
    address: str | None = None
    port: Port | None = None

    @model_validator(mode="after")
    def _address_is_a_network(self) -> Self:
        if self.address is not None:
            ipaddress.ip_network(self.address, strict=False)
        return self

    def admits(self, ae_title: str, address: str) -> bool:
        """Tell whether a requestor with this AE title and address is this peer."""
        if ae_title.strip() != self.ae_title:
            return False
        if self.address is None:
            return True
        try:
            return ipaddress.ip_address(address) in ipaddress.ip_network(self.address, strict=False)
        except ValueError:
            return False


class Destination(BaseModel, frozen=True, extra="forbid"):
    """Where results go: the AE of a PACS.

    `confirm` is how it says that it kept them: by storage commitment, by showing them to C-FIND
    (query), by the strongest of these that it offers (auto), or not at all (none).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]
    ae_title: AETitle
    host: str
    port: Port
    confirm: Literal["auto", "commitment", "query", "none"] = "auto"


class Commons(BaseSettings):
    """What listener and worker must agree on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    spool: Path = Field(description="folder of received instances and results, on stable storage")
    broker: str = Field(description="Redis URL of the message broker, redis://host:port/0")
    site: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = Field(
        description="key of this site; goes into every result UID and must never change"
    )
    ledger: str = Field(
        default="", description="SQLAlchemy URL of the ledger; empty: SQLite inside the spool"
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

    @property
    def ledger_url(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.ledger or f"sqlite:///{self.spool.absolute() / 'ledger.sqlite'}"


class ListenerSettings(Commons):
    """What the listener is told."""

    ae_title: AETitle = Field(default="MONRO", description="our AE title, called and calling")
    bind: str = Field(default="127.0.0.1", description="address to listen on")
    port: Port = Field(default=11112, description="DICOM port to listen on")
    peers: tuple[Peer, ...] = Field(
        default=(), description='who may send: [{"ae_title": "PACS", "address": "10.0.0.5"}]'
    )
    open_node: bool = Field(
        default=False, description="accept every calling AE title and address: a decision"
    )
    destinations: tuple[Destination, ...] = Field(
        default=(),
        description='where results go: [{"name": "pacs", "ae_title": "PACS", "host": "pacs", '
        '"port": 104}]',
    )
    room_for_study: ByteSize = Field(
        default=ByteSize(2**30),
        description="space that must be left above MONRO_KEEP_FREE for a new association; with "
        "less, senders are asked to come again",
    )
    keep_days: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="files of studies whose results were all confirmed are removed after so many "
        "days; empty: never",
    )
    analyses: tuple[str, ...] = Field(default=ANALYSES, description="analyses to ask for")
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
    quiet_seconds: Seconds = Field(
        default=60, description="a study is complete when nothing came for this long"
    )
    released_quiet_seconds: Seconds = Field(
        default=10, description="the same, once the sender released its association"
    )
    stalled_seconds: Seconds = Field(
        default=600, description="the same, while an association of the study stays open"
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

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if not self.peers and not self.open_node:
            raise ValueError(
                "nobody may send: list MONRO_PEERS, or set MONRO_OPEN_NODE=true to accept anyone"
            )
        if self.peers and self.open_node:
            raise ValueError("MONRO_PEERS and MONRO_OPEN_NODE=true contradict: keep one of them")
        if not self.destinations:
            raise ValueError("results have nowhere to go: list MONRO_DESTINATIONS")
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError(f"MONRO_DESTINATIONS has a name twice: {names}")
        unknown = sorted(set(self.analyses) - set(ANALYSES))
        if unknown:
            raise ValueError(f"MONRO_ANALYSES knows {list(ANALYSES)}, not {unknown}")
        return self


def refuse_unknown_names(
    known: Iterable[str], prefix: str, environment: Mapping[str, str], leave: tuple[str, ...] = ()
) -> None:
    """Raise BadSettings for each variable with `prefix` that no setting answers to."""
    names = {f"{prefix}{name}".upper() for name in known}
    strays = sorted(
        name
        for name in environment
        if name.upper().startswith(prefix)
        and not name.upper().startswith(leave)
        and name.upper() not in names
    )
    if strays:
        raise BadSettings(
            f"unknown settings {', '.join(strays)}: correct the spelling or remove them "
            f"(known: {', '.join(sorted(names))})"
        )


def explain_invalid(error: ValidationError, prefix: str = PREFIX) -> BadSettings:
    """Turn pydantic's report into one line per setting, without the values."""
    lines = [
        f"{prefix}{'.'.join(map(str, item['loc'])).upper()}: {item['msg']}"
        if item["loc"]
        else item["msg"].removeprefix("Value error, ")
        for item in error.errors(include_url=False, include_input=False)
    ]
    return BadSettings("; ".join(lines))


def read_settings() -> ListenerSettings:
    """Read the listener's settings from the environment.

    Raises:
        BadSettings: a setting is missing, wrong, unsafe or unknown.
    """
    refuse_unknown_names(ListenerSettings.model_fields, PREFIX, os.environ, leave=OTHER_PROGRAMS)
    try:
        return ListenerSettings()
    except ValidationError as error:
        raise explain_invalid(error) from None
