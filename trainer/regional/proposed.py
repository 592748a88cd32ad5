"""What proposals cost: the same members on the same exams, with regions that no reader has seen.

Members learn from regions as readers draw them, and a service that judges at once looks at
proposed ones. An exam whose region cannot be proposed is refused in service: it is counted, and is
in no figure.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.loop import choose_device
from trainer.regional.cohort import REGIONS, RegionalCohort, Views
from trainer.regional.learner import Lesson, judge
from trainer.regional.patientwise import Slices
from trainer.regional.run import MemberResult, RegionalRun
from trainer.regional.selection import Choice
from trainer.regional.settings import PlanarConfig
from trainer.regional.table import headline_figures, paper_table
from trainer.statistics import FoldSummary, fold_summary
from worker.ensemble import ood_percentile
from worker.nets import build_planar


@dataclass(frozen=True)
class Overlap:
    """How far proposals of one region agree with what readers drew.

    Attributes:
        drawn: exams in which a reader drew it.
        not_proposed: of these, where it cannot be proposed, or is too small to be looked at.
        dice: twice what both hold over what each holds, by exam; 0 where nothing was proposed.
        lowest: of these.
    """

    region: str
    drawn: int
    not_proposed: int
    dice: FoldSummary
    lowest: float

    def __str__(self) -> str:
        return (
            f"{self.region}: Dice of proposed and drawn {self.dice.mean:.3f} ± {self.dice.sd:.3f} "
            f"(lowest {self.lowest:.3f}) in {self.drawn} exams, {self.not_proposed} of which "
            "cannot be proposed"
        )


def overlaps(cohort: RegionalCohort) -> tuple[Overlap, ...]:
    """Of each region that a reader drew in two exams at least."""
    found = []
    for region in REGIONS:
        proposals = cohort.proposals.get(region)
        if proposals is None or np.count_nonzero(drawn := np.isfinite(proposals.dice)) < 2:
            continue
        dice = proposals.dice[drawn]
        missing = drawn & ~np.isin(np.arange(len(cohort)), proposals.views.exam_of)
        found.append(
            Overlap(
                region,
                int(drawn.sum()),
                int(missing.sum()),
                fold_summary(dice.tolist()),
                float(dice.min()),
            )
        )
    return tuple(found)


def on_proposals(
    run: RegionalRun, cohort: RegionalCohort, models: Collection[str] = ()
) -> RegionalRun | None:
    """A run whose members judge what they have not seen by proposed regions.

    Args:
        run: finished.
        cohort: that it was trained on.
        models: rows of the table; all of them where none is named.

    Returns:
        None where no reader drew anything: the run itself is about proposals then.
    """
    if not overlaps(cohort):
        return None
    members = {
        (region, model): tuple(_judged(each, region, model, run, cohort) for each in found)
        for (region, model), found in run.members.items()
        if model in (models or run.config.models)
    }
    return replace(run, members=members)


def proposed_figures(
    again: RegionalRun | None, cohort: RegionalCohort, model: str
) -> dict[str, float]:
    """What goes onto a model's card of regions as proposed.

    Args:
        again: what `on_proposals` gave.
        cohort: that it was trained on.
        model: row of the table.
    """
    if again is None:
        return {}
    found = headline_figures(paper_table(again), model, "proposed_")
    for region in REGIONS:
        found[f"{region}_proposed_unlike"] = round(unlike(again, cohort, region, model), 3)
    for each in overlaps(cohort):
        found |= {
            f"{each.region}_dice": round(each.dice.mean, 3),
            f"{each.region}_dice_sd": round(each.dice.sd, 3),
            f"{each.region}_not_proposed": each.not_proposed,
        }
    return found


def unlike(run: RegionalRun, cohort: RegionalCohort, region: str, model: str) -> float:
    """Share of exams whose proposed region looks out of distribution to the member that judges it.

    The distances of members are those of regions as drawn. The service takes the mean percentile of
    all members, which of exams that these were trained on would say nothing.
    """
    far = []
    for member in run.members[region, model]:
        exam_of, vectors, _ = _looked_at(member, region, model, run, cohort)
        reference = member.reference()
        for exam in np.unique(exam_of):
            vector = vectors[exam_of == exam].mean(axis=0)
            far.append(ood_percentile([vector], (reference,)) > run.config.statement.ood_limit)
    return float(np.mean(far))


def _judged(
    member: MemberResult, region: str, model: str, run: RegionalRun, cohort: RegionalCohort
) -> MemberResult:
    exam_of, _, odds = _looked_at(member, region, model, run, cohort)
    return replace(member, slices=Slices(cohort.labels[exam_of], odds, exam_of))


def _looked_at(
    member: MemberResult, region: str, model: str, run: RegionalRun, cohort: RegionalCohort
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Exam, vector and log odds of each proposed crop that the member has not seen."""
    views = cohort.proposals[region].views if region in cohort.proposals else cohort.views[region]
    crops = views.of(np.unique(member.slices.exam_of))
    exam_of = views.exam_of[crops]
    config = run.config.models[model]
    device = choose_device(run.config.speed)
    network = build_planar(config.name, **config.config)
    network.load_state_dict(member.weights())
    lesson = _lesson(member, config, views, crops, cohort)
    vectors, odds = judge(network.to(device).eval(), lesson, device)
    return exam_of, vectors, odds


def _lesson(
    member: MemberResult,
    config: PlanarConfig,
    views: Views,
    crops: NDArray[np.int64],
    cohort: RegionalCohort,
) -> Lesson:
    if member.selected is None:
        return Lesson(views.crops[crops], None)
    places = {name: place for place, name in enumerate(cohort.recipe.radiomics.names)}
    choice = Choice(
        np.array([places[name] for name in member.selected.names], dtype=np.int64),
        np.array(member.selected.mean),
        np.array(member.selected.deviation),
    )
    width = build_planar(config.name, **config.config).expected_radiomics
    scaled = choice.scaled(views.radiomics[views.exam_of[crops]], width)
    return Lesson(views.crops[crops], scaled)
