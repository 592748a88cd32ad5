"""Where a request comes from, and where it may lead."""

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

HOME: Final = "/"
LONGEST_PATH: Final = 2000


def is_called_by(hosts: Collection[str], headers: Headers) -> bool:
    """Whether a request was meant for one of these hosts.

    A page of another site may give its own name our address (DNS rebinding): its requests bear
    that name.
    """
    try:
        found = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return False
    return found in {host.strip("[]").lower() for host in hosts}


def is_encrypted(scope: Scope) -> bool:
    """Whether the visitor speaks HTTPS, with us or with a proxy that is believed (hops.py)."""
    return bool(scope["scheme"] == "https")


def is_of_ours(headers: Headers, encrypted: bool) -> bool:
    """Whether a browser says that a page of ours made the request.

    Browsers send Sec-Fetch-Site over HTTPS only, and Origin with all that changes something; at
    least one of them must be there, and what is there must agree.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in (None, "same-origin"):
        return False
    if origin is None:
        return site is not None
    scheme, _, host = origin.partition("://")
    schemes = ("https",) if encrypted else ("https", "http")  # something before us may encrypt
    return scheme in schemes and bool(host) and host.lower() == headers.get("host", "").lower()


def local_path(wanted: str) -> str:
    r"""The path to go on to, if it is one of ours; else the first page.

    >>> local_path("/studies/1.2.3?tab=audit")
    '/studies/1.2.3?tab=audit'
    >>> [local_path(path) for path in ("https://evil", "//evil", "/\\evil", "/\t/evil", "evil")]
    ['/', '/', '/', '/', '/']
    """
    is_path = wanted.startswith("/") and not wanted.startswith("//") and len(wanted) < LONGEST_PATH
    is_plain = (
        wanted.isascii() and wanted.isprintable() and "\\" not in wanted and " " not in wanted
    )
    if not is_path or not is_plain or wanted.startswith(("/sign-in", "/sign-out")):
        return HOME
    return wanted
