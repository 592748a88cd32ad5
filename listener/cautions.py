"""What settings allow, and a site may not have meant: told at the start and by `check-config`."""

from collections.abc import Iterator
from ipaddress import ip_network
from urllib.parse import urlsplit

from listener.remote import WebService, is_loopback
from listener.settings import ListenerSettings


def cautions(settings: ListenerSettings) -> list[str]:
    """Sentences about settings that work, and leave a door open."""
    return [*_titles(settings), *_tokens(settings), *_passwords(settings), *_proxies(settings)]


def _titles(settings: ListenerSettings) -> Iterator[str]:
    for peer in settings.peers:
        if peer.address is None and peer.certificate is None:
            yield (
                f"MONRO_PEERS: anybody may call itself {peer.ae_title}; give its address, or its "
                "certificate"
            )


def _tokens(settings: ListenerSettings) -> Iterator[str]:
    shows_tokens = any(each.token_file for each in settings.web_senders)
    if shows_tokens and settings.tls is None and not is_loopback(settings.bind):
        yield "MONRO_WEB_PORT: tokens travel in clear; set MONRO_TLS"
    for each in (*settings.destinations, *settings.sources):
        if not isinstance(each, WebService) or each.token_file is None:
            continue
        address = urlsplit(each.url)
        if address.scheme == "http" and not is_loopback(address.hostname or ""):
            yield f"{each.name}: its token travels in clear; use an https URL"


def _passwords(settings: ListenerSettings) -> Iterator[str]:
    is_open = settings.console_port is not None and not is_loopback(settings.bind)
    if is_open and settings.tls is None:
        yield "MONRO_CONSOLE_PORT: passwords travel in clear; set MONRO_TLS"


def _proxies(settings: ListenerSettings) -> Iterator[str]:
    for each in settings.console_proxies:
        if ip_network(each, strict=False).prefixlen == 0:
            yield (
                f"MONRO_CONSOLE_PROXIES: with {each}, everybody chooses the address that limits "
                "and audit trail know them by; name the proxies"
            )
