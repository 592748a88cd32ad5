"""The port that several processes accept associations at, and how many each of them serves."""

import socket
import time
from collections.abc import MutableSequence
from functools import partial
from socketserver import BaseServer
from typing import Any, Final, cast

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from listener.errors import CannotListen
from listener.settings import ListenerSettings

WAITING_CONNECTIONS: Final = 128
GIVE_WAY_SECONDS: Final = 0.005

V4_MAPPED: Final = "::ffff:"
"""Before the address of an IPv4 peer where both versions are listened to (RFC 4291)."""


def open_port(settings: ListenerSettings) -> socket.socket:
    """A socket that listens where the settings say.

    Raises:
        CannotListen: the address or port is taken or not ours.
    """
    is_v6 = ":" in settings.bind
    try:
        port = socket.create_server(
            (settings.bind, settings.port),
            family=socket.AF_INET6 if is_v6 else socket.AF_INET,
            backlog=WAITING_CONNECTIONS,
            dualstack_ipv6=is_v6 and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise CannotListen(settings.bind, settings.port, error.strerror or str(error)) from error
    port.setblocking(False)  # another process may have accepted what woke this one
    return port


class Entrance:
    """A port as one of the processes sees it that accept associations there.

    Args:
        port: that listens.
        served: how many associations each process serves; shared by all of them.
        number: of this process.
    """

    def __init__(self, port: socket.socket, served: MutableSequence[int], number: int) -> None:
        self.port = port
        self._served, self._number = served, number

    @property
    def served_elsewhere(self) -> int:
        """Associations that the other processes serve at present."""
        return sum(self._served) - self._served[self._number]

    def tell(self, served: int) -> None:
        """Let the others know how many this process serves."""
        self._served[self._number] = served

    def give_way(self) -> None:
        """Let those who serve fewer accept first."""
        if self._served[self._number] > min(self._served):
            time.sleep(GIVE_WAY_SECONDS)

    def serve(self, entity: AE, handlers: list[Any]) -> "EntranceServer":
        """A server of an application entity at this port, that is still to be run."""
        made = cast("type[EntranceServer]", partial(EntranceServer, self))
        address = self.port.getsockname()
        server = entity.make_server(address, evt_handlers=handlers, server_class=made)
        return cast(EntranceServer, server)


def served_by(entity: AE) -> set[Association]:
    """Associations of this process that are served or negotiated; threads may live on a little."""
    return {
        each
        for each in entity.active_associations
        if not (each.is_released or each.is_aborted or each.is_rejected)
    }


class EntranceServer(ThreadedAssociationServer):
    """Accepts associations at an `Entrance`."""

    def __init__(self, entrance: Entrance, *arguments: Any, **named: Any) -> None:
        self._entrance = entrance
        super().__init__(*arguments, **named)
        self.bind(evt.EVT_CONN_CLOSE, self._on_closed)

    def server_bind(self) -> None:
        """Take the port as it is: it listens already."""
        cast(socket.socket, self.socket).close()
        self.socket = self._entrance.port
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """Nothing to do."""

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection, unless another process did."""
        self._entrance.give_way()
        connection, (host, *rest) = super().get_request()
        return connection, (host.removeprefix(V4_MAPPED) if "." in host else host, rest[0])

    def service_actions(self) -> None:
        """Between connections: say how many associations there are."""
        super().service_actions()
        self._entrance.tell(len(served_by(self.ae)))

    def shutdown(self) -> None:
        """Accept no more; the port stays open for other processes."""
        BaseServer.shutdown(self)
        self._entrance.port.close()

    def _on_closed(self, event: evt.Event) -> None:
        self._entrance.tell(len(served_by(self.ae) - {event.assoc}))
