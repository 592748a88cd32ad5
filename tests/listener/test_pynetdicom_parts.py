"""A pynetdicom that lacks what we lean on is refused at the start, by name."""

from typing import Any

import pytest
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine

from listener.errors import CannotStoreQuickly, UnknownPynetdicom
from listener.pynetdicom_parts import require_parts


def test_the_installed_one_has_everything() -> None:
    require_parts(quick_store=True)


@pytest.mark.parametrize("quick_store", [True, False])
@pytest.mark.parametrize(
    ("owner", "name", "told"),
    [
        (ACSE, "negotiate_association", r"Association\.acse\.negotiate_association"),
        (StateMachine, "do_action", r"Association\.dul\.state_machine\.do_action"),
        (DIMSEServiceProvider, "receive_primitive", r"Association\.dimse\.receive_primitive"),
    ],
)
def test_without_what_keeps_peers_within_bounds_nothing_starts(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, told: str, quick_store: bool
) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(UnknownPynetdicom, match=rf"no {told}: install the one"):
        require_parts(quick_store)


@pytest.mark.parametrize(
    ("owner", "name", "told"),
    [
        (DULServiceProvider, "_decode_pdu", r"Association\.dul\._decode_pdu"),
        (DIMSEServiceProvider, "get_msg", r"Association\.dimse\.get_msg"),
    ],
)
def test_what_only_the_quick_store_needs_may_be_done_without(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, told: str
) -> None:
    monkeypatch.delattr(owner, name)
    require_parts(quick_store=False)
    with pytest.raises(CannotStoreQuickly, match=rf"no {told}:.*QUICK"):
        require_parts(quick_store=True)


@pytest.mark.parametrize(
    ("owner", "name", "told"),
    [
        (Association, "_reactor_checkpoint", r"Association\._reactor_checkpoint"),
        (Association, "_is_paused", r"Association\._is_paused"),
        (DULServiceProvider, "_run_loop_delay", r"Association\.dul\._run_loop_delay"),
    ],
)
def test_parts_that_only_an_instance_has_are_looked_for_too(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, told: str
) -> None:
    usual = owner.__init__

    def other(each: Any, *arguments: Any, **named: Any) -> None:
        usual(each, *arguments, **named)
        delattr(each, name)

    monkeypatch.setattr(owner, "__init__", other)
    with pytest.raises(UnknownPynetdicom, match=f"no {told}:"):
        require_parts(quick_store=True)
