"""The ports that several processes accept associations at, and how many each of them serves."""

import logging
import socket
import ssl
import threading
import time
from collections import Counter
from functools import partial
from multiprocessing.sharedctypes import RawArray
from socketserver import BaseServer
from typing import Any, Final, NamedTuple, cast
from weakref import WeakKeyDictionary

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from listener.audit.tally import Party
from listener.audit.trail import NO_AUDIT, Audit
from listener.errors import CannotListen
from listener.settings import ListenerSettings
from listener.tls import ServerTls
from listener.turned_away import Clicker, Reason, Service, nobody_looks

log = logging.getLogger(__name__)

WAITING_CONNECTIONS: Final = 128
MOST_HANDSHAKES: Final = 256
HANDSHAKES_OF_ONE_ADDRESS: Final = 16
HANDSHAKE_SECONDS: Final = 10.0
GIVE_WAY_SECONDS: Final = 0.005

V4_MAPPED: Final = "::ffff:"
"""Before the address of an IPv4 peer where both versions are listened to (RFC 4291)."""


class OpenPort(NamedTuple):
    """A socket that listens, and whether TLS is spoken there."""

    socket: socket.socket
    speaks_tls: bool


def open_ports(settings: ListenerSettings) -> list[OpenPort]:
    """The ports that the settings name, open.

    Raises:
        CannotListen: an address or port is taken or not ours.
    """
    wanted = [(settings.port, False), (settings.tls_port, True)]
    opened: list[OpenPort] = []
    try:
        for port, speaks_tls in wanted:
            if port:
                opened.append(OpenPort(open_port(settings.bind, port), speaks_tls))
    except CannotListen:
        for each in opened:
            each.socket.close()
        raise
    return opened


