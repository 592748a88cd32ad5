"""Segmentations as readers send them back, laid on the volume: bit for bit, or refused in words."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import pack_bits
from pydicom.uid import JPEG2000Lossless, generate_uid
from scipy.spatial.transform import Rotation

from listener.segmentation import PROPERTY_CATEGORY
from tests.worker.region_study import commission_of, judged_from
from worker.drawn import _paint, read_drawn
from worker.limits import Limits
from worker.pipeline import estimate, refuse
from worker.quality import Reason, UnusableStudy
from worker.regions import find_sublentiform
from worker.results.result import Encoder, Kind, objects
from worker.scene import survey
from worker.stopwatch import Stopwatch

TISSUE = ("85756007", "SCT", "Tissue")
BOTH = ("Ventricles", "Sublentiform")


@pytest.fixture(scope="session")
def volume(estimated_regions):
    return estimated_regions.outcome.volume


@pytest.fixture(scope="session")
def truth(phantom):
    """What a careful reader draws: the phantom's own regions."""
    return {"ventricles": phantom.ventricles, "sublentiform": phantom.sublentiform}


@pytest.fixture(scope="session")
def planes(truth):
    """The same as (slices, rows, columns), rows to posterior, columns to the left."""
    return {name: np.flip(mask, (0, 1)).transpose(2, 1, 0) for name, mask in truth.items()}


@pytest.fixture(scope="session")
def draw(study):
    """Make a segmentation as a viewer would."""
    images = [dcmread(path) for path in study]
    for image in images:
        for keyword in ("PatientBirthDate", "AccessionNumber", "ReferringPhysicianName"):
            setattr(image, keyword, image.get(keyword, ""))

    def made(masks, kind="BINARY", labels=BOTH, **how):
        segments = [
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=label,
                segmented_property_category=highdicom.sr.CodedConcept(*PROPERTY_CATEGORY),
                segmented_property_type=highdicom.sr.CodedConcept(*TISSUE),
                algorithm_type="MANUAL",
            )
            for number, label in enumerate(labels, start=1)
        ]
        pixels = np.stack(list(masks), axis=-1)
        return highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=pixels if pixels.dtype == np.float32 else pixels.astype(np.uint8),
            segmentation_type=kind,
            segment_descriptions=segments,
            series_instance_uid=generate_uid(),
            series_number=100,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="viewer",
            manufacturer_model_name="viewer",
            software_versions="1",
            device_serial_number="1",
            **how,
        )

    return made


@pytest.fixture
def read(volume, tmp_path):
    """Lay a segmentation on the volume, through a file."""

    def of(drawing, **limits):
        return read_drawn([saved(drawing, tmp_path)], "infection", volume, Limits(**limits))

    return of


def saved(drawing, folder: Path) -> Path:
    path = folder / "drawn.dcm"
    if isinstance(drawing, bytes):
        path.write_bytes(drawing)
    else:
        drawing.save_as(path, enforce_file_format=True)
    return path


def with_frames(drawing, frames, groups):
    """The same segmentation with other frames."""
    edited = deepcopy(drawing)
    edited.PerFrameFunctionalGroupsSequence = groups
    edited.NumberOfFrames = len(frames)
    edited.Rows, edited.Columns = frames[0].shape
    edited.PixelData = pack_bits(np.array(frames, dtype=np.uint8))
    return edited


def shuffled(drawing):
    order = np.random.default_rng(0).permutation(int(drawing.NumberOfFrames))
    groups = drawing.PerFrameFunctionalGroupsSequence
    return with_frames(drawing, drawing.pixel_array[order], [groups[at] for at in order])


