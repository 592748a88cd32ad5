"""Disasters, rehearsed as docs/operations.md tells them: what is lost is exactly what it says.

The ledger lies outside of the spool here, in SQLite and once more in PostgreSQL, so that either can
be lost without the other. That losing Redis loses nothing is shown by test_failures.py.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from deploy.stack import BUNDLES
from listener.accounting import StudyAccount, account
from listener.ledger import Ledger
from listener.spool import Spool
from tests.system.conftest import Hospital, edited_copy, open_hospital
from tests.system.databases import BY_PEOPLE, Database, database
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import write_study

Study = tuple[str, list[Path]]
TOO_FEW = 5
"""Slices that earn a refusal, which takes no time."""


class Site:
    """A hospital whose disks can be lost, and its backup."""

    def __init__(self, hospital: Hospital, ledger: Database, folder: Path) -> None:
        self.hospital = hospital
        self.spool = hospital.stack.folder / "spool"
        self.ledger = ledger
        self._backup = folder
        self._backup.mkdir()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the listener's command line, as an operator does.

        It knows the PACS as a source; the listener does not, which would fetch what is lost.
        """
        pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1"}
        source = {**pacs, "port": self.hospital.orthanc.dicom_port, "retrieve": "get"}
        changes = {"COLUMNS": "200", "MONRO_SOURCES": json.dumps([source])}
        return subprocess.run(
            [sys.executable, "-m", "listener", *arguments],
            env=os.environ | self.hospital.stack.environment | changes,
            capture_output=True,
            text=True,
            check=False,
        )

    def account(self) -> dict[str, StudyAccount]:
        """What `account` prints, by study."""
        ledger = Ledger(self.ledger.url)
        found = {each.study_uid: each for each in account(Spool(self.spool), ledger)}
        ledger.close()
        return found

    def answer(self, study: Study) -> set[str]:
        """Send a study to the PACS and on to monro; returns what the PACS holds in the end."""
        uid, files = study
        self.hospital.send(files)
        self.forward(uid)
        self.hospital.await_delivery(uid)
        return self.in_pacs(uid)

    def forward(self, uid: str) -> None:
        """Have the PACS send all that it holds of a study to monro."""
        query = {"Level": "Study", "Query": {"StudyInstanceUID": uid}}
        found = self.hospital.orthanc.post("/tools/find", query)

        def is_sent() -> bool:
            with suppress(HTTPError):  # as any PACS, it tries again
                self.hospital.orthanc.post("/modalities/monro/store", found)
                return True
            return False

        self.hospital.await_that(is_sent, 60, uid)

    def in_pacs(self, uid: str) -> set[str]:
        """SOP Instance UIDs of all that the PACS holds of a study."""
        query = {"Level": "Instance", "Expand": True, "Query": {"StudyInstanceUID": uid}}
        found = self.hospital.orthanc.post("/tools/find", query)
        return {each["MainDicomTags"]["SOPInstanceUID"] for each in found}

    def jobs(self, uid: str) -> list[dict[str, Any]]:
        known = self.hospital.stack.ledger.study(uid) or {}
        found: list[dict[str, Any]] = known.get("jobs", [])
        return found

    def back_up(self) -> None:
        """The ledger first, then the spool without what was never acknowledged."""
        self.ledger.back_up(self._backup)
        shutil.copytree(
            self.spool, self._backup / "spool", ignore=shutil.ignore_patterns("incoming")
        )

    def lose_spool(self) -> None:
        shutil.rmtree(self.spool)

    def restore_ledger(self) -> None:
        self.ledger.restore(self._backup)

    def restore_spool(self) -> None:
        shutil.copytree(self._backup / "spool", self.spool)

    def restore_what_people_said(self) -> None:
        self.ledger.restore_what_people_said(self._backup)

    def stop(self) -> None:
        for name in ("worker", "listener"):
            self.hospital.stack.stop(name)

    def start(self) -> None:
        self.hospital.stack.start_listener()
        self.hospital.stack.start_worker()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def ledger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    with database(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture(scope="module")
def hospital(ledger: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with open_hospital(
        tmp_path_factory.mktemp("disaster"),
        orthanc_changes={"LuaScripts": [], "DicomAlwaysAllowGet": True},
        MONRO_LEDGER=ledger.url,
        MONRO_QUIET_SECONDS="2",
        MONRO_WORKER_BUNDLES=json.dumps([str(BUNDLES / "fistula-demo")]),
    ) as place:
        yield place


@pytest.fixture
def site(hospital: Hospital, ledger: Database, tmp_path: Path) -> Site:
    return Site(hospital, ledger, tmp_path / "backup")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    shown = render(draw_case(2024, positive=True, spectrum=OVERT))
    return write_study(shown, tmp_path_factory.mktemp("phantom"))


@pytest.fixture
def a_study(phantom: list[Path], tmp_path: Path) -> Callable[[str], Study]:
    """Some slices of a head, under UIDs of their own."""
    return lambda name: edited_copy(phantom[:TOO_FEW], tmp_path / name)


def test_a_lost_ledger_is_rebuilt_from_the_spool_but_for_what_people_said(
    site: Site, a_study: Callable[[str], Study], tmp_path: Path
) -> None:
    uid, files = a_study("one")
    in_pacs = site.answer((uid, files))
    (tmp_path / "password").write_text("correct horse battery staple")
    (tmp_path / "labels.csv").write_text(f"study_uid,label\n{uid},positive\n")
    for arguments in (
        ("accounts", "add", "anna", "--role", "viewer", "--password-file", tmp_path / "password"),
        ("bundles", "label", "fistula", tmp_path / "labels.csv"),
    ):
        done = site.command(*map(str, arguments))
        assert done.returncode == 0, done.stderr
    before, said = site.account(), site.ledger.people_said()
    site.back_up()

    site.stop()
    site.ledger.lose()
    done = site.command("reconcile")
    assert f"{len(files)} instance(s) recorded from the spool" in done.stdout
    assert site.ledger.people_said() == dict.fromkeys(BY_PEOPLE, 0)
    site.restore_what_people_said()
    assert (
        site.ledger.people_said()
        == said
        == {"accounts": 1, "labels": 1, "bundles": 1, "rollouts": 1}
    )
    site.start()
    site.hospital.await_delivery(uid)

    assert [job["state"] for job in site.jobs(uid)] == ["REFUSED"]
    assert site.account() == before
    assert before[uid].on_disk == len(files)
    assert site.in_pacs(uid) == in_pacs, "it was judged again, under the same UIDs"


def test_an_old_ledger_learns_from_the_spool_what_came_after_it(
    site: Site, a_study: Callable[[str], Study]
) -> None:
    early, late = a_study("early"), a_study("late")
    site.answer(early)
    site.back_up()
    in_pacs = site.answer(late)
    (finished,) = (job["finished_at"] for job in site.jobs(early[0]))
    before = site.account()

    site.stop()
    site.restore_ledger()
    site.start()
    site.hospital.await_delivery(late[0])

    assert site.account() == before
    log = site.hospital.stack.log("listener").read_text()
    assert f"recorded {len(late[1])} instance(s) that only the spool knew of" in log
    assert [job["finished_at"] for job in site.jobs(early[0])] == [finished], "not judged again"
    assert site.in_pacs(late[0]) == in_pacs


@pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
def test_a_lost_spool_comes_from_the_backup_and_what_came_after_it_from_the_archive(
    site: Site, a_study: Callable[[str], Study]
) -> None:
    early, (uid, files) = a_study("early"), a_study("late")
    site.answer(early)
    at_backup = site.account()
    site.back_up()
    site.answer((uid, files))
    site.stop()
    site.lose_spool()
    site.restore_spool()

    # The ledger is newer than the spool: what is missing is named, and comes again.
    done = site.command("account")
    assert done.returncode == 1
    assert f"study {uid}: 0 file(s) that the ledger does not know, {len(files)} that the spool" in (
        " ".join(done.stderr.split())
    )
    site.hospital.stack.start_listener()
    site.forward(uid)
    site.hospital.await_that(lambda: all(each.agrees for each in site.account().values()), 30, uid)
    assert [job["attempts"] for job in site.jobs(uid)] == [1]
    site.hospital.stack.stop("listener")

    # Both of one backup: they agree, and know nothing of what came after it.
    site.lose_spool()
    site.restore_spool()
    site.restore_ledger()
    site.hospital.stack.start_listener()
    assert site.account() == at_backup
    pulled = site.command("pull", uid)
    assert pulled.returncode == 0, pulled.stderr
    site.hospital.await_that(lambda: bool(site.jobs(uid)), 30, uid)
    assert site.account()[uid].agrees
    assert site.account()[uid].on_disk >= len(files)
    site.hospital.stack.start_worker()
