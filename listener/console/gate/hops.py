"""Which hops a request came over, as far as they can be believed.

`X-Forwarded-For` is written by whoever sends a request, and each proxy adds the address that it
was called from. So it is read from its end, and only as far as proxies of the settings wrote it:
the first address that is none of theirs is the visitor's, and whatever stands before it is only
what that visitor claims.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

FOR: Final = "x-forwarded-for"
PROTO: Final = "x-forwarded-proto"

SCHEMES: Final = ("http", "https")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """The proxies that a site has before its console.

    Args:
        networks: addresses and networks of theirs.

    >>> proxies = Proxies(["10.244.0.0/16"])
    >>> proxies.visitor("10.244.3.7", ["192.0.2.66, 10.0.0.5", "10.244.9.1"])
    '10.0.0.5'
    >>> proxies.visitor("10.0.0.9", ["192.0.2.66"])
    '10.0.0.9'
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(each, strict=False) for each in networks]

    def has(self, address: str) -> bool:
        """Whether an address is that of a proxy."""
        found = _address(address)
        return found is not None and self._believes(found)

    def visitor(self, neighbour: str, forwarded: Iterable[str]) -> str:
        """The address that a request came from.

        Args:
            neighbour: who opened the connection.
            forwarded: values of X-Forwarded-For, in their order.
        """
        if not self.has(neighbour):
            return neighbour
        nearest = neighbour
        for hop in _from_the_end(forwarded):
            address = _address(hop)
            if address is None:  # what a proxy of ours does not write
                return nearest
            nearest = str(address)
            if not self._believes(address):
                return nearest
        return nearest

    def seen_through(self, scope: Scope) -> Scope:
        """A request as its visitor made it: their address, and the scheme that they spoke."""
        neighbour, port = scope.get("client") or ("", 0)
        if not self.has(neighbour):
            return scope
        headers = Headers(scope=scope)
        visitor = self.visitor(neighbour, headers.getlist(FOR))
        # The proxy that called us wrote the last one.
        spoken = next(_from_the_end(headers.getlist(PROTO)), "").lower()
        scheme = spoken if spoken in SCHEMES else scope["scheme"]
        return {**scope, "client": (visitor, port), "scheme": scheme}

    def _believes(self, address: Address) -> bool:
        return any(address in each for each in self._networks)


def _from_the_end(values: Iterable[str]) -> Iterator[str]:
    return (each.strip() for each in reversed(",".join(values).split(",")))


def _address(written: str) -> Address | None:
    """An address as proxies write it, some of them with a port.

    >>> [str(_address(each)) for each in ("::ffff:10.0.0.5", "10.0.0.5:4711", "[2001:db8::1]:80")]
    ['10.0.0.5', '10.0.0.5', '2001:db8::1']
    """
    if written.startswith("["):
        written = written[1:].partition("]")[0]
    elif written.count(":") == 1:
        written = written.partition(":")[0]
    try:
        found = ipaddress.ip_address(written)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
