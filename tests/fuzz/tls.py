"""The DICOM port of a listener that TLS is spoken at, attacked with `handshakes.py`."""

import ssl
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import trustme

from deploy.stack import free_ports
from tests.fuzz import wire
from tests.fuzz.attack import HEAR_SECONDS, PATIENCE_SECONDS, Door
from tests.fuzz.handshakes import ALERT, DATA, HANDSHAKE, Attempt, one
from tests.fuzz.target import SERVED_SECONDS, Target, attacked, stores

RECORD_HEADER_BYTES: Final = 5


class Plain(wire.Peer):
    """Speaks no TLS, and tells records of the answer by their kinds."""

    def _next(self) -> str:
        if len(self._unread) < RECORD_HEADER_BYTES:
            return ""
        kind, size = self._unread[0], RECORD_HEADER_BYTES + int.from_bytes(self._unread[3:5])
        if len(self._unread) < size:
            return ""
        self._unread = self._unread[size:]
        return {ALERT: "alert", HANDSHAKE: "hello", DATA: "record"}.get(kind, f"record {kind}")


class Encrypted(wire.Peer):
    """Speaks TLS, and lets records be spoiled before they are sent."""

    def __init__(self, port: int, patience_seconds: float, context: ssl.SSLContext) -> None:
        super().__init__(port, patience_seconds)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        self._socket.settimeout(patience_seconds)
        self._shake_hands()

    def sealed(self, part: bytes) -> bytes:
        """A part as records."""
        self._tls.write(part)
        return self._outgoing.read()

    def send(self, *parts: bytes) -> bool:
        """Send as far as the listener lets us; whether it did."""
        return self.send_records(*map(self.sealed, parts))

    def send_records(self, *records: bytes) -> bool:
        """Send what is sealed already, or looks like it."""
        return super().send(*records)

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                self._incoming.write(self._more())
            else:
                self._socket.sendall(self._outgoing.read())
                return

    def _more(self) -> bytes:
        part = self._socket.recv(1 << 16)
        if not part:
            raise ConnectionResetError
        return part

    def _receive(self) -> bytes:
        while True:
            try:
                return self._tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self._incoming.write(self._more())
            except ssl.SSLError as error:
                # Whoever leaves without a farewell (RFC 8446 6.1) is told so: that is no answer.
                if not self.answer.kinds:
                    self.answer.kinds["alert" if "ALERT" in (error.reason or "") else "no TLS"] += 1
                return b""


def speak(attempt: Attempt, target: Target) -> wire.Answer:
    """Send one input, and hear what the listener says to it."""
    port = target.ports["tls"]
    if attempt.who:
        return _speak_tls(attempt, port, target.folder)
    with ExitStack() as stack:
        crowd = [
            stack.enter_context(Plain(port, PATIENCE_SECONDS, attempt.source))
            for _ in range(attempt.crowd)
        ]
        for each in crowd:
            for at, part in enumerate(attempt.plain):
                if at:
                    time.sleep(attempt.pause_seconds)
                if not each.send(part):
                    break
        for each in crowd:
            # Of some it takes its leave before they have had enough of it.
            if not attempt.waits:
                each.hear(HEAR_SECONDS)
            elif not _is_left(each):
                return wire.Answer(ending="silent")
        return crowd[-1].end()


def _is_left(peer: wire.Peer) -> bool:
    """Whether the listener closes a connection by itself."""
    until = time.monotonic() + PATIENCE_SECONDS
    while peer.hear(max(0.001, until - time.monotonic())):
        pass
    return time.monotonic() < until


def _speak_tls(attempt: Attempt, port: int, folder: Path) -> wire.Answer:
    try:
        peer = Encrypted(port, PATIENCE_SECONDS, context_of(folder, attempt.who))
    except OSError:  # an SSLError is one
        return wire.Answer(Counter({"no handshake": 1}))
    with peer:
        if attempt.waits:
            return peer.answer if _is_left(peer) else wire.Answer(ending="silent")
        session = attempt.session
        assert session is not None
        is_sound = session.family == "sound" and attempt.spoil is None
        with suppress(ssl.SSLError):  # it has said goodbye
            if attempt.spoil is None:
                peer.send(session.proposal)
            else:
                peer.send_records(attempt.spoil(peer.sealed(session.proposal)))
            if session.parts:
                peer.hear(HEAR_SECONDS * 5)
                for part in session.parts:
                    if not peer.send(part):
                        break
        if session.statuses:
            peer.hear(PATIENCE_SECONDS if is_sound else HEAR_SECONDS, session.statuses)
        return peer.end()


DOOR: Final = Door(one, speak, "status 0x0000")


def context_of(folder: Path, who: str) -> ssl.SSLContext:
    """How somebody calls the listener."""
    context = ssl.create_default_context(cafile=folder / "authority.pem")
    context.check_hostname = False
    if who != "nobody":
        context.load_cert_chain(folder / f"{who}.pem")
    return context


def _give_out(folder: Path) -> None:
    """Certificates of the listener, of a sound peer, and of those who are none."""
    authority, another = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    past = datetime.now(UTC) - timedelta(days=1)
    for name, issued in {
        "monro": authority.issue_cert("127.0.0.1"),
        "ours": authority.issue_cert("peer.example"),
        "stranger": another.issue_cert("peer.example"),
        "expired": authority.issue_cert("peer.example", not_after=past),
    }.items():
        issued.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")


@contextmanager
def attacked_by_tls(folder: Path) -> Iterator[Target]:
    """A listener that speaks TLS, for as long as it is needed."""
    folder.mkdir(parents=True)
    _give_out(folder)
    (port,) = free_ports(1)
    own, authority = folder / "monro.pem", folder / "authority.pem"

    def opened() -> wire.Peer:
        return Encrypted(port, SERVED_SECONDS, context_of(folder, "ours"))

    with attacked(
        folder,
        ports={"tls": port},
        probes=[partial(stores, opening=opened)],
        MONRO_TLS_PORT=str(port),
        MONRO_TLS=f'{{"certificate": "{own}", "key": "{own}", "authorities": "{authority}"}}',
    ) as target:
        yield target
