"""The map as one object holds the numbers of the map, at the places of the source."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom.uid import ParametricMapStorage, SegmentationStorage

from worker.results.outcome import Options
from worker.results.resliced import Resliced
from worker.results.result import Kind, objects


def extra(judged, kind):
    """The object of one kind; None where there is none."""
    asked = replace(judged, options=Options(extras=frozenset({kind})))
    found = [each for each in objects(asked) if each.kind is kind]
    return found[0].dataset if found else None


def frames(dataset, slices):
    """Per frame: the source slice at its place, and its position in the file."""
    at = {tuple(each.position.round(3)): each for each in slices}
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        yield number, group, at[tuple(position.round(3))]


@pytest.fixture(scope="module")
def float_map(judged):
    return extra(judged, Kind.FLOAT_MAP)


def test_unless_asked_for_there_are_none(judged):
    assert not {Kind.FLOAT_MAP, Kind.REGION} & {each.kind for each in objects(judged)}


def test_the_float_map_holds_the_effect_at_each_pixel_of_its_source(float_map, judged):
    resliced = Resliced.over(judged.volume, judged.map)
    values = np.frombuffer(float_map.FloatPixelData, np.float32).reshape(
        -1, float_map.Rows, float_map.Columns
    )

    assert float_map.SOPClassUID == ParametricMapStorage
    assert len(values) == len(judged.volume.slices)
    for number, group, source in frames(float_map, judged.volume.slices):
        np.testing.assert_array_equal(values[number], resliced.effects(source))
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.sop_uid


def test_frames_of_a_multi_frame_source_are_named(judge, siemens):
    judged = judge(siemens)
    dataset = extra(judged, Kind.FLOAT_MAP)

    for _number, group, source in frames(dataset, judged.volume.slices):
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPClassUID == source.sop_class_uid
        assert image.ReferencedFrameNumber == source.frame
    (series,) = dataset.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == 1


def test_the_region_is_where_the_map_is_at_least_half_its_height(judged):
    dataset = extra(judged, Kind.REGION)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    size = dataset.Rows * dataset.Columns
    masks = bits[: size * int(dataset.NumberOfFrames)].reshape(-1, dataset.Rows, dataset.Columns)
    resliced = Resliced.over(judged.volume, judged.map)

    assert dataset.SOPClassUID == SegmentationStorage
    found = 0
    for number, _group, source in frames(dataset, judged.volume.slices):
        hot = resliced.effects(source) >= 0.5 * judged.map.delta.max()
        np.testing.assert_array_equal(masks[number], hot & (resliced.share(source) > 0.5))
        found += hot.sum()
    assert found > 0


def test_where_nothing_spoke_for_the_finding_there_is_no_region(judged):
    against = replace(judged.map, delta=-np.abs(judged.map.delta))

    assert extra(replace(judged, map=against), Kind.REGION) is None
    assert extra(replace(judged, map=against), Kind.FLOAT_MAP) is not None


def test_extras_say_who_the_patient_is_as_all_objects_do(float_map, judged):
    source = judged.sources[0]
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDate"):
        assert float_map[keyword].value == source[keyword].value