def upside_down(drawing):
    """Rows from the last to the first."""
    # One by one: highdicom lets frames of one place share its item.
    groups = [deepcopy(each) for each in drawing.PerFrameFunctionalGroupsSequence]
    shared = drawing.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    spacing = float(shared.PixelMeasuresSequence[0].PixelSpacing[0])
    for group in groups:
        place = group.PlanePositionSequence[0]
        first = np.array(place.ImagePositionPatient, dtype=float)
        last = first + cosines[3:] * spacing * (drawing.Rows - 1)
        place.ImagePositionPatient = [f"{each:.6f}" for each in last]
    edited = with_frames(drawing, drawing.pixel_array[:, ::-1], groups)
    orientation = edited.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [*cosines[:3].tolist(), *(-cosines[3:]).tolist()]
    return edited


def twice_as_fine(drawing):
    # One by one: highdicom lets frames of one place share its item.
    groups = [deepcopy(each) for each in drawing.PerFrameFunctionalGroupsSequence]
    shared = drawing.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    spacing = float(shared.PixelMeasuresSequence[0].PixelSpacing[0])
    for group in groups:
        place = group.PlanePositionSequence[0]
        first = np.array(place.ImagePositionPatient, dtype=float)
        first -= (cosines[:3] + cosines[3:]) * spacing / 4
        place.ImagePositionPatient = [f"{each:.6f}" for each in first]
    frames = drawing.pixel_array.repeat(2, axis=1).repeat(2, axis=2)
    edited = with_frames(drawing, frames, groups)
    measures = edited.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [spacing / 2, spacing / 2]
    return edited


def thinner(drawing):
    """Five frames for every slice, of which the outer four hold something else."""
    groups, frames = [], []
    shared = drawing.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(cosines[:3], cosines[3:])
    for group, frame in zip(
        drawing.PerFrameFunctionalGroupsSequence, drawing.pixel_array, strict=True
    ):
        for step in range(-2, 3):
            other = deepcopy(group)
            place = other.PlanePositionSequence[0]
            at = np.array(place.ImagePositionPatient, dtype=float) + 1.1 * step * normal
            place.ImagePositionPatient = [f"{each:.6f}" for each in at]
            groups.append(other)
            frames.append(np.roll(frame, 10 * step, axis=1))
    return with_frames(drawing, frames, groups)


def test_our_own_proposal_comes_back_bit_for_bit(judged_regions, volume, tmp_path):
    (made,) = (each for each in objects(judged_regions) if each.kind is Kind.PROPOSAL)
    path = saved(Encoder().encode(made.dataset), tmp_path)

    found = read_drawn([path], "infection", volume)

    (used,) = found.segmentations
    assert (used.sop_uid, used.series_uid) == (made.sop_uid, made.series_uid)
    assert used.sop_class_uid == made.sop_class_uid
    assert found.masks.keys() == {"ventricles", "sublentiform"}
    for each in judged_regions.regions:
        np.testing.assert_array_equal(found.masks[each.name], each.mask)


def test_nobody_drew(volume):
    assert read_drawn([], "infection", volume) is None


@pytest.mark.parametrize("edit", [deepcopy, shuffled, upside_down, twice_as_fine, thinner])
def test_where_pixels_lie_decides_not_how_frames_are_written(edit, draw, planes, truth, read):
    found = read(edit(draw(planes.values())))

    for name, mask in truth.items():
        np.testing.assert_array_equal(found.masks[name], mask)


