"""What we lean on of pynetdicom that is not public, in one list; looked for before anything starts.

A part that has gone would be noticed late otherwise: to assign a method that nobody calls any more
is no error, and the limit that it was to set holds no longer.
"""

from operator import attrgetter
from typing import Final

from pynetdicom import AE
from pynetdicom.association import Association

from listener.errors import CannotStoreQuickly, UnknownPynetdicom

ALWAYS: Final = (
    "_reactor_checkpoint",
    "_is_paused",
    "kill",
    "acse.negotiate_association",
    "acse.send_abort",
    "dimse.message",
    "dimse.msg_queue",
    "dimse.receive_primitive",
    "dul._kill_thread",
    "dul._run_loop_delay",
    "dul.event_queue",
    "dul.socket",
    "dul.state_machine.current_state",
    "dul.state_machine.do_action",
    "dul.to_provider_queue",
    "dul.to_user_queue",
    "requestor.primitive",
)
"""Of an `Association`: what keeps peers within bounds (bounds.py, doorkeeper.py, checkpoint.py)."""

TO_STORE_QUICKLY: Final = (
    "dimse.get_msg",
    "dul._decode_pdu",
    "dul._read_pdu_data",
    "dul._recv_pdu",
)
"""What C-STORE without detours needs besides (quick_store.py)."""


def require_parts(quick_store: bool) -> None:
    """Look for the parts of pynetdicom that we lean on.

    Raises:
        UnknownPynetdicom: this version lacks one.
        CannotStoreQuickly: this version lacks one that only the quick C-STORE needs.
    """
    association = Association(AE(), "acceptor")  # threads that are never started
    if missing := _missing(association, ALWAYS):
        raise UnknownPynetdicom(missing)
    if quick_store and (missing := _missing(association, TO_STORE_QUICKLY)):
        raise CannotStoreQuickly(missing)


def _missing(association: Association, names: tuple[str, ...]) -> list[str]:
    return [f"Association.{name}" for name in names if not _has(association, name)]


def _has(owner: object, path: str) -> bool:
    """Whether an attribute, or one of its attributes, is there."""
    try:
        attrgetter(path)(owner)
    except AttributeError:
        return False
    return True
