"""What we ask of DICOMweb services, and what we make of their answers, over real HTTP."""

import io
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from listener.dicomweb import client as client_module
from listener.dicomweb.client import InstanceListed, SeriesListed, WebClient
from listener.dicomweb.multipart import media_type, parts
from listener.errors import ServiceFailed
from listener.remote import WebService
from tests.listener.dicomweb.service import Asked, Reply, Service, element, in_json, stored

RELATED = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=edge'}


def client(service: Service, token_file: Path | None = None) -> WebClient:
    return WebClient(WebService(url=service.url, token_file=token_file), None, timeout_seconds=2)


def failure(service: Service, ask: Callable[[WebClient], object]) -> ServiceFailed:
    with service.open(), client(service) as web, pytest.raises(ServiceFailed) as caught:
        ask(web)
    return caught.value


def multipart(*contents: bytes) -> bytes:
    return b"".join(
        b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n"
        for content in contents
    ) + b"--edge--"  # fmt: skip


@pytest.fixture
def file(tmp_path: Path, mr_slice: Dataset) -> Path:
    path = tmp_path / "slice.dcm"
    mr_slice.save_as(path, enforce_file_format=True)
    return path


# --- STOW-RS ---


def test_instances_are_sent_byte_for_byte(file: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a secret\n")
    service = Service(lambda _asked: stored(200, {}, "1.2.3"))
    with service.open(), client(service, tmp_path / "token") as web:
        answer = web.store([file, file])

    (asked,) = service.asked
    assert (asked.method, asked.path) == ("POST", "/dicom-web/studies")
    assert asked.headers["authorization"] == "Bearer a secret"
    assert int(asked.headers["content-length"]) == len(asked.body)
    kind, options = media_type(asked.headers["content-type"])
    assert (kind, options["type"]) == ("multipart/related", "application/dicom")
    sent = [b"".join(each) for _, each in parts([asked.body], options["boundary"].encode())]
    assert sent == [file.read_bytes()] * 2
    assert answer.keeps("1.2.3")


def test_a_token_may_change_while_we_run(file: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    service = Service(lambda _asked: stored())
    with service.open(), client(service, token) as web:
        for secret in ("old", "new"):
            token.write_text(secret)
            web.store([file])

    assert [each.headers["authorization"] for each in service.asked] == ["Bearer old", "Bearer new"]


def test_a_token_that_cannot_be_read_is_named_and_nothing_is_sent(tmp_path: Path) -> None:
    service = Service(lambda _asked: in_json())
    with (
        service.open(),
        client(service, tmp_path / "absent") as web,
        pytest.raises(ServiceFailed, match="absent") as caught,
    ):
        list(web.series("1.2"))
    assert caught.value.is_temporary
    assert service.asked == []


def test_each_instance_has_its_failure_reason(file: Path) -> None:
    service = Service(lambda _asked: stored(202, {"1.2.4": 0x0122}, "1.2.3"))
    with service.open(), client(service) as web:
        answer = web.store([file])

    assert answer.keeps("1.2.3")
    assert not answer.keeps("1.2.4")
    assert not answer.keeps("1.2.5")
    assert answer.failed == {"1.2.4": 0x0122}


def test_a_service_that_kept_all_need_not_say_so_of_each(file: Path) -> None:
    service = Service(lambda _asked: Reply(200))
    with service.open(), client(service) as web:
        assert web.store([file]).keeps("1.2.3")


# --- QIDO-RS ---


def test_series_are_listed_with_their_number_of_instances() -> None:
    counted = {
        "0020000E": element("UI", "1.2.1"),
        "00080060": element("CS", "MR"),
        "00201209": element("IS", 192),
    }
    uncounted = {"0020000E": element("UI", "1.2.2"), "00080060": {"vr": "CS"}}
    service = Service(lambda asked: in_json(counted, uncounted))
    with service.open(), client(service) as web:
        found = list(web.series("1.2"))

    assert found == [SeriesListed("1.2.1", "MR", 192), SeriesListed("1.2.2", "", None)]
    asked = service.asked[0]
    assert asked.path == "/dicom-web/studies/1.2/series"
    assert ("includefield", "00201209") in asked.fields


def instance(number: int) -> dict[str, object]:
    return {
        "0020000E": element("UI", "1.2.1"),
        "00080018": element("UI", f"1.2.1.{number}"),
        "00080016": element("UI", "1.2.840.10008.5.1.4.1.1.4"),
        "00080060": element("CS", "MR"),
    }


def test_instances_are_listed_page_by_page() -> None:
    def answer(asked: Asked) -> Reply:
        offset = int(dict(asked.fields)["offset"])
        return in_json(*(instance(number) for number in range(offset, min(offset + 100, 250))))

    service = Service(answer)
    with service.open(), client(service) as web:
        found = list(web.instances("1.2"))

    assert [each.sop_uid for each in found] == [f"1.2.1.{number}" for number in range(250)]
    assert found[0] == InstanceListed("1.2.1", "1.2.1.0", "1.2.840.10008.5.1.4.1.1.4", "MR")


def test_a_service_that_answers_every_page_with_the_first_is_asked_twice() -> None:
    service = Service(lambda _asked: in_json(instance(1), instance(2)))
    with service.open(), client(service) as web:
        assert len(list(web.instances("1.2"))) == 2
    assert len(service.asked) == 2


@pytest.mark.parametrize("reply", [Reply(204), Reply(404), in_json()])
def test_a_study_that_is_not_there_has_no_instances(reply: Reply) -> None:
    service = Service(lambda _asked: reply)
    with service.open(), client(service) as web:
        assert list(web.instances("1.2", "1.2.1")) == []
    assert service.asked[0].path == "/dicom-web/studies/1.2/series/1.2.1/instances"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>a portal</html>"),
        Reply(200, b'{"error": true}'),
        in_json({"00080018": element("UI", "../../etc"), "0020000E": element("UI", "1.2.1")}),
        Reply(200, b"[1, 2]"),
        Reply(200, b'[{"00080018": {"Value": 5}}]'),
    ],
)
def test_an_answer_that_is_none_is_told_without_what_it_says(reply: Reply) -> None:
    error = failure(Service(lambda _asked: reply), lambda web: list(web.instances("1.2")))

    assert not error.is_temporary
    assert "cannot be understood" in str(error)
    assert "portal" not in str(error)


