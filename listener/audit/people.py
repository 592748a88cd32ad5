"""People that take part in what happens."""

import os
import pwd
import socket

from listener.audit.message import Participant


def visitor(name: str, address: str, issuer: str = "") -> Participant:
    """Who comes over the web.

    Args:
        name: of the account; empty: nobody that we know.
        address: that they come from.
        issuer: who vouches for them, and by what it knows them.
    """
    return Participant(name or "unknown", is_requestor=True, alternative_id=issuer, address=address)


def operator() -> Participant:
    """The person who runs this process: who logged in, and as whom the process runs."""
    host = socket.gethostname()
    uid = os.geteuid()
    try:
        account = pwd.getpwuid(uid).pw_name
    except KeyError:
        account = f"uid {uid}"
    try:
        login = os.getlogin()
    except OSError:  # no terminal
        login = account
    other = "" if login == account else f"{account}@{host}"
    return Participant(f"{login}@{host}", is_requestor=True, alternative_id=other, address=host)
