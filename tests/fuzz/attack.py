"""Many inputs for a listener, several at a time; in between, whether it is well."""

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tests.fuzz import sessions, wire
from tests.fuzz.target import TIMEOUT_SECONDS, Target

SENDERS: Final = 8
# The network's time-out, the state machine's own after it, and a busy machine.
PATIENCE_SECONDS: Final = 3 * TIMEOUT_SECONDS + 5
# Answers come within milliseconds, or not at all: then the connection is ended from our side.
HEAR_SECONDS: Final = 0.3


class Input(Protocol):
    """What is sent in one go; `family` says which kind of attempt it is."""

    @property
    def family(self) -> str: ...


@dataclass(frozen=True)
class Door:
    """A way into a listener, and how it is tried.

    Attributes:
        draw: one input of any family.
        speak: sends an input, and hears what the listener says to it.
        kept: what a sound input must be answered, once.
        never: what no input may be answered.
    """

    draw: Callable[[random.Random], Input]
    speak: Callable[[Any, Target], wire.Answer]
    kept: str
    never: str = ""


@dataclass
class Verdict:
    """What became of all inputs.

    Attributes:
        inputs: how many were sent.
        answers: how each was answered, counted.
        families: the same by family of input.
        crashes: processes that were gone, or new, where they should not have been.
        written_elsewhere: files outside the spool, or in it under a strange name.
        peak_mib: the most memory that a process of the listener ever had.
        faults: what was not as it should be, with the inputs before it.
    """

    inputs: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    families: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    written_elsewhere: int = 0
    peak_mib: int = 0
    faults: list[str] = field(default_factory=list)


def speak(session: sessions.Session, port: int) -> wire.Answer:
    """Send one input to a DICOM port, and hear what the listener says to it."""
    with wire.Peer(port, PATIENCE_SECONDS) as peer:
        peer.send(session.proposal)
        if session.parts:
            peer.hear(HEAR_SECONDS * 5)
            for part in session.parts:
                if not peer.send(part):
                    break
        if session.statuses:
            is_sound = session.family == "sound"
            peer.hear(PATIENCE_SECONDS if is_sound else HEAR_SECONDS, session.statuses)
        return peer.end()


DICOM: Final = Door(
    sessions.one, lambda session, target: speak(session, target.port), "status 0x0000"
)


class Attack:
    """Sends numbered inputs of a seed to one listener.

    Args:
        target: the listener.
        seed: of all inputs.
        verdict: takes what became of them.
        door: that they go to.
    """

    def __init__(self, target: Target, seed: int, verdict: Verdict, door: Door = DICOM) -> None:
        self._target, self._seed, self._verdict, self._door = target, seed, verdict, door
        self._born = set(target.processes)
        self._lock = threading.Lock()

    def run(self, numbers: range, look_every: int) -> None:
        """Send those inputs, and look after the listener every so many."""
        for start in range(numbers.start, numbers.stop, look_every):
            leg = range(start, min(start + look_every, numbers.stop))
            begun = time.monotonic()
            self.send(leg)
            faults = self._target.faults(self._born)
            self._verdict.faults += [f"inputs {leg.start} to {leg.stop}: {each}" for each in faults]
            self._verdict.crashes += len(self._born - set(self._target.processes))
            self._born = set(self._target.processes)
            print(
                f"{leg.stop} inputs, {time.monotonic() - begun:.0f} s, {len(faults)} fault(s)",
                *faults,
                file=sys.stderr,
                flush=True,
            )
        self._verdict.written_elsewhere += len(self._target.written_elsewhere())
        peak = round(max(self._target.peak_mib.values()))
        self._verdict.peak_mib = max(self._verdict.peak_mib, peak)

    def send(self, numbers: Iterable[int]) -> None:
        """Send inputs from several senders at a time."""
        left = iter(numbers)
        senders = [threading.Thread(target=self._send_some, args=(left,)) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    def _send_some(self, left: Iterator[int]) -> None:
        while True:
            with self._lock:
                number = next(left, None)
            if number is None:
                return
            drawn = self._door.draw(random.Random(f"{self._seed}:{number}"))
            try:
                answer = self._door.speak(drawn, self._target)
            except OSError as error:
                answer = wire.Answer(ending=f"no connection: {type(error).__name__}")
            self._note(number, drawn, answer)

    def _note(self, number: int, drawn: Input, answer: wire.Answer) -> None:
        with self._lock:
            self._verdict.inputs += 1
            self._verdict.answers[answer.kind] += 1
            self._verdict.families[drawn.family] += 1
            if answer.ending != "closed":
                self._verdict.faults.append(
                    f"input {number} ({drawn.family}): {answer.kind}, {answer.ending}"
                )
            elif drawn.family == "sound" and answer.kinds[self._door.kept] != 1:
                self._verdict.faults.append(f"input {number}: a sound instance got {answer.kind}")
            elif answer.kinds[self._door.never]:
                self._verdict.faults.append(f"input {number} ({drawn.family}): {self._door.never}")
