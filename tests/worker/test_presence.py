"""A worker tells that it lives, until it does not."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from listener.ledger import Ledger, this_process
from listener.workforce import Workforce
from worker.presence import Presence, device_memory

HELD = ("fistula", "a" * 64, "1.0.0")
OTHER = ("fistula", "b" * 64, "2.0.0")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield book
    book.close()


def test_a_heart_beats_while_a_worker_works_and_its_row_goes_with_it(ledger: Ledger) -> None:
    held = [HELD]
    with Presence(ledger, "cpu", lambda: held, beat_seconds=0.05):
        (first,) = Workforce(ledger).alive()
        assert first.name == this_process()
        assert (first.device, first.editions) == ("cpu", [HELD])
        held.append(OTHER)
        deadline = time.monotonic() + 10
        while (now := Workforce(ledger).alive()[0]).editions != [HELD, OTHER]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert now.seen_at > first.seen_at
        assert now.started_at == first.started_at

    assert Workforce(ledger).known() == []


def test_a_ledger_that_is_away_stops_no_heart(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    with ledger.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE workers RENAME TO elsewhere")
    with Presence(ledger, "cpu", lambda: [HELD], beat_seconds=0.02):
        time.sleep(0.2)
        with ledger.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO workers")
        deadline = time.monotonic() + 10
        while not Workforce(ledger).alive():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    assert "the ledger did not take a sign of life: OperationalError" in caplog.text


def test_without_a_gpu_it_is_the_memory_of_the_process() -> None:
    before = device_memory("cpu")
    held = bytearray(300 << 20)
    held[::4096] = b"x" * len(held[::4096])
    after = device_memory("cpu")

    assert after["used"] - before["used"] > 250 << 20
    assert after["used"] < after["total"] == before["total"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, so its memory was NOT looked at")
def test_with_a_gpu_it_is_the_memory_of_that() -> None:
    before = device_memory("cuda")
    held = torch.zeros(300 << 20, dtype=torch.uint8, device="cuda")
    after = device_memory("cuda")

    assert after["used"] - before["used"] >= held.numel()
    assert after["total"] == torch.cuda.get_device_properties(0).total_memory
