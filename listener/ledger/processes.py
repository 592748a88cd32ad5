"""Names of processes among all hosts that share a ledger."""

import os
import socket


def process_name(pid: int) -> str:
    """Name of a process of this host among all hosts that share a ledger."""
    return f"{socket.gethostname()}:{pid}"


def this_process() -> str:
    """Name of this process among all hosts that share a ledger."""
    return process_name(os.getpid())
