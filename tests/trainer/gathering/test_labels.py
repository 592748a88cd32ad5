"""Labels find their studies in a real ledger and spool, train on them, and judge the bundles."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from rich.console import Console

from listener.completion import Patience, complete_studies, plan_studies
from listener.entries import Answer, BundleRow, Received
from listener.ledger import Ledger
from listener.series import InstanceKey
from listener.spool import Spool, _dataset_offset
from trainer.cohort import read_cohort
from trainer.gathering.deidentify import pseudonym
from trainer.gathering.gather import GatherSettings, gather
from trainer.gathering.labels import LedgerSource, figures_table, join_labels
from trainer.gathering.sources import FolderSource
from trainer.gathering.table import read_table, write_table
from trainer.statistics import auroc
from worker.preprocess import DEMO_RECIPE

OLD = BundleRow("fistula", "demo", "1.0.0", "a" * 64)
NEW = BundleRow("fistula", "demo", "2.0.0", "b" * 64)
PROBABILITIES = {"ann early": 0.9, "ann late": 0.2, "bob": 0.3, "cyd": 0.6}
QUIET = Patience(quiet_seconds=1, released_seconds=1, stalled_seconds=1)


@pytest.fixture(scope="module")
def ledger(archive, tmp_path_factory) -> Iterator[Ledger]:
    """A listener's ledger and spool after four studies, each reported by two bundles."""
    folder = tmp_path_factory.mktemp("service")
    book = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
    spool = Spool(folder / "spool")
    for name, planted in archive.studies.items():
        files = planted.files if name == "bob" else planted.files[:3]
        book.record([Received(held, None, 1.0) for held in (put(spool, f) for f in files)])
    for bundle, factor in ((OLD, 1.0), (NEW, 0.5)):
        book.register_bundle(bundle)
        reopen(book)
        complete_studies(book, QUIET, now=100.0)
        for job_id in plan_studies(book, ["fistula"]):
            report(book, archive, job_id, bundle, factor)
    yield book
    book.close()


def put(spool: Spool, path: Path):
    content, offset = path.read_bytes(), _dataset_offset(path)
    header = dcmread(path, stop_before_pixels=True)
    key = InstanceKey(header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
    return spool.write(key, content[:offset], content[offset:])


def reopen(book: Ledger) -> None:
    """Plan every study anew, as a bundle that replaces one in the queue does."""
    with book._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE studies SET planned_revision = 0")


def report(book: Ledger, archive, job_id: str, bundle: BundleRow, factor: float) -> None:
    with book.lease(job_id, "a test", 60, {bundle.edition}) as lease:
        (name,) = (n for n, each in archive.studies.items() if each.uid == lease.job.study_uid)
        book.keep(
            lease.job,
            Answer(
                "REPORTED",
                lineage={"bundle": f"{bundle.name} {bundle.version}"},
                summary={"probability": PROBABILITIES[name] * factor},
            ),
        )


@pytest.fixture(scope="module")
def source(ledger, salt) -> LedgerSource:
    return LedgerSource(ledger, salt)


@pytest.fixture(scope="module")
def rows(archive, row, salt):
    """By accession number, by UID, by salted hash, not there, and by patient."""
    return [
        row(1, "HN-700001", "ACC-10001"),
        row(2, "HN-700001", archive["ann late"].uid, label="negative"),
        row(3, "HN-700002", pseudonym(salt, "study", archive["bob"].uid), label="negative"),
        row(4, "HN-700009", "ACC-NOWHERE"),
        row(5, "HN-700003", label="positive"),
    ]


@pytest.fixture(scope="module")
def joined(source, rows, salt):
    return join_labels(rows, source, salt)


def test_labels_find_their_studies_by_accession_uid_hash_and_patient(archive, joined):
    assert {(each.number, each.study) for each in joined.matched} == {
        (1, archive["ann early"].uid),
        (2, archive["ann late"].uid),
        (3, archive["bob"].uid),
        (5, archive["cyd"].uid),
    }
    assert joined.unmatched == (4,)
    assert joined.unlabelled == ()


def test_studies_without_a_label_are_told_by_their_hash(archive, source, rows, salt):
    joined = join_labels(rows[:1], source, salt)

    assert len(joined.unlabelled) == 3
    assert pseudonym(salt, "study", archive["bob"].uid) in joined.unlabelled


def test_a_patient_is_known_by_hash_as_well(archive, source, row, salt):
    found = source.find(row(1, pseudonym(salt, "patient", "HN-700001")))

    assert {study.study_uid for study in found} == {
        archive["ann early"].uid,
        archive["ann late"].uid,
    }


def test_each_bundle_in_service_gets_its_figures(joined):
    old, new = joined.figures
    assert [each.bundle.name for each in joined.figures] == ["demo 1.0.0", "demo 2.0.0"]
    labels = [1, 0, 0, 1]
    found = np.array([0.9, 0.2, 0.3, 0.6])
    assert (old.studies, old.positives) == (4, 2)
    assert old.brier == pytest.approx(np.mean((found - labels) ** 2))
    assert new.brier == pytest.approx(np.mean((found / 2 - labels) ** 2))
    assert old.auroc == new.auroc == auroc(labels, found) == 1.0
    assert old.auroc_interval is None  # the classes are separated


def test_figures_of_one_class_are_left_open(source, rows, salt):
    (old, _new) = join_labels(rows[:1], source, salt).figures

    assert (old.studies, old.auroc, old.calibration) == (1, None, None)


def test_indeterminate_labels_are_matched_and_not_counted(source, row, salt):
    joined = join_labels([row(1, "P", "ACC-10001", label="indeterminate")], source, salt)

    assert len(joined.matched) == 1
    assert joined.figures == ()


def test_the_figures_can_be_read_in_a_terminal(joined):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(figures_table(joined.figures))

    assert "demo 1.0.0 (aaaaaaaa)" in capture.get()
    assert "1.00" in capture.get()


def test_matched_labels_make_the_cohort_that_the_archive_makes(
    archive, ledger, joined, salt, tmp_path
):
    matched = [each for each in joined.matched if each.number == 3]
    write_table(tmp_path / "matched.csv", matched)
    settings = GatherSettings(DEMO_RECIPE)
    again = read_table(tmp_path / "matched.csv")

    gather(again, LedgerSource(ledger, salt), tmp_path / "service", salt, settings)
    gather(again, FolderSource.under(archive.root), tmp_path / "archive", salt, settings)

    service, folder = read_cohort(tmp_path / "service"), read_cohort(tmp_path / "archive")
    assert service.fingerprint == folder.fingerprint
    assert service.exams[0].label == 0
