"""Write what the worker loads, and prove that it says there what it said in training.

The layout is that of MONAI's bundles (worker/bundle.py); configs/inference.json makes MONAI itself
compute our probability from a prepared volume.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter
from safetensors.numpy import save as serialise_arrays
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from listener.errors import MonroError
from trainer.cohort import Cohort
from trainer.operation import Operation, operation
from trainer.run import Run
from trainer.settings import TrainingConfig
from worker import nets
from worker.appearance import of_head, spreads
from worker.bundle import (
    EVALUATION,
    README,
    REFERENCE,
    Network,
    Reference,
    RegionsDescription,
    Spread,
    VolumeDescription,
    load_volume_bundle,
    reference_keys,
)
from worker.ensemble import Ensemble
from worker.seal import METADATA, write_manifest

INFERENCE: Final = "configs/inference.json"
UNVERIFIED: Final = "unverified"
# Convolutions may add in another order on another machine; float32 keeps seven digits.
TOLERANCE: Final = 1e-4
JUDGED_TOGETHER: Final = 8


class CannotExport(MonroError):
    """A bundle that is not written: what stands in the way, and what to do."""

    def __init__(self, folder: Path, found: str, remedy: str) -> None:
        super().__init__(folder, found, remedy)
        self.folder, self.found, self.remedy = folder, found, remedy

    def __str__(self) -> str:
        return f"bundle {self.folder}: {self.found}; {self.remedy}"


@dataclass(frozen=True, eq=False)
class Content:
    """What a bundle is made of.

    Attributes:
        config: how it was trained, with its name and words.
        weights: a state dict per member.
        references: how the cohort looks to each member.
        operation: what turns log odds into a statement.
        training: facts for the metadata: counts, hashes, environment.
        inputs: how the cohort looks.
    """

    config: TrainingConfig
    weights: Sequence[Mapping[str, Tensor]]
    references: Sequence[Reference]
    operation: Operation
    training: Mapping[str, Any]
    inputs: Mapping[str, Spread] = field(default_factory=dict)


def export(
    folder: Path,
    run: Run,
    cohort: Cohort,
    metrics: Mapping[str, Any],
    command: str,
    on_progress: Callable[[int, int], None],
) -> float:
    """Write the bundle of a run with its honest weights, and prove that it reproduces them.

    Args:
        folder: created.
        run: whose members are shipped.
        cohort: that they were trained on.
        metrics: measured figures for the model card.
        command: that made it.
        on_progress: called with the exams that were judged again, and how many there are.

    Returns:
        The largest difference of a log odds from what it was in training.

    Raises:
        CannotExport: the folder is there already, or the loaded bundle judges the exams that its
            members had not seen otherwise than they did; nothing is left behind then.
    """
    return proven(
        folder,
        lambda: write_bundle(folder, _content(run, cohort), metrics, command),
        lambda: largest_difference(folder, run, cohort, on_progress),
    )


def proven(folder: Path, write: Callable[[], None], differs: Callable[[], float]) -> float:
    """Write a bundle and measure it, or leave nothing behind.

    Args:
        folder: created by `write`.
        write: makes the bundle.
        differs: the largest difference of a log odds from what it was in training.

    Raises:
        CannotExport: the folder is there already, or the difference is too large.
    """
    if folder.exists():
        raise CannotExport(folder, "it is there already", "name a new folder, or remove it")
    try:
        write()
        difference = differs()
        if difference > TOLERANCE:
            found = f"log odds differ by {difference:.2g} from those in training"
            remedy = f"at most {TOLERANCE} is allowed: export on the kind of machine that trained"
            raise CannotExport(folder, found, remedy)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return difference


def largest_difference(
    folder: Path, run: Run, cohort: Cohort, on_progress: Callable[[int, int], None]
) -> float:
    """How far a bundle, as the worker loads it, is from its members' out-of-fold log odds."""
    ensemble = Ensemble(load_volume_bundle(folder))
    difference, done = 0.0, 0
    for fold in run.folds:
        expected = fold.log_odds[run.config.fit.honest]
        for start in range(0, len(fold.held_out), JUDGED_TOGETHER):
            part = slice(start, start + JUDGED_TOGETHER)
            batch = ensemble.batch(cohort.voxels[fold.held_out[part]].astype(np.float32))
            found = ensemble.member_logits(fold.number, batch)
            difference = max(difference, float(np.abs(found - expected[part]).max()))
            done += len(found)
            on_progress(done, len(cohort))
    return difference


