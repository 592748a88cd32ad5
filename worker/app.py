"""The Celery application of a worker: one process per device, one job at a time."""

from celery import Celery

from listener.dispatch import QUEUES, celery_app

WORKER_ARGUMENTS = (
    "worker",
    "--pool=solo",
    "--concurrency=1",
    # In this order: a shadow's job is taken when no other waits.
    f"--queues={','.join(QUEUES.values())}",
    "--loglevel=INFO",
    # Solo workers are busy for minutes: what these ask of each other, they cannot answer.
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
)


def worker_app(broker: str) -> Celery:
    """The shared application, told to hold one message and acknowledge it when done."""
    app = celery_app(broker)
    app.conf.update(
        worker_prefetch_multiplier=1,
        task_acks_late=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        broker_connection_retry=True,
        broker_connection_max_retries=None,
    )
    return app