# --- WADO-RS ---


def test_a_study_is_retrieved_as_it_is_stored(file: Path) -> None:
    content = file.read_bytes()
    service = Service(lambda _asked: Reply(200, multipart(content, content), RELATED))
    with service.open(), client(service) as web:
        came = [b"".join(pieces) for pieces in web.retrieve("1.2", "1.2.1", "1.2.1.1")]

    assert came == [content, content]
    assert dcmread(io.BytesIO(came[0])).Modality == "MR"
    (asked,) = service.asked
    assert asked.path == "/dicom-web/studies/1.2/series/1.2.1/instances/1.2.1.1"
    assert asked.headers["accept"] == (
        'multipart/related; type="application/dicom"; transfer-syntax=*'
    )


def test_a_single_instance_may_come_without_a_multipart_body(file: Path) -> None:
    reply = Reply(200, file.read_bytes(), {"Content-Type": "application/dicom"})
    service = Service(lambda _asked: reply)
    with service.open(), client(service) as web:
        assert [b"".join(each) for each in web.retrieve("1.2")] == [file.read_bytes()]


def test_a_large_instance_is_not_held_in_memory() -> None:
    content = bytes(8 << 20)
    service = Service(lambda _asked: Reply(200, multipart(content), RELATED))
    with service.open(), client(service) as web:
        sizes = [len(piece) for pieces in web.retrieve("1.2") for piece in pieces]
    assert sum(sizes) == len(content)
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize(("cut", "whole"), [(1, 1), (20, 1), (6000, 0)])
def test_what_breaks_off_is_a_failure_of_the_instance_that_it_breaks(cut: int, whole: int) -> None:
    body = multipart(b"a" * 1000, b"b" * 5000)
    service = Service(lambda _asked: Reply(200, body, RELATED, cut=cut))
    came: list[bytes] = []

    def retrieve(web: WebClient) -> None:
        came.extend(b"".join(pieces) for pieces in web.retrieve("1.2"))

    assert failure(service, retrieve).is_temporary
    assert came == [b"a" * 1000, b"b" * 5000][:whole]