def run_operation(run: Run, cohort: Cohort) -> Operation:
    """Temperatures, thresholds and conformal sets of a run's honest weights."""
    odds, fold_of = run.out_of_fold(run.config.fit.honest, len(cohort))
    return operation(cohort.labels, odds, fold_of, run.config.statement)


def record_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Add measured figures to a bundle's metadata and model card, and seal it anew."""
    metadata = json.loads((folder / METADATA).read_text())
    metadata["eval_metrics"] |= metrics
    _write_json(folder / METADATA, metadata)
    (folder / README).write_text(model_card(metadata))
    write_manifest(folder)


def enclose_report(folder: Path, report: Path) -> None:
    """Put the report of an evaluation into a bundle, and seal it anew.

    Args:
        folder: of the bundle.
        report: HTML file that `evaluate` wrote.

    Raises:
        CannotExport: there is no such file.
    """
    try:
        content = report.read_bytes()
    except OSError as error:
        remedy = "name the folder that `evaluate` wrote"
        raise CannotExport(folder, f"no report {report} ({error.strerror})", remedy) from None
    (folder / EVALUATION).write_bytes(content)
    write_manifest(folder)


def rewrite_operation(
    folder: Path,
    new: Operation,
    temperatures: Mapping[str, tuple[float, ...]],
    version: str,
    how: str,
    volumes: Sequence[str],
) -> None:
    """Give a bundle another calibration and version, and seal it anew; its weights stay.

    Args:
        folder: of the bundle.
        new: what turns log odds into a statement from now on.
        temperatures: of the members of each region; under "" of a bundle without regions.
        version: of the bundle from now on.
        how: it was fitted and measured, in words.
        volumes: digests of the exams it was fitted to.
    """
    metadata = json.loads((folder / METADATA).read_text())
    metadata["version"] = version
    metadata["changelog"] = {version: f"recalibrated: {how}", **metadata["changelog"]}
    metadata["calibration_of_ensemble"] = how
    metadata["training"]["calibrated_on"] = list(volumes)
    monro = metadata["monro"]
    for region, each in temperatures.items():
        (monro["regions"][region] if region else monro)["temperatures"] = list(each)
    monro |= {
        "threshold_low": new.threshold_low,
        "threshold_high": new.threshold_high,
        "conformal": new.conformal,
        "validation": None if new.validation is None else asdict(new.validation),
    }
    _write_json(folder / METADATA, metadata)
    if (folder / INFERENCE).exists():
        config = TrainingConfig.model_validate(metadata["fit"])
        _write_json(folder / INFERENCE, inference(config, new.temperatures))
    (folder / README).write_text(model_card(metadata))
    write_manifest(folder)


def model_card(metadata: Mapping[str, Any]) -> str:
    """The README of a bundle, from its metadata."""
    figures = "\n".join(
        f"| {name.replace('_', ' ')} | {value} |"
        for name, value in metadata["eval_metrics"].items()
    )
    monro, training, fit = metadata["monro"], metadata["training"], metadata["fit"]
    missed = 100 * fit["statement"]["missed_positives"]
    return f"""# {monro["name"]} {metadata["version"]}

**{monro["statement"]}** Research use only.

{metadata["description"]}

- Intended input: {monro["intended_input"]}.
- Trained on: {metadata["data_source"]}: {training["exams"]} exams of {training["patients"]}
  patients, {training["positives"]} exams positive.
- Shipped weights: {_on_weights(metadata)}; no epoch
  was picked by what it did on the exams it is judged on.
- Made with: `{metadata["made_with"]}`
- Configuration: `{METADATA}`, under "fit"; cohort `{training["cohort_fingerprint"][:16]}`, folds
  `{training["folds_sha256"][:16]}`.

| figure | value |
|---|---|
{figures}

## What it does not say

A score below the lower threshold does not exclude the finding: a normal-looking MRI does not. The
conformal set may miss {missed:.0f} % of the positives for the same reason.

{_on_calibration(metadata["calibration_of_ensemble"])}

{_on_monai(metadata)}
"""


