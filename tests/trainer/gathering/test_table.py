"""A label table is understood completely, or refused with a row number and without quoting it."""

from datetime import date

import polars
import pytest

from trainer.bern import BernItems
from trainer.gathering.table import BadTable, LabelRow, read_table, require_free, write_table

FULL = (
    "patient,study,label,bern_score,pachymeningeal_enhancement,venous_engorgement,suprasellar_mm,"
    "subdural_fluid,prepontine_mm,mamillopontine_mm,slec,site,scanner,sex,age_years,"
    "myelogram_date,ward\n"
    "007,1.2.840.1,Positive,7,yes,no,4.0,,5,6.5,no,North,Maker M1,female,46,2024-03-10,B2\n"
)


def table(tmp_path, text, name="labels.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_every_column_is_understood(tmp_path):
    (row,) = read_table(table(tmp_path, FULL))

    assert row == LabelRow(
        number=1,
        patient="007",
        study="1.2.840.1",
        label="positive",
        bern_score=7,
        bern=BernItems(True, False, 4.0, None, 5.0, 6.5),
        slec=False,
        site="North",
        scanner="Maker M1",
        sex="F",
        age_years=46.0,
        myelogram_date=date(2024, 3, 10),
        columns={"ward": "B2"},
    )


def test_three_columns_are_enough_and_the_study_may_be_empty(tmp_path):
    (row,) = read_table(table(tmp_path, "patient,study,label\nP1,,negative\n"))

    assert row == LabelRow(number=1, patient="P1", study="", label="negative")


def test_spreadsheets_write_semicolons_byte_order_marks_and_empty_lines(tmp_path):
    text = "\ufeffpatient;study;label\r\n P1 ; A,1 ;negative\r\n;;\r\nP2;A2;positive\r\n"

    rows = read_table(table(tmp_path, text))

    assert [(row.number, row.patient, row.study) for row in rows] == [
        (1, "P1", "A,1"),
        (3, "P2", "A2"),
    ]


def test_parquet_says_the_same_as_csv(tmp_path):
    frame = polars.DataFrame(
        {
            "patient": ["007"],
            "study": ["1.2.840.1"],
            "label": ["positive"],
            "bern_score": [7.0],
            "venous_engorgement": [False],
            "suprasellar_mm": [4.0],
            "slec": [None],
            "age_years": [46],
            "myelogram_date": [date(2024, 3, 10)],
        }
    )
    frame.write_parquet(tmp_path / "labels.parquet")

    (row,) = read_table(tmp_path / "labels.parquet")

    assert row.bern_score == 7
    assert row.bern == BernItems(venous_engorgement=False, suprasellar_mm=4.0)
    assert (row.slec, row.age_years, row.myelogram_date) == (None, 46.0, date(2024, 3, 10))


@pytest.mark.parametrize(
    ("header", "missing"),
    [("patient,label", "study"), ("Patient,study,result", "patient and no column label")],
)
def test_a_missing_column_is_named(tmp_path, header, missing):
    with pytest.raises(BadTable, match=f"no column {missing}; name the columns patient"):
        read_table(table(tmp_path, f"{header}\n"))


@pytest.mark.parametrize(
    ("column", "cell", "needed"),
    [
        ("label", "Doe^Jane", "one of positive, negative, indeterminate"),
        ("age_years", "Doe^Jane", "a number from 0 to 130"),
        ("age_years", "nan", "a number"),
        ("age_years", "-3", "a number"),
        ("prepontine_mm", '"4,5"', "decimal point"),
        ("bern_score", "10", "0 to 9"),
        ("bern_score", "4.5", "0 to 9"),
        ("slec", "maybe", "yes or no"),
        ("sex", "Doe^Jane", "F, M or O"),
        ("myelogram_date", "10.03.2024", "a date as 2026-01-31"),
        ("myelogram_date", "2024-02-31", "a date as 2026-01-31"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_row_and_never_quoted(
    tmp_path, column, cell, needed
):
    label = "" if column == "label" else "label,"
    value = "" if column == "label" else "negative,"
    text = f"patient,study,{label}{column}\nP1,A1,{value}\nP2,A2,{value}{cell}\n"
    if column == "label":
        text = text.replace("P1,A1,", "P1,A1,negative")

    with pytest.raises(BadTable, match=f"row 2: column {column}.*{needed}") as refusal:
        read_table(table(tmp_path, text))
    assert cell.strip('"') not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "found"), [(",A1,positive", "no patient"), ("P1,A1,", "no label")]
)
def test_an_empty_patient_or_label_is_refused(tmp_path, text, found):
    with pytest.raises(BadTable, match=f"row 1: {found}"):
        read_table(table(tmp_path, f"patient,study,label\n{text}\n"))


def test_one_study_with_two_labels_is_refused_with_both_rows(tmp_path):
    text = "patient,study,label\nP1,A1,positive\nP2,A2,negative\nP1,A1,negative\n"

    with pytest.raises(
        BadTable, match="rows 1 and 3: the same study, but contradicting values of label"
    ):
        read_table(table(tmp_path, text))


def test_one_study_of_two_patients_is_refused(tmp_path):
    with pytest.raises(BadTable, match="contradicting values of patient"):
        read_table(table(tmp_path, "patient,study,label\nP1,A1,positive\nP2,A1,positive\n"))


def test_a_row_that_says_the_same_again_is_left_out(tmp_path):
    text = "patient,study,label,reader\nP1,A1,positive,one\nP1,A1,positive,two\n"

    (row,) = read_table(table(tmp_path, text))

    assert row.columns == {"reader": "one"}


@pytest.mark.parametrize(
    "content", [b"", b"patient,study,label\n", b"patient,study,label\nP1,A1,positive,Doe,Jane\n"]
)
def test_a_file_that_is_no_table_is_refused_without_quoting_it(tmp_path, content):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)

    with pytest.raises(BadTable) as refusal:
        read_table(path)
    assert "Jane" not in str(refusal.value)


def test_a_column_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(BadTable, match="column label twice"):
        read_table(table(tmp_path, "patient,study,label,label\nP1,A1,positive,negative\n"))


def test_what_is_written_is_read_again_and_only_by_its_owner(tmp_path):
    rows = read_table(table(tmp_path, FULL))
    write_table(tmp_path / "again.csv", rows)

    assert read_table(tmp_path / "again.csv") == rows
    assert (tmp_path / "again.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("value", ["2024-03-10", "seen 12345678", "1.2.840.113619.2.5", "P1", "A1"])
def test_a_free_column_that_may_identify_does_not_go_into_a_cohort(value):
    rows = [LabelRow(5, "P1", "A1", "positive", columns={"note": value})]

    with pytest.raises(BadTable, match="row 5: column 'note' holds what may identify") as refusal:
        require_free(rows, ["note"])
    assert value not in str(refusal.value)


def test_a_free_column_that_is_not_there_is_named():
    with pytest.raises(BadTable, match="no free column 'ward'"):
        require_free([LabelRow(1, "P1", "A1", "positive")], ["ward"])


def test_other_free_columns_may_be_kept():
    require_free([LabelRow(1, "P1", "A1", "positive", columns={"ward": "B2"})], ["ward"])