def open_port(address: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        CannotListen: the address or port is taken or not ours.
    """
    is_v6 = ":" in address
    try:
        opened = socket.create_server(
            (address, port),
            family=socket.AF_INET6 if is_v6 else socket.AF_INET,
            backlog=WAITING_CONNECTIONS,
            dualstack_ipv6=is_v6 and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise CannotListen(address, port, error.strerror or str(error)) from error
    opened.setblocking(False)  # another process may have accepted what woke this one
    return opened


class Attendance:
    """How many associations each process serves, in all and of each peer; all of them see it.

    Args:
        processes: how many there are.
        peers: how many the settings name.
    """

    def __init__(self, processes: int, peers: int = 0) -> None:
        self._width = 1 + peers
        self._counts = RawArray("i", processes * self._width)
        self.connections = RawArray("i", processes)
        """Of each process, those included that have not proposed an association yet."""
        self._beats = RawArray("d", processes)

    @property
    def served(self) -> list[int]:
        """Associations of each process."""
        return list(self._counts[:: self._width])

    @property
    def silent_seconds(self) -> list[float]:
        """How long ago each process told what it serves, which it does all the time."""
        now = time.monotonic()  # of the machine since its start, the same in all processes
        return [now - beat for beat in self._beats]

    def of_peer(self, peer: int) -> list[int]:
        """Associations of each process that a peer has."""
        return list(self._counts[1 + peer :: self._width])

    def tell(self, process: int, peers: list[int]) -> None:
        """Note for each association of a process whose it is; -1: nobody's in the settings."""
        counts = [len(peers), *(0 for _ in range(self._width - 1))]
        for peer in peers:
            if peer >= 0:
                counts[1 + peer] += 1
        self._beats[process] = time.monotonic()
        start = process * self._width
        self._counts[start : start + self._width] = counts


class Entrance:
    """The ports as one of the processes sees them that accept associations there.

    Args:
        ports: that listen.
        attendance: of all processes.
        number: of this process.
        settings: of TLS.
        audit: is told who was turned away.
        turned_away: counts them.
    """

    def __init__(
        self,
        ports: list[OpenPort],
        attendance: Attendance,
        number: int,
        settings: ListenerSettings,
        audit: Audit = NO_AUDIT,
        turned_away: Clicker | None = None,
    ) -> None:
        self.ports, self.audit = ports, audit
        self.turned_away = turned_away or nobody_looks()
        self.tls = None if settings.tls is None else ServerTls(settings.tls)
        self._attendance, self._number = attendance, number
        self._peers: WeakKeyDictionary[Association, int] = WeakKeyDictionary()

    @property
    def served_elsewhere(self) -> int:
        """Associations that the other processes serve at present."""
        served = self._attendance.served
        return sum(served) - served[self._number]

    def served_of(self, peer: int) -> int:
        """Associations that a peer has at present, in all processes."""
        return sum(self._attendance.of_peer(peer))

    def admit(self, association: Association, peer: int) -> None:
        """Note whose an association is."""
        self._peers[association] = peer

    def tell(self, served: set[Association]) -> None:
        """Let the others know what this process serves."""
        self._attendance.tell(self._number, [self._peers.get(each, -1) for each in served])

    def give_way(self, connections: int) -> None:
        """Let those who have fewer connections accept first."""
        self.count(connections)
        if connections > min(self._attendance.connections):
            time.sleep(GIVE_WAY_SECONDS)

    def count(self, connections: int) -> None:
        """Let the others know how many connections this process has."""
        self._attendance.connections[self._number] = connections

    def serve(self, entity: AE, handlers: list[Any]) -> list["EntranceServer"]:
        """A server of an application entity at each port, that is still to be run."""
        return [self._serve(entity, handlers, port) for port in self.ports]

    def _serve(self, entity: AE, handlers: list[Any], port: OpenPort) -> "EntranceServer":
        made = cast("type[EntranceServer]", partial(EntranceServer, self, port))
        address = port.socket.getsockname()
        server = entity.make_server(address, evt_handlers=handlers, server_class=made)
        return cast(EntranceServer, server)


def served_by(entity: AE) -> set[Association]:
    """Associations of this process that are served or negotiated; threads may live on a little.

    A connection that has not proposed one is none yet.
    """
    return {each for each in _connected_to(entity) if each.requestor.primitive is not None}


def _connected_to(entity: AE) -> set[Association]:
    return {
        each
        for each in entity.active_associations
        if not (each.is_released or each.is_aborted or each.is_rejected)
    }


class Handshakes:
    """TLS that is being spoken with others, who may be slow, or never mean to finish."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, address: str) -> bool:
        """Whether one more may begin: who opens many must not keep others out."""
        with self._lock:
            if (
                self._begun[address] >= HANDSHAKES_OF_ONE_ADDRESS
                or self._begun.total() >= MOST_HANDSHAKES
            ):
                return False
            self._begun[address] += 1
            return True

    def end(self, address: str) -> None:
        """One has come to its end."""
        with self._lock:
            self._begun[address] -= 1
            if not self._begun[address]:
                del self._begun[address]


class EntranceServer(ThreadedAssociationServer):
    """Accepts associations at one port of an `Entrance`."""

    def __init__(self, entrance: Entrance, port: OpenPort, *arguments: Any, **named: Any) -> None:
        self._entrance, self._port = entrance, port
        self._handshakes = Handshakes()
        super().__init__(*arguments, **named)
        self.bind(evt.EVT_CONN_CLOSE, self._on_closed)

    def server_bind(self) -> None:
        """Take the port as it is: it listens already."""
        cast(socket.socket, self.socket).close()
        self.socket = self._port.socket
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """Nothing to do."""

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection, unless another process did."""
        connections = len(_connected_to(self.ae))
        self._entrance.give_way(connections)
        connection, (host, *rest) = super().get_request()
        self._entrance.count(connections + 1)  # they may all come at the same moment
        return connection, (host.removeprefix(V4_MAPPED) if "." in host else host, rest[0])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin an association, which goes on in its own threads, before the next one is accepted.

        So who opens connections by the thousand is held up, and they cannot pile up here. TLS has
        to be spoken first, in a thread, and in so many at most.
        """
        if not self._port.speaks_tls:
            self.finish_request(request, client_address)
        elif self._handshakes.begin(client_address[0]):
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # there is no thread for it
                self._handshakes.end(client_address[0])
                raise
        else:
            log.warning(
                "refused a TLS connection from %s: too many are being opened", client_address[0]
            )
            self._entrance.turned_away.association(Service.DIMSE, Reason.BUSY)
            self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection; with TLS, once it is spoken."""
        if self._port.speaks_tls:
            try:
                request = self._shake_hands(request)
            except (OSError, ValueError) as error:
                why = getattr(error, "verify_message", None) or getattr(error, "reason", None)
                stranger = Party("unknown", client_address[0], is_ae=False)
                self._entrance.audit.rejected(stranger, f"TLS connection refused: {why}")
                self._entrance.turned_away.association(Service.DIMSE, Reason.TLS)
                log.warning(
                    "refused a TLS connection from %s: %s; see MONRO_TLS, and the certificate of "
                    "who calls",
                    client_address[0],
                    why or type(error).__name__,
                )
                self.shutdown_request(request)
                return
            finally:
                self._handshakes.end(client_address[0])
        super().finish_request(request, client_address)

    def service_actions(self) -> None:
        """Between connections: say how many associations there are."""
        super().service_actions()
        self._entrance.tell(served_by(self.ae))
        self._entrance.count(len(_connected_to(self.ae)))

    def shutdown(self) -> None:
        """Accept no more; the port stays open for other processes."""
        BaseServer.shutdown(self)
        self._port.socket.close()

    def _shake_hands(self, connection: socket.socket) -> ssl.SSLSocket:
        tls = self._entrance.tls
        assert tls is not None  # the settings see to it
        patience = connection.gettimeout()
        connection.settimeout(min(HANDSHAKE_SECONDS, self.ae.acse_timeout or HANDSHAKE_SECONDS))
        spoken = tls.context.wrap_socket(connection, server_side=True)
        spoken.settimeout(patience)
        return spoken

    def _on_closed(self, event: evt.Event) -> None:
        self._entrance.tell(served_by(self.ae) - {event.assoc})
        self._entrance.count(len(_connected_to(self.ae) - {event.assoc}))