def _on_weights(metadata: Mapping[str, Any]) -> str:
    training, fit = metadata["training"], metadata["fit"]["fit"]
    return f"{fit.get('honest', 'last')} of {training['epochs']} epochs"


def _on_monai(metadata: Mapping[str, Any]) -> str:
    if "regions" in metadata["monro"]:
        return "MONAI does not know these networks: only monro's worker computes the probability."
    return f"""\
`{INFERENCE}` lets MONAI compute the same probability from a prepared volume
(`python -m trainer nifti`):
`python -m monai.bundle run --config_file {INFERENCE} --bundle_root . --image_path \
volume.nii.gz`."""


def _on_calibration(state: str) -> str:
    if state != UNVERIFIED:
        return f"Calibration of the ensemble: {state}."
    return """\
Temperatures and thresholds were fitted to out-of-fold log odds of single members, while the service
averages all members: the calibration of the ensemble is **unverified** until it is measured on
exams that no member was trained on (`python -m trainer evaluate --bundle ... --cohort ...`), or
fitted to such exams (`python -m trainer recalibrate`)."""


def write_bundle(folder: Path, content: Content, metrics: Mapping[str, Any], command: str) -> None:
    """Write and seal a bundle, without proof that it is what was trained."""
    weights = {_fold_file(number): each for number, each in enumerate(content.weights)}
    keys = reference_keys(len(content.references))
    references = reference_arrays(dict(zip(keys, content.references, strict=True)))
    temperatures = content.operation.temperatures
    write_files(folder, weights, references, _metadata(content, metrics, command))
    _write_json(folder / INFERENCE, inference(content.config, temperatures))
    write_manifest(folder)


def write_files(
    folder: Path,
    weights: Mapping[str, Mapping[str, Tensor]],
    references: Mapping[str, NDArray[np.floating[Any]]],
    metadata: Mapping[str, Any],
) -> None:
    """Write what bundles of any kind have, and seal it.

    Args:
        folder: created.
        weights: file within the bundle to a state dict.
        references: how the cohort looks to members: `reference_arrays`.
        metadata: content of configs/metadata.json.
    """
    for part in ("configs", "docs", "models"):
        (folder / part).mkdir(parents=True)
    for file, each in weights.items():
        (folder / file).write_bytes(serialise_tensors(dict(each)))
    (folder / REFERENCE).write_bytes(serialise_arrays(dict(references)))
    _write_json(folder / METADATA, metadata)
    (folder / README).write_text(model_card(metadata))
    (folder / "LICENSE").write_text(_licence())
    write_manifest(folder)


def _content(run: Run, cohort: Cohort) -> Content:
    return Content(
        config=run.config,
        weights=[fold.weights(run.config.fit.honest) for fold in run.folds],
        references=[fold.reference for fold in run.folds],
        operation=run_operation(run, cohort),
        training={
            "epochs": len(run.folds[0].metrics),
            "exams": len(cohort),
            "patients": len(set(cohort.groups)),
            "positives": int(cohort.labels.sum()),
            "cohort_fingerprint": run.cohort_fingerprint,
            "folds_sha256": run.folds_sha256,
            "volumes": sorted(exam.volume for exam in cohort.exams),
            "environment": run.facts["environment"],
        },
        inputs=spreads([of_head(each) for each in cohort.voxels]),
    )


def _metadata(content: Content, metrics: Mapping[str, Any], command: str) -> dict[str, Any]:
    config, words, found = content.config, content.config.bundle, content.operation
    description = VolumeDescription(
        analysis=config.analysis,
        name=words.name,
        network=Network(config.network.name, config.network.config),
        recipe=config.preparation,
        occlusion=words.occlusion,
        members=tuple(_fold_file(number) for number in range(len(content.weights))),
        threshold_low=found.threshold_low,
        threshold_high=found.threshold_high,
        temperatures=found.temperatures,
        ood_limit=config.statement.ood_limit,
        conformal=found.conformal,
        statement=words.statement,
        intended_input=words.intended_input,
        validation=found.validation,
        inputs=dict(content.inputs),
    )
    return described(
        config, description, f"{config.analysis}: probability and occlusion map", metrics, command
    ) | {"network_data_format": _data_format(config), "training": dict(content.training)}


