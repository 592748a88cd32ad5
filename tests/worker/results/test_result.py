import io
import time
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version

import pydicom
import pytest

from worker.results.outcome import Options
from worker.results.result import Encoder, Kind, Phase, objects


def test_a_result_is_an_overlay_a_report_in_two_encodings_and_a_summary(judged):
    kinds = [each.kind for each in objects(judged)]

    assert kinds == [
        *[Kind.OVERLAY] * len(judged.volume.slices),
        Kind.REPORT,
        Kind.REPORT_ENHANCED,
        Kind.SUMMARY,
    ]


def test_objects_come_in_the_order_of_delivery(judged):
    phases = [each.phase for each in objects(judged)]

    assert phases == sorted(phases)
    assert set(phases) == {Phase.OVERLAYS, Phase.REPORT, Phase.SUMMARY}


def test_a_destination_gets_one_of_two_encodings(judged, refused):
    alternatives = {
        each.kind: each.alternative_of for each in [*objects(judged), *objects(refused)]
    }

    assert {kind: other for kind, other in alternatives.items() if other is not None} == {
        Kind.REPORT_ENHANCED: Kind.REPORT,
        Kind.REFUSAL_ENHANCED: Kind.REFUSAL,
    }


def test_kinds_have_series_of_their_own_and_no_uid_is_used_twice(judged):
    found = objects(judged)

    by_kind = {each.kind: each.series_uid for each in found}
    assert len(set(by_kind.values())) == len(by_kind)
    assert len({each.sop_uid for each in found}) == len(found)
    assert {(each.kind, each.dataset.SeriesNumber) for each in found} == {
        (Kind.OVERLAY, 9003),
        (Kind.REPORT, 9001),
        (Kind.REPORT_ENHANCED, 9001),
        (Kind.SUMMARY, 9002),
    }


@pytest.mark.filterwarnings("ignore:A value of type 'DT'")  # of the clock that the test puts in
@pytest.mark.parametrize("outcome", ["judged", "refused"])
def test_a_second_run_at_another_time_gives_the_same_bytes(outcome, request, monkeypatch):
    outcome = request.getfixturevalue(outcome)

    class AnotherDay(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 2, 3, 4, 5, 678, tz)

    first = [Encoder().encode(each.dataset) for each in objects(outcome)]
    first_layers = [each.layers for each in objects(outcome)]
    monkeypatch.setattr("datetime.datetime", AnotherDay)
    monkeypatch.setattr(time, "time", lambda: 1.9e9)
    second = [Encoder().encode(each.dataset) for each in objects(outcome)]

    assert second == first
    assert [each.layers for each in objects(outcome)] == first_layers


def test_every_object_names_the_software_and_the_model_that_made_it(judged):
    extras = frozenset({Kind.REGION, Kind.FLOAT_MAP})
    found = objects(replace(judged, options=Options(extras=extras)))

    assert extras < {each.kind for each in found}
    for dataset in (each.dataset for each in found):
        assert dataset.ManufacturerModelName == "monro"
        assert dataset.SoftwareVersions == version("monro")
        assert dataset.DeviceSerialNumber == judged.lineage.site
        (model,) = (
            each
            for each in dataset.ContributingEquipmentSequence
            if each.get("ManufacturerModelName") == judged.bundle.name
        )
        assert model.SoftwareVersions == judged.bundle.version
        assert judged.bundle.weights_sha256 in model.ContributionDescription


def test_other_inputs_give_other_uids(judged):
    changed = replace(judged, lineage=replace(judged.lineage, digest="other"))

    before = {each.sop_uid for each in objects(judged)}
    after = {each.sop_uid for each in objects(changed)}

    assert before.isdisjoint(after)


def test_files_are_part_10_explicit_little_endian(judged):
    for each in objects(judged):
        content = Encoder().encode(each.dataset)
        assert content[128:132] == b"DICM"
        read = pydicom.dcmread(io.BytesIO(content))
        assert read.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
        assert read.file_meta.MediaStorageSOPInstanceUID == each.sop_uid
        assert read.SOPClassUID == each.sop_class_uid
        assert len(read.PixelData) % 2 == 0 if "PixelData" in read else True


def test_a_statement_in_another_script_moves_all_objects_to_utf_8(judged):
    greek = replace(judged, bundle=replace(judged.bundle, statement="Κλινικά άχρηστο"))

    found = objects(greek)

    assert {each.dataset.SpecificCharacterSet for each in found} == {"ISO_IR 192"}
    summary = pydicom.dcmread(io.BytesIO(Encoder().encode(found[-1].dataset)))
    assert "Κλινικά άχρηστο" in str(summary)


def test_no_patient_is_named_in_the_log(judged, caplog):
    caplog.set_level(0)

    objects(judged)

    assert "Phantom" not in caplog.text
    assert "P-1" not in caplog.text


def test_what_objects_share_is_encoded_once_and_as_pydicom_would(judged):
    options = Options(extras=frozenset({Kind.FLOAT_MAP, Kind.REGION}))
    encoder = Encoder()
    for each in objects(replace(judged, options=options)):
        file = io.BytesIO()
        pydicom.dcmwrite(file, each.dataset, enforce_file_format=True)

        assert encoder.encode(each.dataset) == file.getvalue()
