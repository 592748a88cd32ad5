"""Every status that the conformance statement lists is answered, for the reason that it names."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage
from sqlalchemy.exc import OperationalError

from deploy.conformance import ACTION_STATUSES, STORE_STATUSES
from listener.commitment import Promises
from listener.confirmation import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from listener.ledger import Ledger
from listener.spool import Spool
from tests.listener.test_commitment import associated, request_for
from tests.listener.test_server import store_raw

Listening = Callable[..., AbstractContextManager[Any]]
Spoil = Callable[[Spool, pytest.MonkeyPatch], object]

REQUEST = request_for(("1.2", "1.2.3"))


def no_trouble(*_: object) -> None:
    """Nothing is spoilt."""


def fails(*_: object) -> None:
    raise OperationalError("ledger", {}, Exception())


STORED: dict[int, tuple[Spoil, dict[str, str]]] = {
    0x0000: (no_trouble, {}),
    0xA700: (lambda spool, _: setattr(spool, "keep_free", 1 << 62), {}),
    0x0122: (no_trouble, {"command_class": CTImageStorage}),
    0xC000: (no_trouble, {"command_uid": "1.2.3.4"}),
    0xC211: (lambda spool, patch: patch.setattr(spool, "_settle", fails), {}),
}

ASKED: dict[int, tuple[dict[str, Any], Callable[[pytest.MonkeyPatch], object]]] = {
    0x0000: ({}, no_trouble),
    0x0123: ({"action_type": 2}, no_trouble),
    0x0112: ({"instance_uid": UID("1.2.3")}, no_trouble),
    0x0115: ({"dataset": request_for()}, no_trouble),
    0x0213: ({}, lambda patch: patch.setattr(Promises, "ask", fails)),
    0x0110: ({}, lambda patch: patch.setattr(Promises, "ask", None)),
}


def test_every_status_that_is_listed_can_be_provoked() -> None:
    assert set(STORED) == set(STORE_STATUSES)
    assert set(ASKED) == set(ACTION_STATUSES)


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "stock"])
@pytest.mark.parametrize("status", STORED)
def test_storage_is_answered_as_listed(
    tmp_path: Path, ledger: Ledger, listening: Listening, mr_slice: Dataset,
    monkeypatch: pytest.MonkeyPatch, status: int, quick: bool,
) -> None:  # fmt: skip
    spoil, command = STORED[status]
    spool = Spool(tmp_path / "spool")
    with listening(spool, ledger, quick_store=quick) as send:
        association = send.associate(mr_slice)
        spoil(spool, monkeypatch)
        found = store_raw(
            association, mr_slice, **{"command_uid": mr_slice.SOPInstanceUID, **command}
        )
        association.release()

    assert found == status
    assert len(list(spool.received())) == (status == 0)


@pytest.mark.parametrize("status", ASKED)
def test_a_request_for_commitment_is_answered_as_listed(
    tmp_path: Path, ledger: Ledger, listening: Listening,
    monkeypatch: pytest.MonkeyPatch, status: int,
) -> None:  # fmt: skip
    changes, spoil = ASKED[status]
    usual = {
        "dataset": REQUEST,
        "action_type": 1,
        "class_uid": STORAGE_COMMITMENT,
        "instance_uid": STORAGE_COMMITMENT_INSTANCE,
    }
    with listening(Spool(tmp_path / "spool"), ledger) as send:
        association = associated(send.settings)
        spoil(monkeypatch)
        answer, _ = association.send_n_action(**usual | changes)
        association.release()

    assert answer.Status == status
    assert ledger.counts()["promises"].get("ASKED", 0) == (status == 0)
