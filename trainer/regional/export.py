"""The bundle of one model on both regions, with proof that the worker reproduces it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.export import CannotExport, described, proven, reference_arrays, write_files
from trainer.operation import Operation
from trainer.regional.cohort import RegionalCohort
from trainer.regional.operating import Kept, fitted, kept, kept_figures, out_of_fold
from trainer.regional.proposed import on_proposals, proposed_figures
from trainer.regional.run import MemberResult, RegionalRun
from worker.appearance import of_region, spreads
from worker.bundle import (
    MeasuredWith,
    Network,
    RegionBundle,
    RegionDescription,
    RegionsDescription,
    load_bundle,
    reference_keys,
)
from worker.crops import RegionView
from worker.nets import resolved
from worker.radiomics.extraction import LIBRARY, VERSION
from worker.radiomics.specimen import measure
from worker.radiomics.vector import Provenance, Vector
from worker.region_ensemble import RegionEnsemble


@dataclass(frozen=True, eq=False)
class Shipped:
    """What a bundle is made of.

    Attributes:
        model: name in the table.
        members: by region.
        operations: by region; the decisive one's has the thresholds.
        kept: what these thresholds do.
        proposed: the same members on proposed regions; None where no reader drew any.
    """

    model: str
    members: Mapping[str, tuple[MemberResult, ...]]
    operations: Mapping[str, Operation]
    kept: tuple[Kept, ...]
    proposed: RegionalRun | None


def export_regions(
    folder: Path,
    run: RegionalRun,
    cohort: RegionalCohort,
    model: str,
    metrics: Mapping[str, Any],
    command: str,
    on_progress: Callable[[int, int], None],
) -> float:
    """Write the bundle of one model, and prove that it says what its members said.

    Args:
        folder: created.
        run: whose members are shipped.
        cohort: that they were trained on.
        model: name of the row of the table.
        metrics: measured figures for the model card; those of proposed regions and of the
            thresholds are added.
        command: that made it.
        on_progress: called with the members that were judged again, and how many there are.

    Returns:
        The largest difference of a log odds from what it was in training.

    Raises:
        CannotExport: the folder is there already, the run has no such model, features are measured
            otherwise here than the cohort's were, or the loaded bundle judges otherwise than its
            members did; nothing is left behind then.
    """
    if model not in run.config.models:
        known = ", ".join(run.config.models)
        raise CannotExport(folder, f"the run has no model {model!r}", f"name one of {known}")
    shipped = _shipped(run, cohort, model)
    return proven(
        folder,
        lambda: _write(folder, run, cohort, shipped, metrics, command),
        lambda: largest_difference(folder, shipped, cohort, on_progress),
    )


def largest_difference(
    folder: Path,
    shipped: Shipped,
    cohort: RegionalCohort,
    on_progress: Callable[[int, int], None],
) -> float:
    """How far the worker's log odds of unseen slices are from those in training."""
    bundle = load_bundle(folder)
    assert isinstance(bundle, RegionBundle)
    ensemble = RegionEnsemble(bundle)
    difference, done = 0.0, 0
    total = sum(len(members) for members in shipped.members.values())
    for region, members in shipped.members.items():
        for number, member in enumerate(members):
            for exam in np.unique(member.slices.exam_of):
                expected = member.slices.log_odds[member.slices.exam_of == exam]
                view = view_of(cohort, region, int(exam))
                found = ensemble.member_log_odds(region, number, view)
                difference = max(difference, float(np.abs(found - expected).max()))
            done += 1
            on_progress(done, total)
    return difference


def view_of(cohort: RegionalCohort, region: str, exam: int) -> RegionView:
    """One region of an exam as the worker sees it; where its crops lie is not kept."""
    views = cohort.views[region]
    vector = Vector(cohort.recipe.radiomics.names, views.radiomics[exam], *cohort.measured_with)
    crops = views.crops[views.exam_of == exam].astype(np.float32)
    return RegionView((), crops, vector, float(views.volume_ml[exam]))


def _shipped(run: RegionalRun, cohort: RegionalCohort, model: str) -> Shipped:
    regions = dict.fromkeys(region for region, _ in run.members)
    members = {region: run.members[region, model] for region in regions}
    again, targets = on_proposals(run, cohort, [model]), run.config.statement
    drawn = {region: out_of_fold(each, cohort) for region, each in members.items()}
    proposed = {
        region: None if again is None else out_of_fold(again.members[region, model], cohort)
        for region in regions
    }
    operations = {region: fitted(drawn[region], proposed[region], targets) for region in regions}
    decisive = run.config.bundle.decisive
    does = kept(drawn[decisive], proposed[decisive], operations[decisive], targets)
    return Shipped(model, members, operations, does, again)


