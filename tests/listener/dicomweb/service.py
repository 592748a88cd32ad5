"""A DICOMweb service on loopback that answers what a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    fields: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What is answered; `cut` bytes less than its Content-Length says."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0


@dataclass
class Service:
    """Answers by `answer`; remembers what it was asked."""

    answer: Callable[[Asked], Reply]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def open(self, port: int = 0) -> Iterator["Service"]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                address = urlsplit(self.path)
                length = int(self.headers.get("Content-Length", 0))
                asked = Asked(
                    self.command,
                    address.path,
                    parse_qsl(address.query),
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(length),
                )
                service.asked.append(asked)
                reply = service.answer(asked)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body[: len(reply.body) - reply.cut])
                self.close_connection = bool(reply.cut)

            do_POST = do_GET  # noqa: N815 - as the library calls it

            def log_message(self, *_arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}/dicom-web"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def in_json(*found: dict[str, Any], status: int = 200) -> Reply:
    """An answer in DICOM JSON."""
    headers = {"Content-Type": "application/dicom+json"}
    return Reply(status, json.dumps(list(found)).encode(), headers)


def element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def stored(status: int = 200, failed: dict[str, int] | None = None, *kept: str) -> Reply:
    """The answer to a STOW-RS request."""
    answer = {
        "00081199": element("SQ", *({"00081155": element("UI", uid)} for uid in kept)),
        "00081198": element(
            "SQ",
            *(
                {"00081155": element("UI", uid), "00081197": element("US", reason)}
                for uid, reason in (failed or {}).items()
            ),
        ),
    }
    return Reply(status, json.dumps(answer).encode(), {"Content-Type": "application/dicom+json"})