def parts_of(*kinds: bytes) -> Reply:
    heads = [b"Content-Type: " + kind + b"\r\n" if kind else b"" for kind in kinds]
    body = b"".join(b"--edge\r\n" + head + b"\r\nPLANTED\r\n" for head in heads)
    return Reply(200, body + b"--edge--", RELATED)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (parts_of(b"image/png"), "part 1 of its answer to a retrieval is image/png"),
        (parts_of(b"application/dicom", b"text/html; charset=utf-8"), "part 2 of .* is text/html"),
        (parts_of(b""), "part 1 of .* is no media type"),
        (parts_of(b"PLANTED^NAME/x"), "part 1 of .* is a media type that is not known"),
        (parts_of(b"text/html; name=PLANTED"), "part 1 of .* is text/html"),
        (Reply(200, b"PLANTED", {"Content-Type": "text/html"}), "answers .* with text/html"),
        (Reply(200, b"x", {"Content-Type": "PLANTED"}), "with a media type that is not known"),
        (Reply(200, b"PLANTED"), "with no media type"),
    ],
)
def test_what_is_not_dicom_is_named_and_so_is_what_was_expected(reply: Reply, found: str) -> None:
    def retrieve(web: WebClient) -> None:
        for pieces in web.retrieve("1.2"):
            list(pieces)

    error = failure(Service(lambda _asked: reply), retrieve)
    assert not error.is_temporary
    assert re.search(f"{found}, where .*application/dicom was expected", str(error))
    assert "PLANTED" not in str(error)


# --- failures ---


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_succeed_later_is_temporary(status: int) -> None:
    error = failure(Service(lambda _asked: Reply(status)), lambda web: list(web.series("1.2")))
    assert (error.status, error.is_temporary) == (status, True)


@pytest.mark.parametrize("status", [400, 401, 403, 406, 501])
def test_what_will_not_succeed_is_permanent(status: int) -> None:
    error = failure(Service(lambda _asked: Reply(status)), lambda web: list(web.series("1.2")))
    assert (error.status, error.is_temporary) == (status, False)
    assert f"HTTP {status}" in str(error)


def test_nobody_there_is_temporary(free_port: int) -> None:
    service = Service(lambda _asked: Reply(200))
    service.url = f"http://127.0.0.1:{free_port}/dicom-web"
    with client(service) as web, pytest.raises(ServiceFailed) as caught:
        list(web.series("1.2"))
    assert caught.value.is_temporary


def test_a_service_that_says_nothing_is_not_waited_for_longer_than_set() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            WebClient(WebService(url=url), None, timeout_seconds=0.2) as web,
            pytest.raises(ServiceFailed) as caught,
        ):
            list(web.series("1.2"))
    assert caught.value.is_temporary


