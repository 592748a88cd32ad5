"""Write what the worker loads: a sealed bundle, numbers and words from one place."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter
from safetensors.numpy import save as serialise_arrays
from safetensors.torch import save as serialise_tensors

from trainer.evaluate import Operation
from trainer.loop import Fold
from trainer.settings import FitSettings
from worker.bundle import METADATA, REFERENCE, Description, Network, write_manifest
from worker.occlusion import OcclusionSpec
from worker.preprocess import DEMO_RECIPE, Recipe

README: Final = "docs/README.md"
SYNTHETIC: Final = "Trained on synthetic phantoms only: no clinical meaning."


@dataclass(frozen=True)
class Model:
    """What a bundle is, beside its weights.

    Attributes:
        name: also of its folder.
        version: semantic; raised whenever the bundle changes.
        analysis: such as "fistula".
        recipe: how volumes were prepared.
        occlusion: how maps are to be made.
        statement: what every report must say.
        intended_input: in words.
        description: one paragraph.
        data_source: what it was trained on.
    """

    name: str
    version: str
    analysis: str
    recipe: Recipe
    occlusion: OcclusionSpec
    statement: str
    intended_input: str
    description: str
    data_source: str


DEMO: Final = Model(
    name="fistula-demo",
    version="0.1.0",
    analysis="fistula",
    recipe=DEMO_RECIPE,
    occlusion=OcclusionSpec(mode="exact", patch=(6, 7, 7), stride=(6, 7, 7)),
    statement=SYNTHETIC,
    intended_input="sagittal contrast-enhanced T1 of the whole head",
    description=(
        "Five compact 3D DenseNets that tell cartoon heads with signs of intracranial "
        "hypotension from cartoon heads without. For demonstrations and tests of software. "
        f"{SYNTHETIC}"
    ),
    data_source="synthetic phantoms made by trainer/phantom.py",
)


def export(
    folder: Path,
    model: Model,
    settings: FitSettings,
    folds: Sequence[Fold],
    operation: Operation,
    metrics: Mapping[str, Any],
    command: str,
) -> None:
    """Write a bundle.

    Args:
        folder: created; must not hold a bundle yet.
        model: what it is.
        settings: how it was fitted.
        folds: its members.
        operation: temperature, thresholds, conformal sets.
        metrics: measured so far, for the model card.
        command: that made it.

    Raises:
        FileExistsError: the folder is there already.
    """
    for part in ("configs", "docs", "models"):
        (folder / part).mkdir(parents=True)
    for number, fold in enumerate(folds):
        # Kept channels-last for speed; safetensors holds plain order only.
        plain = {name: tensor.contiguous() for name, tensor in fold.weights.items()}
        (folder / _fold_file(number)).write_bytes(serialise_tensors(plain))
    (folder / REFERENCE).write_bytes(serialise_arrays(_references(folds)))
    metadata = _metadata(model, settings, len(folds), operation, metrics, command)
    _write_json(folder / METADATA, metadata)
    _write_json(folder / "configs" / "inference.json", _inference(model, settings))
    (folder / README).write_text(model_card(metadata))
    (folder / "LICENSE").write_text(_licence())
    write_manifest(folder)


def record_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Add measured figures to a bundle's metadata and model card, and seal it anew."""
    metadata = json.loads((folder / METADATA).read_text())
    metadata["eval_metrics"] |= metrics
    _write_json(folder / METADATA, metadata)
    (folder / README).write_text(model_card(metadata))
    write_manifest(folder)


def model_card(metadata: Mapping[str, Any]) -> str:
    """The README of a bundle, from its metadata."""
    figures = "\n".join(
        f"| {name.replace('_', ' ')} | {value} |"
        for name, value in metadata["eval_metrics"].items()
    )
    monro = metadata["monro"]
    return f"""# {monro["name"]} {metadata["version"]}

**{monro["statement"]}** Research use only.

{metadata["description"]}

- Intended input: {monro["intended_input"]}.
- Trained on: {metadata["data_source"]}.
- Made with: `{metadata["made_with"]}`
- Figures: `python -m trainer evaluate --bundle <this folder>`

| figure | value |
|---|---|
{figures}

AUROC "of visible signs" is measured on phantoms whose MRI shows the disease; "of all" on phantoms
of which 19 % of the positives look normal by construction, so that 0.905 is the ceiling. The
conformal set may miss {100 * metadata["fit"]["missed_positives"]:.0f} % of the positives for the
same reason: a normal-looking MRI does not exclude a fistula.

Localisation plants one sign in a healthy head: "hit" is the share of maps whose strongest position
touches the sign, "energy" the share of positive effect on it, "chance" what a blind map would
reach in both. "Pair" measures what the sign added to the map of the same head without it. Small
signs (cisterns, pituitary) hardly move the probability at 4 mm: the map of such a head shows what
the members say of the rest of it, and only the pair shows the sign.
"""


def _metadata(
    model: Model,
    settings: FitSettings,
    members: int,
    operation: Operation,
    metrics: Mapping[str, Any],
    command: str,
) -> dict[str, Any]:
    """The fields MONAI's bundle specification asks for, and ours under "monro"."""
    description = Description(
        analysis=model.analysis,
        name=model.name,
        network=Network(settings.network, settings.network_config),
        recipe=model.recipe,
        occlusion=model.occlusion,
        members=tuple(_fold_file(number) for number in range(members)),
        threshold_low=operation.threshold_low,
        threshold_high=operation.threshold_high,
        temperature=operation.temperature,
        ood_limit=settings.ood_limit,
        conformal=operation.conformal,
        statement=model.statement,
        intended_input=model.intended_input,
    )
    return {
        "version": model.version,
        "changelog": {model.version: "first version"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"safetensors": version("safetensors")},
        "task": f"{model.analysis}: probability and occlusion map",
        "description": model.description,
        "authors": "the monro developers",
        "copyright": "Apache-2.0",
        "data_source": model.data_source,
        "intended_use": f"Research use only. {model.statement}",
        "eval_metrics": dict(metrics),
        "made_with": command,
        "fit": settings.model_dump(),
        "network_data_format": _data_format(model),
        "monro": TypeAdapter(Description).dump_python(description, mode="json"),
    }


def _data_format(model: Model) -> dict[str, Any]:
    return {
        "inputs": {
            "image": {
                "type": "image",
                "format": "magnitude",
                "modality": "MR",
                "num_channels": 1,
                "spatial_shape": list(model.recipe.shape),
                "dtype": "float32",
                "value_range": [0, 1],
                "is_patch_data": False,
                "channel_def": {"0": "CE-T1w"},
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


def _inference(model: Model, settings: FitSettings) -> dict[str, Any]:
    """A description in MONAI's terms; the worker never evaluates it."""
    return {
        "_comment": "Describes the members for readers; monro builds them by name instead.",
        "preparation": asdict(model.recipe),
        "network": {"name": settings.network, **settings.network_config},
        "aggregation": "mean over members of softmax(logits / temperature)",
    }


def _references(folds: Sequence[Fold]) -> dict[str, Any]:
    arrays = {}
    for number, fold in enumerate(folds):
        for part in ("mean", "precision", "distances"):
            arrays[f"{number}.{part}"] = np.ascontiguousarray(getattr(fold.reference, part))
    return arrays


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
