"""Two regions on a phantom whose regions are known, judged by members that learnt nothing."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import expit

from tests.worker.region_study import RECIPE, REGIONS, WEIGHED, commission_of, judged_from
from trainer.infection import draw_infection
from trainer.phantom_study import Visit, write_axial
from trainer.phantom_t2 import render_t2
from worker.analyses import open_analysis
from worker.analyses.interface import Drawn, ReaderNeeded, SegmentationUids
from worker.bundle import load_bundle
from worker.crops import look
from worker.pipeline import estimate, propose
from worker.preprocess import canonical
from worker.quality import Reason, UnusableStudy, check_volume, no_series
from worker.results.result import Encoder, Kind, objects
from worker.scene import survey
from worker.stopwatch import Stopwatch
from worker.volume import read_volume


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def test_both_regions_are_found_where_the_phantom_has_them(estimated_regions, phantom):
    found = {each.name: each for each in estimated_regions.outcome.regions}

    assert tuple(found) == REGIONS
    assert dice(found["ventricles"].mask, phantom.ventricles) > 0.9
    assert dice(found["sublentiform"].mask, phantom.sublentiform) > 0.7
    voxel_ml = abs(np.linalg.det(phantom.affine[:3, :3])) / 1000
    for each in found.values():
        assert each.origin == "proposed"
        assert each.volume_ml == pytest.approx(np.count_nonzero(each.mask) * voxel_ml)


def test_a_region_s_score_is_the_mean_of_its_crops_log_odds_softened(estimated_regions, analysis):
    ensemble, outcome = analysis._ensemble, estimated_regions.outcome
    scene = survey(outcome.volume.voxels, outcome.volume.affine)
    for region in outcome.regions:
        view = look(scene, region.mask, RECIPE)
        odds = [ensemble.member_log_odds(region.name, number, view) for number in range(2)]

        assert all(each.shape == (len(view.places),) for each in odds)
        expected = [
            expit(each.mean() / temperature)
            for each, temperature in zip(odds, (1.0, 2.0), strict=True)
        ]
        assert region.score.members == pytest.approx(expected, abs=1e-12)
        assert region.score.probability == pytest.approx(np.mean(expected), abs=1e-12)
        assert region.score.disagreement == pytest.approx(np.std(expected), abs=1e-12)


def test_the_decisive_region_gives_the_prediction(estimated_regions, region_bundle):
    outcome = estimated_regions.outcome
    ventricles, sublentiform = outcome.regions

    assert (ventricles.decisive, sublentiform.decisive) == (False, True)
    assert outcome.prediction.probability == sublentiform.score.probability
    assert outcome.prediction.members == sublentiform.score.members
    assert ventricles.score.probability != sublentiform.score.probability

    other = open_analysis(replace(load_bundle(region_bundle), decisive="ventricles"))
    drawn = Drawn(
        {each.name: each.mask for each in outcome.regions}, (SegmentationUids("1.1", "1.2", "1.3"),)
    )
    judged = other.judge(outcome.volume, drawn, Stopwatch())
    assert judged.prediction.probability == ventricles.score.probability
    assert {each.origin for each in judged.regions} == {"drawn"}


def test_features_that_members_weigh_are_told_with_their_values(estimated_regions):
    outcome = estimated_regions.outcome
    scene = survey(outcome.volume.voxels, outcome.volume.affine)
    for region in outcome.regions:
        vector = look(scene, region.mask, RECIPE).radiomics
        values = dict(zip(vector.names, vector.values, strict=True))

        assert region.features == tuple((name, values[name]) for name in WEIGHED)


def test_the_map_lies_in_the_decisive_region_s_crops_and_nowhere_else(
    judged_regions, estimated_regions
):
    found, view = judged_regions.map, estimated_regions.judgement.view
    decisive = next(each for each in judged_regions.regions if each.decisive)
    squares = np.zeros(found.heat.shape, dtype=bool)
    for place in view.places:
        (x, y), (width, height) = place.centre, place.sides
        i, j = np.ogrid[: squares.shape[0], : squares.shape[1]]
        inside = (abs(i - x) <= width / 2) & (abs(j - y) <= height / 2)
        squares[..., place.slice] |= inside

    assert found.crops == len(view.places) > 1
    assert found.strongest > 0
    assert not found.heat[~squares].any()
    assert not (found.looked & ~squares).any()
    rim = squares & ~ndimage.binary_erosion(squares, np.ones((3, 3, 1)))
    assert not (squares & ~found.looked & ~rim).any()
    looked_at = np.flatnonzero(decisive.mask.sum(axis=(0, 1)) >= RECIPE.fewest_pixels)
    assert np.flatnonzero(squares.any(axis=(0, 1))).tolist() == looked_at.tolist()
    assert squares[..., looked_at][decisive.mask[..., looked_at]].all()


def test_a_second_run_gives_the_same_bytes(judged_regions, study, analysis):
    asked = commission_of(study)
    again = judged_from(estimate(asked, analysis, Stopwatch()), asked)

    for one, other in zip(objects(judged_regions), objects(again), strict=True):
        assert Encoder().encode(one.dataset) == Encoder().encode(other.dataset)
        assert one.layers == other.layers


def test_a_site_that_waits_for_a_reader_judges_nothing_before(
    region_bundle, study, estimated_regions
):
    waiting = open_analysis(load_bundle(region_bundle), waits_for_reader=True)
    asked = commission_of(study)
    with pytest.raises(ReaderNeeded) as raised:
        estimate(asked, waiting, Stopwatch())

    proposed = propose(asked, raised.value, waiting.bundle)
    assert [each.kind for each in objects(proposed)] == [Kind.PROPOSAL, Kind.NOTE]
    for one, other in zip(proposed.regions, estimated_regions.outcome.regions, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
        assert one.score is None
    drawn = Drawn(
        {each.name: each.mask for each in proposed.regions},
        (SegmentationUids("1.1", "1.2", "1.3"),),
    )
    judged = waiting.judge(proposed.volume, drawn, Stopwatch())
    assert judged.prediction == estimated_regions.outcome.prediction


def test_without_fluid_no_region_is_found(estimated_regions, analysis):
    volume = estimated_regions.outcome.volume
    dull = np.minimum(volume.voxels, np.percentile(volume.voxels, 85))

    with pytest.raises(UnusableStudy) as refusal:
        analysis.judge(replace(volume, voxels=dull), None, Stopwatch())
    assert refusal.value.reason is Reason.NO_REGION
    assert "axial T2" in refusal.value.needed


@pytest.fixture(scope="module")
def swollen(estimated_regions, phantom):
    """A head whose ventricles are slits: brain where their fluid was."""
    volume = estimated_regions.outcome.volume
    lost = ndimage.binary_dilation(phantom.ventricles, np.ones((5, 5, 3)))
    brain = np.median(volume.voxels[phantom.sublentiform])
    return replace(volume, voxels=np.where(lost, brain, volume.voxels).astype(np.float32))


def test_with_slit_ventricles_the_drawn_region_decides_alone(swollen, phantom, analysis):
    drawn = Drawn({"sublentiform": phantom.sublentiform}, (SegmentationUids("1.1", "1.2", "1.3"),))

    judged = analysis.judge(swollen, drawn, Stopwatch())

    (region,) = judged.regions
    assert (region.name, region.origin, region.decisive) == ("sublentiform", "drawn", True)
    assert judged.prediction.probability == region.score.probability
    (absent,) = judged.unmeasured
    assert (absent.name, absent.refusal.reason) == ("ventricles", Reason.NO_REGION)
    assert "of fluid in the middle of the head" in absent.refusal.found


def test_with_slit_ventricles_and_no_drawing_a_reader_is_asked_for_the_deciding_region(
    swollen, analysis
):
    with pytest.raises(UnusableStudy, match="of fluid in the middle of the head") as refusal:
        analysis.judge(swollen, None, Stopwatch())
    assert refusal.value.reason is Reason.NO_REGION
    assert 'with a segment called "sublentiform"' in refusal.value.needed


def test_the_other_region_may_be_too_small_to_be_looked_at(estimated_regions, analysis):
    outcome = estimated_regions.outcome
    ventricles, sublentiform = (each.mask for each in outcome.regions)
    speck = np.zeros_like(ventricles)
    speck[60:63, 60:63, 10] = True
    drawn = Drawn(
        {"ventricles": speck, "sublentiform": sublentiform},
        (SegmentationUids("1.1", "1.2", "1.3"),),
    )

    judged = analysis.judge(outcome.volume, drawn, Stopwatch())

    assert [each.name for each in judged.regions] == ["sublentiform"]
    assert judged.prediction == outcome.prediction
    (absent,) = judged.unmeasured
    assert absent.refusal.found.startswith("9 pixels of the region")


def test_a_drawn_region_too_small_to_be_looked_at_is_refused(estimated_regions, analysis):
    outcome = estimated_regions.outcome
    tiny = np.zeros_like(outcome.regions[1].mask)
    tiny[60:63, 60:63, 10] = True

    with pytest.raises(UnusableStudy, match="9 pixels of the region") as refusal:
        analysis.judge(
            outcome.volume,
            Drawn({"sublentiform": tiny}, (SegmentationUids("1.1", "1.2", "1.3"),)),
            Stopwatch(),
        )
    assert refusal.value.reason is Reason.NO_REGION


def resampled(volume, step):
    """Every n-th slice or pixel of a volume."""
    x, y, z = step
    planes = volume.planes[::z, ::y, ::x]
    slices = tuple(
        replace(
            each,
            row_spacing=each.row_spacing * y,
            column_spacing=each.column_spacing * x,
            rows=planes.shape[1],
            columns=planes.shape[2],
        )
        for each in volume.slices[::z]
    )
    affine = volume.affine @ np.diag([x, y, z, 1.0])
    voxels, affine = canonical(volume.voxels[::x, ::y, ::z], affine)
    return replace(volume, voxels=voxels, affine=affine, slices=slices, planes=planes)


@pytest.mark.parametrize(
    ("step", "reason", "found"),
    [
        ((1, 1, 2), Reason.THICK_SLICES, "slices of 11.0 mm"),
        ((2, 2, 1), Reason.THICK_SLICES, "pixels of 3.6 mm"),
    ],
)
def test_a_coarse_series_is_refused(estimated_regions, step, reason, found):
    volume = estimated_regions.outcome.volume
    check_volume(volume, "infection")

    with pytest.raises(UnusableStudy) as refusal:
        check_volume(resampled(volume, step), "infection")
    assert (refusal.value.reason, refusal.value.found) == (reason, found)
    assert refusal.value.needed == "slices of at most 7 mm and pixels of at most 2 mm"


def test_a_series_of_few_slices_is_refused(study, analysis):
    with pytest.raises(UnusableStudy) as refusal:
        estimate(commission_of(study[:14]), analysis, Stopwatch())
    assert (refusal.value.reason, refusal.value.found) == (Reason.TOO_FEW_SLICES, "14 slices")


def test_a_head_that_ends_above_the_region_is_refused(analysis, tmp_path):
    upper = render_t2(draw_infection(3, positive=False), 128, slices=range(9, 24))
    paths = write_axial(upper, Visit(), tmp_path)

    with pytest.raises(UnusableStudy) as refusal:
        estimate(commission_of(paths), analysis, Stopwatch())
    assert refusal.value.reason is Reason.PARTIAL_HEAD


def test_a_study_without_axial_t2_is_told_what_is_needed(study, analysis):
    asked = commission_of(study[:1])
    asked = replace(asked, job=replace(asked.job, series_uid=None))
    with pytest.raises(UnusableStudy) as refusal:
        estimate(asked, analysis, Stopwatch())

    assert refusal.value.reason is Reason.NO_SERIES
    assert refusal.value.found.startswith("series ")
    assert refusal.value.needed == no_series("", "infection").needed
    assert "axial T2-weighted" in refusal.value.needed


def test_the_volume_is_read_as_the_phantom_was_written(study, phantom):
    volume = read_volume(study)

    np.testing.assert_allclose(volume.voxels, phantom.voxels, atol=1e-3)
    np.testing.assert_allclose(volume.affine, phantom.affine, atol=1e-4)
