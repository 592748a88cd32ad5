"""The STOW-RS port of a listener, attacked with `requests.py`."""

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from deploy.stack import free_ports
from tests.fuzz import wire
from tests.fuzz.attack import PATIENCE_SECONDS, Door
from tests.fuzz.requests import TOKEN, Request, one, sound
from tests.fuzz.target import MOST_THREADS, SERVED_SECONDS, Target, attacked

# Who closes a connection before the answer is given up: a busy machine may take so long for it.
ANSWER_SECONDS: Final = 2.0

# anyio keeps as many threads for work that would block; they are let go when there is new work.
WORKING_THREADS: Final = 40

LAST_CHUNK: Final = b"0\r\n\r\n"
LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Sender(wire.Peer):
    """A connection that HTTP is spoken on; answers are counted by their status."""

    def _next(self) -> str:
        """The status of the next answer, or an empty text while it is not all here."""
        head, found, rest = self._unread.partition(b"\r\n\r\n")
        if not found:
            return ""
        length = LENGTH.search(head)
        size = int(length[1]) if length else rest.find(LAST_CHUNK) + len(LAST_CHUNK)
        if len(rest) < size or (length is None and LAST_CHUNK not in rest):
            return ""
        self._unread = rest[size:]
        return head.split(b" ", 2)[1].decode("latin-1")


def speak(request: Request, port: int) -> wire.Answer:
    """Send one input, and hear what the listener says to it."""
    with Sender(port, PATIENCE_SECONDS) as sender:
        for at, each in enumerate(request.parts):
            if at:
                time.sleep(request.pause_seconds)
            if not sender.send(each):
                break
        patient = request.waits or request.family == "sound"
        sender.hear(PATIENCE_SECONDS if patient else ANSWER_SECONDS, request.answers)
        return sender.end()


DOOR: Final = Door(one, lambda request, target: speak(request, target.ports["web"]), "200", "500")


def stows(dice: random.Random, port: int) -> str:
    """An empty text if a sound request is served; or what became of it."""
    try:
        with Sender(port, SERVED_SECONDS) as sender:
            sender.send(*sound(dice).parts)
            sender.hear(SERVED_SECONDS)
            answer = sender.end()
    except OSError as error:
        answer = wire.Answer(ending=type(error).__name__)
    return "" if answer.kinds == {"200": 1} else f"STOW-RS: {dict(answer.kinds)}, {answer.ending}"


@contextmanager
def attacked_by_web(folder: Path) -> Iterator[Target]:
    """A listener that takes STOW-RS with a token, for as long as it is needed."""
    folder.mkdir(parents=True)
    token = folder / "token"
    token.write_text(TOKEN)
    (port,) = free_ports(1)
    with attacked(
        folder,
        ports={"web": port},
        most_threads=MOST_THREADS + WORKING_THREADS,
        probes=[partial(stows, port=port)],
        MONRO_OPEN_NODE="false",
        MONRO_PEERS='[{"ae_title": "SENDER"}]',
        MONRO_WEB_PORT=str(port),
        MONRO_WEB_SENDERS=f'[{{"name": "fuzz", "token_file": "{token}"}}]',
    ) as target:
        yield target