@pytest.mark.parametrize("seed", range(6))
def test_a_frame_paints_the_voxels_whose_centres_lie_in_it_wherever_it_lies(seed, volume):
    rng = np.random.default_rng(seed)
    source = volume.slices[len(volume.slices) // 2]
    tilt = Rotation.from_rotvec(rng.uniform(-0.02, 0.02, 3)).as_matrix()
    place = replace(
        source,
        position=source.position + rng.uniform(-25, 25, 3),
        row=tilt @ source.row,
        column=tilt @ source.column,
        row_spacing=source.row_spacing * rng.uniform(0.5, 2),
    )
    drawn = np.zeros((source.rows, source.columns), dtype=bool)
    top, left = rng.integers(0, 80, 2)
    drawn[top : top + 40, left : left + 30] = rng.random((40, 30)) < 0.5
    half = float(rng.uniform(0.5, 9))
    painted = np.zeros(volume.voxels.shape, dtype=bool)

    _paint(painted, volume, place, drawn, half)

    index = np.stack([*np.indices(painted.shape), np.ones(painted.shape)], axis=-1)
    column, row, depth, _ = np.moveaxis(
        index @ (np.linalg.inv(place.pixel_to_ras()) @ volume.affine).T, -1, 0
    )
    row, column = np.rint(row).astype(int), np.rint(column).astype(int)
    inside = (row >= 0) & (row < drawn.shape[0]) & (column >= 0) & (column < drawn.shape[1])
    expected = inside & (np.abs(depth) <= half)
    expected[expected] = drawn[row[expected], column[expected]]
    np.testing.assert_array_equal(painted, expected)
    assert painted.any()


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("omit", [True, False])
def test_every_encoding_is_read(kind, omit, draw, planes, truth, read):
    drawing = draw(planes.values(), kind, omit_empty_frames=omit)
    assert (int(drawing.NumberOfFrames) < len(planes["ventricles"])) or not omit or kind != "BINARY"

    found = read(drawing)

    for name, mask in truth.items():
        np.testing.assert_array_equal(found.masks[name], mask)


def test_of_each_region_the_latest_drawing_counts(draw, planes, truth, volume, tmp_path):
    nothing = np.zeros_like(planes["ventricles"])
    both = draw([planes["ventricles"], nothing])
    one = draw([planes["sublentiform"]], labels=BOTH[1:])
    both.ContentDate, one.ContentDate = "20260101", "20260102"
    paths = []
    for name, drawing in {"late": one, "early": both}.items():
        (tmp_path / name).mkdir()
        paths.append(saved(drawing, tmp_path / name))

    found = read_drawn(paths, "infection", volume)

    for name, mask in truth.items():
        np.testing.assert_array_equal(found.masks[name], mask)
    used = {each.sop_uid for each in found.segmentations}
    assert used == {both.SOPInstanceUID, one.SOPInstanceUID}


def test_of_a_fractional_drawing_half_of_its_scale_is_the_edge(draw, planes, truth, read):
    soft = [np.where(each, 0.6, 0.4).astype(np.float32) for each in planes.values()]

    found = read(draw(soft, "FRACTIONAL", max_fractional_value=100))

    np.testing.assert_array_equal(found.masks["ventricles"], truth["ventricles"])


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_left_and_a_right_segment_are_one_region(kind, draw, planes, truth, read):
    middle = planes["ventricles"].shape[2] // 2
    left, right = planes["ventricles"].copy(), planes["ventricles"].copy()
    left[..., :middle] = False
    right[..., middle:] = False

    found = read(draw([left, right], kind, ("Left lateral ventricle", "Right-Lateral-Ventricle")))

    assert left.any()
    assert right.any()
    assert found.masks.keys() == {"ventricles"}
    np.testing.assert_array_equal(found.masks["ventricles"], truth["ventricles"])


def test_the_region_that_nobody_drew_is_proposed_from_the_one_that_was(
    draw, planes, truth, study, analysis, tmp_path
):
    lower = np.roll(planes["ventricles"], -2, axis=0)
    path = saved(draw([lower], labels=("Ventricles",)), tmp_path)

    outcome = estimate(commission_of(study, path), analysis, Stopwatch()).outcome

    ventricles, sublentiform = outcome.regions
    assert (ventricles.origin, sublentiform.origin) == ("drawn", "proposed")
    drawn = np.roll(truth["ventricles"], -2, axis=2)
    np.testing.assert_array_equal(ventricles.mask, drawn)
    scene = survey(outcome.volume.voxels, outcome.volume.affine)
    np.testing.assert_array_equal(sublentiform.mask, find_sublentiform(scene, drawn))
    assert (sublentiform.mask != find_sublentiform(scene, truth["ventricles"])).any()
    assert outcome.proposed == (sublentiform,)
    named = {each.SOPInstanceUID for each in outcome.evidence([])}
    (segmentation,) = outcome.drawn.segmentations
    assert segmentation.sop_uid in named


def sagittal(drawing):
    edited = deepcopy(drawing)
    orientation = edited.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    return edited


def tilted(drawing):
    edited = deepcopy(drawing)
    orientation = edited.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 0.996, 0.087]  # 5 degrees
    return edited


