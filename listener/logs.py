"""What is logged, and in which form.

Nobody's message of an error is logged, ours or a library's: it may quote a value that names a
patient. Of an error there is its kind and its place.
"""

import json
import logging
import re
import sys
import threading
import warnings
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

import pydicom.config

from listener.errors import where
from listener.ledger import this_process

log = logging.getLogger(__name__)

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

SUBJECTS: Final = {
    "study": re.compile(r"\bstudy ([0-9]+(?:\.[0-9]+)+)"),
    "job": re.compile(r"\bjob ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b"),
}
"""How messages name what they are about."""


class PlainFormatter(logging.Formatter):
    """Lines for people; of an error, where it was and not what it held."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as lines; a traceback that another handler left with it is not one of them."""
        record.exc_text = None
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """Kind and place of an error."""
        error: BaseException = ei[1]
        return where(error) if error.__traceback__ is not None else type(error).__name__


class JsonFormatter(PlainFormatter):
    """One JSON object in each line: time, level, logger, process, message.

    `study` and `job` are there where the message names one, `error` where there was one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._process = this_process()

    def format(self, record: logging.LogRecord) -> str:
        """A record as one line."""
        message = record.getMessage()
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": self._process,
            "message": message,
        }
        for subject, pattern in SUBJECTS.items():
            if named := pattern.search(message):
                told[subject] = named[1]
        if record.exc_info and record.exc_info[1] is not None:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def set_up_logging(form: str = "text") -> None:
    """Log to stderr, and keep quiet whoever might log a value that names a patient.

    Args:
        form: `text` for people, or `json` for machines.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else PlainFormatter(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    keep_values_out()


def keep_values_out() -> None:
    """Let neither libraries nor Python itself print values of attributes: they may be names."""
    # Both print attribute values when they meet malformed ones, and those may be a name.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.simplefilter("ignore")
    # Python itself prints the messages of errors that nobody caught, and those quote values.
    sys.excepthook = _on_end_of_program
    threading.excepthook = _on_end_of_thread
    sys.unraisablehook = _on_unraisable


def _on_end_of_program(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("the program ended: %s", where(error))


def _on_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
        log.error("a thread ended: %s", where(ended.exc_value))


def _on_unraisable(ignored: "sys.UnraisableHookArgs") -> None:
    if ignored.exc_value is not None:
        log.error("an error was passed over: %s", where(ignored.exc_value))
