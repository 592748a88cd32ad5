"""A listener that asks hostile sources: services (`services.py`) and archives (`archives.py`)."""

import json
import random
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from deploy.stack import free_ports
from tests.fuzz import archives, services, wire
from tests.fuzz.attack import PATIENCE_SECONDS, Door
from tests.fuzz.datasets import PIXELS, header
from tests.fuzz.sessions import stored
from tests.fuzz.source import Play, Source
from tests.fuzz.target import MOST_THREADS, Target, attacked

OF_EACH_KIND: Final = 4
LARGEST_INSTANCE_BYTES: Final = 32 << 20
# What the listener gives a source that dawdles, and a busy machine.
OUTCOME_SECONDS: Final = 120.0
# Sources are asked of a study for as long as it gathers: longer than any answer should take.
GATHERING_SECONDS: Final = 75.0
LOOK_SECONDS: Final = 0.1

NUMBERS: Final = re.compile(r"0x[0-9A-F]{4}|\d[\d,.]*")
COUNTS: Final = "SELECT missing, message FROM counts WHERE study_uid = ? AND source = ?"


def one(dice: random.Random) -> Play:
    """Draw an input of either kind."""
    return dice.choice((services, archives)).one(dice)


def speak(play: Play, target: Target) -> wire.Answer:
    """Have the listener ask a source that plays an input, and wait for what it makes of that."""
    sources = [each for each in target.sources if each.kind == play.kind]
    source = _take(sources)
    try:
        source.play = play
        written = (target.folder / "log").stat().st_size
        if not _send(play, target.port):
            return wire.Answer(ending="the study was not received")
        return _outcome(play, source.name, target.folder, written)
    finally:
        source.play = None
        source.free.release()


def _take(sources: Sequence[Source]) -> Source:
    """A source that plays nothing at present."""
    while True:
        for each in sources:
            if each.free.acquire(timeout=0.01):
                return each


def _send(play: Play, port: int) -> bool:
    """Send the first instance of a study, so that the listener asks after the others."""
    held = play.held
    dataset = b"".join(header(held.study, held.series, held.sent)) + PIXELS
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        with wire.Peer(port, PATIENCE_SECONDS) as peer:
            peer.send(wire.proposal())
            peer.hear(PATIENCE_SECONDS)
            peer.send(*stored(held.sent, dataset))
            peer.hear(PATIENCE_SECONDS)
            if peer.answer.kinds["status 0x0000"]:
                peer.send(wire.pdu(wire.RELEASE_RQ, bytes(4)))
                peer.end()
                return True
        time.sleep(LOOK_SECONDS)
    return False


def _outcome(play: Play, source: str, folder: Path, written: int) -> wire.Answer:
    """What the listener noted of a source: in its ledger of the count, in its log of the rest."""
    study = re.escape(play.held.study)
    fetched = re.compile(
        rf"study {study}: (\d+ of \d+ missing instance\(s\) came) from {source}$"
        rf"|study {study}: source {source} (.*?): see that it runs",
        re.MULTILINE,
    )
    until = time.monotonic() + OUTCOME_SECONDS
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        row = _counted(folder, play.held.study, source)
        if row is None:
            continue
        missing, message = row
        if not missing:
            return _told(message if missing is None else "nothing is missing")
        with (folder / "log").open(errors="replace") as log:
            log.seek(written)
            found = fetched.search(log.read())
        if found:
            return _told(found[1] or found[2])
    return wire.Answer(ending="silent")


def _counted(folder: Path, study: str, source: str) -> tuple[int | None, str] | None:
    ledger = f"file:{folder / 'spool' / 'ledger.sqlite'}?mode=ro"
    with closing(sqlite3.connect(ledger, uri=True, timeout=30)) as connection:
        found: tuple[int | None, str] | None = connection.execute(
            COUNTS, (study, source)
        ).fetchone()
    return found


def _told(message: str) -> wire.Answer:
    told = "nothing came" if message.startswith("0 of ") else message.partition(": ")[0]
    return wire.Answer(Counter({NUMBERS.sub("N", told): 1}))


DOOR: Final = Door(
    one, speak, "N of N missing instance(s) came", "answers with what is not understood"
)


@contextmanager
def attacked_by_sources(folder: Path, timeout_seconds: float = 3.0) -> Iterator[Target]:
    """A listener that asks hostile sources, for as long as it is needed.

    Args:
        folder: of all of its files.
        timeout_seconds: that it gives a source from one byte to the next.
    """
    ports = iter(free_ports(2 * OF_EACH_KIND))
    ways = [archives.GET, archives.MOVE] * OF_EACH_KIND
    sources: list[Source] = [
        *(services.Service(f"web-{at}", next(ports)) for at in range(OF_EACH_KIND)),
        *(archives.Archive(f"archive-{at}", next(ports), ways[at]) for at in range(OF_EACH_KIND)),
    ]
    with ExitStack() as stack:
        for each in sources:
            stack.enter_context(each.open())
        target = stack.enter_context(
            attacked(
                folder,
                most_threads=MOST_THREADS + len(sources),
                MONRO_SOURCES=json.dumps([_setting(each) for each in sources]),
                MONRO_LARGEST_INSTANCE=str(LARGEST_INSTANCE_BYTES),
                MONRO_ASSOCIATION_TIMEOUT_SECONDS=str(timeout_seconds),
                MONRO_COUNTED_SECONDS="0",
                MONRO_QUIET_SECONDS=str(GATHERING_SECONDS),
                MONRO_RELEASED_QUIET_SECONDS=str(GATHERING_SECONDS),
                MONRO_STALLED_SECONDS=str(GATHERING_SECONDS),
                MONRO_RETRY_FIRST_SECONDS="3600",
                MONRO_RETRY_CAP_SECONDS="3600",
                MONRO_POLL_SECONDS="0.2",
            )
        )
        target.sources = sources
        yield target


def _setting(source: Source) -> dict[str, object]:
    if source.kind == services.KIND:
        return {"name": source.name, "url": f"http://127.0.0.1:{source.port}/dicom-web"}
    entity = {"ae_title": source.name.upper(), "host": "127.0.0.1", "port": source.port}
    return {"name": source.name, **entity}
