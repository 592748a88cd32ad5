"""Whatever ends a program or a thread, the log says where it was, and not what it held."""

import json
import subprocess
import sys
from datetime import datetime

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

def caught():
    import logging
    try:
        fail()
    except ValueError:
        logging.getLogger("a.library").exception("it failed")

FORM
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
    for form in ("text", "json"):
        said = logged(ending, form)

        assert told in said
        assert SECRET not in said


def logged(doing: str, form: str) -> str:
    program = PROGRAM.replace("FORM", f"set_up_logging({form!r})")
    done = subprocess.run(
        [sys.executable, "-c", f"{program}{doing}"], capture_output=True, text=True, check=False
    )
    return done.stderr


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_handler_that_was_first_leaves_no_traceback_behind(form: str) -> None:
    """A formatter keeps the traceback that it wrote with the record, for those after it."""
    said = logged(
        """
import io
import logging
logging.getLogger("a.library").addHandler(logging.StreamHandler(io.StringIO()))
caught()""",
        form,
    )

    assert "it failed" in said
    assert SECRET not in said


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_library_logs_of_an_error_is_its_kind_and_place(form: str) -> None:
    said = logged("caught()", form)

    assert "it failed" in said
    assert "ValueError in fail" in said
    assert SECRET not in said
    assert "Traceback" not in said


def test_json_has_a_line_for_each_record_and_names_what_it_is_about() -> None:
    job = "0b5f7a3e-8a7c-5a1e-9d55-0a5c2d0c8b11"
    lines = logged(
        f"""
import logging
log = logging.getLogger("listener.node")
log.info("study %s is complete: %s", "1.2.840.99", "quiet\\nfor 60 s")
log.warning("job %s: map %d of %d", "{job}", 1, 2)
log.debug("not told")
""",
        "json",
    ).splitlines()
    first, second = map(json.loads, lines)

    assert first["message"] == "study 1.2.840.99 is complete: quiet\nfor 60 s"
    assert (first["level"], first["logger"], first["study"]) == (
        "INFO", "listener.node", "1.2.840.99",
    )  # fmt: skip
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert ":" in first["process"]
    assert "job" not in first
    assert (second["level"], second["job"]) == ("WARNING", job)
