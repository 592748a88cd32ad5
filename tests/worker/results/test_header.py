import logging
import struct

import pydicom
import pytest
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from worker.results.header import fits_its_charset, repair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom on what tests write


def header(**values):
    source = Dataset()
    with config.disable_value_validation():
        for keyword, value in values.items():
            setattr(source, keyword, value)
    return source


def test_what_type_2_asks_for_is_empty_rather_than_absent():
    repaired = repair(Dataset())

    for keyword in ("PatientName", "PatientID", "PatientSex", "AccessionNumber", "StudyTime"):
        assert repaired[keyword].is_empty


def test_clean_values_are_repeated_as_they_are():
    repaired = repair(
        header(
            PatientName="Mustermann^Erika",
            PatientSex="F",
            PatientBirthDate="19700101",
            PatientAge="056Y",
            PatientWeight="61.5",
            StudyTime="101500.25",
            PhysiciansOfRecord=["A^B", "C^D"],
            TimezoneOffsetFromUTC="+0100",
        )
    )

    assert repaired.PatientName == "Mustermann^Erika"
    assert (repaired.PatientSex, repaired.PatientAge) == ("F", "056Y")
    assert repaired.PatientBirthDate == "19700101"
    assert repaired.PatientWeight == 61.5
    assert repaired.StudyTime == "101500.25"
    assert list(repaired.PhysiciansOfRecord) == ["A^B", "C^D"]
    assert repaired.TimezoneOffsetFromUTC == "+0100"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientSex", "U"),
        ("PatientSex", "f"),
        ("PatientBirthDate", "1970"),
        ("PatientBirthDate", "19700231"),
        ("StudyDate", "2026.11.20"),
        ("StudyTime", "12:18:16"),
        ("StudyTime", "246000"),
    ],
)
def test_what_cannot_be_right_is_emptied_not_guessed(keyword, value):
    assert repair(header(**{keyword: value}))[keyword].is_empty


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientAge", "fifty"),
        ("TimezoneOffsetFromUTC", "CET"),
        ("PatientIdentityRemoved", "MAYBE"),
    ],
)
def test_optional_values_are_emptied_too(keyword, value):
    assert repair(header(**{keyword: value}))[keyword].is_empty


def test_bytes_that_are_no_number_do_not_stop_a_result():
    source = Dataset()
    tag = Tag("PatientWeight")
    source[tag] = RawDataElement(tag, "DS", 4, b"90,5", 0, False, True)
    tag = Tag("PregnancyStatus")
    source[tag] = RawDataElement(tag, "US", 1, struct.pack("B", 1), 0, False, True)

    repaired = repair(source)

    assert repaired["PatientWeight"].is_empty
    assert repaired["PregnancyStatus"].is_empty


def test_a_number_with_too_many_digits_is_rounded_to_what_fits():
    weight = repair(header(PatientWeight="90.12345678901234567")).PatientWeight

    assert len(str(weight)) <= 16
    assert float(weight) == pytest.approx(90.12345678901234, abs=1e-12)


def test_an_identifier_too_long_is_passed_on_whole():
    # A shortened one would be that of somebody else.
    identifier = "4711-" * 20

    repaired = repair(header(PatientID=identifier, AccessionNumber=identifier))

    assert repaired.PatientID == identifier
    assert repaired.AccessionNumber == identifier


def test_a_description_too_long_is_cut_to_its_vr():
    assert repair(header(StudyDescription="x" * 80)).StudyDescription == "x" * 64


def test_line_breaks_go_from_lines_but_stay_in_prose():
    repaired = repair(header(StudyDescription="MR\r\nhead", PatientComments="one\r\ntwo"))

    assert repaired.StudyDescription == "MRhead"
    assert repaired.PatientComments == "one\r\ntwo"


def test_a_name_of_too_many_parts_keeps_them_all():
    assert repair(header(PatientName="A^B^C^D^E^F")).PatientName == "A^B^C^D^E F"


def test_an_empty_sequence_is_dropped():
    assert "ProcedureCodeSequence" not in repair(header(ProcedureCodeSequence=[]))


def test_of_a_sequence_the_whole_items_are_kept():
    whole = header(CodeValue="1", CodingSchemeDesignator="99L", CodeMeaning="MR head")
    nameless = header(CodeValue="2", CodingSchemeDesignator="99L")
    whole.add_new((0x0009, 0x0010), "LO", "a private creator")

    repaired = repair(header(ProcedureCodeSequence=[nameless, whole]))

    (item,) = repaired.ProcedureCodeSequence
    assert item.CodeValue == "1"
    assert (0x0009, 0x0010) not in item


def test_an_identifier_without_value_is_no_identifier():
    empty = header(PatientID="", TypeOfPatientID="TEXT")

    assert "OtherPatientIDsSequence" not in repair(header(OtherPatientIDsSequence=[empty]))


def test_nothing_but_the_named_attributes_is_copied():
    source = header(PatientName="A^B", ImageComments="seen by Dr C", OperatorsName="D^E")
    source.add_new((0x0029, 0x0010), "LO", "a private creator")

    repaired = repair(source)

    assert "ImageComments" not in repaired
    assert "OperatorsName" not in repaired
    assert (0x0029, 0x0010) not in repaired


def test_the_source_is_not_changed():
    source = header(PatientSex="U", PatientName="A^B")

    repair(source)

    assert source.PatientSex == "U"
    assert "PatientID" not in source


def test_repairs_are_logged_by_keyword_and_never_by_value(caplog):
    caplog.set_level(logging.DEBUG)

    repair(
        header(
            PatientName="Mustermann",
            PatientID="4711-" * 20,
            PatientBirthDate="1970",
            PatientSex="weiblich",
            StudyDescription="headache of Mrs Mustermann " * 4,
        )
    )

    for keyword in ("PatientID", "PatientBirthDate", "PatientSex", "StudyDescription"):
        assert keyword in caplog.text
    for value in ("Mustermann", "4711", "1970", "weiblich", "headache"):
        assert value not in caplog.text


@pytest.mark.parametrize(
    ("charset", "expected"),
    [
        (["", "ISO 2022 IR 87"], "ISO_IR 192"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ISO_IR 192"),
        ("ISO_IR 1000", "ISO_IR 192"),
        ("ISO_IR 144", "ISO_IR 144"),
        ("GB18030", "GB18030"),
    ],
)
def test_only_a_plain_character_set_is_kept(charset, expected):
    assert repair(header(SpecificCharacterSet=charset)).SpecificCharacterSet == expected


def test_japanese_with_code_extensions_is_decoded(shared_data):
    repaired = repair(pydicom.dcmread(shared_data / "odd" / "charset" / "chrH31.dcm"))

    assert repaired.SpecificCharacterSet == "ISO_IR 192"
    assert repaired.PatientName == "Yamada^Tarou=山田^太郎=やまだ^たろう"


def test_plain_ascii_needs_no_character_set():
    assert "SpecificCharacterSet" not in repair(header(PatientName="A^B"))


def test_a_text_that_the_character_set_lacks_is_noticed():
    latin = header(SpecificCharacterSet="ISO_IR 100", SeriesDescription="Kopf für später")
    greek = header(SpecificCharacterSet="ISO_IR 100", SeriesDescription="Κεφαλή")

    assert fits_its_charset(latin)
    assert not fits_its_charset(greek)
