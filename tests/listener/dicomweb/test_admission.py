"""Who may send over DICOMweb, and who is told what."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from listener.dicomweb.admission import NotAdmitted, admit
from listener.remote import WebSender
from listener.spool import Spool
from tests.listener.dicomweb.conftest import HEADERS, Web, body_of, file_of

Serving = Callable[..., AbstractContextManager[Web]]


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("a secret\n")
    return path


@pytest.fixture
def guarded(serving: Serving, token: Path) -> Callable[..., AbstractContextManager[Web]]:
    """A service that the bearer of a token may send to."""

    def serve(**sender: Any) -> AbstractContextManager[Web]:
        senders = [{"name": "gateway", "token_file": token} | sender]
        return serving(open_node=False, peers=[{"ae_title": "PACS"}], web_senders=senders)

    return serve


def status(web: Web, dataset: Dataset, authorization: str | None) -> int:
    shown = {} if authorization is None else {"Authorization": authorization}
    return web.post(body_of(file_of(dataset)), headers={**HEADERS, **shown}).status


def test_only_the_bearer_of_the_token_may_send(
    guarded: Serving, spool: Spool, mr_slice: Dataset
) -> None:
    with guarded() as web:
        for wrong in (None, "Bearer", "Bearer another", "Bearer a", "Basic a secret", "a secret"):
            assert status(web, mr_slice, wrong) == 401
        assert list(spool.received()) == []
        answer = web.post(body_of(file_of(mr_slice)))
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        for right in ("Bearer a secret", "bearer  a secret"):
            assert status(web, mr_slice, right) == 200


def test_a_token_may_be_changed_while_we_run(
    guarded: Serving, token: Path, mr_slice: Dataset
) -> None:
    with guarded() as web:
        token.write_text("another secret")
        assert status(web, mr_slice, "Bearer a secret") == 401
        assert status(web, mr_slice, "Bearer another secret") == 200


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_without_a_token_in_the_file_nobody_gets_in(
    guarded: Serving, token: Path, mr_slice: Dataset, content: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    token.unlink() if content is None else token.write_text(content)
    with guarded() as web:
        for shown in ("Bearer ", "Bearer", None, "Bearer a secret"):
            assert status(web, mr_slice, shown) == 401
    assert str(token) in caplog.text


def test_a_sender_comes_from_its_own_network(guarded: Serving, mr_slice: Dataset) -> None:
    with guarded(address="127.0.0.0/8") as web:
        assert status(web, mr_slice, "Bearer a secret") == 200
    with guarded(address="10.0.0.0/8") as web:
        assert status(web, mr_slice, "Bearer a secret") == 403


def test_nobody_is_believed_to_forward_for_others(guarded: Serving, mr_slice: Dataset) -> None:
    headers = {**HEADERS, "Authorization": "Bearer a secret", "X-Forwarded-For": "10.0.0.1"}
    with guarded(address="10.0.0.0/8") as web:
        assert web.post(body_of(file_of(mr_slice)), headers=headers).status == 403


def test_what_was_shown_is_not_logged(
    guarded: Serving, mr_slice: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with guarded() as web:
        status(web, mr_slice, "Bearer nearly a secret")
    assert "nearly" not in caplog.text
    assert "127.0.0.1 is not among MONRO_WEB_SENDERS" in caplog.text


def test_each_sender_has_its_own_name(tmp_path: Path) -> None:
    senders = []
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"secret of {name}")
        senders.append(WebSender(name=name, token_file=tmp_path / name))

    assert admit(senders, "10.0.0.1", None, "Bearer secret of two").name == "two"
    with pytest.raises(NotAdmitted):
        admit(senders, "10.0.0.1", None, "Bearer secret of three")


def test_a_certificate_may_stand_for_a_token(tmp_path: Path) -> None:
    sender = WebSender(name="gateway", certificate="ab" * 32)

    assert admit([sender], "10.0.0.1", "ab" * 32, None).name == "gateway"
    for other in (None, "cd" * 32):
        with pytest.raises(NotAdmitted) as caught:
            admit([sender], "10.0.0.1", other, "Bearer a secret")
        assert not caught.value.needs_token


def test_a_sender_with_both_has_to_show_both(token: Path) -> None:
    sender = WebSender(name="gateway", certificate="ab" * 32, token_file=token)

    assert admit([sender], "10.0.0.1", "ab" * 32, "Bearer a secret").name == "gateway"
    for certificate, shown in ((None, "Bearer a secret"), ("ab" * 32, None)):
        with pytest.raises(NotAdmitted):
            admit([sender], "10.0.0.1", certificate, shown)
