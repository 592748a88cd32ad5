"""What a segmentation says of itself, and which regions its segments are."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from listener.errors import BadAttribute
from listener.segmentation import (
    MAKER,
    REGIONS,
    SEGMENTATIONS,
    SUBLENTIFORM,
    VENTRICLES,
    Segment,
    read_segmentation,
)
from listener.selection import ANALYSES
from listener.server import STORAGE_CLASSES
from tests.listener.segmentations import BOTH, TISSUE, segmentation, t2_series
from worker.results.terms import MANUFACTURER
from worker.results.uids import derive

OURS = (("anything", VENTRICLES.concept), ("anything else", SUBLENTIFORM.concept))


@pytest.fixture
def images() -> list[Dataset]:
    return t2_series("1.2", "1.2.1")


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Dataset], Path]:
    def write(dataset: Dataset) -> Path:
        path = tmp_path / "segmentation.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


def test_the_tables_agree_with_those_of_receiving_selecting_and_making() -> None:
    assert set(STORAGE_CLASSES) >= SEGMENTATIONS
    assert REGIONS.keys() <= set(ANALYSES)
    assert MAKER == MANUFACTURER


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_tells_what_it_segments_and_when_it_was_made(
    images: list[Dataset], written: Callable[[Dataset], Path], kind: str
) -> None:
    sent = segmentation(images, at="20260102 101500.25", kind=kind)
    found = read_segmentation(written(sent))

    assert found.key.sop_uid == sent.SOPInstanceUID
    assert found.content_at == datetime.datetime(2026, 1, 2, 10, 15, 0, 250_000)
    assert found.referenced_series == {"1.2.1"}
    assert found.referenced_instances == {each.SOPInstanceUID for each in images}
    assert Segment(1, "Ventricles", ("85756007", "SCT"), "MANUAL", "Tissue") in found.segments
    assert found.regions_for("infection") == {"ventricles": (1,), "sublentiform": (2,)}
    assert not found.is_own


def test_where_no_series_is_named_the_images_of_the_frames_tell_it(
    images: list[Dataset], written: Callable[[Dataset], Path]
) -> None:
    sent = segmentation(images)
    del sent.ReferencedSeriesSequence
    found = read_segmentation(written(sent))

    assert found.referenced_series == frozenset()
    assert found.refers_to("1.2.1", {str(images[0].SOPInstanceUID), "1.9"})
    assert not found.refers_to("1.2.1", {"1.9"})


def test_images_of_shared_functional_groups_count_as_well(
    images: list[Dataset], written: Callable[[Dataset], Path]
) -> None:
    sent = segmentation(images[:1])
    frame = sent.PerFrameFunctionalGroupsSequence[0]
    (shared,) = sent.SharedFunctionalGroupsSequence
    shared.DerivationImageSequence = frame.DerivationImageSequence
    for each in sent.PerFrameFunctionalGroupsSequence:
        del each.DerivationImageSequence
    del sent.ReferencedSeriesSequence

    assert read_segmentation(written(sent)).referenced_instances == {images[0].SOPInstanceUID}


def test_codes_of_our_own_proposals_are_known_whatever_the_label_says(
    images: list[Dataset], written: Callable[[Dataset], Path]
) -> None:
    found = read_segmentation(written(segmentation(images, OURS)))

    assert found.regions_for("infection") == {"ventricles": (1,), "sublentiform": (2,)}


def test_a_code_counts_more_than_a_label(
    images: list[Dataset], written: Callable[[Dataset], Path]
) -> None:
    crossed = (("Sublentiform", VENTRICLES.concept), ("Ventricles", SUBLENTIFORM.concept))
    found = read_segmentation(written(segmentation(images, crossed)))

    assert found.regions_for("infection") == {"ventricles": (1,), "sublentiform": (2,)}


def test_the_meaning_of_a_code_of_somebody_else_s_counts_more_than_a_label(
    images: list[Dataset], written: Callable[[Dataset], Path]
) -> None:
    theirs = (
        ("Segment_1", ("X1", "99SITE", "Sub-lentiform nucleus parenchyma")),
        ("Sublentiform", ("X2", "99SITE", "Cerebral ventricles")),
        ("Ventricles", ("X3", "99SITE", "Lesion")),
    )
    found = read_segmentation(written(segmentation(images, theirs)))

    assert found.regions_for("infection") == {"ventricles": (2, 3), "sublentiform": (1,)}


PAPER = "Sub-lentiform nucleus parenchyma"


@pytest.mark.parametrize(
    "label",
    [
        PAPER,
        PAPER.upper(),
        PAPER.lower(),
        "Sublentiform nucleus parenchyma",
        "Sub lentiform nucleus parenchyma",
        "sub_lentiform_nucleus_parenchyma",
        "SubLentiformNucleusParenchyma",
        "  Sub-Lentiform   Nucleus  Parenchyma ",
        "Sub\u2010lentiform nucleus parenchyma",  # hyphen
        "Sub\u2011lentiform nucleus parenchyma",  # non-breaking hyphen
        "Sub\u2013lentiform\u00a0nucleus\u00a0parenchyma",  # en dash, non-breaking spaces
        "Parenchyma, sub-lentiform nucleus (L)",
        "sub-lentiform nuclei parenchyma",
    ],
)
def test_the_paper_s_name_of_the_region_is_known_in_any_spelling(
    images: list[Dataset], written: Callable[[Dataset], Path], label: str
) -> None:
    sent = segmentation(images[:1], [("x", TISSUE)])
    sent.SpecificCharacterSet = "ISO_IR 192"
    sent.SegmentSequence[0].SegmentLabel = label

    assert list(read_segmentation(written(sent)).regions_for("infection")) == ["sublentiform"]


def test_a_region_may_have_a_left_and_a_right_segment(
    images: list[Dataset], written: Callable[[Dataset], Path]
) -> None:
    halves = (("Left-Lateral-Ventricle", TISSUE), ("Liver", TISSUE), ("ventricle R", TISSUE))
    found = read_segmentation(written(segmentation(images, halves)))

    assert found.regions_for("infection") == {"ventricles": (1, 3)}


@pytest.mark.parametrize(
    ("label", "regions"),
    [
        ("Ventricles", ["ventricles"]),
        ("VENTRICULAR SYSTEM", ["ventricles"]),
        ("lateral_ventricles", ["ventricles"]),
        ("LeftLateralVentricle", ["ventricles"]),
        ("ventricles (corrected)", ["ventricles"]),
        ("3rd-Ventricle", ["ventricles"]),
        ("Ventricles 2", ["ventricles"]),
        ("Seitenventrikel", ["ventricles"]),
        ("Sublentiform", ["sublentiform"]),
        ("sub-lentiform R", ["sublentiform"]),
        ("Sub-lentiform nucleus parenchyma", ["sublentiform"]),
        ("Parenchyma below the lentiform nucleus, left", ["sublentiform"]),
        ("sublenticular region", ["sublentiform"]),
        ("below the lentiform nucleus", ["sublentiform"]),
        ("lentiform nucleus", []),
        ("caudate nucleus", []),
        ("periventricular white matter", []),
        ("ventricular drain", []),
        ("Left", []),
        ("", []),
    ],
)
def test_usual_labels_are_understood_and_others_are_not_taken_for_them(
    images: list[Dataset], written: Callable[[Dataset], Path], label: str, regions: list[str]
) -> None:
    sent = segmentation(images[:1], [("x", TISSUE)])
    sent.SegmentSequence[0].SegmentLabel = label

    assert list(read_segmentation(written(sent)).regions_for("infection")) == regions


def test_only_what_we_made_and_nobody_changed_is_our_own(
    images: list[Dataset], written: Callable[[Dataset], Path]
) -> None:
    ours = segmentation(images, Manufacturer=MAKER, SOPInstanceUID=derive("a proposal"))
    changed = segmentation(images, Manufacturer=MAKER)

    assert read_segmentation(written(ours)).is_own
    assert not read_segmentation(written(changed)).is_own


def without(keyword: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        delattr(dataset, keyword)

    return change


def of_nothing(dataset: Dataset) -> None:
    del dataset.ReferencedSeriesSequence
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.DerivationImageSequence = []


def of_one_number(dataset: Dataset) -> None:
    dataset.SegmentSequence[1].SegmentNumber = 1


def unnumbered(dataset: Dataset) -> None:
    del dataset.SegmentSequence[1].SegmentNumber


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (without("ContentDate"), "ContentDate and ContentTime"),
        (without("ContentTime"), "ContentDate and ContentTime"),
        (without("SegmentSequence"), "describes no segment"),
        (of_nothing, "names no images"),
        (of_one_number, "same SegmentNumber"),
        (unnumbered, "no SegmentNumber"),
        (without("StudyInstanceUID"), "StudyInstanceUID"),
    ],
)
def test_what_cannot_be_told_is_said_to_people_without_the_patient(
    images: list[Dataset],
    written: Callable[[Dataset], Path],
    change: Callable[[Dataset], None],
    found: str,
) -> None:
    sent = segmentation(images, BOTH)
    change(sent)

    with pytest.raises(BadAttribute, match=found) as told:
        read_segmentation(written(sent))
    assert "PLANTED" not in str(told.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("value", ["20261340", "yesterday"])
def test_a_date_that_is_none_is_said_to_people(
    images: list[Dataset], written: Callable[[Dataset], Path], value: str
) -> None:
    path = written(segmentation(images, at="20260102 101500"))
    path.write_bytes(path.read_bytes().replace(b"20260102", value.encode()[:8].ljust(8)))

    with pytest.raises(BadAttribute, match="ContentDate"):
        read_segmentation(path)


def test_an_image_is_no_segmentation_and_half_a_file_is_none(
    images: list[Dataset], written: Callable[[Dataset], Path]
) -> None:
    with pytest.raises(BadAttribute, match="none of a segmentation's"):
        read_segmentation(written(images[0]))
    path = written(segmentation(images))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(BadAttribute):
        read_segmentation(path)
