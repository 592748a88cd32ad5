"""An ensemble on disk: MONAI-Bundle layout, safetensors weights, hash-checked manifest.

    fistula-demo/
      LICENSE
      manifest.json                   sha256 of every other file
      manifest.sig                    who vouches for that, where it was signed (signature.py)
      configs/metadata.json           what MONAI asks for, and under "monro" what the worker reads
      configs/inference.json          for readers: describes the network, is never evaluated
      docs/README.md
      models/fold_0.safetensors ...   one state dict per member
      models/reference.safetensors    how the training cohort looks to each member

The one deviation from the MONAI specification is wanted: no models/model.pt, since unpickling runs
code from the file. Nothing here runs code from a bundle.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.torch import load as load_tensors
from torch import Tensor

from worker.occlusion import OcclusionSpec
from worker.preprocess import Recipe
from worker.seal import METADATA, BadBundle, read_metadata, sha256, verify
from worker.signature import TrustedKey

REFERENCE: Final = "models/reference.safetensors"
SUGGESTED: Final = "suggested"
NOT_SUGGESTED: Final = "not suggested"


@dataclass(frozen=True)
class Network:
    """Which network the members are: a name known to nets and its arguments."""

    name: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Member:
    """The weights of one fold: path within the bundle, sha256 of the file."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Description:
    """What configs/metadata.json says under "monro"; all of it is needed to judge a study.

    Attributes:
        analysis: such as "fistula".
        name: of the bundle, such as "fistula-demo".
        network: of every member.
        recipe: how volumes are prepared.
        occlusion: how the map is made.
        members: paths of the folds' weights.
        threshold_low: probability below which the finding is not suggested.
        threshold_high: probability from which on it is suggested; at least threshold_low.
        temperatures: one per member, above 0: divides its log odds.
        ood_limit: percentile of the reference cohort beyond which a study is undetermined.
        conformal: per label, the largest nonconformity (1 - probability of the label) with which
            the label still belongs to the set.
        statement: what every report made with the bundle must say.
        intended_input: in words.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    analysis: str
    name: str
    network: Network
    recipe: Recipe
    occlusion: OcclusionSpec
    members: tuple[str, ...]
    threshold_low: float
    threshold_high: float
    temperatures: tuple[float, ...]
    ood_limit: float
    conformal: dict[str, float]
    statement: str
    intended_input: str


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; see `Description` for the fields they share.

    Attributes:
        folder: where it lies.
        version: semantic version from the metadata.
        weights_sha256: one digest over the weights of all members.
        members: the folds' weights, in the order of the description.
        signed_by: fingerprint of the trusted key that signed it; None where none was asked for.
    """

    folder: Path
    analysis: str
    name: str
    version: str
    weights_sha256: str
    network: Network
    recipe: Recipe
    occlusion: OcclusionSpec
    members: tuple[Member, ...]
    threshold_low: float
    threshold_high: float
    temperatures: tuple[float, ...]
    ood_limit: float
    conformal: Mapping[str, float]
    statement: str
    intended_input: str
    signed_by: str | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """How the training cohort looks to one member, in the features its last layer weighs.

    Attributes:
        mean: (F,) of the cases the member was trained on.
        precision: (F, F) inverse of their shrunk covariance.
        distances: (N,) ascending Mahalanobis distances of the cases it was not trained on.
    """

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    distances: NDArray[np.float64]


def load_bundle(folder: Path, trusted: Sequence[TrustedKey] = ()) -> Bundle:
    """Verify every file of a bundle against its manifest and read its description.

    Args:
        folder: of the bundle.
        trusted: one of these must have signed the manifest; with none, nobody needs to.

    Raises:
        BadBundle: it is not signed as it must be; a file is missing, altered, unlisted or of a kind
            that can carry code; or the description is incomplete or contradicts itself.
    """
    seal = verify(folder, trusted)
    metadata = read_metadata(folder)
    description = _describe(folder, metadata)
    members = tuple(Member(file, seal.hashes.get(file, "")) for file in description.members)
    for member in members:
        if not member.sha256:
            raise BadBundle(folder, f"no {member.file}", "the weights of every member")
    return Bundle(
        folder=folder,
        analysis=description.analysis,
        name=description.name,
        version=str(metadata.get("version", "")),
        weights_sha256=weights_digest(members),
        network=description.network,
        recipe=description.recipe,
        occlusion=description.occlusion,
        members=members,
        threshold_low=description.threshold_low,
        threshold_high=description.threshold_high,
        temperatures=description.temperatures,
        ood_limit=description.ood_limit,
        conformal=description.conformal,
        statement=description.statement,
        intended_input=description.intended_input,
        signed_by=seal.signed_by,
    )


def member_weights(bundle: Bundle) -> tuple[dict[str, Tensor], ...]:
    """The state dict of each member, verified once more as it is read.

    Raises:
        BadBundle: a file changed since the bundle was loaded.
    """
    return tuple(_weights(bundle.folder, member) for member in bundle.members)


def load_reference(bundle: Bundle) -> tuple[Reference, ...]:
    """How the training cohort looks to each member.

    Raises:
        BadBundle: the reference is missing or lacks a member.
    """
    try:
        arrays = load_arrays((bundle.folder / REFERENCE).read_bytes())
        return tuple(
            Reference(
                mean=arrays[f"{member}.mean"].astype(np.float64),
                precision=arrays[f"{member}.precision"].astype(np.float64),
                distances=arrays[f"{member}.distances"].astype(np.float64),
            )
            for member in range(len(bundle.members))
        )
    except (OSError, KeyError, SafetensorError) as error:
        raise BadBundle(
            bundle.folder, f"{REFERENCE}: {error}", "mean, precision and distances of each member"
        ) from error


def weights_digest(members: tuple[Member, ...]) -> str:
    """One sha256 over the members' own, in order."""
    return sha256("\n".join(member.sha256 for member in members).encode())


def _describe(folder: Path, metadata: dict[str, Any]) -> Description:
    try:
        found = TypeAdapter(Description).validate_python(metadata.get("monro"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadBundle(folder, f"{METADATA} monro.{where}: {first['msg']}", "a value") from error
    if not 0 <= found.threshold_low <= found.threshold_high <= 1:
        raise BadBundle(
            folder,
            f"thresholds {found.threshold_low} and {found.threshold_high}",
            "0 <= low <= high <= 1",
        )
    if len(found.temperatures) != len(found.members):
        raise BadBundle(
            folder,
            f"{len(found.temperatures)} temperatures of {len(found.members)} members",
            "one temperature per member",
        )
    if not all(0 < temperature < math.inf for temperature in found.temperatures):
        raise BadBundle(folder, f"temperatures {found.temperatures}", "temperatures above 0")
    if found.conformal.keys() != {SUGGESTED, NOT_SUGGESTED}:
        raise BadBundle(
            folder,
            f"conformal thresholds for {sorted(found.conformal)}",
            f"thresholds for {[NOT_SUGGESTED, SUGGESTED]}",
        )
    return found


def _weights(folder: Path, member: Member) -> dict[str, Tensor]:
    try:
        content = (folder / member.file).read_bytes()
        if (found := sha256(content)) != member.sha256:
            raise BadBundle(folder, f"sha256 {found} of {member.file}", member.sha256)
        return load_tensors(content)
    except (OSError, SafetensorError) as error:
        raise BadBundle(folder, f"{member.file}: {error}", "weights as safetensors") from error
