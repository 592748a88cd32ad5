"""What is logged, and in which form."""

import logging
import sys
import threading
import warnings
from types import TracebackType

import pydicom.config

from listener.errors import where

log = logging.getLogger(__name__)


def set_up_logging() -> None:
    """Log to stderr, and keep quiet whoever might log a value that names a patient."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
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
