"""HTTPS to us, with the certificates of the moment."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from listener.dicomweb.tls import web_context
from listener.remote import Tls
from listener.tls import client_context
from tests.listener.test_tls import Hospital


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "certificates")


@contextmanager
def answering(tls: Tls, port: int) -> Iterator[None]:
    """A server as uvicorn starts it: asyncio's, with one context for good."""
    loop, begun = asyncio.new_event_loop(), Event()

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"here")
        await writer.drain()
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", port, ssl=web_context(tls))
        begun.set()
        async with server:
            await server.serve_forever()

    def run() -> None:
        loop.set_exception_handler(lambda _loop, _context: None)  # refused handshakes
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(serve())

    thread = Thread(target=run, daemon=True)
    thread.start()
    assert begun.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(lambda: [each.cancel() for each in asyncio.all_tasks(loop)])
        thread.join(10)
        loop.close()


def ask(
    context: ssl.SSLContext, port: int, session: ssl.SSLSession | None = None
) -> ssl.SSLSession | None:
    """Be answered, with a certificate shown; the session, to go on with another time."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1", session=session) as secured,
    ):
        assert secured.recv(4) == b"here"
        return secured.session


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_is_revoked_gets_in_no_more_not_even_by_a_session_that_was_granted(
    hospital: Hospital, free_port: int, newest: ssl.TLSVersion
) -> None:
    ours, theirs = hospital.tls("monro"), hospital.tls("sender")
    client = client_context(theirs)
    client.maximum_version = newest
    with answering(ours, free_port):
        session = ask(client, free_port)
        assert session is not None
        with ours.authorities.open("ab") as authorities:
            authorities.write(hospital.revoke(theirs))
        with pytest.raises((OSError, AssertionError)):
            ask(client, free_port)
        with pytest.raises((OSError, AssertionError)):
            ask(client, free_port, session)
        ask(client_context(hospital.tls("another")), free_port)
