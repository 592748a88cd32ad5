"""A source that a listener asks what a study should hold: played by us, one hostile part at a time.

A `Play` says where in the conversation it stops being sound, and what it says there instead. It is
given for one study; of others the source has nothing.
"""

import random
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from tests.fuzz.datasets import Instance, new_uids

SILENT_SECONDS: Final = 60.0
"""After so long a source gives up a listener that neither speaks nor leaves."""


@dataclass(frozen=True)
class Held:
    """A study that a source has: three instances in one series.

    Attributes:
        sent: the first of them, which the listener was sent.
        kept_back: the last of them, which it is never given: so the study stays incomplete.
    """

    study: str
    series: str
    sent: str
    offered: str
    kept_back: str

    @classmethod
    def of(cls, dice: random.Random) -> "Held":
        """A new one."""
        study, series, sent = new_uids(dice)
        return cls(study, series, sent, new_uids(dice)[2], new_uids(dice)[2])

    @property
    def sops(self) -> tuple[str, str, str]:
        """UIDs of all instances."""
        return self.sent, self.offered, self.kept_back


@dataclass(frozen=True)
class Asked:
    """What a listener wants of a source.

    Attributes:
        stage: of the conversation: association, series, instances, files.
        study: that it is about.
        series: likewise.
        message: a DIMSE command, by element number.
        context: that it came in.
        storing: context that instances go in.
        proposal: an A-ASSOCIATE-RQ.
    """

    stage: str
    study: str = ""
    series: str = ""
    message: Mapping[int, bytes] = field(default_factory=dict)
    context: int = 0
    storing: int = 0
    proposal: bytes = b""


Answer = Callable[["Asked", Held], Iterator[bytes]]
"""What is said to one question, as it goes onto the line; then that is closed, or silent."""


@dataclass
class Play:
    """One input.

    Attributes:
        family: which kind of attempt it is.
        kind: of the sources that play it.
        stage: where it is hostile; empty: nowhere.
        answer: to what is asked there.
        is_silent: whether the line stays open afterwards.
        held: what the source has.
        instance: that is handed over; None: the one that is offered, and sound.
        syntax: that contexts are accepted in; empty: the first that is proposed.
    """

    family: str
    kind: str
    stage: str
    answer: Answer
    held: Held
    is_silent: bool = False
    instance: Instance | None = None
    syntax: str = ""
    reached: threading.Event = field(default_factory=threading.Event)


class Source(ABC):
    """Listens at a port of loopback, and plays what it is given."""

    kind: str

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.play: Play | None = None
        self.free = threading.Lock()

    @contextmanager
    def open(self) -> Iterator["Source"]:
        """Answer for as long as it is needed."""
        with socket.create_server(("127.0.0.1", self.port), backlog=64) as listening:
            threading.Thread(target=self._serve, args=(listening,), daemon=True).start()
            try:
                yield self
            finally:
                with suppress(OSError):
                    listening.shutdown(socket.SHUT_RDWR)

    @abstractmethod
    def converse(self, line: socket.socket) -> None:
        """Answer one connection; may raise OSError when it breaks."""

    def part_of(self, asked: Asked) -> Play | None:
        """What is played to a question; None: of that study there is nothing here."""
        play = self.play
        return play if play is not None and asked.study == play.held.study else None

    def play_out(self, line: socket.socket, play: Play, asked: Asked) -> None:
        """Say what is hostile, until the listener has enough of it."""
        play.reached.set()
        with suppress(OSError):
            for each in play.answer(asked, play.held):
                line.sendall(each)
        if play.is_silent:
            with suppress(OSError):
                while line.recv(1 << 16):
                    pass

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                line, _address = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        with line, suppress(OSError, ValueError, LookupError, struct.error):
            line.settimeout(SILENT_SECONDS)
            self.converse(line)