def moved(drawing):
    edited = deepcopy(drawing)
    for group in edited.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = [place.ImagePositionPatient[0] + 900, 0, 0]
    return edited


def wiped(drawing):
    edited = deepcopy(drawing)
    edited.PixelData = bytes(len(edited.PixelData))
    return edited


def half_wiped(drawing, segment):
    """One of the segments is described, and its pixels are gone."""
    frames = drawing.pixel_array.copy()
    for frame, group in zip(frames, drawing.PerFrameFunctionalGroupsSequence, strict=True):
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment:
            frame[:] = 0
    return with_frames(drawing, frames, drawing.PerFrameFunctionalGroupsSequence)


def cut_short(drawing):
    edited = deepcopy(drawing)
    edited.PixelData = edited.PixelData[:1000]
    return edited


def garbled(drawing):
    edited = deepcopy(drawing)
    edited.file_meta.TransferSyntaxUID = JPEG2000Lossless
    edited["PixelData"].is_undefined_length = True
    edited.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0abcd"
    return edited


def without(keyword):
    def edit(drawing):
        edited = deepcopy(drawing)
        edited.pop(keyword)
        return edited

    return edit


def placeless(drawing):
    edited = deepcopy(drawing)
    del edited.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    return edited


def of_more_frames(drawing):
    edited = deepcopy(drawing)
    edited.NumberOfFrames = 100_000
    return edited


def of_no_known_kind(drawing):
    edited = deepcopy(drawing)
    edited.SegmentationType = "SURFACE"
    return edited


def numberless(drawing):
    edited = deepcopy(drawing)
    for group in edited.PerFrameFunctionalGroupsSequence:
        del group.SegmentIdentificationSequence
    return edited


def of_other_coordinates(drawing):
    edited = deepcopy(drawing)
    edited.FrameOfReferenceUID = generate_uid()
    return edited


def torn(drawing):
    return Encoder().encode(drawing)[:-5000]


BAD = {
    sagittal: "another orientation",
    tilted: "another orientation",
    moved: "no pixel of it within the volume",
    wiped: "no pixel of it within the volume",
    cut_short: "pixels",
    garbled: "pixels",
    without("PixelData"): "pixels",
    without("PerFrameFunctionalGroupsSequence"): "",
    without("SharedFunctionalGroupsSequence"): "where it lies",
    without("SegmentSequence"): "does not say what it shows",
    placeless: "where it lies",
    of_more_frames: "cannot be decoded",
    of_no_known_kind: "unknown type",
    numberless: "no pixel of it",
    of_other_coordinates: "Frame of Reference",
    without("FrameOfReferenceUID"): "Frame of Reference",
    torn: "",
}


@pytest.mark.filterwarnings("ignore")  # pydicom's, on what the test itself wrote
@pytest.mark.parametrize(("edit", "found"), BAD.items(), ids=[each.__name__ for each in BAD])
def test_what_cannot_be_laid_on_the_volume_is_refused_in_words(edit, found, draw, planes, read):
    with pytest.raises(UnusableStudy, match=found) as refusal:
        read(edit(draw(planes.values())))
    assert refusal.value.reason is Reason.BAD_DRAWING
    assert refusal.value.needed.startswith("a segmentation drawn on the slices of the series")


def test_another_object_is_no_drawing(study, volume):
    with pytest.raises(UnusableStudy, match="does not say what it shows") as refusal:
        read_drawn(study[:1], "infection", volume)
    assert refusal.value.reason is Reason.BAD_DRAWING


