"""One model in the region that decides, by exams that its members had not seen.

What report.html says of a cross-validation of whole heads is said of this one: log odds of all
outer folds together, by the mean over the slices, as the service decides.
"""

from dataclasses import dataclass

import numpy as np

from trainer.regional.cohort import RegionalCohort
from trainer.regional.operating import Kept, OutOfFold, fitted, kept, out_of_fold
from trainer.regional.run import RegionalRun
from trainer.reporting.characteristics import characteristics
from trainer.reporting.evaluate import (
    DECISIONS,
    TARGETS,
    Evaluation,
    discriminated,
    network_words,
    out_of_fold_scores,
    run_calibration,
    subgroups,
    thresholds_kept,
    weights,
)
from trainer.reporting.maps import Case, Maps, worst
from trainer.statistics import cross_conformal, decision_curve, operating_points

LAST = "last"


@dataclass(frozen=True, eq=False)
class Judged:
    """What one model is worth where it decides.

    Attributes:
        model: row of the table.
        region: that decides.
        evaluation: by regions as gathered.
        kept: what the thresholds of the statement do, by regions as proposed as well.
    """

    model: str
    region: str
    evaluation: Evaluation
    kept: tuple[Kept, ...]


def judged(
    run: RegionalRun, again: RegionalRun | None, cohort: RegionalCohort, model: str
) -> Judged:
    """Evaluate one model of a finished run.

    Args:
        run: finished.
        again: the same by regions as proposed; None where these are the same.
        cohort: that it was trained on.
        model: row of the table.
    """
    region, targets = run.config.bundle.decisive, run.config.statement
    drawn = out_of_fold(run.members[region, model], cohort)
    proposed = None if again is None else out_of_fold(again.members[region, model], cohort)
    found = fitted(drawn, proposed, targets)
    labels, fold_of = cohort.labels, drawn.fold_of
    scores = out_of_fold_scores(cohort, drawn.log_odds, fold_of, found)
    both = weights(LAST, cohort, drawn.log_odds, fold_of)
    evaluation = Evaluation(
        design="cross-validation",
        subject=f"{run.config.bundle.name} {run.config.bundle.version}",
        statement=run.config.bundle.statement,
        cohort=cohort,
        facts=_facts(run, model),
        network=run.config.models[model].name,
        honest=LAST,
        characteristics=characteristics(cohort),
        scores=scores,
        operation=found,
        weights=(both,),
        members=both.members,
        discrimination=discriminated(cohort, drawn.log_odds),
        bern=None,
        calibration=run_calibration(cohort, scores),
        ensemble_calibration="unverified",
        same_cohort=True,
        operating_points=operating_points(labels, scores.after, TARGETS),
        thresholds=thresholds_kept(labels, scores.after, found),
        conformal=cross_conformal(
            labels, scores.tested, fold_of, targets.missed_positives, targets.missed_negatives
        ),
        decisions=decision_curve(labels, scores.tested, DECISIONS),
        subgroups=tuple(subgroups(cohort, drawn.log_odds)),
        statements=(),
        learning=(),
        maps=Maps(None, 0, None, _worst(cohort, drawn, scores.after)),
        example=None,
        variants=(),
    )
    return Judged(model, region, evaluation, kept(drawn, proposed, found, targets))


def _worst(cohort: RegionalCohort, drawn: OutOfFold, probabilities: np.ndarray) -> tuple[Case, ...]:
    """Exams of the highest loss; their crops are shown, not planes of a head."""
    return tuple(
        Case(cohort.exams[exam].exam, int(cohort.labels[exam]), float(probabilities[exam]), None)
        for exam in drawn.exams[worst(drawn.labels, probabilities)]
    )


def _facts(run: RegionalRun, model: str) -> dict[str, str]:
    config, network = run.config, run.config.models[model]
    fit = config.fit
    environment = run.facts.get("environment", {})
    return {
        "network": network_words(network.name, network.config),
        "first weights": "random" if network.imagenet is None else "ImageNet",
        "folds": f"{fit.folds} outer and {fit.inner_folds} inner ones, stratified by label, "
        "patients whole",
        "epochs": f"{' or '.join(map(str, fit.epochs))}, batch {fit.batch_size}",
        "optimiser": f"AdamW, learning rate {' or '.join(f'{e:g}' for e in fit.learning_rates)}, "
        f"weight decay {fit.weight_decay:g}",
        "loss": "cross-entropy weighted by the inverse class ratio",
        "thresholds of the table": "halfway between both labels, found by the inner folds",
        "seed": str(fit.seed),
        "preparation": f"crops of {config.preparation.side} x {config.preparation.side} pixels, "
        f"{len(config.preparation.radiomics.names)} features measured",
        "cohort fingerprint": str(run.facts.get("cohort_fingerprint", ""))[:16],
        "made with": ", ".join(f"{name} {value}" for name, value in environment.items()),
    }
