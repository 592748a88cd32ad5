"""The broker is a bell: losing it loses nothing, and it is not rung without need."""

import time
from pathlib import Path

import pytest
import redis

from listener.dispatch import QUEUE, SHADOW_QUEUE, Dispatcher, celery_app
from listener.entries import BundleRow, Plan, Received
from listener.ledger import Ledger
from listener.series import InstanceKey
from listener.spool import Arrival, Held
from tests.listener.conftest import dispatcher

BUNDLE = BundleRow("fistula", "demo", "1.0.0", "a" * 64)


def queue_a_job(ledger: Ledger, study: str = "1", bundle: BundleRow = BUNDLE) -> str:
    key = InstanceKey(study, f"{study}.1", f"{study}.1.1")
    held = Held(key, Path("/spool") / study, "f" * 64, 1, Arrival.NEW, 1000.0)
    ledger.record([Received(held, None, 1000.0)])
    (gathering,) = ledger.gathering()
    ledger.complete(gathering, "quiet")
    plan = Plan("fistula", f"{study}.1", tuple(ledger.instances_of(study)))
    (job_id,) = ledger.plan(study, 1, [(plan, bundle)], {})
    return job_id


def test_a_queued_job_is_sent_once_and_its_message_holds_nothing_but_its_id(
    ledger: Ledger, broker: redis.Redis
) -> None:
    job_id = queue_a_job(ledger)
    bell = dispatcher(broker, ledger, resend_seconds=60)

    assert [bell.ring(time.time()), bell.ring(time.time())] == [1, 0]
    (message,) = broker.lrange(QUEUE, 0, -1)
    assert job_id.encode() in message
    assert b"PLANTED" not in message


def test_a_job_whose_message_was_lost_is_sent_again(ledger: Ledger, broker: redis.Redis) -> None:
    queue_a_job(ledger)
    bell = dispatcher(broker, ledger, resend_seconds=0)
    bell.ring(time.time())
    broker.flushall()

    assert bell.ring(time.time() + 1) == 1
    assert broker.llen(QUEUE) == 1


def test_jobs_of_shadows_wait_in_a_queue_of_their_own(ledger: Ledger, broker: redis.Redis) -> None:
    shadow = queue_a_job(ledger, "1", BundleRow("fistula", "demo", "2", "b" * 64, role="shadow"))
    active = queue_a_job(ledger, "2")
    dispatcher(broker, ledger, resend_seconds=60).ring(time.time())

    (first,), (second,) = broker.lrange(QUEUE, 0, -1), broker.lrange(SHADOW_QUEUE, 0, -1)
    assert active.encode() in first
    assert shadow.encode() in second


def test_a_long_queue_is_not_doubled_by_impatience(ledger: Ledger, broker: redis.Redis) -> None:
    for study in ("1", "2", "3"):
        queue_a_job(ledger, study)
    bell = dispatcher(broker, ledger, resend_seconds=0)
    bell.ring(time.time())
    for later in range(5):
        bell.ring(time.time() + later)

    assert broker.llen(QUEUE) == 3


def test_a_broker_that_is_away_is_waited_for(
    ledger: Ledger, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    queue_a_job(ledger)
    nobody = celery_app(f"redis://127.0.0.1:{free_port}/0")

    assert Dispatcher(nobody, ledger, resend_seconds=0).ring(time.time()) == 0
    assert "1 job(s) wait in the ledger" in caplog.text
