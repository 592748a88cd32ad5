"""The one task: a message is only a hint that there may be work."""

import logging

from celery import Celery

from listener.dispatch import ANALYSE_STUDY
from listener.errors import where
from worker.station import Station

log = logging.getLogger(__name__)


def register(app: Celery, station: Station) -> None:
    """Make the application do jobs at a station."""

    @app.task(name=ANALYSE_STUDY)
    def analyse_study(job_id: str) -> None:
        """Analyse one complete study and keep what was found.

        The broker can lose the message, or deliver it twice to two live workers; the ledger
        decides who works. Whatever goes wrong, the ledger has the job back and the listener
        sends it again, so nothing is left to Celery's own retries.
        """
        try:
            station.work(job_id)
        except Exception as error:  # noqa: BLE001 - a solo worker must outlive any one job
            log.error("job %s: %s; it is given back", job_id, where(error))
