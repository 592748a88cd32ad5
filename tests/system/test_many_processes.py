"""Two listeners on two hosts, PostgreSQL, Redis and two workers: each study is answered once.

A host of its own is a UTS namespace here: the listeners' processes cannot be told alive by their
numbers, as between machines. A sender that loses one listener goes to the other, as it does behind
one address.
"""

import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import evt
from sqlalchemy import select

from deploy.archive import Archive
from deploy.stack import LISTENER, Stack, answers, free_ports
from listener.accounting import account
from listener.spool import Spool
from listener.tables import deliveries, instances, jobs, listeners
from tests.postgresql import postgresql_server
from tests.system.conftest import DCMTK_STORESCU, edited_copy
from tests.system.test_failures import stream
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import write_study

TOO_FEW = 12
"""Slices of a study that is refused, which takes a moment; a whole one takes many."""

LEASE_SECONDS = 4

Study = tuple[str, list[Path]]


class CountingArchive(Archive):
    """Remembers how often each instance came."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.came: Counter[str] = Counter()
        self._lock = threading.Lock()

    def _store(self, event: evt.Event) -> int:
        with self._lock:
            self.came[str(event.request.AffectedSOPInstanceUID)] += 1
        return super()._store(event)


class Site:
    """The whole arrangement."""

    def __init__(self, stack: Stack, archive: CountingArchive, ports: Sequence[int]) -> None:
        self.stack, self.archive, self.ports = stack, archive, ports
        self.ledger = stack.ledger
        self.spool = Spool(stack.folder / "spool")

    def column(self, query: Any) -> list[Any]:
        with self.ledger.reading() as connection:
            return list(connection.scalars(query))

    def on_watch(self) -> str:
        """Which listener has the watch."""
        (name,) = self.column(select(listeners.c.name).where(listeners.c.has_watch))
        return "second" if name.startswith("ward-b:") else "listener"

    def await_that(self, condition: Any, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                told = "\n".join(
                    self.stack.log(name).read_text()[-1500:]
                    for name in ("listener", "second", "worker", "second-worker")
                )
                pytest.fail(f"not within {seconds} s: {self.ledger.counts()}\n{told}")
            time.sleep(0.2)

    def all_answered(self, studies: Sequence[Study]) -> bool:
        """Whether all jobs are over, and the archive has all of their results."""
        over = self.column(
            select(jobs.c.study_uid).where(jobs.c.state.in_(("REPORTED", "REFUSED")))
        )
        states = self.column(select(deliveries.c.state))
        return sorted(over) == sorted(uid for uid, _ in studies) and set(states) == {"SENT"}

    def assert_accounted_for(self, studies: Sequence[Study]) -> None:
        """Every instance is in spool and ledger, once; every study has one answer."""
        accounts = account(self.spool, self.ledger)
        assert all(each.agrees for each in accounts), accounts
        assert {each.study_uid: each.on_disk for each in accounts} == {
            uid: len(files) for uid, files in studies
        }
        for uid, files in studies:
            known = self.ledger.study(uid)
            assert known is not None
            assert known["received"] == len(files)
            assert [job["state"] for job in known["jobs"]] in (["REPORTED"], ["REFUSED"])
        assert set(self.column(select(instances.c.state))) <= {"used", "refused", "not wanted"}

    def results(self) -> set[str]:
        """What every destination is to have."""
        return set(self.column(select(deliveries.c.sent_as)))


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty one: what another test left there would be answered as well."""
    with postgresql_server(tmp_path_factory.mktemp("postgresql")) as url:
        yield url


@pytest.fixture
def site(tmp_path: Path, database: str) -> Iterator[Site]:
    with open_site(tmp_path / "site", database) as place:
        yield place