def test_segments_of_other_things_are_no_drawing_of_a_region(draw, planes, read):
    with pytest.raises(UnusableStudy, match="no segment of a region") as refusal:
        read(draw(planes.values(), labels=("Tumour", "Oedema")))
    assert refusal.value.reason is Reason.BAD_DRAWING


@pytest.mark.parametrize("limits", [{"voxels": 100_000}, {"series_bytes": 10_000}])
def test_a_drawing_beyond_the_limits_is_refused_before_it_is_decoded(draw, planes, read, limits):
    with pytest.raises(UnusableStudy) as refusal:
        read(draw(planes.values()), **limits)
    assert refusal.value.reason is Reason.TOO_LARGE


def test_a_region_that_a_reader_wiped_out_is_neither_measured_nor_proposed(
    draw, planes, study, analysis, tmp_path
):
    drawing = half_wiped(draw(planes.values()), segment=1)

    outcome = estimate(
        commission_of(study, saved(drawing, tmp_path)), analysis, Stopwatch()
    ).outcome

    assert [(each.name, each.origin) for each in outcome.regions] == [("sublentiform", "drawn")]
    (unmeasured,) = outcome.unmeasured
    assert unmeasured.name == "ventricles"
    assert "without a pixel" in unmeasured.refusal.found


def test_where_the_deciding_region_was_wiped_out_nothing_is_judged(
    draw, planes, study, analysis, tmp_path
):
    drawing = half_wiped(draw(planes.values()), segment=2)
    with pytest.raises(UnusableStudy, match="region sublentiform without a pixel") as refusal:
        estimate(commission_of(study, saved(drawing, tmp_path)), analysis, Stopwatch())
    assert refusal.value.reason is Reason.BAD_DRAWING


def test_a_bad_drawing_ends_in_a_refusal_and_not_in_the_proposal(
    draw, planes, study, analysis, tmp_path
):
    path = saved(wiped(draw(planes.values())), tmp_path)
    asked = commission_of(study, path)
    with pytest.raises(UnusableStudy) as refusal:
        estimate(asked, analysis, Stopwatch())

    found = {each.kind for each in objects(refuse(asked, refusal.value))}
    assert found == {Kind.REFUSAL, Kind.REFUSAL_ENHANCED, Kind.REFUSAL_SUMMARY}


@pytest.mark.parametrize("ends", ["judged", "refused"])
def test_a_drawing_in_vain_is_told_in_words_with_the_next_report(
    ends, draw, planes, study, analysis, tmp_path
):
    drawing = draw(planes.values(), labels=("Tumour", "Oedema"))
    drawing.SeriesDescription = "My drawing"
    asked = commission_of(study, saved(drawing, tmp_path))
    if ends == "judged":
        outcome = judged_from(estimate(asked, analysis, Stopwatch()), asked)
    else:
        refusal = UnusableStudy(Reason.NO_REGION, "nothing", "something")
        outcome = refuse(asked, refusal)

    kind = Kind.SUMMARY if ends == "judged" else Kind.REFUSAL_SUMMARY
    report = next(each.dataset for each in objects(outcome) if each.kind is kind)
    said = [each.value for each in report.iterall() if each.keyword == "TextValue"]
    drawn_on = str(drawing.ContentDate)
    day = f"{drawn_on[:4]}-{drawn_on[4:6]}-{drawn_on[6:8]}"
    assert (
        f'A segmentation that was received (series 100 "My drawing", of {day}) was not used: a '
        "segmentation that names none of: ventricles, sublentiform; call the segments "
        '"ventricles" or "sublentiform", and send it again as a new object.'
    ) in said
    assert outcome.unused
    if ends == "judged":
        assert {each.origin for each in outcome.regions} == {"proposed"}
        assert outcome.drawn is None


def test_a_drawing_that_is_not_to_be_had_says_nothing_of_the_study(volume, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_drawn([tmp_path / "absent.dcm"], "infection", volume)
