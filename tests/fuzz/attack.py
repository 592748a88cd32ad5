"""Many inputs for a listener, several at a time; in between, whether it is well."""

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.fuzz import wire
from tests.fuzz.sessions import Session, one
from tests.fuzz.target import TIMEOUT_SECONDS, Target

SENDERS: Final = 8
# The network's time-out, the state machine's own after it, and a busy machine.
PATIENCE_SECONDS: Final = 3 * TIMEOUT_SECONDS + 5
# Answers come within milliseconds, or not at all: then the connection is ended from our side.
HEAR_SECONDS: Final = 0.3


@dataclass
class Verdict:
    """What became of all inputs.

    Attributes:
        inputs: how many were sent.
        answers: how each was answered, counted.
        families: the same by family of input.
        crashes: processes that were gone, or new, where they should not have been.
        written_elsewhere: files outside the spool, or in it under a strange name.
        faults: what was not as it should be, with the inputs before it.
    """

    inputs: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    families: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    written_elsewhere: int = 0
    faults: list[str] = field(default_factory=list)


def speak(session: Session, port: int) -> wire.Answer:
    """Send one input, and hear what the listener says to it."""
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


class Attack:
    """Sends numbered inputs of a seed to one listener.

    Args:
        target: the listener.
        seed: of all inputs.
        verdict: takes what became of them.
    """

    def __init__(self, target: Target, seed: int, verdict: Verdict) -> None:
        self._target, self._seed, self._verdict = target, seed, verdict
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
            session = one(random.Random(f"{self._seed}:{number}"))
            try:
                answer = speak(session, self._target.port)
            except OSError as error:
                answer = wire.Answer(ending=f"no connection: {type(error).__name__}")
            self._note(number, session, answer)

    def _note(self, number: int, session: Session, answer: wire.Answer) -> None:
        with self._lock:
            self._verdict.inputs += 1
            self._verdict.answers[answer.kind] += 1
            self._verdict.families[session.family] += 1
            if answer.ending != "closed":
                self._verdict.faults.append(
                    f"input {number} ({session.family}): {answer.kind}, {answer.ending}"
                )
            elif session.family == "sound" and answer.kinds["status 0x0000"] != 1:
                self._verdict.faults.append(f"input {number}: a sound instance got {answer.kind}")
