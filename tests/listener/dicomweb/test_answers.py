"""What a request is answered: in the form that the sender reads, with a status that is listed."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
import urllib3
from pydicom.dataset import Dataset

from deploy.conformance import WEB_STATUSES
from listener.dicomweb.model import JSON
from listener.dicomweb.representation import NATIVE, XML
from listener.spool import Spool
from tests.listener.dicomweb.conftest import EDGE, HEADERS, Web, body_of, file_of

Serving = Callable[..., AbstractContextManager[Web]]
Provoked = Callable[[Serving, Spool, Dataset, Path, pytest.MonkeyPatch], int]

NAMES = {"": NATIVE}


def test_xml_tells_what_json_tells(web: Web, an_mr_slice: Callable[..., Dataset]) -> None:
    slices = [an_mr_slice() for _ in range(2)]
    files = [*map(file_of, slices), file_of(an_mr_slice())[:200], b"PLANTED"]
    answers = [
        web.post(body_of(*files), headers={**HEADERS, "Accept": accept}) for accept in (JSON, XML)
    ]

    assert [each.status for each in answers] == [202, 202]
    assert [each.headers["Content-Type"] for each in answers] == [JSON, XML]
    assert native(fromstring(answers[1].text)) == json.loads(answers[0].text)


def native(model: Any) -> dict[str, Any]:
    """PS3.19's model as PS3.18's."""
    found: dict[str, Any] = {}
    for each in model.findall("DicomAttribute", NAMES):
        assert each.get("keyword")
        values = [int(text(one)) if each.get("vr") == "US" else text(one) for one in each]
        items = [native(one) for one in each.findall("Item", NAMES)]
        found[each.get("tag")] = {"vr": each.get("vr")} | (
            {"Value": items or values} if items or values else {}
        )
    return found


def text(value: Any) -> str:
    return value.text or ""


def kept(serving: Serving, mr_slice: Dataset, **request: Any) -> int:
    with serving() as web:
        return web.post(body_of(file_of(mr_slice)), **request).status


def partly(serving: Serving, _spool: Spool, mr_slice: Dataset, *_: Any) -> int:
    with serving() as web:
        return web.post(body_of(file_of(mr_slice), b"PLANTED")).status


def nobody(serving: Serving, _spool: Spool, mr_slice: Dataset, folder: Path, *_: Any) -> int:
    return guarded(serving, mr_slice, folder)


def elsewhere(serving: Serving, _spool: Spool, mr_slice: Dataset, folder: Path, *_: Any) -> int:
    return guarded(serving, mr_slice, folder, address="192.0.2.1")


def guarded(serving: Serving, mr_slice: Dataset, folder: Path, **sender: Any) -> int:
    token = folder / "token"
    token.write_text("a secret")
    senders = [{"name": "gateway", "token_file": token, **sender}]
    with serving(open_node=False, peers=[{"ae_title": "PACS"}], web_senders=senders) as web:
        return web.send(mr_slice).status


def fetched(serving: Serving, *_: Any) -> int:
    with serving() as web, urllib3.PoolManager(retries=False) as pool:
        return pool.request("GET", f"{web.url}/studies").status


def silent(serving: Serving, *_: Any) -> int:
    head = [f"{name}: {value}" for name, value in (*HEADERS.items(), ("Content-Length", "100"))]
    request = "\r\n".join(("POST /studies HTTP/1.1", "Host: 127.0.0.1", *head, "", f"--{EDGE}"))
    with (
        serving(association_timeout_seconds=0.3) as web,
        socket.create_connection(web.address, 5) as connection,
    ):
        connection.sendall(request.encode())
        return int(connection.recv(100).split()[1])


def contradicting(serving: Serving, _spool: Spool, mr_slice: Dataset, *_: Any) -> int:
    with serving() as web:
        return web.send(mr_slice, path="/studies/1.2.3").status


def broken(
    serving: Serving, _spool: Spool, mr_slice: Dataset, _folder: Path, patch: pytest.MonkeyPatch
) -> int:
    patch.setattr("listener.dicomweb.service.Intake", None)
    return kept(serving, mr_slice)


def full(serving: Serving, spool: Spool, mr_slice: Dataset, *_: Any) -> int:
    spool.keep_free = spool.total_bytes()
    return kept(serving, mr_slice)


PROVOKED: dict[int, Provoked] = {
    200: lambda serving, _spool, mr_slice, *_: kept(serving, mr_slice),
    202: partly,
    400: lambda serving, _spool, mr_slice, *_: kept(serving, mr_slice, path="/studies/PLANTED"),
    401: nobody,
    403: elsewhere,
    404: lambda serving, _spool, mr_slice, *_: kept(serving, mr_slice, path="/instances"),
    405: fetched,
    406: lambda serving, _spool, mr_slice, *_: kept(
        serving, mr_slice, headers={**HEADERS, "Accept": "text/html"}
    ),
    408: silent,
    409: contradicting,
    415: lambda serving, _spool, mr_slice, *_: kept(
        serving, mr_slice, headers={"Content-Type": "application/dicom"}
    ),
    500: broken,
    503: full,
}


@pytest.fixture
def without_files_left(spool: Spool) -> Iterator[None]:
    yield
    assert list((spool.root / "incoming").iterdir()) == []


def test_every_status_that_is_listed_can_be_provoked() -> None:
    assert set(PROVOKED) == set(WEB_STATUSES)


@pytest.mark.usefixtures("without_files_left")
@pytest.mark.parametrize("status", PROVOKED)
def test_a_status_means_what_the_statement_says(
    serving: Serving, spool: Spool, mr_slice: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, status: int,
) -> None:  # fmt: skip
    assert PROVOKED[status](serving, spool, mr_slice, tmp_path, monkeypatch) == status
    assert len(list(spool.received())) == (1 if status in (200, 202) else 0)
