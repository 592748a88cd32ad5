"""The gate: three validators find no error in any object, and no warning that we do not know."""

import re
from dataclasses import replace

import pydicom
import pytest
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from worker.results.outcome import Options, Predecessor
from worker.results.result import Encoder, Kind, objects

# Warnings that we know and accept, each with the reason.
ALLOWED = {
    "dciodvfy": (
        # Private codes, ours and a hospital's: no validator can know them.
        r"Unrecognized defined term <99(MONRO|LOCAL)> for value 1 of attribute <Coding Scheme "
        r"Designator>",
        r"Unrecognized defined term <2\.25\.\d+> for value 1 of attribute <Coding Scheme UID>",
        # IHE AIR puts the model's UID there; the tables of this dicom3tools date from 2022.
        r"Attribute is not present in standard DICOM IOD - \(0x0018,0x1002\) UI Device UID",
        # So do they lack the Image Plane and Frame of Reference modules of Secondary Capture.
        r"Attribute is not present in standard DICOM IOD - .* (Slice Thickness|Image Position "
        r"\(Patient\)|Image Orientation \(Patient\)|Frame of Reference UID|Position Reference "
        r"Indicator)",
        r"Dicom dataset contains attributes not present in standard DICOM IOD - this is a Standard "
        r"Extended SOP Class",
        # Nor do they know value 4 that PS3.3 C.8.32.3.1.1 gives Parametric Maps.
        r"Unrecognized defined term <QUANTITY> for value 4 of attribute <(Image|Frame) Type>",
        # An empty attribute of type 2 is what the source has; media are not our business.
        r"Missing attribute or value that would be needed to build DICOMDIR",
        # The patient's name is repeated as the source spells it.
        r"Value dubious for this VR - \(0x0010,0x0010\) PN Patient's Name .* Retired Person Name",
    ),
    "dcentvfy": (
        # The order's number stands in the Study module of images, in a sequence of series in SRs.
        r"Different information entities for attribute - Element=<AccessionNumber>",
        # A Procedure Code Sequence without items is an error in a result, so it is not repeated.
        r"Attribute present in one instance but not the other - Element=<ProcedureCodeSequence>",
    ),
    "pixelmed": (
        # TID 1501 is extensible, but PixelMed's compiled form does not list what extends it.
        r'CODE \(((CVF|CNSI)(-SET)?|NOT-ANALYSED|REGION-ORIGIN|REGION-NOT-MEAS),99MONRO,"[^"]*"\): '
        r"Content Item not in template",
        # The text summary follows no template on purpose.
        r'/CONTAINER \((CVF|CNSI)-SUMMARY,99MONRO,"[^"]*"\).*: Content Item not in template',
    ),
}


def assert_clean(findings, validator):
    known = re.compile("|".join(ALLOWED[validator]))
    assert findings.errors == ()
    assert [warning for warning in findings.warnings if not known.search(warning)] == []


def reports(paths):
    return [path for path in paths if not path.name.startswith(Kind.OVERLAY)]


SOURCES = ("head", "philips", "siemens")