def _write(
    folder: Path,
    run: RegionalRun,
    cohort: RegionalCohort,
    shipped: Shipped,
    metrics: Mapping[str, Any],
    command: str,
) -> None:
    description = _description(folder, run, cohort, shipped)
    metrics = {
        **metrics,
        **proposed_figures(shipped.proposed, cohort, shipped.model),
        **kept_figures(shipped.kept, run.config.bundle.decisive),
    }
    task = f"{run.config.analysis}: probability of each region, and of the finding"
    metadata = described(run.config, description, task, metrics, command) | {
        "network_data_format": _data_format(cohort),
        "training": _training(run, cohort, shipped),
    }
    weights = {
        file: member.weights()
        for region, each in description.regions.items()
        for file, member in zip(each.members, shipped.members[region], strict=True)
    }
    references = {
        key: member.reference()
        for region, members in shipped.members.items()
        for key, member in zip(reference_keys(len(members), region), members, strict=True)
    }
    arrays = reference_arrays(references)
    # Float32 halves the file, and percentiles do not change.
    small = {name: each.astype(np.float32) for name, each in arrays.items()}
    write_files(folder, weights, small, metadata)


def _description(
    folder: Path, run: RegionalRun, cohort: RegionalCohort, shipped: Shipped
) -> RegionsDescription:
    config, words = run.config, run.config.bundle
    network = config.models[shipped.model]
    decisive = shipped.operations[words.decisive]
    regions = {
        region: RegionDescription(
            members=tuple(_file(region, number) for number in range(len(members))),
            temperatures=shipped.operations[region].temperatures,
            features=tuple(each.selected for each in members if each.selected is not None),
        )
        for region, members in shipped.members.items()
    }
    return RegionsDescription(
        analysis=config.analysis,
        name=words.name,
        network=Network(network.name, resolved(network.name, **network.config)),
        recipe=cohort.recipe,
        regions=regions,
        decisive=words.decisive,
        threshold_low=decisive.threshold_low,
        threshold_high=decisive.threshold_high,
        ood_limit=config.statement.ood_limit,
        conformal=decisive.conformal,
        statement=words.statement,
        intended_input=words.intended_input,
        validation=decisive.validation,
        measured_with=_measured_with(folder, cohort, regions),
        inputs=spreads(
            [of_region(view_of(cohort, words.decisive, exam)) for exam in range(len(cohort))]
        ),
    )


def _measured_with(
    folder: Path, cohort: RegionalCohort, regions: Mapping[str, RegionDescription]
) -> MeasuredWith | None:
    """What the cohort's features were measured with, and the specimen's by the same means.

    Raises:
        CannotExport: this installation measures otherwise, so that the specimen would tell of it
            and not of the cohort.
    """
    weighed = sorted(
        {name for each in regions.values() for one in each.features for name in one.names}
    )
    if not weighed:
        return None
    config = cohort.recipe.radiomics
    here = Provenance(LIBRARY, VERSION, config.config_hash)
    there = Provenance(*cohort.measured_with)
    if here != there:
        remedy = "export with the installation that gathered it, or gather and fit anew"
        raise CannotExport(folder, f"features of {there}, and {here} is installed", remedy)
    specimen = measure(config)
    return MeasuredWith(*cohort.measured_with, {name: specimen[name] for name in weighed})


def _training(run: RegionalRun, cohort: RegionalCohort, shipped: Shipped) -> dict[str, Any]:
    library, version, config_hash = cohort.measured_with
    epochs = sorted({each.epochs for members in shipped.members.values() for each in members})
    first = {each.imagenet_sha256 for members in shipped.members.values() for each in members}
    return {
        "model": shipped.model,
        "epochs": " or ".join(map(str, epochs)),
        "imagenet_sha256": sorted(first - {None}) or None,
        "exams": len(cohort),
        "patients": len(set(cohort.groups)),
        "positives": int(cohort.labels.sum()),
        "cohort_fingerprint": cohort.fingerprint,
        "folds_sha256": str(run.facts["folds_sha256"]),
        "volumes": sorted(exam.volume for exam in cohort.exams),
        "radiomics": {"library": library, "version": version, "config_hash": config_hash},
        "environment": run.facts["environment"],
    }


def _data_format(cohort: RegionalCohort) -> dict[str, Any]:
    side = cohort.recipe.side
    return {
        "inputs": {
            "image": {
                "type": "image",
                "format": "magnitude",
                "modality": "MR",
                "num_channels": 3,
                "spatial_shape": [side, side],
                "dtype": "float32",
                "value_range": [],
                "is_patch_data": True,
                "channel_def": {"0": "T2w", "1": "T2w within the region", "2": "LoG of T2w"},
            }
        },
        "outputs": {
            "pred": {
                "type": "probabilities",
                "format": "classes",
                "num_channels": 2,
                "spatial_shape": [],
                "dtype": "float32",
                "value_range": [0, 1],
                "is_patch_data": False,
                "channel_def": {"0": "negative", "1": "positive"},
            }
        },
    }


def _file(region: str, number: int) -> str:
    return f"models/{region}_fold_{number}.safetensors"
