"""Whatever ends a program or a thread, the log says where it was, and not what it held."""

import subprocess
import sys

import pytest

SECRET = "PLANTED^NAME"

PROGRAM = """
import threading
from listener.logs import set_up_logging

class Held:
    def __del__(self):
        raise ValueError("PLANTED^NAME")

def fail():
    raise ValueError("PLANTED^NAME")

def thread():
    runner = threading.Thread(target=fail)
    runner.start()
    runner.join()

def unraisable():
    Held()

set_up_logging()
"""


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("fail()", "the program ended: ValueError in fail"),
        ("thread()", "a thread ended: ValueError in fail"),
        ("unraisable()", "an error was passed over: ValueError in __del__"),
    ],
)
def test_an_error_that_nobody_caught_is_told_without_its_message(ending: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{PROGRAM}{ending}"], capture_output=True, text=True, check=False
    )

    assert told in done.stderr
    assert SECRET not in done.stderr
