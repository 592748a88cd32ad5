"""Small parts of the console: what scores meant, pasted headers, names in memory, reports."""

import gc
import threading
import time

import pytest

from listener.console import patients as patients_module
from listener.console.chances import chance
from listener.console.document import read_documents
from listener.console.identity import UNREAD, Identity
from listener.console.patients import Patients, Reach
from listener.console.tester import EXAMPLE, BadHeaders, read_pasted
from listener.selection import select
from tests.listener.console.conftest import CARD, House, a_head


def test_a_search_goes_on_while_somebody_is_added(house: House) -> None:
    study_uid, _ = house.report("DOE^JANE", "P-1")
    patients = Patients(house.ledger)
    for number in range(5_000):
        patients._known[f"1.2.{number}"] = Identity("ROE^RICHARD", f"R-{number}"), "roe richard"
    patients.of([study_uid])

    def add(_phase: str, _info: dict[str, int]) -> None:
        """Another thread may have its turn whenever rubbish is collected."""
        patients._known[f"1.3.{len(patients._known)}"] = Identity(), ""

    usual = gc.get_threshold()
    gc.callbacks.append(add)
    gc.set_threshold(10)
    try:
        found = patients.search("jane", 5)
    finally:
        gc.callbacks.remove(add)
        gc.set_threshold(*usual)
    assert found.study_uids == (study_uid,)


def test_a_score_is_put_into_words_by_the_tenth_that_it_falls_into() -> None:
    found = chance("fistula", 0.85, CARD)

    assert found is not None
    assert (found.low, found.high, found.patients, found.of_100) == (0.8, 0.9, 20, 85)
    assert (found.least, found.most) == (64, 95)  # Wilson's interval of 17 in 20
    assert chance("fistula", 1.0, CARD).low == 0.9  # type: ignore[union-attr]
    assert chance("fistula", 0.0, CARD).patients == 40  # type: ignore[union-attr]


def test_too_few_patients_say_nothing() -> None:
    found = chance("infection", 0.95, CARD)

    assert found is not None
    assert found.of_100 is None
    assert "2 patients had a score between 90 and 100 %: too few to say" in found.sentence
    assert chance("fistula", 0.5, {"validation": None}) is None
    assert chance("fistula", None, CARD) is None


def test_the_example_is_read_and_both_analyses_take_something() -> None:
    facts = read_pasted(EXAMPLE)

    assert [each.instances for each in facts] == [176, 25]
    assert select("fistula", facts).chosen == "1.2.3.1"
    assert select("infection", facts).chosen == "1.2.3.2"


def test_datasets_in_the_dicom_json_model_are_read_as_well() -> None:
    (facts,) = read_pasted('[{"0008103E": {"vr": "LO", "Value": ["t1 sag"]}, "Instances": 5}]')

    assert (facts.description, facts.instances) == ("t1 sag", 5)


@pytest.mark.parametrize(
    ("pasted", "complaint"),
    [
        ("", "the text: nothing"),
        ("[1]", "the text: something else"),
        ("[{]", "line 1: something else, where JSON"),
        ("EchoTime 2.9", "line 1: no equals sign"),
        ("EchoTime = PLANTED", "series 1, EchoTime: no such value"),
        ("Rows = PLANTED", "series 1, Rows: no such value"),
        ("Nonsense = PLANTED\nRows = 1", "series 1: a keyword that DICOM does not know"),
        ("Instances = PLANTED", "series 1, Instances: something else"),
        ("ContrastBolusAgentSequence = PLANTED", "give the sequence"),
        ("[" * 100_000, "the text: brackets in brackets"),
        ('{"Instances": 1e400}', "series 1, Instances: something else"),
        ("SeriesInstanceUID = PLANTED", "series 1: something else, where UIDs"),
        ("\n\n".join(f"SeriesNumber = {number}" for number in range(101)), "101 series"),
    ],
)
def test_what_cannot_be_read_is_named_and_never_repeated(pasted: str, complaint: str) -> None:
    with pytest.raises(BadHeaders) as caught:
        read_pasted(pasted)

    assert complaint.replace("give the sequence", "the sequence in DICOM JSON") in str(caught.value)
    assert "PLANTED" not in str(caught.value)


