"""What is logged, and in which form."""

import logging
import warnings

import pydicom.config


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
