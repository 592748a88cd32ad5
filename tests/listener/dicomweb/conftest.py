"""A listener's web service on loopback, and what is sent to it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import urllib3
from pydicom.dataset import Dataset

from deploy.conformance import WEB_STATUSES
from listener.dicomweb.server import WebServer
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from listener.spool import Spool

EDGE = "edge"


def file_of(dataset: Dataset) -> bytes:
    """A dataset as a PS3.10 file."""
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def body_of(*files: bytes, content_type: str = "application/dicom") -> bytes:
    head = f"--{EDGE}\r\nContent-Type: {content_type}\r\n\r\n".encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{EDGE}--\r\n".encode()


HEADERS = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={EDGE}'}


class Answer:
    """What the service answered; nothing but what the conformance statement lists."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.status, self.headers, self.text = response.status, response.headers, response.data
        assert self.status in WEB_STATUSES, "the conformance statement does not list it"

    def uids(self, sequence: str = "00081199") -> list[str]:
        """Instances that a sequence of the answer names."""
        return [item["00081155"]["Value"][0] for item in self._items(sequence)]

    @property
    def failures(self) -> dict[str, int]:
        """Failure reason of each instance that was not kept."""
        items = self._items("00081198")
        return {item["00081155"]["Value"][0]: item["00081197"]["Value"][0] for item in items}

    @property
    def others(self) -> list[int]:
        """Failure reasons of parts whose instance is not known."""
        return [item["00081197"]["Value"][0] for item in self._items("0008119A")]

    def _items(self, sequence: str) -> list[dict[str, Any]]:
        assert self.headers["Content-Type"] == "application/dicom+json"
        items: list[dict[str, Any]] = json.loads(self.text).get(sequence, {}).get("Value", [])
        return items


class Web:
    """A running web service."""

    def __init__(self, settings: ListenerSettings, scheme: str = "http") -> None:
        self.settings = settings
        self.address = ("127.0.0.1", settings.web_port or 0)
        self.url = f"{scheme}://127.0.0.1:{settings.web_port}"

    def post(
        self,
        body: Any,
        path: str = "/studies",
        headers: Mapping[str, str] = HEADERS,
        method: str = "POST",
        **named: Any,
    ) -> Answer:
        with urllib3.PoolManager(retries=False, timeout=20, **named) as pool:
            return Answer(pool.request(method, self.url + path, body=body, headers=headers))

    def send(self, *datasets: Dataset, path: str = "/studies") -> Answer:
        return self.post(body_of(*map(file_of, datasets)), path)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def serving(
    spool: Spool,
    ledger: Ledger,
    settings_for: Callable[..., ListenerSettings],
    free_port: int,
) -> Callable[..., AbstractContextManager[Web]]:
    """A web service with other settings than usual."""

    @contextmanager
    def serve(**changes: Any) -> Iterator[Web]:
        settings = settings_for(**({"web_port": free_port} | changes))
        server = WebServer(settings, spool, ledger)
        server.start()
        try:
            yield Web(settings, "http" if settings.tls is None else "https")
        finally:
            server.stop()

    return serve


@pytest.fixture
def web(serving: Callable[..., AbstractContextManager[Web]]) -> Iterator[Web]:
    with serving() as running:
        yield running