def test_a_token_does_not_follow_a_redirect(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a secret")
    elsewhere = Service(lambda _asked: in_json())
    moved = Service(lambda _asked: Reply(307, headers={"Location": elsewhere.url}))
    with (
        elsewhere.open(),
        moved.open(),
        client(moved, tmp_path / "token") as web,
        pytest.raises(ServiceFailed, match="redirect"),
    ):
        list(web.series("1.2"))
    assert elsewhere.asked == []


def test_a_service_that_takes_instances_and_shows_none_answers_all_the_same() -> None:
    for status in (200, 204, 404, 405):
        service = Service(lambda _asked, status=status: Reply(status))
        with service.open(), client(service) as web:
            assert web.searches("1.2") == (status < 300)
    error = failure(Service(lambda _asked: Reply(401)), lambda web: web.searches("1.2"))
    assert error.status == 401


# --- hostile answers ---


@contextmanager
def saying(*begun: bytes, on: bytes = b"", pause_seconds: float = 0.0) -> Iterator[str]:
    """URL of a service that answers with these bytes, and then with others without an end."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    line, _address = server.accept()
                    with line, suppress(OSError):
                        line.recv(1 << 16)
                        line.sendall(b"".join(begun))
                        while on:
                            line.sendall(on)
                            time.sleep(pause_seconds)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)


def refusal(url: str, ask: Callable[[WebClient], object]) -> str:
    web = WebClient(WebService(url=url), None, timeout_seconds=0.2)
    with web, pytest.raises(ServiceFailed) as caught:
        ask(web)
    return caught.value.found


def head(content_type: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()


IN_PARTS = 'multipart/related; type="application/dicom"; boundary=edge'
BEGUN = b"--edge\r\nContent-Type: application/dicom\r\n\r\n"


@pytest.mark.parametrize(
    ("begun", "on", "pause_seconds"),
    [
        (b"", b"HTTP/1.1 100 Go on\r\n\r\n", 0),  # Python's client reads on and on
        (b"HTTP/1.1 200 OK\r\nX: ", b"y", 0.05),
        (head("application/dicom+json") + b"[", b" ", 0.05),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", 0),
    ],
    ids=["interim", "header", "drip", "trailer"],
)
def test_an_answer_that_never_comes_to_its_end_is_not_waited_for(
    begun: bytes, on: bytes, pause_seconds: float
) -> None:
    with saying(begun, on=on, pause_seconds=pause_seconds) as url:
        found = refusal(url, lambda web: list(web.series("1.2")))
    assert found == "no whole answer within 2 s"


@pytest.mark.parametrize(
    ("begun", "on", "found"),
    [
        (b"", b"\r\n" * 10_000, "bytes that are of no part"),
        (b"", BEGUN + b"no file\r\n", "more than 500 objects"),
    ],
    ids=["preamble", "parts"],
)
def test_a_body_that_never_comes_to_its_end_is_not_read_on(
    begun: bytes, on: bytes, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MOST_LISTED", 500)
    with saying(head(IN_PARTS), begun, on=on) as url:
        said = refusal(url, lambda web: [b"".join(each) for each in web.retrieve("1.2")])
    assert found in said


def test_nothing_is_read_after_the_last_part() -> None:
    with (
        saying(head(IN_PARTS), BEGUN, b"a file\r\n--edge--\r\n", on=b" " * 1000) as url,
        WebClient(WebService(url=url), None, timeout_seconds=2) as web,
    ):
        assert [b"".join(each) for each in web.retrieve("1.2")] == [b"a file"]


def test_a_search_that_always_finds_one_more_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MOST_PAGES", 5)
    service = Service(lambda asked: in_json(instance(int(dict(asked.fields)["offset"]))))
    assert "more than 5 answers" in failure(service, lambda web: list(web.instances("1.2"))).found


def test_an_answer_that_is_nested_too_deeply_is_not_understood() -> None:
    for deep in (b"[" * 100_000, b'[{"a":' + b"[" * 100_000):
        service = Service(lambda _asked, deep=deep: Reply(200, deep))
        error = failure(service, lambda web: list(web.series("1.2")))
        assert "cannot be understood" in error.found
    service = Service(lambda _asked: Reply(200, b'{"a":' * 100_000))
    with tempfile.NamedTemporaryFile() as file:
        error = failure(service, lambda web: web.store([Path(file.name)]))
    assert "cannot be understood (RecursionError)" in error.found


def test_a_header_that_pythons_parser_dies_of_is_not_understood() -> None:
    odd = "multipart/related; boundary*0*=a; boundary*0=b; boundary*=x"
    with saying(head(odd), b"--edge--") as url:
        assert "cannot be understood (TypeError)" in refusal(
            url, lambda web: list(web.retrieve("1.2"))
        )


def test_the_words_of_a_service_are_not_repeated() -> None:
    spoken = "text/Smith^John"
    for reply in (
        Reply(200, b"x", {"Content-Type": spoken}),
        Reply(200, f"--edge\r\nContent-Type: {spoken}\r\n\r\nx\r\n--edge--".encode(), RELATED),
    ):
        service = Service(lambda _asked, reply=reply: reply)
        assert "Smith" not in str(failure(service, lambda web: list(web.retrieve("1.2"))))