@pytest.fixture(scope="session", params=SOURCES)
def series(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def result(series, judge, written):
    """The files of all objects of a result."""
    return written(objects(judge(series)))


def test_every_object_of_a_result_passes_dciodvfy(result, dciodvfy):
    for path in result:
        assert_clean(dciodvfy(path), "dciodvfy")


def test_a_result_agrees_with_its_sources_on_patient_study_and_series(result, series, dcentvfy):
    assert_clean(dcentvfy([*series.paths, *result]), "dcentvfy")


def test_every_report_passes_pixelmed(result, pixelmed):
    for path in reports(result):
        assert_clean(pixelmed(path), "pixelmed")


def test_a_refusal_passes_all_validators(
    refused, lineage, head, written, dciodvfy, dcentvfy, pixelmed
):
    replaced = replace(refused, predecessors=(Predecessor(lineage, "report"),))

    paths = written(objects(replaced))

    assert_clean(dcentvfy([*head.paths, *paths]), "dcentvfy")
    for path in paths:
        assert_clean(dciodvfy(path), "dciodvfy")
        assert_clean(pixelmed(path), "pixelmed")


def test_an_early_report_passes_all_validators(
    estimated, head, written, dciodvfy, dcentvfy, pixelmed
):
    paths = written(objects(estimated))

    assert_clean(dcentvfy([*head.paths, *paths]), "dcentvfy")
    for path in paths:
        assert_clean(dciodvfy(path), "dciodvfy")
        assert_clean(pixelmed(path), "pixelmed")


def test_float_map_and_region_pass_the_validators(judge, series, written, dciodvfy, dcentvfy):
    judged = judge(series, options=Options(extras=frozenset({Kind.FLOAT_MAP, Kind.REGION})))
    paths = [
        path
        for path in written(objects(judged))
        if path.name.startswith((Kind.FLOAT_MAP, Kind.REGION))
    ]

    assert len(paths) == 2
    assert [path.read_bytes() for path in paths] == [
        Encoder().encode(each.dataset)
        for each in objects(judged)
        if each.kind in judged.options.extras
    ]
    assert_clean(dcentvfy([*series.paths, *paths]), "dcentvfy")
    for path in paths:
        assert_clean(dciodvfy(path), "dciodvfy")


def test_the_validators_would_notice(judged, content, written, dciodvfy, dcentvfy, pixelmed):
    found = objects(judged)
    report = next(each for each in found if each.kind is Kind.REPORT)
    del report.dataset.CompletionFlag
    report.dataset.PatientID = "P-2"
    procedure = content(report.dataset, "Procedure reported").ConceptCodeSequence[0]
    procedure.CodeValue, procedure.CodingSchemeDesignator = "816077007", "SCT"  # not in CID 100

    paths = written([found[0], report])

    assert dciodvfy(paths[1]).errors
    assert dcentvfy(paths).errors
    assert pixelmed(paths[1]).errors


# --- headers as dirty as they come (design/results.md, section 4) ---


def absent(*keywords):
    def edit(header):
        for keyword in keywords:
            header.pop(keyword, None)

    return edit


def holding(**values):
    def edit(header):
        with config.disable_value_validation():
            for keyword, value in values.items():
                setattr(header, keyword, value)

    return edit


def raw(keyword, vr, value):
    """Put bytes into a header that pydicom would never write."""

    def edit(header):
        header[keyword] = pydicom.DataElement(keyword, vr, b"")
        tag = header[keyword].tag
        header._dict[tag] = pydicom.dataelem.RawDataElement(
            tag, vr, len(value), value, 0, False, True
        )

    return edit


def item(**values):
    part = Dataset()
    with config.disable_value_validation():
        for keyword, value in values.items():
            setattr(part, keyword, value)
    return part


TYPE_2 = (
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "ReferringPhysicianName",
)

DIRTY = {
    **{f"no {keyword}": absent(keyword) for keyword in TYPE_2},
    "none of type 2": absent(*TYPE_2),
    "sex U": holding(PatientSex="U"),
    "sex in lower case": holding(PatientSex="f"),
    "born in 1970": holding(PatientBirthDate="1970"),
    "born on 31 February": holding(PatientBirthDate="19700231"),
    "born on a dotted date": holding(PatientBirthDate="1970.01.01"),
    "time with colons": holding(StudyTime="12:18:16"),
    "time after midnight": holding(StudyTime="250000"),
    "age in words": holding(PatientAge="fifty"),
    "weight with a comma": raw("PatientWeight", "DS", b"90,5"),
    "weight with many digits": holding(PatientWeight="90.12345678901234567"),
    "size not a number": raw("PatientSize", "DS", b"NaN "),
    "no scanner": absent("Manufacturer"),
    "empty scanner": holding(Manufacturer=""),
    "no frame of reference": absent("FrameOfReferenceUID", "PositionReferenceIndicator"),
    "malformed frame of reference": holding(FrameOfReferenceUID="1.2.abc"),
    "malformed time zone": holding(TimezoneOffsetFromUTC="CET"),
    "time zone": holding(TimezoneOffsetFromUTC="+0530"),
    "empty procedure": holding(ProcedureCodeSequence=Sequence()),
    "procedure without meaning": holding(
        ProcedureCodeSequence=Sequence([item(CodeValue="X", CodingSchemeDesignator="99LOCAL")])
    ),
    "procedure without value": holding(
        ProcedureCodeSequence=Sequence(
            [item(CodeValue="", CodingSchemeDesignator="99LOCAL", CodeMeaning="MR head")]
        )
    ),
    "procedure": holding(
        ProcedureCodeSequence=Sequence(
            [item(CodeValue="X", CodingSchemeDesignator="99LOCAL", CodeMeaning="MR head")]
        )
    ),
    "other IDs without type": holding(
        OtherPatientIDsSequence=Sequence([item(PatientID="Q-1"), item(TypeOfPatientID="TEXT")])
    ),
    "line breaks in a description": holding(StudyDescription="MR\r\nhead"),
    "long description": holding(StudyDescription="head " * 20, SeriesDescription="post " * 20),
    "two descriptions": holding(StudyDescription=["MR", "head"]),
    "name without caret": holding(PatientName="Phantom"),
    "name of six parts": holding(PatientName="A^B^C^D^E^F"),
    "name in four scripts": holding(PatientName="A=B=C=D"),
    "undeclared Latin-1": raw("PatientName", "PN", "Müller^Jürgen ".encode("latin-1")),
    "unknown character set": holding(SpecificCharacterSet="ISO_IR 1000"),
    "misspelt character set": holding(SpecificCharacterSet="ISO-IR 100"),
    "lossy": holding(LossyImageCompression="01", LossyImageCompressionRatio="12"),
}


@pytest.fixture(scope="session")
def small_head(scan):
    return scan(slices=10, size=(48, 46), spacing=(5.0, 5.0), gap_mm=20.0)


@pytest.fixture
def judged_with(judge, small_head):
    """Judge the small head with every header edited the same way."""
    judged = judge(small_head)

    def edited(edit):
        for header in judged.sources:
            edit(header)
        return judged

    return edited


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom on what the test itself wrote
@pytest.mark.parametrize("edit", DIRTY.values(), ids=DIRTY.keys())
def test_a_dirty_header_gives_clean_results(edit, judged_with, written, dciodvfy):
    found = objects(judged_with(edit))

    for path in written([each for each in found if each.index == 0]):
        assert_clean(dciodvfy(path), "dciodvfy")


CHARSETS = (
    "chrArab",
    "chrFren",
    "chrFrenMulti",
    "chrGerm",
    "chrGreek",
    "chrH31",
    "chrH32",
    "chrHbrw",
    "chrI2",
    "chrJapMulti",
    "chrJapMultiExplicitIR6",
    "chrKoreanMulti",
    "chrRuss",
    "chrX1",
    "chrX2",
)


@pytest.mark.parametrize("name", CHARSETS)
def test_a_name_in_any_script_arrives_as_it_was_sent(
    name, shared_data, judged_with, written, dciodvfy, pixelmed
):
    foreign = pydicom.dcmread(shared_data / "odd" / "charset" / f"{name}.dcm")
    sent = str(foreign.PatientName)

    def take_name(header):
        header.SpecificCharacterSet = foreign.get("SpecificCharacterSet")
        header["PatientName"] = foreign["PatientName"]

    found = objects(judged_with(take_name))

    paths = written([each for each in found if each.index == 0])
    for path in paths:
        assert_clean(dciodvfy(path), "dciodvfy")
    assert_clean(pixelmed(paths[-1]), "pixelmed")  # the summary: seconds faster than the template
    assert {str(pydicom.dcmread(path).PatientName) for path in paths} == {sent}
