"""Studies are found in a folder by every name they have, and delivered as the service has them."""

import shutil
from datetime import date

import pytest

from listener.selection import select
from trainer.gathering.sources import FolderSource, SourceFailed, Study


@pytest.fixture(scope="module")
def source(archive):
    return FolderSource.under(archive.root)


def test_every_study_is_found_at_any_depth_and_other_files_are_passed_over(archive, source):
    assert {study.study_uid for study in source.studies()} == {
        planted.uid for planted in archive.studies.values()
    }
    assert source.passed_over == 2


def test_a_study_is_found_by_its_uid_and_by_its_accession_number(archive, source, row):
    planted = archive["bob"]
    expected = Study(planted.uid, "HN-700002", "ACC-20001", date(2024, 2, 1))

    assert source.find(row(1, "whoever", planted.uid)) == [expected]
    assert source.find(row(1, "whoever", "ACC-20001")) == [expected]


def test_a_row_without_a_study_is_about_all_mr_studies_of_the_patient(archive, source, row):
    found = source.find(row(1, "HN-700001"))

    assert {study.study_uid for study in found} == {
        archive["ann early"].uid,
        archive["ann late"].uid,
    }


@pytest.mark.parametrize("study", ["", "ACC-1000", "ACC-*", "1.2.3.4"])
def test_what_is_not_there_is_not_found(source, row, study):
    assert source.find(row(1, "HN-70000", study)) == []


def test_a_patient_without_a_number_is_not_everybody(source, row):
    assert source.find(row(1, "")) == []


def test_the_series_of_a_study_can_be_selected_from_and_delivered(archive, source, row):
    (study,) = source.find(row(1, "HN-700002"))
    found = source.series(study)

    chosen = select("fistula", [series.facts for series in found]).chosen
    (series,) = (each for each in found if each.facts.series_uid == chosen)
    with source.deliver(series).files() as paths:
        assert sorted(paths) == sorted((archive["bob"].folder / "t1").iterdir())
    assert len(found) == 2
    assert series.facts.instances == len(series.sop_uids) == len(paths)


def test_a_second_copy_of_an_instance_changes_nothing(archive, tmp_path, row):
    shutil.copytree(archive["bob"].folder, tmp_path / "one")
    shutil.copytree(archive["bob"].folder, tmp_path / "two")

    source = FolderSource.under(tmp_path)

    (study,) = source.find(row(1, "HN-700002"))
    (series,) = source.series(study)
    with source.deliver(series).files() as paths:
        assert {path.relative_to(tmp_path).parts[0] for path in paths} == {"one"}


def test_indexing_tells_how_far_it_is(archive):
    told = []

    FolderSource.under(archive["bob"].folder, lambda done, total: told.append((done, total)))

    count = len(archive["bob"].files)
    assert told == [(done, count) for done in range(1, count + 1)]


def test_a_folder_without_dicom_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")

    with pytest.raises(SourceFailed, match="no DICOM instance among 1 files"):
        FolderSource.under(tmp_path)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SourceFailed, match="FileNotFoundError"):
        FolderSource.under(tmp_path / "nowhere")