@contextmanager
def open_site(folder: Path, database: str) -> Iterator[Site]:
    second_port, archive_port = free_ports(2)
    destination = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1",
                   "port": archive_port, "confirm": "none"}  # fmt: skip
    settings = {
        "MONRO_LEDGER": database,
        "MONRO_PEERS": json.dumps(
            [{"ae_title": name, "address": "127.0.0.1"} for name in ("SCANNER", "PACS")]
        ),
        "MONRO_DESTINATIONS": json.dumps([destination]),
        "MONRO_LEASE_SECONDS": str(LEASE_SECONDS),
        "MONRO_RESEND_SECONDS": "2",
        "MONRO_RETRY_FIRST_SECONDS": "0.5",
        "MONRO_RETRY_CAP_SECONDS": "2",
        "MONRO_RELEASED_QUIET_SECONDS": "8",
        "MONRO_QUIET_SECONDS": "10",
        "MONRO_RECEIVERS": "1",
        "MONRO_WORKER_MAP_MODE": "preview",
    }
    archive = CountingArchive(folder / "archive", archive_port)
    with Stack(folder, changes=settings) as stack, archive:
        stack.start_redis()
        # Both at once, on an empty database.
        another_host = ["unshare", "--uts", "sh", "-c", 'hostname ward-b && exec "$@"', "ward-b"]
        stack.spawn("second", [*another_host, *LISTENER], {"MONRO_PORT": str(second_port)})
        stack.start_listener()
        stack.wait_until("second", lambda: answers(second_port))
        stack.start_worker()
        stack.start_worker("second-worker")
        stack.wait_for_bundles()
        yield Site(stack, archive, (stack.listener_port, second_port))


def phantoms(folder: Path, refused: int) -> list[Study]:
    """One whole study and some with too few slices."""
    shown = render(draw_case(2024, positive=True, spectrum=OVERT), spacing_mm=2.4)
    whole = write_study(shown, folder / "whole")
    return [
        edited_copy(whole if number == 0 else whole[:TOO_FEW], folder / str(number))
        for number in range(1 + refused)
    ]


def send(port: int, files: Sequence[Path]) -> None:
    done = subprocess.run(
        [DCMTK_STORESCU, "-xs", "-aet", "SCANNER", "-aec", "MONRO", "127.0.0.1", str(port),
         *map(str, files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def send_wherever(ports: Sequence[int], files: Sequence[Path]) -> None:
    """Send until everything was acknowledged, to the next listener where one hangs up."""
    left, turn = list(files), 0
    deadline = time.monotonic() + 60
    while left:
        assert time.monotonic() < deadline
        for path in stream(left, ports[turn % len(ports)]):
            left = [each for each in left if each != path]
        turn += 1


def test_studies_sent_to_both_listeners_at_once_are_answered_and_delivered_once(
    site: Site, tmp_path: Path
) -> None:
    studies = phantoms(tmp_path, refused=5)
    with ThreadPoolExecutor(4) as senders:
        sent = [
            senders.submit(send, port, files[turn :: len(site.ports)])
            for _uid, files in studies
            for turn, port in enumerate(site.ports)
        ]
        # The same instances at both, at the same moment.
        sent += [senders.submit(send, port, studies[1][1]) for port in site.ports]
        for each in sent:
            each.result()
    site.await_that(lambda: site.all_answered(studies), 150)

    site.assert_accounted_for(studies)
    assert site.archive.came == Counter(site.results())
    held = {str(dcmread(path).SOPInstanceUID) for path in site.archive.folder.rglob("*.dcm")}
    assert held == site.results()
    assert set(site.column(select(deliveries.c.attempts))) == {1}
    assert set(site.column(select(jobs.c.attempts))) == {1}


def test_a_listener_and_a_worker_killed_mid_way_lose_and_double_nothing(
    site: Site, tmp_path: Path
) -> None:
    studies = phantoms(tmp_path, refused=5)
    with ThreadPoolExecutor(len(studies)) as senders:
        sent = [
            senders.submit(send_wherever, site.ports if turn % 2 else site.ports[::-1], files)
            for turn, (_uid, files) in enumerate(studies)
        ]
        site.await_that(lambda: len(site.column(select(instances.c.sop_uid))) > 40, 60)
        killed = site.on_watch()
        site.stack.stop(killed, signal.SIGKILL)
        for each in sent:
            each.result()
    site.await_that(lambda: site.column(holders()), 120)
    (holder, *_) = site.column(holders())
    workers = {site.stack.pid(name): name for name in ("worker", "second-worker")}
    site.stack.stop(workers[int(holder.rpartition(":")[2])], signal.SIGKILL)
    site.await_that(lambda: site.all_answered(studies), 200)

    assert site.on_watch() != killed
    site.assert_accounted_for(studies)
    held = {str(dcmread(path).SOPInstanceUID) for path in site.archive.folder.rglob("*.dcm")}
    assert held == site.results()
    # What was on its way when its sender was killed may come a second time, under the same UID.
    assert site.archive.came.keys() == site.results()
    assert sum(count - 1 for count in site.archive.came.values()) <= 1


def holders() -> Any:
    """Who works at jobs now."""
    return select(jobs.c.holder).where(jobs.c.state == "RUNNING", jobs.c.progress.is_not(None))
