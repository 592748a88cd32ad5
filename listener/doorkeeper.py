"""What a connection may cost us before it has said who it is.

pynetdicom spends two threads on each connection. Here each has its limits (bounds.py), and those
that have not proposed an association make room for others when there are many.
"""

import logging
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Final, cast
from weakref import WeakSet

from pynetdicom import evt
from pynetdicom.association import Association

from listener.bounds import (
    Line,
    read_in_bounds,
    survive,
    survive_proposal,
    take_messages_in_bounds,
)
from listener.checkpoint import guard_answers
from listener.confirmation import LARGEST_REPORT_BYTES
from listener.pace import Pace
from listener.settings import ListenerSettings

log = logging.getLogger(__name__)

# Of one process. Who means to associate proposes within milliseconds.
MOST_SILENT: Final = 50

# For threads of connections that were closed; nothing is accepted meanwhile.
GOING_SECONDS: Final = 2.0

# How often a connection is looked at: pynetdicom's thousand times a second cost two thirds of a
# processor for MOST_SILENT of them.
LOOK_SECONDS: Final = 0.001
LOOK_AT_SILENT_SECONDS: Final = 0.01

# Requests that wait for their answer; a sender waits for each (PS3.7 D.3.3.3: the default is 1).
MOST_UNANSWERED: Final = 100


class Doorkeeper:
    """Watches the connections of one process.

    Args:
        settings: how large an instance may be, and how slow a sender.
    """

    def __init__(self, settings: ListenerSettings) -> None:
        self._settings = settings
        self._shown_out: WeakSet[Association] = WeakSet()

    def on_opened(self, event: evt.Event) -> None:
        """Give a new connection its limits, and show another one out if there are too many."""
        association = event.assoc
        connection = cast(Any, association.dul).socket
        # Who stops in the middle of a PDU, or reads no answers, is waited for as a silent peer is.
        connection.socket.settimeout(association.network_timeout)
        guard_answers(association)
        read_in_bounds(connection, Line(association, Pace.of_sender(self._settings)))
        survive_proposal(association)
        survive(association)
        take_messages_in_bounds(
            association,
            self._settings.largest_instance,
            LARGEST_REPORT_BYTES,
            lambda messages, _bytes: messages > MOST_UNANSWERED,
        )
        cast(Any, association.dul)._run_loop_delay = LOOK_AT_SILENT_SECONDS
        self._make_room(association)

    def on_requested(self, event: evt.Event) -> None:
        """Look after who has proposed an association as pynetdicom does."""
        cast(Any, event.assoc.dul)._run_loop_delay = LOOK_SECONDS

    def on_closed(self, event: evt.Event) -> None:
        """Let an association end at once whose peer left before it proposed anything.

        pynetdicom would wait for the proposal as if the connection were still there.
        """
        if event.assoc.requestor.primitive is None:
            event.assoc.dul.to_user_queue.put(cast(Any, None))

    def _make_room(self, newcomer: Association) -> None:
        """Let the oldest silent connection go for a new one, and wait until enough have gone."""
        waiting = [each for each in _silent(newcomer) if each not in self._shown_out]
        if len(waiting) >= MOST_SILENT:
            self._show_out(_first_of_most(waiting))
        until = monotonic() + GOING_SECONDS
        while len(_silent(newcomer)) >= 2 * MOST_SILENT:
            if monotonic() > until:
                self._show_out(newcomer)
                return
            sleep(LOOK_SECONDS)

    def _show_out(self, association: Association) -> None:
        if not self._shown_out:
            log.warning(
                "more than %d connections from %s and others have not proposed an association: "
                "the oldest are closed; find out what opens them",
                MOST_SILENT,
                association.requestor.address,
            )
        self._shown_out.add(association)
        with suppress(OSError, AttributeError):  # it has just left by itself
            cast(Any, association.dul).socket.socket.shutdown(socket.SHUT_RDWR)


def _silent(newcomer: Association) -> list[Association]:
    """Connections of this process that have not proposed an association, oldest first."""
    running = newcomer.ae.active_associations
    return [each for each in running if each.requestor.primitive is None]


def _first_of_most(waiting: Sequence[Association]) -> Association:
    """The oldest one from the address that most of them come from: others are not made to pay."""
    addresses = Counter(each.requestor.address for each in waiting)
    ((most, _),) = addresses.most_common(1)
    return next(each for each in waiting if each.requestor.address == most)