def test_names_are_read_in_the_background_and_new_studies_follow(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patients_module, "ROUND_SECONDS", 0.1)
    jane, _ = house.report("DOE^JANE", "P-1")
    patients = Patients(house.ledger)
    patients.start()
    try:
        assert wait_for(lambda: patients.reach.known == 1)
        richard, _ = house.report("ROE^RICHARD", "P-2")
        assert wait_for(lambda: patients.search("roe", 5).study_uids == (richard,))
        assert patients.search("DOE", 5).study_uids == (jane,)
        assert not patients.search("p-", 1).is_all
        assert patients.search("  ", 5).study_uids == ()
    finally:
        patients.stop()
    assert patients.reach.known == 0
    assert not any(each.name == "patients" for each in threading.enumerate())


def test_a_name_is_that_of_the_latest_instance_that_was_taken(house: House) -> None:
    study_uid = house.receive(*(first := a_head("DOE^JANE", "P-41")))
    patients = Patients(house.ledger)
    patients._read_all()
    assert patients.of([study_uid])[study_uid].name == "DOE^JANE"

    first[0].PatientName = "PLANTED^CONFLICT"  # the same UID with other content: quarantined
    house.receive(first[0])
    patients._read_all()
    assert patients.of([study_uid])[study_uid].name == "DOE^JANE"

    house.receive(*a_head("DOE^JOANNA", "P-41"))
    patients._read_all()
    assert patients.of([study_uid])[study_uid].name == "DOE^JOANNA"
    assert patients.search("joanna", 5).study_uids == (study_uid,)
    assert patients.search("jane", 5).study_uids == ()


def test_a_page_waits_for_names_only_so_long(house: House) -> None:
    study_uid, _ = house.report("DOE^JANE", "P-1")
    patients = Patients(house.ledger)

    assert patients.of([study_uid], seconds=-1) == {study_uid: UNREAD}
    assert patients.of([study_uid])[study_uid].name == "DOE^JANE"
    assert patients.of([study_uid], seconds=-1)[study_uid].name == "DOE^JANE"


def test_no_name_a_file_that_cannot_be_read_and_none_that_is_left_are_told_apart(
    house: House,
) -> None:
    nobody = house.receive(*a_head("", ""))
    away = house.receive(*a_head("DOE^JANE", "P-31"))
    gone = house.receive(*a_head("ROE^RICHARD", "P-32"))
    files = house.spool.root / "studies" / away
    aside = files.rename(files.with_name("aside"))
    house.purge(gone)
    patients = Patients(house.ledger)

    patients._read_all()
    found = patients.of([nobody, away, gone])
    assert {uid: each.state for uid, each in found.items()} == {
        nobody: "known",
        away: "unreadable",
        gone: "gone",
    }
    assert patients.reach == Reach(known=1, gone=1, unreadable=1, studies=3)
    assert not patients.reach.is_complete

    aside.rename(files)
    patients._read_all()
    assert patients.search("jane", 5).study_uids == (away,)
    assert patients.reach == Reach(known=2, gone=1, unreadable=0, studies=3)


def test_each_round_looks_for_some_of_the_files_that_were_gone_and_the_next_for_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patients_module, "MOST_IN_VAIN", 1)
    uids = [house.receive(*a_head("DOE^JANE", f"P-4{number}")) for number in range(3)]
    patients = Patients(house.ledger)
    folder = house.spool.root / "studies"
    aside = folder.rename(folder.with_name("aside"))
    patients._read_all()
    assert patients.reach.unreadable == 3
    aside.rename(folder)
    (folder / uids[0]).rename(folder / "lost")
    (folder / uids[1]).rename(folder / "lost too")

    rounds = 0
    while patients.reach.known == 0:
        patients._read_all()
        rounds += 1
        assert rounds <= 3
    assert patients.reach == Reach(known=1, gone=0, unreadable=2, studies=3)


def test_a_report_is_a_tree_of_sentences(house: House) -> None:
    study_uid, job_id = house.report()

    (document,) = read_documents(house.ledger, study_uid, job_id)

    assert document.title == "AI result summary"
    (section,) = document.items
    assert (section.name, section.is_container) == ("Conclusions", True)
    assert section.items[0].value.startswith("A finding of tests")
    assert read_documents(house.ledger, "1.2.3", job_id) == ()


def wait_for(condition: object, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False
