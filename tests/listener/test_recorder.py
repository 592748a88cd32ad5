"""Rows follow the instances soon, however many keep coming."""

import time
from pathlib import Path

from listener.entries import Received
from listener.recorder import BATCH_SECONDS, Recorder
from listener.series import InstanceKey
from listener.spool import Arrival, Held


class Book:
    """A ledger that remembers the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def record(self, batch: tuple[Received, ...]) -> None:
        self.batches.append(len(batch))


def held(number: int) -> Held:
    key = InstanceKey("1", "1.1", f"1.1.{number}")
    return Held(key, Path("/spool/x"), "f" * 64, 1, Arrival.NEW, 1000.0)


def test_rows_are_written_while_instances_keep_coming() -> None:
    book = Book()
    recorder = Recorder(book)  # type: ignore[arg-type]
    for number in range(20):
        recorder.instance(held(number), "association")
        time.sleep(BATCH_SECONDS / 4)
    written_meanwhile = sum(book.batches)
    recorder.close()

    assert written_meanwhile > 0
    assert sum(book.batches) == 20


def test_what_comes_together_is_written_together() -> None:
    book = Book()
    recorder = Recorder(book)  # type: ignore[arg-type]
    for number in range(100):
        recorder.instance(held(number), "association")
    recorder.close()

    assert sum(book.batches) == 100
    assert len(book.batches) < 50