def described(
    config: BaseModel,
    description: VolumeDescription | RegionsDescription,
    task: str,
    metrics: Mapping[str, Any],
    command: str,
) -> dict[str, Any]:
    """The fields MONAI's bundle specification asks for, and ours beside.

    Lacking are "network_data_format" and "training".

    Args:
        config: how it was trained; its section `bundle` has the words.
        description: what the worker reads.
        task: in words.
        metrics: measured figures.
        command: that made it.
    """
    fit = config.model_dump(mode="json")
    words = fit["bundle"]
    return {
        "version": words["version"],
        "changelog": {words["version"]: f"made with: {command}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"safetensors": version("safetensors")},
        "task": task,
        "description": words["description"],
        "authors": "the monro developers",
        "copyright": "Apache-2.0",
        "data_source": words["data_source"],
        "intended_use": f"Research use only. {words['statement']}",
        "eval_metrics": dict(metrics),
        "made_with": command,
        "calibration_of_ensemble": UNVERIFIED,
        "fit": fit,
        "monro": TypeAdapter(type(description)).dump_python(description, mode="json"),
    }


def _data_format(config: TrainingConfig) -> dict[str, Any]:
    shared = {"dtype": "float32", "value_range": [0, 1], "is_patch_data": False}
    return {
        "inputs": {
            "image": {
                "type": "image",
                "format": "magnitude",
                "modality": "MR",
                "num_channels": 1,
                "spatial_shape": list(config.preparation.shape),
                "channel_def": {"0": "CE-T1w"},
                **shared,
            }
        },
        "outputs": {
            "pred": {
                "type": "probabilities",
                "format": "classes",
                "num_channels": 2,
                "spatial_shape": [],
                "channel_def": {"0": "negative", "1": "positive"},
                **shared,
            }
        },
    }


def inference(config: TrainingConfig, temperatures: tuple[float, ...]) -> dict[str, Any]:
    """A configuration that MONAI runs; the worker builds the members by name instead."""
    network = {
        "_target_": "monai.networks.nets.DenseNet",
        **nets.arguments(config.network.name, **config.network.config),
    }
    members = range(len(temperatures))
    return {
        "nibabel": "$import nibabel",
        "load_file": "$from safetensors.torch import load_file",
        "bundle_root": ".",
        "image_path": "volume.nii.gz",
        "voxels": "$@nibabel.load(@image_path).get_fdata(dtype='float32')",
        "image": "$torch.from_numpy(@voxels)[None, None]",
        "networks": [network for _ in members],
        "weights": [f"$@load_file(@bundle_root + '/{_fold_file(number)}')" for number in members],
        "logits": [
            f"$torch.func.functional_call(@networks#{number}.eval(), @weights#{number}, @image)"
            for number in members
        ],
        "probabilities": [
            f"$torch.softmax(@logits#{number} / {temperature!r}, 1)"
            for number, temperature in enumerate(temperatures)
        ],
        "pred": "$torch.stack(@probabilities).mean(0)",
        "run": ["$print('probability:', @pred[0, 1].item())"],
    }


def reference_arrays(
    references: Mapping[str, Reference],
) -> dict[str, NDArray[np.floating[Any]]]:
    """What models/reference.safetensors holds of members by their `reference_keys`."""
    return {
        f"{key}.{part}": np.ascontiguousarray(getattr(reference, part))
        for key, reference in references.items()
        for part in ("mean", "precision", "distances")
    }


def _licence() -> str:
    """The licence of this distribution, which a bundle shares."""
    text = distribution("monro").read_text("licenses/LICENSE")
    if text is None:
        raise FileNotFoundError("monro is installed without its LICENSE; install it again")
    return text


def _fold_file(number: int) -> str:
    return f"models/fold_{number}.safetensors"


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
