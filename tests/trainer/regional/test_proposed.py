"""Members on regions as proposed: the same judgement of the same crops, and who is left out."""

from dataclasses import replace

import numpy as np

from tests.trainer.regional.conftest import MODEL
from trainer.regional.cohort import Proposals
from trainer.regional.proposed import on_proposals, overlaps, proposed_figures
from trainer.regional.table import paper_table


def with_proposals(cohort, change=lambda views: views, dice=0.8):
    everywhere = np.full(len(cohort), dice)
    return replace(
        cohort,
        proposals={
            region: Proposals(change(views), everywhere) for region, views in cohort.views.items()
        },
    )


def test_where_proposed_and_drawn_are_the_same_members_say_the_same(trained, toy_regions):
    again = on_proposals(trained, with_proposals(toy_regions))

    for place, members in trained.members.items():
        for before, after in zip(members, again.members[place], strict=True):
            np.testing.assert_array_equal(before.slices.exam_of, after.slices.exam_of)
            np.testing.assert_allclose(before.slices.log_odds, after.slices.log_odds, atol=1e-5)


def test_other_crops_and_other_features_are_judged_anew(trained, toy_regions):
    def noisy(views):
        rng = np.random.default_rng(0)
        return replace(views, radiomics=rng.normal(0, 1, views.radiomics.shape))

    table = {row.region: row for row in paper_table(trained) if row.strategy == "mean_logit"}
    again = paper_table(on_proposals(trained, with_proposals(toy_regions, noisy)))
    after = {row.region: row for row in again if row.strategy == "mean_logit"}

    telling = table["sublentiform"].figures["auroc"].mean
    assert telling > 0.8
    assert after["sublentiform"].figures["auroc"].mean < telling


def test_exams_without_a_proposal_are_counted_and_in_no_figure(trained, toy_regions):
    def without_the_first(views):
        kept = views.exam_of >= 4
        radiomics = views.radiomics.copy()
        radiomics[:4] = np.nan
        return replace(
            views, crops=views.crops[kept], exam_of=views.exam_of[kept], radiomics=radiomics
        )

    cohort = with_proposals(toy_regions, without_the_first)

    for each in overlaps(cohort):
        assert (each.drawn, each.not_proposed, each.lowest) == (40, 4, 0.8)
    again = on_proposals(trained, cohort)
    for members in again.members.values():
        judged = np.concatenate([np.unique(member.slices.exam_of) for member in members])
        assert sorted(judged) == list(range(4, 40))
        assert all(np.isfinite(member.slices.log_odds).all() for member in members)
    card = proposed_figures(again, cohort, MODEL)
    assert card["sublentiform_not_proposed"] == 4
    assert card["sublentiform_dice"] == 0.8
    assert 0.5 < card["sublentiform_proposed_auroc"] <= 1


def test_a_fold_that_is_left_with_one_label_has_no_figures(trained, toy_regions):
    def negatives_only(views):
        kept = toy_regions.labels[views.exam_of] == 0
        return replace(views, crops=views.crops[kept], exam_of=views.exam_of[kept])

    again = on_proposals(trained, with_proposals(toy_regions, negatives_only))

    assert {each for row in paper_table(again) for each in row.figures.values()} == {None}


def test_where_nobody_drew_there_is_nothing_to_compare(trained, toy_regions):
    assert on_proposals(trained, toy_regions) is None
    assert proposed_figures(None, toy_regions, MODEL) == {}


def test_proposals_that_look_like_nothing_before_are_counted(trained, toy_regions):
    def strange(views):
        return replace(views, radiomics=views.radiomics + 100)

    usual, other = (
        proposed_figures(on_proposals(trained, cohort), cohort, MODEL)
        for cohort in (with_proposals(toy_regions), with_proposals(toy_regions, strange))
    )

    assert usual["sublentiform_proposed_unlike"] < 0.2
    assert other["sublentiform_proposed_unlike"] == 1
