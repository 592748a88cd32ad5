"""Our own port, as who calls us sees it: where it is, whether it lets us in, and what it takes."""

import hashlib
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import Sequence
from typing import Final

from pydicom import Dataset

from listener.caller import call, caller
from listener.errors import SelfTestFailed
from listener.remote import Entity
from listener.settings import ListenerSettings

SUCCESS: Final = 0x0000

WILDCARDS: Final = ("0.0.0.0", "::")
LOOPBACK: Final = "127.0.0.1"

PEM: Final = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def our_port(settings: ListenerSettings) -> Entity:
    """Where the listener of these settings is to be called from this machine."""
    if settings.port:
        host = LOOPBACK if settings.bind in WILDCARDS else settings.bind
        return Entity(ae_title=settings.ae_title, host=host, port=settings.port)
    assert settings.tls_port is not None, "the settings see to it"
    # Its certificate is for a name, which is not that of loopback.
    host = socket.getfqdn() if settings.bind in WILDCARDS else settings.bind
    return Entity(ae_title=settings.ae_title, host=host, port=settings.tls_port, tls=True)


def require_admission(settings: ListenerSettings, ours: Entity) -> None:
    """Raise SelfTestFailed unless the listener lets in who calls it as itself."""
    address = _address(ours.host)
    certificate = _own_certificate(settings) if ours.tls else None
    if settings.open_node or any(
        peer.admits(settings.ae_title, address, certificate) for peer in settings.peers
    ):
        return
    missing = {"ae_title": settings.ae_title, "address": address}
    raise SelfTestFailed(
        f"the listener lets nobody in who calls itself {settings.ae_title} from {address}",
        f"add {json.dumps(missing)} to MONRO_PEERS and start the listener again",
    )


def send(instances: Sequence[Dataset], ours: Entity, settings: ListenerSettings) -> None:
    """Send instances to our own listener, in one association.

    Raises:
        SelfTestFailed: it does not take them.
    """
    entity = caller(settings.ae_title, settings.association_timeout_seconds)
    for kind in {(each.SOPClassUID, each.file_meta.TransferSyntaxUID) for each in instances}:
        entity.add_requested_context(*kind)
    at = f"our own listener at {ours.host}:{ours.port}"
    try:
        association = call(entity, ours, settings.tls)
    except OSError as error:
        raise SelfTestFailed(f"{at} cannot be called ({error})", "see MONRO_BIND") from error
    if not association.is_established:
        raise SelfTestFailed(
            f"{at} does not accept the association",
            "see that `listener serve` runs with these settings; its log says whom it rejected",
        )
    try:
        for dataset in instances:
            status = association.send_c_store(dataset).get("Status")
            if status != SUCCESS:
                said = "nothing" if status is None else f"0x{status:04X}"
                raise SelfTestFailed(f"{at} answered {said} to an instance", "see its log")
    finally:
        association.release()


def _address(host: str) -> str:
    """From where this machine calls one of its own addresses: from that."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise SelfTestFailed(f"host {host} is not known ({error})", "see MONRO_BIND") from error


def _own_certificate(settings: ListenerSettings) -> str | None:
    """SHA-256 of the certificate that we show."""
    if settings.tls is None:
        return None
    found = PEM.search(settings.tls.certificate.read_text())
    if found is None:
        return None
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(found[0])).hexdigest()
