"""The message to a worker: a task name and a job ID.

The broker is a bell, not a book: losing it loses nothing. The ledger knows which jobs
wait, and `ring` rings again for those whose message seems to be lost.
"""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from listener.clock import since
from listener.entries import Queued, Role
from listener.ledger import Ledger

log = logging.getLogger(__name__)

ANALYSE_STUDY = "monro.analyse_study"
"""Name of the task; the worker registers it, the listener never imports the worker."""

QUEUE = "monro"
SHADOW_QUEUE = "monro-shadow"
"""For jobs of shadow bundles; workers look into it when there is nothing in the other."""

QUEUES: Mapping[Role, str] = MappingProxyType({"active": QUEUE, "shadow": SHADOW_QUEUE})
"""Where the jobs of a bundle go, by its role."""

VISIBILITY_SECONDS = 24 * 3600
"""Redis hands an unacknowledged message to a second worker after this long. Leases, not
redelivery, decide who works, so it only has to be longer than any job."""


def celery_app(broker: str) -> Celery:
    """The Celery application that listener and worker share: JSON only, two queues."""
    app = Celery("monro", broker=broker)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_default_queue=QUEUE,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "queue_order_strategy": "priority",
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
        },
    )
    return app


def broker_answers(broker: str) -> bool:
    """Tell whether the broker answers now."""
    try:
        with celery_app(broker).connection_for_write(connect_timeout=5) as connection:
            connection.connect()
    except (OperationalError, RedisError, OSError):
        return False
    return True


class Dispatcher:
    """Sends job IDs to the broker."""

    def __init__(self, app: Celery, ledger: Ledger, resend_seconds: float) -> None:
        self._app = app
        self._ledger = ledger
        self._resend_seconds = resend_seconds

    def ring(self, now: float) -> int:
        """Send each queued job that has no message; returns how many were sent.

        A job that was never sent is sent. One that was sent is sent again only when its
        message is overdue and the broker holds fewer messages than jobs are queued, so
        a long queue is not doubled by impatience.
        """
        queued = self._ledger.queued()
        try:
            return sum(
                self._ring(queue, [job for job in queued if job.role == role], now)
                for role, queue in QUEUES.items()
            )
        except (OperationalError, RedisError, OSError) as error:
            log.warning(
                "the broker does not answer (%s); %d job(s) wait in the ledger and are sent when "
                "it is back",
                type(error).__name__,
                len(queued),
            )
            return 0

    def _ring(self, queue: str, queued: Sequence[Queued], now: float) -> int:
        never_sent = [job for job in queued if job.sent_at is None]
        overdue = [
            job
            for job in queued
            if job.sent_at is not None and since(job.sent_at, now) >= self._resend_seconds
        ]
        if not never_sent and not overdue:
            return 0
        lost = max(0, len(queued) - len(never_sent) - self._messages(queue))
        due = [*never_sent, *overdue[:lost]]
        for job in due:
            self._app.send_task(
                ANALYSE_STUDY, kwargs={"job_id": job.job_id}, queue=queue, retry=False
            )
            self._ledger.note_sent(job.job_id)
        return len(due)

    def _messages(self, queue: str) -> int:
        with self._app.connection_for_write() as connection:
            redis = cast(Any, connection.default_channel).client
            return int(redis.llen(queue))
